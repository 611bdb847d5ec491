#!/usr/bin/env python3
"""Makes tests/golden/layered: transparent pictures (LayerDiffuse) of the tiny SD1 and SDXL models.

The reference is written out from the paper and the public node's behaviour over diffusers' blocks and
attention modules, in fp32; make_goldens.py draws. Needs what make_goldens.py needs.

usage: make_layered.py (over tests/golden/reference)"""
import json
import os
import sys

import numpy as np
import torch
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D, get_down_block, get_up_block
from PIL import Image
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import make_goldens as mg
import tiny_models

OUT, DATA = HERE + "/layered", HERE + "/reference"
torch.set_num_threads(1)
torch.set_grad_enabled(False)


class AlphaDecoder(torch.nn.Module):
    """A UNet over the picture; latents come in after three halvings."""

    def __init__(self, widths, attends):
        super().__init__()
        common = dict(resnet_eps=1e-5, resnet_act_fn="silu", resnet_groups=4, attention_head_dim=8)
        self.conv_in = torch.nn.Conv2d(3, widths[0], 3, padding=1)
        self.latent_conv_in = torch.nn.Conv2d(4, widths[2], 1)
        last = len(widths) - 1
        down, up = [], []
        for i, (w, a) in enumerate(zip(widths, attends)):
            down.append(get_down_block("AttnDownBlock2D" if a else "DownBlock2D", num_layers=2,
                                       in_channels=widths[max(i - 1, 0)], out_channels=w, temb_channels=None,
                                       add_downsample=i < last, downsample_padding=1, downsample_type="conv", **common))
        self.down_blocks = torch.nn.ModuleList(down)
        self.mid_block = UNetMidBlock2D(in_channels=widths[-1], temb_channels=None, dropout=0.0, attn_groups=None,
                                        add_attention=True, **common)
        previous = widths[-1]
        for k in range(len(widths)):
            i = last - k
            up.append(get_up_block("AttnUpBlock2D" if attends[i] else "UpBlock2D", num_layers=3,
                                   in_channels=widths[max(i - 1, 0)], out_channels=widths[i],
                                   prev_output_channel=previous, temb_channels=None, add_upsample=i > 0,
                                   upsample_type="conv", **common))
            previous = widths[i]
        self.up_blocks = torch.nn.ModuleList(up)
        self.conv_norm_out = torch.nn.GroupNorm(4, widths[0], 1e-5)
        self.conv_out = torch.nn.Conv2d(widths[0], 4, 3, padding=1)

    def forward(self, x, z):
        h = self.conv_in(x)
        skips = [h]
        for i, block in enumerate(self.down_blocks):
            if i == 3:
                h = h + self.latent_conv_in(z)
            h, more = block(hidden_states=h, temb=None)
            skips += more
        h = self.mid_block(h, None)
        for block in self.up_blocks:
            n = len(block.resnets)
            h = block(h, tuple(skips[-n:]), None)
            skips = skips[:-n]
        return self.conv_out(torch.nn.functional.silu(self.conv_norm_out(h)))


def eight_ways(net, x, z):
    views = []
    for flip in (False, True):
        for k in range(4):
            a, b = (torch.flip(t, (3,)) if flip else t for t in (x, z))
            y = net(torch.rot90(a, k, (2, 3)), torch.rot90(b, k, (2, 3))).clip(0, 1)
            y = torch.rot90(y, -k, (2, 3))
            views.append(torch.flip(y, (3,)) if flip else y)
    return torch.median(torch.stack(views), dim=0).values


def lively(module, seed, gain=1.0):
    """Weights and biases of a size that keeps every part visible in the result, rounded to fp16."""
    g = torch.Generator().manual_seed(seed)
    for name, p in module.named_parameters():
        if p.dim() > 1:
            p.copy_(torch.randn(p.shape, generator=g) * gain / (p[0].numel() ** 0.5))
        elif "norm" in name and name.endswith("weight"):
            p.copy_(1 + 0.2 * torch.randn(p.shape, generator=g))
        else:
            p.copy_(0.1 * torch.randn(p.shape, generator=g))
        p.copy_(p.half().float())
    return module.eval()


def teach(net, vae, steps=250):
    """A little of what such a decoder learns, so that it is no amplifier of noise: colours are the
    picture's, and what is bright is opaque."""
    torch.manual_seed(5)
    with torch.enable_grad():
        optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
        for p in net.parameters():
            p.requires_grad_(True)
        for _ in range(steps):
            z = torch.nn.functional.interpolate(torch.randn(4, 4, 3, 3), size=(8, 8), mode="bicubic")
            with torch.no_grad():
                x = (vae.decode(z).sample / 2 + 0.5).clip(0, 1)
            alpha = torch.sigmoid(12 * (x.mean(1, keepdim=True) - 0.5))
            loss = torch.nn.functional.mse_loss(net(x, z), torch.cat([alpha, x], 1))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for p in net.parameters():
        p.requires_grad_(False)
        p.copy_(p.half().float())
    print("decoder taught: loss", float(loss))
    return net.eval()


# --- SD1: attention that shares ---


def sd1_attentions(unet):
    """In the node's order: the way down, the way up, the middle; attn1 and attn2 of each."""
    blocks = [unet.down_blocks[i].attentions[j] for i in range(3) for j in range(2)]
    blocks += [unet.up_blocks[i].attentions[j] for i in range(1, 4) for j in range(3)]
    blocks.append(unet.mid_block.attentions[0])
    return [a for b in blocks for a in (b.transformer_blocks[0].attn1, b.transformer_blocks[0].attn2)]


class Shared(torch.nn.Module):
    RANK = 2

    def __init__(self, attention):
        super().__init__()
        self.attention = [attention]
        width = attention.to_q.weight.shape[0]
        for name, layer in self.layers():
            pair = torch.nn.Module()
            pair.down = torch.nn.Linear(layer.weight.shape[1], self.RANK, bias=False)
            pair.up = torch.nn.Linear(self.RANK, layer.weight.shape[0], bias=False)
            setattr(self, name + "_lora", torch.nn.ModuleList([pair]))
        for part in "iqkvo":
            setattr(self, "temporal_" + part, torch.nn.Linear(width, width))
        self.temporal_n = torch.nn.LayerNorm(width, eps=1e-6)

    def layers(self):
        a = self.attention[0]
        return [("to_q", a.to_q), ("to_k", a.to_k), ("to_v", a.to_v), ("to_out", a.to_out[0])]

    def __call__(self, hidden_states, encoder_hidden_states=None, **kw):
        h = hidden_states
        context = h if encoder_hidden_states is None else encoder_hidden_states

        def apply(name, x):
            layer, pair = dict(self.layers())[name], getattr(self, name + "_lora")[0]
            return torch.nn.functional.linear(x, layer.weight + pair.up.weight @ pair.down.weight, layer.bias)

        heads = self.attention[0].heads

        def attend(q, k, v):
            split = [t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v)]
            return torch.nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)

        m = h + apply("to_out", attend(apply("to_q", h), apply("to_k", context), apply("to_v", context)))
        x = self.temporal_i(self.temporal_n(m))
        b, d, c = x.shape
        x = x.reshape(b * d, 1, c)  # one frame: a sequence of one
        x = attend(self.temporal_q(x), self.temporal_k(x), self.temporal_v(x))
        m = m + self.temporal_o(x).reshape(b, d, c)
        return m - h


def share(unet, seed):
    units = torch.nn.ModuleList([lively(Shared(a), seed + i, 0.4) for i, a in enumerate(sd1_attentions(unet))])
    state = {"hookers.layers.%d.%s" % (i, k): v.clone() for i, u in enumerate(units) for k, v in u.state_dict().items()}
    for a, u in zip(sd1_attentions(unet), units):
        a.forward = u.__call__
    return state


# --- SDXL: full differences of its convolutions ---


def differ(unet, seed):
    g = torch.Generator().manual_seed(seed)
    before = {k: v.clone() for k, v in unet.state_dict().items()}
    for name, m in unet.named_modules():
        if isinstance(m, torch.nn.Conv2d):
            d = torch.randn(m.weight.shape, generator=g) * 0.2 * m.weight.std()
            m.weight.add_(d.half().float())
    after = tiny_models.ldm_unet({k: v.clone() for k, v in unet.state_dict().items()}, 3)
    out = {}
    for k, v in tiny_models.ldm_unet(before, 3).items():
        if not torch.equal(v, after[k]):
            out[k.removeprefix("model.") + "::diff::0"] = (after[k] - v).half()
    return out


def main():
    os.makedirs(OUT, exist_ok=True)
    tokenizer = mg.CLIPTokenizer.from_pretrained(DATA + "/models/tokenizer")
    widths, attends = (4, 4, 8, 8, 8, 8, 8), (False,) * 4 + (True,) * 3
    cases = []
    for kind, change, decoder, size in (
            ("sd1", "layer_sd15_transparent_attn", "layer_sd15_vae_transparent_decoder", (128, 64)),
            ("sdxl", "layer_xl_transparent_conv", "vae_transparent_decoder", (64, 128))):
        ref = mg.Reference(DATA + "/models/" + kind, tokenizer)
        change_state = share(ref.unet, 900) if kind == "sd1" else differ(ref.unet, 901)
        net = lively(AlphaDecoder(widths, attends), 910 + len(cases), 1.0)
        teach(net, ref.vae)
        save_file({k: v.half().contiguous() for k, v in change_state.items()}, "%s/%s.safetensors" % (OUT, change))
        save_file({k: v.half().contiguous() for k, v in net.state_dict().items()}, "%s/%s.safetensors" % (OUT, decoder))
        case = {"model": kind, "prompt": "a photo of the red house near a river", "negative": "blurry, low quality",
                "width": size[0], "height": size[1], "steps": 6, "cfg": 5.0, "sampler": "k_euler", "schedule": "normal",
                "seed": 77 + len(cases), "id": "layered-" + kind}
        images, latent, _, _, _ = mg.run_case(ref, case, DATA)
        latent = latent[:1]
        x = (ref.vae.decode(latent / ref.scale).sample / 2 + 0.5).clip(0, 1)
        z = latent / ref.scale
        y = eight_ways(net, x, z)[0]
        rgba = torch.cat([y[1:], y[:1]]).permute(1, 2, 0).numpy()
        Image.fromarray((rgba * 255).round().astype(np.uint8)).save("%s/%s.png" % (OUT, case["id"]))
        if kind == "sd1":  # the decoder by itself
            save_file({"x": x[0].contiguous(), "z": z[0].contiguous(), "median": y.contiguous()}, OUT + "/decoder.safetensors")
        print(case["id"], "alpha", float(y[0].min()), float(y[0].mean()), float(y[0].max()),
              "colour", float(y[1:].mean()), float(y[1:].std()))
        cases.append(case)
    json.dump(cases, open(OUT + "/cases.json", "w"), indent=1)


if __name__ == "__main__":
    main()
