"""A whole step and the decoder of diffusers on this card, compiled as fast as torch can: ratio of times.

usage: cuda_diffusers.py sd15|sdxl SIZE KILN-ENGINE.json     (the JSON of `kiln bench engine --json`)

UNet and VAE have the public configurations and random weights: speed does not depend on them. fp16,
channels last, torch.compile with max-autotune (its CUDA graphs included), batch 2 for guidance, median of
50 replays. A ratio over 1 means that Kiln is faster.
"""
import json
import statistics
import sys

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

UNETS = {
    "sd15": dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
    "sdxl": dict(sample_size=128, cross_attention_dim=2048, attention_head_dim=[5, 10, 20],
                 block_out_channels=(320, 640, 1280), use_linear_projection=True,
                 down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                 up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                 transformer_layers_per_block=[1, 2, 10], addition_embed_type="text_time",
                 addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816)}
VAE = dict(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, norm_num_groups=32,
           down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.float16)


def milliseconds(call):
    for _ in range(5):
        call()
    times = []
    for _ in range(50):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def line(what, ours, theirs):
    print("%-24s ours %8.2f ms  torch %8.2f ms  ratio %.2f" % (what, ours, theirs, theirs / ours) if ours else
          "%-24s torch %8.2f ms, ours was not measured" % (what, theirs), flush=True)


@torch.no_grad()
def main():
    family, size = sys.argv[1], int(sys.argv[2])
    try:
        with open(sys.argv[3]) as f:
            parts = {p["name"]: p["wall_seconds"] * 1000 for p in json.load(f)["parts"]}
    except (OSError, ValueError, KeyError) as e:
        print("no figures of ours: %s" % e)
        parts = {}
    side = size // 8
    torch.backends.cudnn.benchmark = True
    unet = UNet2DConditionModel(**UNETS[family]).to("cuda", torch.float16, memory_format=torch.channels_last).eval()
    x = random(2, 4, side, side).to(memory_format=torch.channels_last)
    more = {"added_cond_kwargs": {"text_embeds": random(2, 1280), "time_ids": random(2, 6)}} if family == "sdxl" else {}
    text, time = random(2, 77, UNETS[family]["cross_attention_dim"]), torch.tensor(500, device="cuda")
    print("%s, torch %s" % (torch.cuda.get_device_name(), torch.__version__))
    line("UNet step, eager", parts.get("step"), milliseconds(lambda: unet(x, time, text, return_dict=False, **more)))
    fast = torch.compile(unet, mode="max-autotune", fullgraph=True)
    line("UNet step, compiled", parts.get("step"), milliseconds(lambda: fast(x, time, text, return_dict=False, **more)))
    vae = AutoencoderKL(**VAE).to("cuda", torch.float16, memory_format=torch.channels_last).eval()
    z = random(1, 4, side, side).to(memory_format=torch.channels_last)
    decode = torch.compile(vae.decode, mode="max-autotune", fullgraph=True)
    line("decoder, compiled", parts.get("decode"), milliseconds(lambda: decode(z, return_dict=False)))


main()
