#!/usr/bin/env python3
"""Makes tests/golden/openpose: a small random body network with what controlnet_aux makes of a
picture by it, and people drawn out of made-up heat maps and fields.

Needs controlnet_aux, torch, opencv, scipy, Pillow. usage: make_openpose.py [FOLDER]
"""
import os
import sys
import types

import numpy as np
import scipy.ndimage
import torch
from PIL import Image
from safetensors.torch import save_file

from make_annotators import HERE, fill, part

LIMBS = [[2, 3], [2, 6], [3, 4], [4, 5], [6, 7], [7, 8], [2, 9], [9, 10], [10, 11], [2, 12], [12, 13],
         [13, 14], [2, 1], [1, 15], [15, 17], [1, 16], [16, 18], [3, 17], [6, 18]]
FIELDS = [12, 20, 14, 16, 22, 24, 0, 2, 4, 6, 8, 10, 28, 30, 34, 32, 36, 18, 26]
STANDING = [[.50, .16], [.50, .30], [.40, .31], [.33, .44], [.30, .58], [.60, .30], [.66, .43], [.71, .55],
            [.44, .58], [.43, .76], [.41, .93], [.56, .58], [.58, .75], [.60, .92], [.47, .12], [.53, .12],
            [.43, .15], [.57, .14]]


def modules():
    if "scipy.ndimage.filters" not in sys.modules:
        filters = types.ModuleType("scipy.ndimage.filters")
        filters.gaussian_filter = scipy.ndimage.gaussian_filter
        sys.modules["scipy.ndimage.filters"] = filters
    util = part("open_pose.util")  # first: the two import each other
    return part("open_pose.body"), util, part("open_pose.model")


def small(model):
    """The published topology; one channel where 7x7 kernels look at everything."""
    net = model.bodypose_model()
    for module, blocks in net.named_children():
        names = [n for n, c in blocks.named_children() if isinstance(c, torch.nn.Conv2d)]
        before = {"0": 3, "1": 4}.get(module[5], 61)
        for i, n in enumerate(names):
            old = getattr(blocks, n)
            wide = 4 if module == "model0" else [1, 3, 2, 3, 2, 4][i] if module[5] > "1" and i < 6 else 3
            out = old.out_channels if module != "model0" and i == len(names) - 1 else wide
            setattr(blocks, n, torch.nn.Conv2d(before, out, old.kernel_size, 1, old.padding))
            before = out
    fill(net, 21, 1.3)
    for name, p in net.named_parameters():  # a channel alone must not die behind its ReLU
        if name.endswith("bias") and "Mconv7" not in name:
            p.data = p.data.abs() + 0.2
    net.load_state_dict({k: v.half().float() for k, v in net.state_dict().items()})
    return net


def every(x, step):
    return torch.from_numpy(np.ascontiguousarray(np.asarray(x, dtype=np.float32).ravel()[::step]))


def draw(path, body, util, estimation, picture):
    """As OpenposeDetector does, bodies only; path false: not kept."""
    height, width = picture.shape[:2]
    candidate, subset = estimation(picture)
    canvas = np.zeros((height, width, 3), np.uint8)
    for person in estimation.format_body_result(candidate, subset):
        keypoints = [k and body.Keypoint(x=k.x / float(width), y=k.y / float(height)) for k in person.keypoints]
        canvas = util.draw_bodypose(canvas, keypoints)
    print(path, "peaks", len(candidate), "people", len(subset))
    if path:
        Image.fromarray(canvas).save(path, optimize=True)


def network(folder, body, util, model):
    net = small(model)
    state = {k.split(".", 1)[1]: v.half().contiguous() for k, v in net.state_dict().items()}
    save_file(state, folder + "/body_pose_model.safetensors")
    seen = []

    def spy(x):
        seen.append(x.numpy())
        return net(x)

    spy.parameters = net.parameters
    b = body.Body.__new__(body.Body)
    b.model = spy
    source = np.asarray(Image.open(folder + "/../annotators/picture.png"))[:, :, ::-1].copy()
    golden = {}
    for name, picture in (("enlarged", source), ("shrunk", source.repeat(2, 0).repeat(2, 1))):
        draw(name == "shrunk" and folder + "/shrunk.png", body, util, b, picture)
        golden[name] = every(seen[-1][0].transpose(1, 2, 0), 307)
    rgb = torch.from_numpy(source.astype(np.float32)).permute(2, 0, 1)[None] / 256 - 0.5
    for name, y in zip(("fields", "heats"), net(rgb)):
        golden[name] = every(y[0].permute(1, 2, 0), 41)
        print(name, y.shape, y.std(), (y != 0).float().mean(), y[0].std((1, 2)).min())
    save_file(golden, folder + "/golden.safetensors")


def made_up(people, rows, columns, seed):
    """Heat maps and fields at an eighth, in bytes: heats / 255, fields (v - 128) / 127."""
    yy, xx = np.mgrid[0:rows, 0:columns]
    heats, fields = np.zeros((19, rows, columns)), np.zeros((38, rows, columns))
    for joints in people:
        at = [None if j is None else np.array(j) * [columns, rows] - 0.5 for j in joints]
        for i, j in enumerate(at):
            if j is not None:
                heats[i] = np.maximum(heats[i], np.exp(-((xx - j[0])**2 + (yy - j[1])**2) / 1.6))
        for (a, b), f in zip(LIMBS, FIELDS):
            a, b = at[a - 1], at[b - 1]
            if a is None or b is None:
                continue
            length = np.hypot(*(b - a))
            u = (b - a) / length
            along = (xx - a[0]) * u[0] + (yy - a[1]) * u[1]
            across = np.abs((xx - a[0]) * u[1] - (yy - a[1]) * u[0])
            on = (along > -1) & (along < length + 1) & (across < 1.2)
            fields[f][on], fields[f + 1][on] = u
    rng = np.random.default_rng(seed)
    for x in (heats, fields):  # noise here and there: a picture of it all would be large
        x += rng.normal(0, 0.05, x.shape) * (rng.random(x.shape) < 0.05)
    heats = (heats * 255).round().clip(0, 255)
    fields = (fields * 127 + 128).round().clip(1, 255)
    return fields.astype(np.uint8), heats.astype(np.uint8)


def group(folder, name, body, util, people, width, height, seed):
    scale = 0.5 * 368 / height
    rows, columns = -(-int(height * scale) // 8), -(-int(width * scale) // 8)
    fields, heats = made_up(people, rows, columns, seed)
    Image.fromarray(np.concatenate([fields, heats]).reshape(-1, columns)).save(folder + "/%s_maps.png" % name,
                                                                            optimize=True)
    out = ((torch.from_numpy(fields).float() - 128) / 127, torch.from_numpy(heats).float() / 255)

    def net(x):
        assert x.shape[2:] == (rows * 8, columns * 8)
        return out[0][None], out[1][None]

    net.parameters = lambda: iter([torch.zeros(1)])
    b = body.Body.__new__(body.Body)
    b.model = net
    draw(folder + "/%s.png" % name, body, util, b, np.zeros((height, width, 3), np.uint8))


def moved(scale, x, y, lean=0.0, without=(), mirror=False):
    """A person elsewhere, smaller, leaning, without some joints."""
    out = []
    for i, (a, b) in enumerate(STANDING):
        a, b = (a - .5) * (-1 if mirror else 1), b - .5
        a, b = a * np.cos(lean) - b * np.sin(lean), a * np.sin(lean) + b * np.cos(lean)
        out.append(None if i in without else [x + a * scale[0], y + b * scale[1]])
    return out


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else HERE + "/openpose"
    os.makedirs(folder, exist_ok=True)
    body, util, model = modules()
    with torch.no_grad():
        network(folder, body, util, model)
        group(folder, "people", body, util,
              [moved((1.1, .85), .24, .5), moved((1.0, .9), .55, .52, .2, (4, 7)),
               moved((1.0, .8), .8, .55, -.3, (0, 14, 15, 16, 17), True)], 320, 256, 4)
        group(folder, "small", body, util,
              [moved((.9, 1), .3, .5), moved((.9, .95), .45, .5, .5), moved((.8, .9), .75, .5, 0, range(4, 18))],
              192, 128, 5)
        group(folder, "nobody", body, util, [moved((1, 1), .5, .5, 0, range(3, 18))], 128, 128, 6)


if __name__ == "__main__":
    main()
