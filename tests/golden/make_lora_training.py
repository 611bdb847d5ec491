"""Goldens of LoRA training on the tiny UNets T1 (SD1) and T2 (SDXL), computed in double by torch, diffusers
and PEFT: every adapter's gradient at one point, and the losses of twenty steps of AdamW.

    python tests/golden/make_lora_training.py tests/golden/data

Weights and starting values follow tests/support/golden_weights.h. A line of lora_gradients_*.txt is the
kohya name of an adapter's matrix, the norm of its gradient and the gradient's product with R(7)."""
import math
import re
import sys
import zlib

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, get_peft_model

RANK = 2


def normal(seed, shape):
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


RES = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
       "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
TOP = {"conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0",
       "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
       "add_embedding.linear_2": "label_emb.0.2", "conv_norm_out": "out.0", "conv_out": "out.2"}


def ldm_name(name, unet):
    """The LDM name of a diffusers module or parameter path (model-formats 4.3)."""
    for hf, ldm in TOP.items():
        if name == hf or name.startswith(hf + "."):
            return ldm + name[len(hf):]
    m = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name)
    if m:
        side, i, kind, j, rest = m[1], int(m[2]), m[3], int(m[4]), m[5]
        index = 3 * i + j + (1 if side == "down" else 0)
        part = "input_blocks" if side == "down" else "output_blocks"
        if kind == "resnets":
            head, _, tail = rest.partition(".")
            return f"{part}.{index}.0.{RES[head]}" + (f".{tail}" if tail else "")
        return f"{part}.{index}.1.{rest}"
    m = re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv(.*)", name)
    if m:
        return f"input_blocks.{3 * int(m[1]) + 3}.0.op{m[2]}"
    m = re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv(.*)", name)
    if m:
        attention = bool(getattr(unet.up_blocks[int(m[1])], "attentions", None))
        return f"output_blocks.{3 * int(m[1]) + 2}.{2 if attention else 1}.conv{m[2]}"
    m = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name)
    if m[1] == "attentions":
        return f"middle_block.1.{m[3]}"
    head, _, tail = m[3].partition(".")
    return f"middle_block.{2 * int(m[2])}.{RES[head]}" + (f".{tail}" if tail else "")


def golden_weight(key, shape):
    n = normal(zlib.crc32(key.encode()), shape)
    if len(shape) >= 2:
        return n * (1 / math.sqrt(math.prod(shape[1:])))
    return 1 + 0.1 * n if key.endswith(".weight") else 0.1 * n


def make(sdxl):
    common = dict(in_channels=4, out_channels=4, layers_per_block=2, norm_num_groups=32)
    if sdxl:
        unet = UNet2DConditionModel(
            block_out_channels=[32, 64, 128], cross_attention_dim=80, attention_head_dim=[2, 4, 8],
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            transformer_layers_per_block=[1, 2, 3], use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=16,
            projection_class_embeddings_input_dim=144, **common)
    else:
        unet = UNet2DConditionModel(
            block_out_channels=[32, 64, 128, 128], cross_attention_dim=48, attention_head_dim=4,
            down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
            up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3, **common)
    state = {k: golden_weight("model.diffusion_model." + ldm_name(k, unet), tuple(v.shape))
             for k, v in unet.state_dict().items()}
    unet.load_state_dict(state)
    return unet.double()


class Run:
    def __init__(self, sdxl, v_prediction=False):
        self.unet = make(sdxl)
        self.sdxl = sdxl
        self.v_prediction = v_prediction
        layers = [n for n, m in self.unet.named_modules()
                  if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
        self.kohya = {n: "lora_unet_" + (ldm_name(n, self.unet) if sdxl else n).replace(".", "_")
                      for n in layers}
        self.model = get_peft_model(self.unet, LoraConfig(r=RANK, lora_alpha=RANK,
                                                          target_modules=layers))
        betas = torch.linspace(.00085 ** .5, .012 ** .5, 1000, dtype=torch.float64) ** 2
        self.alpha_bar = torch.cumprod(1 - betas, 0)
        self.z = .8 * normal(10, (1, 4, 16, 24)).double()
        self.context = normal(1, (1, 77, 80 if sdxl else 48)).double()
        self.added = dict(text_embeds=normal(2, (1, 48)).double(),
                          time_ids=torch.tensor([[128., 192, 8, 16, 128, 192]]).double())

    def matrices(self):
        for name, p in self.model.named_parameters():
            m = re.match(r"base_model\.model\.(.*)\.lora_([AB])\.default\.weight", name)
            if m:
                yield f"{self.kohya[m[1]]}.lora_{'down' if m[2] == 'A' else 'up'}.weight", p

    def start(self, up):
        for key, p in self.matrices():
            n = normal(zlib.crc32(key.encode()), tuple(p.shape)).double()
            p.data = n / math.sqrt(p[0].numel()) if ".lora_down." in key else up * n

    def conditions(self):
        return self.context, self.added if self.sdxl else None

    def loss(self, t, seed):
        noise = normal(seed, (1, 4, 16, 24)).double()
        a = self.alpha_bar[t]
        x = a.sqrt() * self.z + (1 - a).sqrt() * noise
        context, added = self.conditions()
        y = self.model(x, torch.tensor([t]), context, added_cond_kwargs=added).sample
        target = a.sqrt() * noise - (1 - a).sqrt() * self.z if self.v_prediction else noise
        return ((y - target) ** 2).mean()


def write_losses(run, path):
    run.start(0)
    optimizer = torch.optim.AdamW([p for _, p in run.matrices()], lr=2e-3, weight_decay=.01)
    with open(path, "w") as f:
        for k in range(20):
            loss = run.loss((k * 379 + 211) % 1000, 40 + k)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            f.write(f"{loss:.9g}\n")


def write_gradients(run, path, prefix=""):
    run.start(.1)
    run.loss(500, 20).backward()
    with open(path, "w") as f:
        for key, p in run.matrices():
            if key.startswith(prefix):
                if p.grad is None:  # the last layer of an encoder whose layer before is taken
                    p.grad = torch.zeros_like(p)
                product = (p.grad.flatten() * normal(7, (p.numel(),)).double()).sum()
                f.write(f"{key} {p.grad.norm():.9g} {product:.9g}\n")


def main(folder):
    for sdxl in (False, True):
        family = "sdxl" if sdxl else "sd1"
        run = Run(sdxl)
        write_gradients(run, f"{folder}/lora_gradients_{family}.txt")
        write_losses(run, f"{folder}/lora_losses_{family}.txt")


if __name__ == "__main__":
    main(sys.argv[1])
