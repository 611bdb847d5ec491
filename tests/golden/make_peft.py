#!/usr/bin/env python3
"""Makes tests/golden/peft: adapters as PEFT saves them (OFT, BOFT, VeRA) and the weights that it merges.

A folder a case, with adapter_model.safetensors and adapter_config.json; weights.safetensors holds NAME.base and
CASE.NAME. BOFT of several factors needs PEFT's CUDA extension only to put blocks on a diagonal; torch does it here.
usage: make_peft.py [FOLDER]      (needs peft, torch, safetensors)
"""
import os
import shutil
import sys

import peft.tuners.boft.layer as boft_layer
import torch
from peft import BOFTConfig, OFTConfig, VeraConfig, get_peft_model
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = {
    "oft-series": OFTConfig(r=0, oft_block_size=4, use_cayley_neumann=True),
    "oft-seven-terms": OFTConfig(r=2, oft_block_size=0, use_cayley_neumann=True, num_cayley_neumann_terms=7),
    "oft-three-terms": OFTConfig(r=4, oft_block_size=0, use_cayley_neumann=True, num_cayley_neumann_terms=3),
    "oft-exact": OFTConfig(r=0, oft_block_size=6, use_cayley_neumann=False),
    "oft-shared": OFTConfig(r=0, oft_block_size=4, use_cayley_neumann=False, block_share=True),
    "oft-bounded": OFTConfig(r=0, oft_block_size=4, use_cayley_neumann=False, coft=True, eps=0.3),
    "boft": BOFTConfig(boft_block_size=4),
    "boft-by-number": BOFTConfig(boft_block_size=0, boft_block_num=3),
    "boft-three-factors": BOFTConfig(boft_block_size=2, boft_n_butterfly_factor=3),
    "vera": VeraConfig(r=5, save_projection=True),
    "vera-bare": VeraConfig(r=5, save_projection=False),
}


class Part(torch.nn.Module):
    pass


def model():
    torch.manual_seed(31)
    root, attn = Part(), Part()
    attn.to_q = torch.nn.Linear(24, 16, bias=False)
    attn.to_k = torch.nn.Linear(48, 16, bias=False)
    root.attn1 = attn
    root.conv1 = torch.nn.Conv2d(8, 6, 3, padding=1)
    return root


class Diagonal:
    @staticmethod
    def apply(blocks):
        return torch.stack([torch.block_diag(*torch.unbind(b)) for b in blocks])


def make(folder, name, config):
    boft_layer.get_fbd_cuda = lambda: True
    boft_layer.FastBlockDiag = Diagonal
    config.target_modules = ["to_q", "to_k"] if name.startswith("vera") else ["to_q", "to_k", "conv1"]
    net = get_peft_model(model(), config)
    g = torch.Generator().manual_seed(sum(map(ord, name)))
    with torch.no_grad():
        for key, p in sorted(net.named_parameters()):
            if p.requires_grad:
                near = 1.0 if "boft_s" in key else 0.0
                p.copy_(near + 0.3 * torch.randn(p.shape, generator=g))
        shutil.rmtree(folder + "/" + name, ignore_errors=True)
        net.save_pretrained(folder + "/" + name)
        for extra in os.listdir(folder + "/" + name):
            if extra not in ("adapter_model.safetensors", "adapter_config.json"):
                os.remove("%s/%s/%s" % (folder, name, extra))
        print(name, {k: tuple(v.shape) for k, v in load_file("%s/%s/adapter_model.safetensors" % (folder, name)).items()})
        merged = net.merge_and_unload()
    return {k[:-len(".weight")]: v.clone() for k, v in merged.state_dict().items() if k.endswith(".weight")}


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else HERE + "/peft"
    os.makedirs(folder, exist_ok=True)
    out = {k.replace(".weight", ".base"): v for k, v in model().state_dict().items() if k.endswith(".weight")}
    for name, config in CASES.items():
        merged = make(folder, name, config)
        if name != "vera-bare":
            out.update({"%s.%s" % (name, k): v.contiguous() for k, v in merged.items() if k not in ("conv1",) or "vera" not in name})
    save_file(out, folder + "/weights.safetensors")


if __name__ == "__main__":
    main()
