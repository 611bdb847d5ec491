#!/usr/bin/env python3
"""Writes the names and shapes of the published single-file layouts, for test_keys.c.

They come from diffusers' and transformers' modules, built without memory (meta device) from the published
configurations and renamed by tiny_models.py, and from the list of buffers that the original training
code saves beside the networks. One line a tensor: name, then its dimensions.

usage: make_keys.py [FOLDER]      (needs torch, diffusers, transformers)
"""
import gzip
import os
import sys

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tiny_models as tiny

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
UP_CROSS, UP_PLAIN = "CrossAttnUpBlock2D", "UpBlock2D"


def state(module):
    return {k: v for k, v in module.state_dict().items() if "position_ids" not in k}


def text(width, layers, heads, projection=None):
    config = CLIPTextConfig(vocab_size=49408, hidden_size=width, intermediate_size=4 * width,
                            num_hidden_layers=layers, num_attention_heads=heads,
                            projection_dim=projection or width)
    return state((CLIPTextModelWithProjection if projection else CLIPTextModel)(config))


def vae():
    return state(AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4, block_out_channels=[128, 256, 512, 512], layers_per_block=2))


def xl_unet(channels, depth, cross, vector, context):
    return state(UNet2DConditionModel(
        cross_attention_dim=context, attention_head_dim=[c // 64 for c in channels], block_out_channels=channels,
        down_block_types=[CROSS if c else PLAIN for c in cross],
        up_block_types=[UP_CROSS if c else UP_PLAIN for c in reversed(cross)], transformer_layers_per_block=depth,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=vector))


SCHEDULE = ["betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod",
            "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod",
            "sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped",
            "posterior_mean_coef1", "posterior_mean_coef2"]


def schedule():
    return {k: torch.empty(1000) for k in SCHEDULE}


def ema(unet):
    """Copies of the UNet as Lightning's averaging saves them: no dots in the names."""
    out = {"model_ema." + k.replace("model.diffusion_model.", "diffusion_model.").replace(".", ""): v
           for k, v in list(unet.items())[:40]}
    out["model_ema.decay"] = torch.empty(())
    out["model_ema.num_updates"] = torch.empty(())
    return out


def sd1(in_channels=4):
    unet = tiny.ldm_unet(state(UNet2DConditionModel(in_channels=in_channels, cross_attention_dim=768,
                                                    attention_head_dim=8)), 4)
    out = dict(unet, **tiny.ldm_vae(vae(), 4))
    out.update(tiny.hf_text(text(768, 12, 12), "cond_stage_model.transformer."))
    out["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.empty(1, 77)
    return dict(out, **schedule(), **ema(unet))


def sd2():
    unet = tiny.ldm_unet(state(UNet2DConditionModel(cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20],
                                                    use_linear_projection=True)), 4)
    out = dict(unet, **tiny.ldm_vae(vae(), 4))
    out.update(tiny.openclip(text(1024, 24, 16, 1024), "cond_stage_model.model.", 24))
    out["cond_stage_model.model.logit_scale"] = torch.empty(())
    return dict(out, **schedule())


def sdxl():
    unet = tiny.ldm_unet(xl_unet([320, 640, 1280], [1, 2, 10], [0, 1, 1], 2816, 2048), 3)
    out = dict(unet, **tiny.ldm_vae(vae(), 4))
    out.update(tiny.hf_text(text(768, 12, 12), "conditioner.embedders.0.transformer."))
    out["conditioner.embedders.0.transformer.text_model.embeddings.position_ids"] = torch.empty(1, 77)
    out.update(tiny.openclip(text(1280, 32, 20, 1280), "conditioner.embedders.1.model.", 32))
    out["conditioner.embedders.1.model.logit_scale"] = torch.empty(())
    out["denoiser.sigmas"] = torch.empty(1000)
    return out


def refiner():
    unet = tiny.ldm_unet(xl_unet([384, 768, 1536, 1536], [1, 4, 4, 4], [0, 1, 1, 0], 2560, 1280), 4)
    out = dict(unet, **tiny.ldm_vae(vae(), 4))
    out.update(tiny.openclip(text(1280, 32, 20, 1280), "conditioner.embedders.0.model.", 32))
    return out


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "keys")
    os.makedirs(folder, exist_ok=True)
    with torch.device("meta"):
        layouts = {"sd15": sd1(), "sd15-inpainting": sd1(9), "sd21": sd2(), "sdxl": sdxl(), "refiner": refiner()}
    for name, tensors in layouts.items():
        lines = ["%s %s\n" % (k, " ".join(map(str, v.shape))) for k, v in sorted(tensors.items())]
        with gzip.GzipFile("%s/%s.txt.gz" % (folder, name), "wb", mtime=0) as f:
            f.write("".join(lines).encode())
        count = sum(v.numel() for k, v in tensors.items() if k.startswith("model.diffusion_model."))
        print("%s: %d tensors, UNet %.2f M" % (name, len(lines), count / 1e6))


if __name__ == "__main__":
    main()
