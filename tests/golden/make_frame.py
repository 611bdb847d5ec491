#!/usr/bin/env python3
"""Makes tests/golden/frame: pictures as the Horde's worker hands them to its annotators, and maps as ComfyUI hands them
to a ControlNet.

The first is what comfyui_controlnet_aux documents (resize_image_with_pad: the shorter side to the resolution, by cubics
or by area, both sides filled up to multiples of 64 with the border), here with OpenCV and numpy; the second
(common_upscale: nearest-exact, cut evenly) with torch.
usage: make_frame.py [FOLDER]      (needs opencv, torch, Pillow)
"""
import os
import sys

import cv2
import numpy as np
import torch
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))


def frame(rgb, side, way):
    h, w = rgb.shape[:2]
    k = side / min(h, w)
    nh, nw = int(np.round(h * k)), int(np.round(w * k))
    rgb = cv2.resize(rgb, (nw, nh), interpolation=way)
    print("frame", side, (nw, nh))
    return np.pad(rgb, [[0, -nh % 64], [0, -nw % 64], [0, 0]], mode="edge")


def hint(rgb, width, height):
    x = torch.tensor(rgb).permute(2, 0, 1)[None].float()
    h, w = x.shape[2:]
    have, want, left, top = w / h, width / height, 0, 0
    if have > want:
        left = round((w - w * (want / have)) / 2)
    elif have < want:
        top = round((h - h * (have / want)) / 2)
    x = x[:, :, top:h - top, left:w - left]
    return torch.nn.functional.interpolate(x, (height, width), mode="nearest-exact")[0].permute(1, 2, 0).byte().numpy()


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else HERE + "/frame"
    os.makedirs(folder, exist_ok=True)
    rgb = np.asarray(Image.open(HERE + "/seg/part.png").convert("RGB"))

    def save(name, x):
        Image.fromarray(np.ascontiguousarray(x)).save(folder + "/%s.png" % name, optimize=True)

    save("cubic", frame(rgb, 90, cv2.INTER_CUBIC))
    save("area", frame(rgb, 90, cv2.INTER_AREA))
    save("same", frame(rgb, 70, cv2.INTER_CUBIC))
    save("wide", hint(rgb, 96, 40))
    save("tall", hint(rgb, 72, 120))


if __name__ == "__main__":
    main()
