#!/usr/bin/env python3
"""Makes tests/golden/taesd: a tiny decoder in both dialects and what diffusers decodes with it.

usage: make_taesd.py [FOLDER]      (needs torch, diffusers, safetensors)
"""
import os
import sys

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "taesd")
os.makedirs(folder, exist_ok=True)
torch.manual_seed(3)
tiny = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4).eval()
z = 2 * torch.randn(1, 4, 6, 5)
with torch.no_grad():
    y = tiny.decode(z).sample
state = {k: v.contiguous() for k, v in tiny.state_dict().items()}
save_file(state, folder + "/diffusers.safetensors")
plain = {}
for k, v in state.items():
    if k.startswith("decoder.layers."):
        n, rest = k[len("decoder.layers."):].split(".", 1)
        plain["%d.%s" % (int(n) + 1, rest)] = v
torch.save(plain, folder + "/taesd_decoder.pth")
save_file({"z": z, "y": y.contiguous()}, folder + "/golden.safetensors")
print(sorted(plain)[:4], y.std())
