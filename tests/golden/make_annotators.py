#!/usr/bin/env python3
"""Makes tests/golden/annotators: small random annotators and the maps that the Python ones draw.

Needs controlnet_aux (its networks and detectors, in small widths), torch, opencv, Pillow.
usage: make_annotators.py [FOLDER]
"""
import importlib.util
import os
import sys
import types

import cv2
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))


def part(name):
    """A module of controlnet_aux without its __init__, which wants every detector's packages."""
    if "controlnet_aux" not in sys.modules:
        root = importlib.util.find_spec("controlnet_aux").submodule_search_locations[0]
        package = types.ModuleType("controlnet_aux")
        package.__path__ = [root]
        sys.modules["controlnet_aux"] = package
    outer, _, inner = name.partition(".")
    if inner and "controlnet_aux." + outer not in sys.modules:
        package = types.ModuleType("controlnet_aux." + outer)
        package.__path__ = [sys.modules["controlnet_aux"].__path__[0] + "/" + outer]
        sys.modules["controlnet_aux." + outer] = package
    return importlib.import_module("controlnet_aux." + name)


def fill(module, seed, gain=1.0):
    g = torch.Generator().manual_seed(seed)
    for name, p in sorted(module.state_dict().items()):
        if not p.dtype.is_floating_point:
            continue
        n = torch.randn(p.shape, generator=g)
        if name.endswith("running_var"):
            p.copy_(1 + 0.2 * torch.rand(p.shape, generator=g))
        elif p.ndim > 1 and "norm" not in name:
            p.copy_(gain * n / p[0].numel() ** 0.5)
        elif name.endswith("weight"):
            p.copy_(1 + 0.1 * n)
        else:
            p.copy_(0.1 * n)
    return module.eval()


def picture(size, seed=3):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8))
    return small.resize(size, Image.BICUBIC)


def hed(folder):
    m = part("hed")

    class Small(m.ControlNetHED_Apache2):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.norm = torch.nn.Parameter(torch.zeros(size=(1, 3, 1, 1)))
            widths = [(3, 6, 2), (6, 8, 2), (8, 8, 3), (8, 10, 3), (10, 10, 3)]
            for i, (a, b, n) in enumerate(widths):
                setattr(self, "block%d" % (i + 1), m.DoubleConvBlock(a, b, n))

    net = fill(Small(), 5, 1.4)
    net.norm.data = torch.tensor([120.0, 110, 100]).view(1, 3, 1, 1)
    for i in range(5):  # pixels are large numbers: keep the edges' logits near zero
        getattr(net, "block%d" % (i + 1)).projection.weight.data *= 0.03
    torch.save(net.state_dict(), folder + "/ControlNetHED.pth")
    detector = m.HEDdetector(net)
    source = Image.open(folder + "/picture.png")
    kw = dict(detect_resolution=128, image_resolution=128)
    detector(source, **kw).save(folder + "/softedge.png")
    # the Horde's worker leaves `safe` at the node's default, which is on
    detector(source, safe=True, **kw).save(folder + "/hed.png")
    detector(source, safe=True, scribble=True, **kw).save(folder + "/fakescribbles.png")


def mlsd(folder):
    m = part("mlsd.models.mbv2_mlsd_large")

    class Backbone(m.MobileNetV2):
        def __init__(self):
            torch.nn.Module.__init__(self)
            channels, features = 6, [m.ConvBNReLU(4, 6, stride=2)]
            for t, c, n, s in [[1, 4, 1, 1], [3, 4, 2, 2], [3, 6, 3, 2], [3, 6, 4, 2], [3, 8, 3, 1]]:
                for i in range(n):
                    features.append(m.InvertedResidual(channels, c, s if i == 0 else 1, expand_ratio=t))
                    channels = c
            self.features = torch.nn.Sequential(*features)
            self.fpn_selected = [1, 3, 6, 10, 13]

    class Small(m.MobileV2_MLSD_Large):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.backbone = Backbone()
            for i, (a, b, up) in enumerate([(6, 8, False), (6, 6, True), (4, 6, True), (4, 6, True)]):
                setattr(self, "block%d" % (15 + 2 * i), m.BlockTypeA(a, b, 6, 6, upscale=up))
                setattr(self, "block%d" % (16 + 2 * i), m.BlockTypeB(12, 6))
            self.block23 = m.BlockTypeC(6, 16)

    net = fill(Small(), 8, 1.5)
    net.block23.conv3.bias.data[7] = -3.4  # some centres, not all
    net.block23.conv3.weight.data[8:12] *= 8  # and lines of some length
    state = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    save_file(state, folder + "/mlsd_large_512_fp32.safetensors")
    utils = part("mlsd.utils")
    source = np.asarray(Image.open(folder + "/picture.png"))
    out = np.zeros_like(source)
    with torch.no_grad():
        lines = utils.pred_lines(source, net, list(source.shape[:2]), 0.1, 0.1)
    for line in lines:
        a, b, c, d = [int(v) for v in line]
        cv2.line(out, (a, b), (c, d), [255, 255, 255], 1)
    print("lines", len(lines), "lit", (out[:, :, 0] > 0).mean())
    Image.fromarray(out).save(folder + "/mlsd.png")


def depth(folder):
    """DPT-Hybrid as transformers builds it; the maps as comfyui_controlnet_aux' MidasDetector."""
    from transformers import BitConfig, DPTConfig, DPTForDepthEstimation
    bit = BitConfig(global_padding="same", layer_type="bottleneck", depths=[1, 1, 2], embedding_size=32,
                    hidden_sizes=[128, 128, 128], out_features=["stage1", "stage2", "stage3"],
                    embedding_dynamic_padding=True)
    config = DPTConfig(is_hybrid=True, backbone_config=bit, hidden_size=16, num_hidden_layers=4,
                       num_attention_heads=1, intermediate_size=24, image_size=64, patch_size=16,
                       backbone_featmap_shape=[1, 128, 4, 4], backbone_out_indices=[0, 1, 2, 3],
                       neck_hidden_sizes=[128, 128, 12, 12], reassemble_factors=[1, 1, 1, 0.5],
                       neck_ignore_stages=[0, 1], readout_type="project", fusion_hidden_size=8,
                       use_batch_norm_in_fusion_residual=False)
    net = fill(DPTForDepthEstimation(config), 11, 1.2)
    net.head.head[4].bias.data += 2  # the last ReLU shall keep most
    net.load_state_dict({k: v.half().float() for k, v in net.state_dict().items()})
    state = {k: v.half().contiguous() for k, v in net.state_dict().items()}
    save_file(state, folder + "/dpt-hybrid-midas.safetensors")
    print([k for k in state if "ayer" in k and "0" in k])
    source = Image.open(folder + "/picture.png")
    small = np.asarray(source.resize((64, 64), Image.BICUBIC), dtype=np.float32)
    x = torch.tensor(small / 127.5 - 1).permute(2, 0, 1)[None]
    d = net(x).predicted_depth
    d = torch.nn.functional.interpolate(d[:, None], size=(128, 192), mode="bicubic", align_corners=False)[0, 0]
    near = d - d.min()
    near = (near / near.max()).numpy()
    grey = (near * 255).clip(0, 255).astype(np.uint8)
    print("depth", d.min(), d.max(), grey.std())
    Image.fromarray(grey).save(folder + "/depth.png")
    gx, gy = (cv2.Sobel(d.numpy(), cv2.CV_32F, a, b, ksize=3) for a, b in ((1, 0), (0, 1)))
    gx[near < 0.1] = 0
    gy[near < 0.1] = 0
    normal = np.stack([gx, gy, np.full_like(gx, np.pi * 2)], axis=2)
    normal /= np.sum(normal ** 2, axis=2, keepdims=True) ** 0.5
    Image.fromarray((normal * 127.5 + 127.5).clip(0, 255).astype(np.uint8)[:, :, ::-1]).save(folder + "/normal.png")


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else HERE + "/annotators"
    os.makedirs(folder, exist_ok=True)
    picture((192, 128)).save(folder + "/picture.png")
    with torch.no_grad():
        hed(folder)
        mlsd(folder)
        depth(folder)


if __name__ == "__main__":
    main()
