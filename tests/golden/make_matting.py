#!/usr/bin/env python3
"""Makes tests/golden/matting: pictures, masks and what rembg's alpha_matting cuts out of them.

The steps are rembg's alpha_matting_cutout with the values that the Horde's worker gives it (240, 10, squares of 10),
the two estimates are pymatting's.
usage: make_matting.py [FOLDER]      (needs pymatting, scipy, Pillow, numpy)
"""
import os
import sys

import numpy as np
from PIL import Image, ImageFilter
from pymatting.alpha.estimate_alpha_cf import estimate_alpha_cf
from pymatting.foreground.estimate_foreground_ml import estimate_foreground_ml
from scipy.ndimage import binary_erosion


def cut(rgb, mask):
    structure = np.ones((10, 10), dtype=np.uint8)
    fore = binary_erosion(mask > 240, structure=structure)
    back = binary_erosion(mask < 10, structure=structure, border_value=1)
    trimap = np.full(mask.shape, 128, dtype=np.uint8)
    trimap[fore] = 255
    trimap[back] = 0
    picture = rgb / 255.0
    alpha = estimate_alpha_cf(picture, trimap / 255.0)
    colour = estimate_foreground_ml(picture, alpha)
    print("sure", fore.mean(), back.mean(), "alpha between", ((alpha > 0.02) & (alpha < 0.98)).mean())
    return np.clip(np.concatenate([colour, alpha[:, :, None]], 2) * 255, 0, 255).astype(np.uint8)


def scene(w, h, seed):
    """A soft disc with spikes over a textured ground, and the mask that a network would give."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[0:h, 0:w]
    dx, dy = xx - w * 0.52, yy - h * 0.48
    angle, radius = np.arctan2(dy, dx), np.hypot(dx, dy)
    edge = min(w, h) * (0.34 + 0.03 * np.sin(9 * angle))
    alpha = np.clip((edge - radius) / 5 + 0.5, 0, 1)[:, :, None]
    ground = np.stack([90 + 60 * np.sin(xx / 9), 120 + yy * 0.6, 170 - xx * 0.5], 2) + rng.normal(0, 6, (h, w, 3))
    figure = np.stack([220 - yy * 0.3, 90 + 40 * np.cos(yy / 7), 50 + xx * 0.4], 2) + rng.normal(0, 6, (h, w, 3))
    rgb = (alpha * figure + (1 - alpha) * ground).clip(0, 255).astype(np.uint8)
    mask = Image.fromarray(((radius < edge) * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(2))
    return rgb, np.asarray(mask)


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "matting")
    os.makedirs(folder, exist_ok=True)
    for name, size in (("wide", (104, 72)), ("tall", (61, 90))):
        rgb, mask = scene(*size, seed=len(name) + size[0])
        Image.fromarray(rgb).save("%s/%s.png" % (folder, name), optimize=True)
        Image.fromarray(mask).save("%s/%s_mask.png" % (folder, name), optimize=True)
        Image.fromarray(cut(rgb, mask)).save("%s/%s_cut.png" % (folder, name), optimize=True)


if __name__ == "__main__":
    main()
