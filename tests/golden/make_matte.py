#!/usr/bin/env python3
"""Makes tests/golden/matte: a tiny U2-Net with random weights and what it cuts out of a picture.

The network is written here from Qin et al. 2020 (figures 2 and 5) with torch's functions, the steps around
it are those that rembg documents. The ONNX file is written by hand, field by field, in the order in which
an exporter walks the network and with its normalisations folded, as the published u2net.onnx is; the one
beside it keeps its BatchNormalization nodes.
usage: make_matte.py [FOLDER]      (needs torch, safetensors, Pillow, numpy)
"""
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

LEVELS = {1: 7, 2: 6, 3: 5, 4: 4}
MID, OUT = 2, 3
SIZES = None  # or channels in, within and out of each block: the published ones
BLOCKS = ["stage1", "stage2", "stage3", "stage4", "stage5", "stage6",
          "stage5d", "stage4d", "stage3d", "stage2d", "stage1d"]


def sizes(block):
    if SIZES:
        return SIZES[block]
    return 3 if block == "stage1" else 2 * OUT if block.endswith("d") else OUT, MID, OUT


def levels(block):
    return LEVELS.get(int(block[5]), 4)


def convs(block):
    n = levels(block)
    return (["rebnconvin"] + ["rebnconv%d" % i for i in range(1, n + 1)] +
            ["rebnconv%dd" % i for i in range(n - 1, 0, -1)])


def weights(g):
    w = {}

    def conv(name, cout, cin, kernel, gain=1.4):
        w[name + ".weight"] = torch.randn(cout, cin, kernel, kernel, generator=g) * gain / (cin * kernel ** 2) ** 0.5
        w[name + ".bias"] = torch.randn(cout, generator=g) * 0.1

    for b in BLOCKS:
        cin, mid, out = sizes(b)
        for c in convs(b):
            up = c.endswith("d")
            i = cin if c == "rebnconvin" else out if c == "rebnconv1" else 2 * mid if up else mid
            o = out if c in ("rebnconvin", "rebnconv1d") else mid
            conv("%s.%s.conv_s1" % (b, c), o, i, 3)
            bn = "%s.%s.bn_s1." % (b, c)
            w[bn + "weight"] = 1 + 0.3 * torch.randn(o, generator=g)
            w[bn + "bias"] = 0.2 + 0.2 * torch.randn(o, generator=g)
            w[bn + "running_mean"] = 0.2 * torch.randn(o, generator=g)
            w[bn + "running_var"] = 0.3 + torch.rand(o, generator=g)
            w[bn + "num_batches_tracked"] = torch.tensor(7)
    for i, b in enumerate(["stage1d", "stage2d", "stage3d", "stage4d", "stage5d", "stage6"]):
        conv("side%d" % (i + 1), 1, sizes(b)[2], 3)
    conv("outconv", 1, 6, 1)
    return w


def calm(w, x):
    """A last layer for which the picture uses the sigmoid's whole range."""
    with torch.no_grad():
        y = torch.logit(run(w, x), eps=1e-9)
    factor = 1.5 / y.std()
    w["outconv.weight"] *= factor
    w["outconv.bias"] = (w["outconv.bias"] - y.mean()) * factor


def unit(w, name, x, d=1):
    x = F.conv2d(x, w[name + ".conv_s1.weight"], w[name + ".conv_s1.bias"], padding=d, dilation=d)
    bn = name + ".bn_s1."
    return F.relu(F.batch_norm(x, w[bn + "running_mean"], w[bn + "running_var"], w[bn + "weight"], w[bn + "bias"]))


def grow(x, like):
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def pool(x):
    return F.max_pool2d(x, 2, 2, ceil_mode=True)


def nested(w, b, x):
    n, flat = levels(b), b[5] in "56"
    first = unit(w, b + ".rebnconvin", x)
    h = [None, unit(w, b + ".rebnconv1", first)]
    for k in range(2, n + 1):
        last = k == n
        h.append(unit(w, "%s.rebnconv%d" % (b, k), h[-1] if flat or last else pool(h[-1]),
                      2 ** (k - 1) if flat else 2 if last else 1))
    up = h[n]
    for k in range(n - 1, 0, -1):
        up = unit(w, "%s.rebnconv%dd" % (b, k), torch.cat([grow(up, h[k]), h[k]], 1), 2 ** (k - 1) if flat else 1)
    return up + first


def run(w, x):
    down = []
    for b in BLOCKS[:6]:
        down.append(nested(w, b, pool(down[-1]) if down else x))
    ups = [down[5]]
    for i, b in enumerate(BLOCKS[6:]):
        across = down[4 - i]
        ups.append(nested(w, b, torch.cat([grow(ups[-1], across), across], 1)))
    sides = [grow(F.conv2d(ups[5 - i], w["side%d.weight" % (i + 1)], w["side%d.bias" % (i + 1)], padding=1), x)
             for i in range(6)]
    return torch.sigmoid(F.conv2d(torch.cat(sides, 1), w["outconv.weight"], w["outconv.bias"]))


# ---- ONNX: protobuf by hand (onnx.proto: ModelProto.graph 7, GraphProto.node 1, initializer 5) ----

def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name, t, raw):
    out = b"".join(field(1, d) for d in t.shape) + field(2, 1)
    data = np.asarray(t, dtype="<f4").tobytes()
    return out + field(8, name) + field(9 if raw else 4, data)


def node(kind, inputs, output):
    return b"".join(field(1, i) for i in inputs) + field(2, output) + field(4, kind)


def onnx(path, w, folded):
    names = ["%s.%s" % (b, c) for b in BLOCKS for c in convs(b)]
    graph, tensors = b"", []
    for i, n in enumerate(names + ["side%d" % k for k in range(1, 7)] + ["outconv"]):
        stem = n + ".conv_s1" if n in names else n
        weight, bias = w[stem + ".weight"], w[stem + ".bias"]
        bn = n + ".bn_s1."
        if n in names and folded:
            factor = w[bn + "weight"] / torch.sqrt(w[bn + "running_var"] + 1e-5)
            weight = weight * factor[:, None, None, None]
            bias = (bias - w[bn + "running_mean"]) * factor + w[bn + "bias"]
        tensors += [tensor("w%d" % i, weight, i % 2), tensor("b%d" % i, bias, True)]
        graph += field(1, node("Conv", ["x%d" % i, "w%d" % i, "b%d" % i], "y%d" % i))
        if n in names and not folded:
            parts = ["weight", "bias", "running_mean", "running_var"]
            tensors += [tensor("n%d%s" % (i, p), w[bn + p], True) for p in parts]
            graph += field(1, node("BatchNormalization", ["y%d" % i] + ["n%d%s" % (i, p) for p in parts], "z%d" % i))
        graph += field(1, node("Relu", ["y%d" % i], "r%d" % i))
    np.random.default_rng(5).shuffle(tensors)
    graph += field(2, "tiny") + b"".join(field(5, t) for t in tensors)
    with open(path, "wb") as f:
        f.write(field(1, 7) + field(2, "by hand") + field(7, graph) + field(8, field(2, 11)))


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "matte")
    os.makedirs(folder, exist_ok=True)
    yy, xx = np.mgrid[0:56, 0:72]
    picture = np.stack([90 + xx, 200 - 2 * yy, 60 + yy], 2)
    inside = ((xx - 40) / 18.0) ** 2 + ((yy - 26) / 20.0) ** 2 < 1
    picture[inside] = np.stack([230 - xx, 60 + yy, 40 + xx], 2)[inside]
    source = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    source.save(folder + "/source.png", optimize=True)

    a = np.array(source.resize((320, 320), Image.LANCZOS)).astype(np.float64)
    a = a / max(a.max(), 1e-6)
    a = (a - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    x = torch.tensor(a.transpose(2, 0, 1)[None].astype(np.float32))
    w = weights(torch.Generator().manual_seed(13))
    calm(w, x)
    save_file(w, folder + "/u2net.safetensors")
    onnx(folder + "/u2net.onnx", w, True)
    onnx(folder + "/u2net-norms.onnx", w, False)
    with torch.no_grad():
        y = run(w, x)[0, 0].numpy()
    print("saliency", y.min(), y.max(), y.std())
    mask = Image.fromarray((((y - y.min()) / (y.max() - y.min())).clip(0, 1) * 255).astype(np.uint8))
    mask = mask.resize(source.size, Image.LANCZOS)
    cut = Image.composite(source, Image.new("RGBA", source.size, 0), mask)
    cut.save(folder + "/cut.png", optimize=True)
    print("mask std", np.asarray(mask).std())


if __name__ == "__main__":
    main()
