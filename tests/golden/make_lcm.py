#!/usr/bin/env python3
"""Makes tests/golden/lcm: a small UNet that is told the guidance scale, and one call of it by diffusers.

usage: make_lcm.py [FOLDER]      (needs torch, diffusers, safetensors)
"""
import math
import os
import sys

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny_models

folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "lcm")
os.makedirs(folder, exist_ok=True)
unet = UNet2DConditionModel(
    sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 16),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    cross_attention_dim=16, attention_head_dim=8, norm_num_groups=8, time_cond_proj_dim=32)
tiny_models.spread(unet, 41).eval()
g = torch.Generator().manual_seed(42)
x, text = torch.randn(1, 4, 8, 16, generator=g), torch.randn(1, 77, 16, generator=g)
scale, half = 4.5, 16
f = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000.0) / (half - 1)))
w = (scale - 1) * 1000 * f
with torch.no_grad():
    y = unet(x, torch.tensor(499), text, timestep_cond=torch.cat([w.sin(), w.cos()])[None]).sample
save_file(unet.state_dict(), folder + "/unet.safetensors", metadata={"format": "pt"})
save_file({"x": x, "text": text, "y": y.contiguous()}, folder + "/golden.safetensors")
print(y.std())
