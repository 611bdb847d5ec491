#!/usr/bin/env python3
"""Makes tests/golden/upscale: tiny upscalers of the ESRGAN family and what they do to a picture.

The network is written here from the papers' figures with torch's convolutions.
usage: make_upscale.py [FOLDER]      (needs torch, safetensors, Pillow, numpy)
"""
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

WIDTH, GROWTH, BLOCKS = 8, 4, 1


def weights(channels, seed):
    g = torch.Generator().manual_seed(seed)
    out = {}

    def conv(name, cout, cin, gain=1.0):
        out[name + ".weight"] = torch.randn(cout, cin, 3, 3, generator=g) * gain / (cin * 9) ** 0.5
        out[name + ".bias"] = torch.randn(cout, generator=g) * 0.05

    conv("conv_first", WIDTH, channels, 2.0)
    for i in range(BLOCKS):
        for j in range(1, 4):
            for k in range(5):
                conv("body.%d.rdb%d.conv%d" % (i, j, k + 1), GROWTH if k < 4 else WIDTH, WIDTH + k * GROWTH, 1.5)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        conv(name, WIDTH, WIDTH, 1.5)
    conv("conv_last", 3, WIDTH, 0.5)
    out["conv_last.bias"] += 0.5
    return out


def run(w, x, unshuffle):
    conv = lambda n, y: F.conv2d(y, w[n + ".weight"], w[n + ".bias"], padding=1)
    act = lambda y: F.leaky_relu(y, 0.2)
    first = conv("conv_first", F.pixel_unshuffle(x, unshuffle))
    h = first
    for i in range(BLOCKS):
        r = h
        for j in range(1, 4):
            seen = r
            for k in range(1, 5):
                seen = torch.cat([seen, act(conv("body.%d.rdb%d.conv%d" % (i, j, k), seen))], 1)
            r = r + 0.2 * conv("body.%d.rdb%d.conv5" % (i, j), seen)
        h = h + 0.2 * r
    h = first + conv("conv_body", h)
    for n in ("conv_up1", "conv_up2"):
        h = act(conv(n, F.interpolate(h, scale_factor=2, mode="nearest")))
    return conv("conv_last", act(conv("conv_hr", h)))


def old_names(w):
    fixed = {"conv_first": "model.0", "conv_body": "model.1.sub.%d" % BLOCKS, "conv_up1": "model.3",
             "conv_up2": "model.6", "conv_hr": "model.8", "conv_last": "model.10"}
    out = {}
    for k, v in w.items():
        stem, kind = k.rsplit(".", 1)
        if stem in fixed:
            new = fixed[stem]
        else:
            _, i, rdb, conv = stem.split(".")
            new = "model.1.sub.%s.%s.%s.0" % (i, rdb.upper(), conv)
        out[new + "." + kind] = v
    return out


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "upscale")
    os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(4)
    source = Image.fromarray(rng.integers(0, 256, (5, 8, 3), dtype=np.uint8)).resize((64, 40), Image.BICUBIC)
    source.save(folder + "/source.png")
    x = torch.tensor(np.asarray(source)).float().permute(2, 0, 1)[None] / 255
    for name, channels, unshuffle in (("x4", 3, 1), ("x2", 12, 2), ("old", 3, 1)):
        w = weights(channels, len(name) + channels)
        if name == "x4":
            torch.save({"params_ema": w}, folder + "/x4.pth")
        else:
            save_file(old_names(w) if name == "old" else w, "%s/%s.safetensors" % (folder, name))
        y = run(w, x, unshuffle).clamp(0, 1)
        image = Image.fromarray((y[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
        image.save("%s/%s.png" % (folder, name), optimize=True)
        print(name, image.size, np.asarray(image).std())


if __name__ == "__main__":
    main()
