#!/usr/bin/env python3
"""Makes tests/golden/seg: a tiny UniFormer with UPerNet and the maps that it draws.

The network is written here with torch's functions from Li et al. 2022 (UniFormer) and Xiao et al. 2018 (UPerNet) in
mmsegmentation's names; the steps around it are mmsegmentation's test pipeline (shorter side 512, longer at most 2048,
ImageNet's mean and deviation) with the channels in the order in which ControlNet's annotator leaves them.
usage: make_seg.py [FOLDER]      (needs torch, safetensors, opencv, Pillow)
"""
import os
import re
import sys

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
WIDTHS, DEPTHS, HIDDEN, CHANNELS, CLASSES = [6, 8, 10, 128], [1, 2, 1, 1], 12, 6, 150
POOLS = [1, 2, 3, 6]


def weights(g):
    w = {}

    def conv(name, out, cin, k, bias=True, gain=1.4):
        w[name + ".weight"] = torch.randn(out, cin, k, k, generator=g) * gain / (cin * k * k) ** 0.5
        if bias:
            w[name + ".bias"] = 0.2 * torch.randn(out, generator=g)

    def linear(name, out, cin):
        conv(name, out, cin, 1)
        w[name + ".weight"] = w[name + ".weight"][:, :, 0, 0]

    def norm(name, n, batch=False):
        w[name + ".weight"] = 1 + 0.2 * torch.randn(n, generator=g)
        w[name + ".bias"] = 0.2 * torch.randn(n, generator=g)
        if batch:
            w[name + ".running_mean"] = 0.2 * torch.randn(n, generator=g)
            w[name + ".running_var"] = 0.5 + torch.rand(n, generator=g)

    for s, (d, depth) in enumerate(zip(WIDTHS, DEPTHS)):
        conv("backbone.patch_embed%d.proj" % (s + 1), d, WIDTHS[s - 1] if s else 3, 2 if s else 4)
        norm("backbone.patch_embed%d.norm" % (s + 1), d)
        norm("backbone.norm%d" % (s + 1), d)
        for i in range(depth):
            at = "backbone.blocks%d.%d." % (s + 1, i)
            conv(at + "pos_embed", d, 1, 3)
            norm(at + "norm1", d, s < 2)
            norm(at + "norm2", d, s < 2)
            if s < 2:
                conv(at + "conv1", d, d, 1)
                conv(at + "attn", d, 1, 5)
                conv(at + "conv2", d, d, 1)
                conv(at + "mlp.fc1", HIDDEN, d, 1)
                conv(at + "mlp.fc2", d, HIDDEN, 1)
            else:
                linear(at + "attn.qkv", 3 * d, d)
                linear(at + "attn.proj", d, d)
                linear(at + "mlp.fc1", HIDDEN, d)
                linear(at + "mlp.fc2", d, HIDDEN)

    def pair(name, out, cin, k):
        conv(name + ".conv", out, cin, k, False)
        norm(name + ".bn", out, True)

    head = "decode_head."
    for i in range(4):
        pair(head + "psp_modules.%d.1" % i, CHANNELS, WIDTHS[3], 1)
    pair(head + "bottleneck", CHANNELS, WIDTHS[3] + 4 * CHANNELS, 3)
    for i in range(3):
        pair(head + "lateral_convs.%d" % i, CHANNELS, WIDTHS[i], 1)
        pair(head + "fpn_convs.%d" % i, CHANNELS, CHANNELS, 3)
    pair(head + "fpn_bottleneck", CHANNELS, 4 * CHANNELS, 3)
    conv(head + "conv_seg", CLASSES, CHANNELS, 1, gain=3)
    conv("auxiliary_head.conv_seg", CLASSES, 2, 1)  # for training only
    return {k: v.half() for k, v in w.items()}


class Net:
    def __init__(self, w):
        self.w = {k: v.float() for k, v in w.items()}

    def conv(self, name, x, **kw):
        return F.conv2d(x, self.w[name + ".weight"], self.w.get(name + ".bias"), **kw)

    def linear(self, name, x):
        return F.linear(x, self.w[name + ".weight"], self.w[name + ".bias"])

    def batch(self, name, x):
        return F.batch_norm(x, self.w[name + ".running_mean"], self.w[name + ".running_var"],
                            self.w[name + ".weight"], self.w[name + ".bias"], False, 0, 1e-5)

    def layer(self, name, x, eps):
        return F.layer_norm(x, x.shape[-1:], self.w[name + ".weight"], self.w[name + ".bias"], eps)

    def channels(self, name, x, eps):
        return self.layer(name, x.permute(0, 2, 3, 1), eps).permute(0, 3, 1, 2)

    def pair(self, name, x):
        pad = self.w[name + ".conv.weight"].shape[-1] // 2
        return F.relu(self.batch(name + ".bn", self.conv(name + ".conv", x, padding=pad)))

    def block(self, at, x):
        d = x.shape[1]
        x = x + self.conv(at + "pos_embed", x, padding=1, groups=d)
        if at + "attn.qkv.weight" not in self.w:
            y = self.conv(at + "conv1", self.batch(at + "norm1", x))
            x = x + self.conv(at + "conv2", self.conv(at + "attn", y, padding=2, groups=d))
            return x + self.conv(at + "mlp.fc2", F.gelu(self.conv(at + "mlp.fc1", self.batch(at + "norm2", x))))
        n, _, h, w = x.shape
        x = x.flatten(2).transpose(1, 2)
        heads = max(d // 64, 1)
        qkv = self.linear(at + "attn.qkv", self.layer(at + "norm1", x, 1e-6))
        q, k, v = qkv.reshape(n, h * w, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
        y = ((q @ k.transpose(-2, -1)) * (d // heads) ** -0.5).softmax(-1) @ v
        x = x + self.linear(at + "attn.proj", y.transpose(1, 2).reshape(n, h * w, d))
        x = x + self.linear(at + "mlp.fc2", F.gelu(self.linear(at + "mlp.fc1", self.layer(at + "norm2", x, 1e-6))))
        return x.transpose(1, 2).reshape(n, d, h, w)

    def forward(self, x):
        seen = []
        for s in range(4):
            name = "backbone.patch_embed%d" % (s + 1)
            x = self.conv(name + ".proj", x, stride=2 if s else 4)
            x = self.channels(name + ".norm", x, 1e-5)
            for i in range(sum(bool(re.fullmatch(r"backbone\.blocks%d\.\d+\.norm1\.weight" % (s + 1), k)) for k in self.w)):
                x = self.block("backbone.blocks%d.%d." % (s + 1, i), x)
            seen.append(self.channels("backbone.norm%d" % (s + 1), x, 1e-6))

        def grow(y, like):
            return F.interpolate(y, like.shape[2:], mode="bilinear", align_corners=False)

        deep = seen[3]
        parts = [grow(self.pair("decode_head.psp_modules.%d.1" % i, F.adaptive_avg_pool2d(deep, n)), deep)
                 for i, n in enumerate(POOLS)]
        side = [self.pair("decode_head.lateral_convs.%d" % i, seen[i]) for i in range(3)]
        side.append(self.pair("decode_head.bottleneck", torch.cat([deep] + parts, 1)))
        for i in (3, 2, 1):
            side[i - 1] = side[i - 1] + grow(side[i], side[i - 1])
        out = [self.pair("decode_head.fpn_convs.%d" % i, side[i]) for i in range(3)] + [side[3]]
        out = torch.cat([grow(y, out[0]) for y in out], 1)
        return self.conv("decode_head.conv_seg", self.pair("decode_head.fpn_bottleneck", out))


def classes(net, rgb):
    h, w = rgb.shape[:2]
    scale = min(2048 / max(h, w), 512 / min(h, w))
    sized = cv2.resize(rgb, (int(w * scale + 0.5), int(h * scale + 0.5)), interpolation=cv2.INTER_LINEAR)
    x = (sized[:, :, ::-1].astype(np.float64) - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    x = torch.tensor(x.astype(np.float32)).permute(2, 0, 1)[None]
    y = F.interpolate(net.forward(x), x.shape[2:], mode="bilinear", align_corners=False)
    y = F.interpolate(y, (h, w), mode="bilinear", align_corners=False)
    return y.argmax(1)[0].numpy()


def spread(w, net, rgb):
    """So that many classes win somewhere: over the picture each has mean 0 and deviation 1."""
    name = "decode_head.conv_seg."
    x = torch.tensor((rgb[:, :, ::-1] - np.array([123.675, 116.28, 103.53])) / [58.395, 57.12, 57.375]).float()
    y = net.forward(F.interpolate(x.permute(2, 0, 1)[None], (512, 768), mode="bilinear"))
    mean, deviation = y.mean((0, 2, 3)), y.std((0, 2, 3))
    w[name + "weight"] = (net.w[name + "weight"] / deviation.view(-1, 1, 1, 1)).half()
    w[name + "bias"] = ((net.w[name + "bias"] - mean) / deviation).half()
    net.w.update({k: v.float() for k, v in w.items()})


def palette():
    """The colours that are tested, as the source of the program lists them."""
    text = open(HERE + "/../../diffusion/control/ade_palette.c").read()
    rows = re.findall(r"\{(\d+), (\d+), (\d+)\}", text)
    assert len(rows) == CLASSES
    return np.array(rows, dtype=np.uint8)


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else HERE + "/seg"
    os.makedirs(folder, exist_ok=True)
    w = weights(torch.Generator().manual_seed(17))
    net, colours = Net(w), palette()
    source = np.asarray(Image.open(HERE + "/annotators/picture.png").convert("RGB"))
    with torch.no_grad():
        spread(w, net, source)
        save_file({"module." + k: v for k, v in w.items()}, folder + "/upernet_global_small.safetensors")
        for name, rgb in (("whole", source), ("part", source[20:90, 30:131])):
            found = classes(net, np.ascontiguousarray(rgb))
            print(name, rgb.shape, "classes", len(np.unique(found)), "largest",
                  np.bincount(found.ravel()).max() / found.size)
            Image.fromarray(np.ascontiguousarray(rgb)).save(folder + "/%s.png" % name)
            Image.fromarray(colours[found]).quantize(256).save(folder + "/%s_seg.png" % name)


if __name__ == "__main__":
    main()
