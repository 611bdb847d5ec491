#!/usr/bin/env python3
"""Makes tests/golden/faces: what tiny GFPGAN, CodeFormer, RetinaFace and ParseNet networks compute.

The networks are written here from the papers' figures with torch's functions (Wang et al. 2021, Zhou et al.
2022, Deng et al. 2019, Chen et al. 2021), over the names of the published checkpoints. Their weights are not
kept: each tensor is drawn by rule (draw) from its name, here and in tests/support/drawn.c alike; the .txt
tables say names, shapes and ranges. `align.*` are the steps around them, by OpenCV as facexlib uses it.
usage: make_faces.py [FOLDER]      (needs torch, Pillow, numpy, opencv-python-headless)
"""
import os
import struct
import sys

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

MASK = (1 << 64) - 1


def draw(name, shape, scale, offset):
    """Uniform in offset +- scale: splitmix64 over FNV-1a of the name."""
    seed = 0xcbf29ce484222325
    for c in name.encode():
        seed = (seed ^ c) * 0x100000001b3 & MASK
    n = int(np.prod(shape)) if len(shape) else 1
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9e3779b97f4a7c15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xbf58476d1ce4e5b9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94d049bb133111eb)
        z = z ^ (z >> np.uint64(31))
    u = (z >> np.uint64(40)).astype(np.float64) / (1 << 24)
    return torch.tensor((offset + scale * (2 * u - 1)).astype(np.float32).reshape(shape))


class Table:
    def __init__(self, gain=1.0):
        self.rows, self.gain = [], gain

    def add(self, name, *shape, scale=0.1, offset=0.0):
        self.rows.append((name, shape, scale, offset))

    def conv(self, name, out, cin, kernel=3, bias=True, gain=1.0, lead=()):
        scale = round(gain * self.gain * (3.0 / (cin * kernel * kernel)) ** 0.5, 6)
        self.add(name + ".weight", *lead, out, cin, kernel, kernel, scale=scale)
        if bias:
            self.add(name + ".bias", out)

    def linear(self, name, out, cin, gain=1.0, bias=True, offset=0.0):
        self.add(name + ".weight", out, cin, scale=round(gain * self.gain * (3.0 / cin) ** 0.5, 6))
        if bias:
            self.add(name + ".bias", out, offset=offset)

    def norm(self, name, width, batch=False):
        self.add(name + ".weight", width, scale=0.2, offset=1.0)
        self.add(name + ".bias", width)
        if batch:
            self.add(name + ".running_mean", width)
            self.add(name + ".running_var", width, scale=0.3, offset=1.0)

    def weights(self):
        return {n: draw(n, s, a, b) for n, s, a, b in self.rows}

    def write(self, path):
        with open(path, "w") as f:
            for n, s, a, b in self.rows:
                f.write("%s %s %.9g %.9g\n" % (n, "x".join(map(str, s)) if s else "-", a, b))


def save(folder, name, *tensors):
    with open("%s/%s.bin" % (folder, name), "wb") as f:
        for t in tensors:
            a = np.ascontiguousarray(np.asarray(t, dtype="<f4"))
            f.write(struct.pack("<%df" % a.size, *a.reshape(-1)))


def conv(w, n, x, stride=1, pad=None):
    k = w[n + ".weight"].shape[-1]
    return F.conv2d(x, w[n + ".weight"], w.get(n + ".bias"), stride, k // 2 if pad is None else pad)


def bn(w, n, x):
    return F.batch_norm(x, w[n + ".running_mean"], w[n + ".running_var"], w[n + ".weight"], w[n + ".bias"])


def gn(w, n, x):
    return F.group_norm(x, 32, w[n + ".weight"], w[n + ".bias"], 1e-6)


def leaky(x):
    return F.leaky_relu(x, 0.2)


def times(x, factor):
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


# ---- GFPGAN ----

def gfpgan_table(widths, style, out_widths, half):
    """widths: of the U-Net from the face's size to 8 pixels, then at 4; out_widths: of the decoder from 4 up."""
    t = Table(1.2)
    levels = len(widths) - 1
    t.conv("conv_body_first", widths[0], 3, 1)
    for i in range(levels):
        p = "conv_body_down.%d" % i
        t.conv(p + ".conv1", widths[i], widths[i])
        t.conv(p + ".conv2", widths[i + 1], widths[i])
        t.conv(p + ".skip", widths[i + 1], widths[i], 1, bias=False)
    deep = widths[-1]
    t.conv("final_conv", deep, deep)
    t.linear("final_linear", style * (2 * levels + 2), deep * 16)
    cin = deep
    for i in range(levels):
        p, out = "conv_body_up.%d" % i, widths[levels - 1 - i]
        t.conv(p + ".conv1", cin, cin)
        t.conv(p + ".conv2", out, cin)
        t.conv(p + ".skip", out, cin, 1, bias=False)
        t.conv("toRGB.%d" % i, 3, out, 1)
        sft = out_widths[i + 1] // 2 if half else out_widths[i + 1]
        for kind in ("condition_scale", "condition_shift"):
            t.conv("%s.%d.0" % (kind, i), out, out)
            t.conv("%s.%d.2" % (kind, i), sft, out)
        cin = out

    def styled(name, out, cin, kernel):
        t.conv(name + ".modulated_conv", out, cin, kernel, bias=False, lead=(1,))
        t.linear(name + ".modulated_conv.modulation", cin, style, 0.3, offset=1.0)
        t.add(name + ".bias", 1, out, 1, 1)
        if kernel == 3:
            t.add(name + ".weight", 1, scale=0.05, offset=0.15)

    d = "stylegan_decoder."
    t.add(d + "constant_input.weight", 1, out_widths[0], 4, 4, scale=1.0)
    for i in range(2 * levels + 1):
        side = 2 ** ((i + 5) // 2)
        t.add(d + "noises.noise%d" % i, 1, 1, side, side, scale=1.7)
    styled(d + "style_conv1", out_widths[0], out_widths[0], 3)
    styled(d + "to_rgb1", 3, out_widths[0], 1)
    for i in range(levels):
        styled(d + "style_convs.%d" % (2 * i), out_widths[i + 1], out_widths[i], 3)
        styled(d + "style_convs.%d" % (2 * i + 1), out_widths[i + 1], out_widths[i + 1], 3)
        styled(d + "to_rgbs.%d" % i, 3, out_widths[i + 1], 1)
    return t


def gfpgan(w, x):
    d = "stylegan_decoder."

    def res(n, x, factor):
        y = leaky(conv(w, n + ".conv2", times(leaky(conv(w, n + ".conv1", x)), factor)))
        return y + conv(w, n + ".skip", times(x, factor))

    def modulated(n, x, s, demodulate):
        weight = w[n + ".weight"][0] * F.linear(s, w[n + ".modulation.weight"], w[n + ".modulation.bias"])[
            None, :, None, None]
        if demodulate:
            weight = weight / torch.sqrt((weight ** 2).sum((1, 2, 3), keepdim=True) + 1e-8)
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)

    def styled(n, x, s, noise):
        x = modulated(n + ".modulated_conv", x, s, True) * 2 ** 0.5
        return leaky(x + w[n + ".weight"] * w[d + "noises.noise%d" % noise] + w[n + ".bias"])

    def rgb(n, x, s):
        return modulated(n + ".modulated_conv", x, s, False) + w[n + ".bias"]

    levels = sum(k.startswith("conv_body_down.") and k.endswith("skip.weight") for k in w)
    h, skips, scales, shifts = leaky(conv(w, "conv_body_first", x)), [], [], []
    for i in range(levels):
        h = res("conv_body_down.%d" % i, h, 0.5)
        skips.insert(0, h)
    h = leaky(conv(w, "final_conv", h))
    styles = F.linear(h.reshape(1, -1), w["final_linear.weight"], w["final_linear.bias"]).reshape(2 * levels + 2, -1)
    for i in range(levels):
        h = res("conv_body_up.%d" % i, h + skips[i], 2)
        scales.append(conv(w, "condition_scale.%d.2" % i, leaky(conv(w, "condition_scale.%d.0" % i, h))))
        shifts.append(conv(w, "condition_shift.%d.2" % i, leaky(conv(w, "condition_shift.%d.0" % i, h))))
    h = styled(d + "style_conv1", w[d + "constant_input.weight"], styles[0], 0)
    picture = rgb(d + "to_rgb1", h, styles[1])
    for i in range(levels):
        h = styled(d + "style_convs.%d" % (2 * i), times(h, 2), styles[2 * i + 1], 2 * i + 1)
        same = h.shape[1] - scales[i].shape[1]
        h = torch.cat([h[:, :same], h[:, same:] * scales[i] + shifts[i]], 1)
        h = styled(d + "style_convs.%d" % (2 * i + 1), h, styles[2 * i + 2], 2 * i + 2)
        picture = rgb(d + "to_rgbs.%d" % i, h, styles[2 * i + 3]) + times(picture, 2)
    return picture


# ---- CodeFormer ----

def codeformer_blocks(nf, mult, emb, res_blocks, attention_level):
    enc, level_in = [("conv", 3, nf)], nf
    for i, m in enumerate(mult):
        for _ in range(res_blocks):
            enc.append(("res", level_in, nf * m))
            level_in = nf * m
            if i == attention_level:
                enc.append(("attn", level_in, level_in))
        if i != len(mult) - 1:
            enc.append(("scale", level_in, level_in))
    enc += [("res", level_in, level_in), ("attn", level_in, level_in), ("res", level_in, level_in),
            ("norm", level_in, level_in), ("conv", level_in, emb)]
    gen = [("conv", emb, level_in), ("res", level_in, level_in), ("attn", level_in, level_in),
           ("res", level_in, level_in)]
    for i in reversed(range(len(mult))):
        for _ in range(res_blocks):
            gen.append(("res", level_in, nf * mult[i]))
            level_in = nf * mult[i]
            if i == attention_level:
                gen.append(("attn", level_in, level_in))
        if i != 0:
            gen.append(("scale", level_in, level_in))
    return enc, gen + [("norm", level_in, level_in), ("conv", level_in, 3)]


def codeformer_table(nf, mult, emb, codes, width, layers, fuses, res_blocks=2):
    t = Table(1.0)

    def res(n, cin, out):
        t.norm(n + ".norm1", cin)
        t.conv(n + ".conv1", out, cin)
        t.norm(n + ".norm2", out)
        t.conv(n + ".conv2", out, out)
        if cin != out:
            t.conv(n + ".conv_out", out, cin, 1)

    for list_name, blocks in zip(("encoder", "generator"), codeformer_blocks(nf, mult, emb, res_blocks, len(mult) - 1)):
        for i, (kind, cin, out) in enumerate(blocks):
            n = "%s.blocks.%d" % (list_name, i)
            if kind == "conv":
                t.conv(n, out, cin)
            elif kind == "norm":
                t.norm(n, cin)
            elif kind == "scale":
                t.conv(n + ".conv", out, cin)
            elif kind == "res":
                res(n, cin, out)
            else:
                t.norm(n + ".norm", cin)
                for p in ("q", "k", "v", "proj_out"):
                    t.conv("%s.%s" % (n, p), cin, cin, 1)
    t.add("quantize.embedding.weight", codes, emb, scale=1.5)
    t.add("position_emb", 256, width, scale=0.5)
    t.linear("feat_emb", width, emb)
    for i in range(layers):
        n = "ft_layers.%d" % i
        t.add(n + ".self_attn.in_proj_weight", 3 * width, width, scale=round(1.5 * (3.0 / width) ** 0.5, 6))
        t.add(n + ".self_attn.in_proj_bias", 3 * width)
        t.linear(n + ".self_attn.out_proj", width, width)
        t.linear(n + ".linear1", 2 * width, width)
        t.linear(n + ".linear2", width, 2 * width)
        t.norm(n + ".norm1", width)
        t.norm(n + ".norm2", width)
    t.norm("idx_pred_layer.0", width)
    t.linear("idx_pred_layer.1", codes, width, 2.0, bias=False)
    for size, c in fuses:
        n = "fuse_convs_dict.%d" % size
        res(n + ".encode_enc", 2 * c, c)
        for kind in ("scale", "shift"):
            t.conv("%s.%s.0" % (n, kind), c, c)
            t.conv("%s.%s.2" % (n, kind), c, c)
    return t


def codeformer(w, x, fidelity):
    swish = F.silu

    def res(n, x):
        y = conv(w, n + ".conv1", swish(gn(w, n + ".norm1", x)))
        y = conv(w, n + ".conv2", swish(gn(w, n + ".norm2", y)))
        return y + (conv(w, n + ".conv_out", x) if n + ".conv_out.weight" in w else x)

    def attention(n, x):
        h = gn(w, n + ".norm", x)
        q, k, v = [conv(w, "%s.%s" % (n, p), h).flatten(2).transpose(1, 2) for p in "qkv"]
        a = torch.softmax(q @ k.transpose(1, 2) * q.shape[-1] ** -0.5, -1) @ v
        return x + conv(w, n + ".proj_out", a.transpose(1, 2).reshape(x.shape))

    def run(n, x, up):
        if n + ".conv1.weight" in w:
            return res(n, x), "res"
        if n + ".q.weight" in w:
            return attention(n, x), "attn"
        if n + ".conv.weight" in w:
            if up:
                return conv(w, n + ".conv", F.interpolate(x, scale_factor=2.0, mode="nearest")), "scale"
            return conv(w, n + ".conv", F.pad(x, (0, 1, 0, 1)), 2, 0), "scale"
        return (gn(w, n, x) if w[n + ".weight"].dim() == 1 else conv(w, n, x)), "plain"

    def fuse(size, enc, dec):
        n = "fuse_convs_dict.%d" % size
        e = res(n + ".encode_enc", torch.cat([enc, dec], 1))
        scale = conv(w, n + ".scale.2", leaky(conv(w, n + ".scale.0", e)))
        shift = conv(w, n + ".shift.2", leaky(conv(w, n + ".shift.0", e)))
        return dec + fidelity * (dec * scale + shift)

    seen, h, i = {}, x, 0
    while "encoder.blocks.%d.weight" % i in w or any(k.startswith("encoder.blocks.%d." % i) for k in w):
        before = h
        h, kind = run("encoder.blocks.%d" % i, h, False)
        if kind == "scale":
            seen[before.shape[-1]] = before
        i += 1
    side = h.shape[-1]
    q = F.linear(h.flatten(2).permute(2, 0, 1), w["feat_emb.weight"], w["feat_emb.bias"])
    position, width = w["position_emb"][:, None], q.shape[-1]
    i = 0
    while "ft_layers.%d.norm1.weight" % i in w:
        n = "ft_layers.%d" % i
        value = F.layer_norm(q, (width,), w[n + ".norm1.weight"], w[n + ".norm1.bias"])
        where = value + position
        a, _ = F.multi_head_attention_forward(
            where, where, value, width, 8, w[n + ".self_attn.in_proj_weight"], w[n + ".self_attn.in_proj_bias"],
            None, None, False, 0.0, w[n + ".self_attn.out_proj.weight"], w[n + ".self_attn.out_proj.bias"],
            training=False)
        q = q + a
        value = F.layer_norm(q, (width,), w[n + ".norm2.weight"], w[n + ".norm2.bias"])
        value = F.gelu(F.linear(value, w[n + ".linear1.weight"], w[n + ".linear1.bias"]))
        q = q + F.linear(value, w[n + ".linear2.weight"], w[n + ".linear2.bias"])
        i += 1
    q = F.layer_norm(q, (width,), w["idx_pred_layer.0.weight"], w["idx_pred_layer.0.bias"])
    codes = F.linear(q, w["idx_pred_layer.1.weight"]).argmax(-1).reshape(-1)
    h = w["quantize.embedding.weight"][codes].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    i, last = 0, ""
    while any(k.startswith("generator.blocks.%d." % i) for k in w):
        h, kind = run("generator.blocks.%d" % i, h, True)
        size = h.shape[-1]
        if kind == "res" and last == "scale" and fidelity > 0 and "fuse_convs_dict.%d.scale.0.weight" % size in w:
            h = fuse(size, seen[size], h)
        last, i = kind, i + 1
    return h, codes


# ---- RetinaFace ----

def retinaface_table(first, mids, blocks, expansion, width):
    t = Table(1.1)
    t.conv("body.conv1", first, 3, 7, bias=False)
    t.norm("body.bn1", first, True)
    cin, outs = first, []
    for stage in range(4):
        mid = mids[stage]
        for i in range(blocks[stage]):
            n = "body.layer%d.%d" % (stage + 1, i)
            t.conv(n + ".conv1", mid, cin, 1, bias=False)
            t.norm(n + ".bn1", mid, True)
            t.conv(n + ".conv2", mid, mid, 3, bias=False)
            t.norm(n + ".bn2", mid, True)
            t.conv(n + ".conv3", mid * expansion, mid, 1, bias=False, gain=0.5)
            t.norm(n + ".bn3", mid * expansion, True)
            if i == 0:
                t.conv(n + ".downsample.0", mid * expansion, cin, 1, bias=False)
                t.norm(n + ".downsample.1", mid * expansion, True)
            cin = mid * expansion
        outs.append(cin)

    def unit(n, out, cin, kernel):
        t.conv(n + ".0", out, cin, kernel, bias=False)
        t.norm(n + ".1", out, True)

    for i in range(3):
        unit("fpn.output%d" % (i + 1), width, outs[i + 1], 1)
    for i in range(2):
        unit("fpn.merge%d" % (i + 1), width, width, 3)
    for i in range(1, 4):
        unit("ssh%d.conv3X3" % i, width // 2, width, 3)
        unit("ssh%d.conv5X5_1" % i, width // 4, width, 3)
        for p in ("conv5X5_2", "conv7X7_2", "conv7x7_3"):
            unit("ssh%d.%s" % (i, p), width // 4, width // 4, 3)
    for i in range(3):
        t.conv("ClassHead.%d.conv1x1" % i, 4, width, 1, gain=0.02)
        t.conv("BboxHead.%d.conv1x1" % i, 8, width, 1, gain=0.02)
        t.conv("LandmarkHead.%d.conv1x1" % i, 20, width, 1, gain=0.02)
    return t


def retinaface(w, x):
    def unit(n, x, act=True):
        y = bn(w, n + ".1", conv(w, n + ".0", x))
        return F.relu(y) if act else y

    h = F.max_pool2d(F.relu(bn(w, "body.bn1", conv(w, "body.conv1", x, 2))), 3, 2, 1)
    levels = []
    for stage in range(1, 5):
        i = 0
        while "body.layer%d.%d.conv1.weight" % (stage, i) in w:
            n = "body.layer%d.%d" % (stage, i)
            stride = 2 if stage > 1 and i == 0 else 1
            y = F.relu(bn(w, n + ".bn1", conv(w, n + ".conv1", h)))
            y = F.relu(bn(w, n + ".bn2", conv(w, n + ".conv2", y, stride)))
            y = bn(w, n + ".bn3", conv(w, n + ".conv3", y))
            rest = h
            if n + ".downsample.0.weight" in w:
                rest = bn(w, n + ".downsample.1", conv(w, n + ".downsample.0", h, stride))
            h = F.relu(y + rest)
            i += 1
        if stage > 1:
            levels.append(unit("fpn.output%d" % (stage - 1), h))
    grow = lambda y, like: F.interpolate(y, size=like.shape[2:], mode="nearest")
    levels[1] = unit("fpn.merge2", levels[1] + grow(levels[2], levels[1]))
    levels[0] = unit("fpn.merge1", levels[0] + grow(levels[1], levels[0]))
    out = []
    for i, f in enumerate(levels):
        n = "ssh%d." % (i + 1)
        two = unit(n + "conv5X5_1", f)
        f = F.relu(torch.cat([unit(n + "conv3X3", f, False), unit(n + "conv5X5_2", two, False),
                              unit(n + "conv7x7_3", unit(n + "conv7X7_2", two), False)], 1))
        for head in ("ClassHead", "BboxHead", "LandmarkHead"):
            out.append(conv(w, "%s.%d.conv1x1" % (head, i), f).permute(0, 2, 3, 1))
    return out


def faces_of(out, width, height, least):
    """The decoding of the paper's section 3 with facexlib's anchors; the same greedy choice."""
    found = []
    for level in range(3):
        score, box, point = [o.reshape(-1, k) for o, k in zip(out[3 * level:3 * level + 3], (2, 4, 10))]
        step, across = 8 << level, -(-width // (8 << level))
        sure = torch.softmax(score, -1)[:, 1]
        for i in range(len(sure)):
            if sure[i] <= least:
                continue
            side = (16 << 2 * level) * (1 + i % 2)
            x, y = ((i // 2) % across + 0.5) * step, ((i // 2) // across + 0.5) * step
            cx, cy = x + box[i, 0] * 0.1 * side, y + box[i, 1] * 0.1 * side
            bw, bh = side * torch.exp(box[i, 2] * 0.2), side * torch.exp(box[i, 3] * 0.2)
            points = [(x, y)[k % 2] + point[i, k] * 0.1 * side for k in range(10)]
            found.append([float(v) for v in [cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2, sure[i]] + points])
    found.sort(key=lambda f: -f[4])
    kept = []
    for f in found:
        for k in kept:
            w, h = min(f[2], k[2]) - max(f[0], k[0]), min(f[3], k[3]) - max(f[1], k[1])
            both = max(w, 0) * max(h, 0)
            if both > 0.4 * ((f[2] - f[0]) * (f[3] - f[1]) + (k[2] - k[0]) * (k[3] - k[1]) - both):
                break
        else:
            kept.append(f)
    return kept[:64]


# ---- ParseNet ----

def parsenet_table(base, widths, bodies, classes):
    t = Table(1.1)

    def block(n, cin, out, shortcut):
        if shortcut:
            t.conv(n + ".shortcut_func.conv2d", out, cin)
        t.conv(n + ".conv1.conv2d", out, cin, bias=False)
        t.norm(n + ".conv1.norm.norm", out, True)
        t.conv(n + ".conv2.conv2d", out, out, bias=False)
        t.norm(n + ".conv2.norm.norm", out, True)

    t.conv("encoder.0.conv2d", base, 3)
    cin = base
    for i, c in enumerate(widths):
        block("encoder.%d" % (i + 1), cin, c, True)
        cin = c
    for i in range(bodies):
        block("body.%d" % i, cin, cin, False)
    for i, c in enumerate(list(reversed(widths[:-1])) + [base]):
        block("decoder.%d" % i, cin, c, True)
        cin = c
    t.conv("out_img_conv.conv2d", 3, cin)
    t.conv("out_mask_conv.conv2d", classes, cin)
    return t


def parsenet(w, x):
    def layer(n, x, scale="none", act=False):
        if scale == "up":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = conv(w, n + ".conv2d", F.pad(x, (1, 1, 1, 1), mode="reflect"), 2 if scale == "down" else 1, 0)
        if n + ".norm.norm.weight" in w:
            x = bn(w, n + ".norm.norm", x)
        return leaky(x) if act else x

    def block(n, x, scale):
        rest = layer(n + ".shortcut_func", x, scale) if n + ".shortcut_func.conv2d.weight" in w else x
        y = layer(n + ".conv1", x, "up" if scale == "up" else "none", True)
        return rest + layer(n + ".conv2", y, "down" if scale == "down" else "none")

    def blocks(name, first, x, scale):
        i = first
        while "%s.%d.conv1.conv2d.weight" % (name, i) in w:
            x, i = block("%s.%d" % (name, i), x, scale), i + 1
        return x

    feat = blocks("encoder", 1, layer("encoder.0", x), "down")
    return layer("out_mask_conv", blocks("decoder", 0, feat + blocks("body", 0, feat, "none"), "up"))


# ---- the steps around them ----

FFHQ = np.array([[192.98138, 239.94708], [318.90277, 240.1936], [256.63416, 314.01935], [201.26117, 371.41043],
                 [313.08905, 371.15118]])


def align(folder):
    """A picture, five points in it, the face cut out, another face pasted back, as facexlib does with OpenCV."""
    size = 512
    yy, xx = np.mgrid[0:300, 0:260]
    picture = np.stack([120 + 80 * np.sin(xx / 17.0), 120 + 80 * np.cos(yy / 13.0), 60 + (xx + yy) / 4], 2)
    picture = picture.clip(0, 255).astype(np.uint8)
    Image.fromarray(picture).save(folder + "/align.png", optimize=True)
    cases = [(0.36, 0.2, 30, 40, 0.0), (0.5, -0.3, -70, 90, 0.0), (0.3, 0.05, 60, 90, 9.0)]
    rows, points_all = [], []
    for k, (scale, angle, dx, dy, odd) in enumerate(cases):
        c, s = scale * np.cos(angle), scale * np.sin(angle)
        points = FFHQ @ np.array([[c, s], [-s, c]]) + [dx, dy]
        points += np.array([[0.6, -0.4], [-0.5, 0.3], [0.2, 0.7], [-0.3, -0.6], [0.1, 0.2]])
        points[2] += odd  # one point that does not agree
        points = points.astype(np.float32)
        m = cv2.estimateAffinePartial2D(points, FFHQ, method=cv2.LMEDS)[0]
        face = cv2.warpAffine(picture, m, (size, size), borderMode=cv2.BORDER_CONSTANT, borderValue=(132, 133, 135))
        other = 255 - face
        back = cv2.invertAffineTransform(m)
        h, w = picture.shape[:2]
        laid = cv2.warpAffine(other, back, (w, h))
        whole = cv2.erode(cv2.warpAffine(np.ones((size, size), np.float32), back, (w, h)), np.ones((2, 2), np.uint8))
        edge = int(whole.sum() ** 0.5) // 20
        soft = cv2.erode(whole, np.ones((2 * edge, 2 * edge), np.uint8))
        soft = cv2.GaussianBlur(soft, (2 * edge + 1, 2 * edge + 1), 0)[:, :, None]
        result = (soft * whole[:, :, None] * laid + (1 - soft) * picture).astype(np.uint8)
        Image.fromarray(result).save("%s/align-%d.png" % (folder, k), optimize=True)
        Image.fromarray(face[::8, ::8]).save("%s/align-%d-face.png" % (folder, k), optimize=True)
        rows.append(m.reshape(-1))
        points_all.append(points.reshape(-1))
    save(folder, "align", np.concatenate(points_all), np.concatenate(rows))
    blob = (((xx[:256, :256] - 120) ** 2 + (yy[:256, :256] - 140) ** 2) < 5000) * 255.0
    for _ in range(2):
        blob = cv2.GaussianBlur(blob, (101, 101), 11)
    save(folder, "soften", blob[::16, ::16])


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "faces")
    os.makedirs(folder, exist_ok=True)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, half in (("gfpgan", True), ("gfpgan-all", False)):
            t = gfpgan_table([4, 6, 6, 8], 12, [12, 10, 8, 8], half)
            t.write("%s/%s.txt" % (folder, name))
            y = gfpgan(t.weights(), draw("face", (1, 3, 32, 32), 1.0, 0.0))
            print(name, y.std(), y.abs().max())
            save(folder, name, y.permute(0, 2, 3, 1))
        t = codeformer_table(32, [1, 1, 2], 16, 24, 32, 2, [(64, 32), (32, 32)], 1)
        t.write(folder + "/codeformer.txt")
        results = []
        for fidelity in (0.0, 0.5, 1.0):
            y, codes = codeformer(t.weights(), draw("face", (1, 3, 64, 64), 1.0, 0.0), fidelity)
            print("codeformer", fidelity, y.std(), y.abs().max(), len(set(codes.tolist())), "codes")
            results.append(y.permute(0, 2, 3, 1)[:, ::4, ::4])
        save(folder, "codeformer", *results)
        t = retinaface_table(6, [4, 4, 6, 6], [2, 2, 2, 1], 4, 68)
        t.write(folder + "/retinaface.txt")
        out = retinaface(t.weights(), draw("picture", (1, 3, 90, 101), 100.0, 0.0))
        print("retinaface", [float(o.std()) for o in out])
        kept = faces_of(out, 101, 90, 0.55)
        print("faces", len(kept), kept[0][:5], kept[-1][4])
        save(folder, "retinaface", *[o.reshape(-1) for o in out])
        save(folder, "retinaface-faces", np.array(kept))
        t = parsenet_table(6, [8, 10], 2, 19)
        t.write(folder + "/parsenet.txt")
        y = parsenet(t.weights(), draw("face", (1, 3, 48, 40), 1.0, 0.0))
        print("parsenet", y.std())
        save(folder, "parsenet", y.permute(0, 2, 3, 1)[:, ::2, ::2])
    align(folder)


if __name__ == "__main__":
    main()
