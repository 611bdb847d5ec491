#!/usr/bin/env python3
"""Makes tests/golden/leres: a small LeReS with random weights and the depth map that it draws.

The network is controlnet_aux's in small widths; the steps around it are those of comfyui_controlnet_aux's LeresDetector
with its defaults, on a picture that needs no resizing. Units have groups of 3 to 8 channels, as the published ones have
of 8 to 64; the first stage's are more than our network takes at a time.
usage: make_leres.py [FOLDER]      (needs controlnet_aux, torch, opencv, Pillow)
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


def part():
    """network_auxi and Resnext_torch without the package's __init__, which wants more than they do."""
    root = importlib.util.find_spec("controlnet_aux").submodule_search_locations[0] + "/leres/leres"
    package = types.ModuleType("leres")
    package.__path__ = [root]
    sys.modules["leres"] = package
    resnet = types.ModuleType("leres.Resnet")  # only names are taken from it
    for n in (18, 34, 50, 101, 152):
        setattr(resnet, "resnet%d" % n, None)
    sys.modules["leres.Resnet"] = resnet
    return importlib.import_module("leres.network_auxi"), importlib.import_module("leres.Resnext_torch")


def small(network, resnext):
    """The encoder with narrow units and one or two of them a stage; the decoder to fit."""
    class Encoder(resnext.ResNet):
        def __init__(self):
            torch.nn.Module.__init__(self)
            nn = torch.nn
            self.conv1 = nn.Conv2d(3, 6, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(6)
            self.relu = nn.ReLU(inplace=True)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
            before = 6
            for i, (width, out, groups, count) in enumerate([(96, 12, 24, 2), (12, 8, 4, 1), (12, 12, 3, 1), (16, 10, 2, 2)]):
                units = []
                for k in range(count):
                    stride = 2 if i and k == 0 else 1
                    short = nn.Sequential(nn.Conv2d(before, out, 1, stride, bias=False), nn.BatchNorm2d(out)) if k == 0 else None
                    u = resnext.Bottleneck(before, 4, stride, short)
                    u.conv1, u.bn1 = nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width)
                    u.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
                    u.bn2, u.bn3 = nn.BatchNorm2d(width), nn.BatchNorm2d(out)
                    u.conv3 = nn.Conv2d(width, out, 1, bias=False)
                    units.append(u)
                    before = out
                setattr(self, "layer%d" % (i + 1), nn.Sequential(*units))

    class Decoder(network.Decoder):
        def __init__(self):
            torch.nn.Module.__init__(self)
            ins, mid = [12, 8, 12, 10], 8
            self.conv = network.FTB(ins[3], 12)
            self.conv1 = torch.nn.Conv2d(12, mid, 3, padding=1)
            self.upsample = torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            for i in (2, 1, 0):
                setattr(self, "ffm%d" % i, network.FFM(ins[i], mid, mid, 2))
            self.outconv = network.AO(mid, 1, 2)

    net = torch.nn.Module()
    net.encoder_modules = torch.nn.Module()
    net.encoder_modules.encoder = Encoder()
    net.decoder_modules = Decoder()
    return net


def fill(net, seed):
    g = torch.Generator().manual_seed(seed)
    for name, p in sorted(net.state_dict().items()):
        if not p.dtype.is_floating_point:
            continue
        n = torch.randn(p.shape, generator=g)
        if name.endswith("running_var"):
            p.copy_(1 + 0.2 * torch.rand(p.shape, generator=g))
        elif p.ndim > 1:
            p.copy_(1.4 * n / p[0].numel() ** 0.5)
        elif name.endswith("weight"):
            p.copy_(1 + 0.1 * n)
        else:
            p.copy_(0.1 * n)
        p.copy_(p.half().float())
    return net.eval()


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else HERE + "/leres"
    os.makedirs(folder, exist_ok=True)
    net = small(*part())
    with torch.no_grad():
        fill(net, 23)
        state = {k: v.half().contiguous() for k, v in net.state_dict().items() if "num_batches" not in k}
        torch.save({"depth_model": {"module.depth_model." + k: v for k, v in state.items()}, "epoch": 3},
                   folder + "/res101.pth")
        rgb = np.asarray(Image.open(HERE + "/annotators/picture.png").convert("RGB"))
        x = rgb[:, :, ::-1].copy().astype(np.float32)  # torchvision's ToTensor scales bytes only
        x = (torch.tensor(x).permute(2, 0, 1)[None] - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        x = x / torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        depth = net.decoder_modules(net.encoder_modules.encoder(x)).squeeze().numpy()
    print("depth", depth.shape, depth.min(), depth.max(), depth.std())
    out = 65535 * (depth - depth.min()) / (depth.max() - depth.min())
    grey = cv2.bitwise_not(cv2.convertScaleAbs(out.astype("uint16"), alpha=(255.0 / 65535.0)))
    Image.fromarray(grey).save(folder + "/depth.png")


if __name__ == "__main__":
    main()
