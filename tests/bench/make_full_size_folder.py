"""Writes a Stable Diffusion 1.5 of full size with random weights as a diffusers folder.

usage: make_full_size_folder.py FOLDER [fp16|bf16|fp32]

For measuring speed and memory where no checkpoint is at hand; the pictures are noise. Needs torch,
diffusers and transformers. The tokenizer is not written: Kiln brings its own vocabulary.
"""
import os
import sys

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

UNET = dict(
    sample_size=64, in_channels=4, out_channels=4,
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, cross_attention_dim=768,
    attention_head_dim=8)
VAE = dict(
    in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(128, 256, 512, 512),
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=2, sample_size=512, scaling_factor=0.18215)
TEXT = dict(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
    vocab_size=49408, max_position_embeddings=77, projection_dim=768, hidden_act="quick_gelu",
    bos_token_id=49406, eos_token_id=49407)


def main():
    folder = sys.argv[1]
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[
        sys.argv[2] if len(sys.argv) > 2 else "fp16"]
    torch.manual_seed(20261124)
    for name, make in (("unet", lambda: UNet2DConditionModel(**UNET)),
                       ("vae", lambda: AutoencoderKL(**VAE)),
                       ("text_encoder", lambda: CLIPTextModel(CLIPTextConfig(**TEXT)))):
        model = make().to(dtype)
        model.save_pretrained(os.path.join(folder, name), safe_serialization=True)
        del model
    with open(os.path.join(folder, "model_index.json"), "w") as f:
        f.write('{"_class_name": "StableDiffusionPipeline",\n'
                ' "scheduler": ["diffusers", "PNDMScheduler"],\n'
                ' "text_encoder": ["transformers", "CLIPTextModel"],\n'
                ' "unet": ["diffusers", "UNet2DConditionModel"],\n'
                ' "vae": ["diffusers", "AutoencoderKL"]}\n')


main()
