#!/usr/bin/env python3
"""The other side of `kiln bench --peer`: the same parts as ours, by torch or stable-diffusion.cpp.

usage: bench_peer.py torch|sdcpp check|engine|train --model PATH [--precision bf16|fp32|fp16] [--size 512]
                     [--rounds 3] [--threads 2] [--rank 8] [--lean] [--image]

Prints "NAME wall S cpu S" for each run of a part; processor time counts all threads. Exit code 3: the
packages are not installed. Torch needs diffusers and transformers (train: peft too) and a diffusers
folder; stable-diffusion.cpp needs stable-diffusion-cpp-python and a single file.
"""
import argparse
import os
import sys
import time

IMAGE_STEPS = 4
PROMPT = "a small vase with a blue glaze on a wooden table"


def watch(name, call):
    wall, cpu = time.time(), time.process_time()
    result = call()
    say(name, time.time() - wall, time.process_time() - cpu)
    return result


def say(name, wall, cpu):
    print(f"{name} wall {wall:.3f} cpu {cpu:.3f}", flush=True)


def absent(names):
    print(f"not installed: {names}", file=sys.stderr)
    sys.exit(3)


# ---- torch with diffusers


class Torch:
    """Channels last and inference mode, the fastest that plain torch offers on a CPU."""

    def __init__(self, o):
        try:
            import diffusers  # noqa: F401
            import torch
            import transformers
        except ImportError as missing:
            absent(f"{missing.name} (torch, diffusers and transformers are needed)")
        transformers.logging.set_verbosity_error()
        diffusers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        diffusers.logging.disable_progress_bar()
        torch.set_num_threads(o.threads)
        self.torch, self.o = torch, o
        self.kind = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}[o.precision]
        self.side = o.size // 8
        self.xl = os.path.isdir(o.model + "/text_encoder_2")

    def load_unet(self):
        from diffusers import UNet2DConditionModel
        unet = UNet2DConditionModel.from_pretrained(self.o.model + "/unet", torch_dtype=self.kind)
        return unet.eval().to(memory_format=self.torch.channels_last)

    def load(self):
        from diffusers import AutoencoderKL
        from transformers import CLIPTextModel, CLIPTextModelWithProjection
        self.unet = self.load_unet()
        self.vae = AutoencoderKL.from_pretrained(self.o.model + "/vae", torch_dtype=self.kind)
        self.vae.eval().to(memory_format=self.torch.channels_last)
        self.text = [CLIPTextModel.from_pretrained(self.o.model + "/text_encoder", dtype=self.kind).eval()]
        if self.xl:
            self.text.append(CLIPTextModelWithProjection.from_pretrained(
                self.o.model + "/text_encoder_2", dtype=self.kind).eval())

    def encode(self, rows):
        ids = self.torch.full((rows, 77), 49407)
        if not self.xl:
            return self.text[0](ids)[0], None
        outs = [t(ids, output_hidden_states=True) for t in self.text]
        return self.torch.cat([x.hidden_states[-2] for x in outs], -1), outs[1].text_embeds

    def step(self, x, context, pooled, time_step=500):
        more = {}
        if self.xl:
            sizes = self.torch.tensor([[self.o.size, self.o.size, 0, 0, self.o.size, self.o.size]] * len(x))
            more["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes.to(self.kind)}
        return self.unet(x, self.torch.tensor(time_step), context, **more).sample

    def image(self):
        """Text of both sides, four guided steps of Euler, decoder, bytes."""
        torch = self.torch
        context, pooled = self.encode(2)
        x = torch.randn(1, 4, self.side, self.side, dtype=torch.float32) * 14.6
        sigmas = [14.6, 3.0, 1.0, .3, 0]
        for i in range(IMAGE_STEPS):
            scaled = (x / (sigmas[i] ** 2 + 1) ** .5).to(self.kind)
            both = torch.cat([scaled, scaled]).to(memory_format=torch.channels_last)
            positive, negative = self.step(both, context, pooled, 900 - 200 * i).float().chunk(2)
            x = x + (negative + 7.5 * (positive - negative)) * (sigmas[i + 1] - sigmas[i])
        z = (x / .18215).to(self.kind).to(memory_format=torch.channels_last)
        rgb = self.vae.decode(z).sample
        return ((rgb.float() / 2 + .5).clamp(0, 1) * 255).round().byte().numpy()

    def engine(self):
        torch, side = self.torch, self.side
        with torch.inference_mode():
            wall, cpu = time.time(), time.process_time()
            watch("load", self.load)
            if self.o.image:
                self.image()
                say("image with load", time.time() - wall, time.process_time() - cpu)
            for name in ("first text", "text", "text", "text"):
                watch(name, lambda: self.encode(1))
            context, pooled = self.encode(2)
            x = torch.randn(2, 4, side, side, dtype=self.kind).to(memory_format=torch.channels_last)
            for i in range(self.o.rounds + 1):
                watch("step" if i else "first step", lambda: self.step(x, context, pooled))
            z = torch.randn(1, 4, side, side, dtype=self.kind).to(memory_format=torch.channels_last)
            for name in ("first decode", "decode", "decode"):
                watch(name, lambda: self.vae.decode(z).sample)
            if self.o.image:
                watch("image", self.image)

    def train(self):
        try:
            from peft import LoraConfig
        except ImportError:
            absent("peft")
        torch, side = self.torch, self.side
        self.unet = watch("load", self.load_unet)
        self.unet.requires_grad_(False)
        self.unet.add_adapter(LoraConfig(r=self.o.rank, lora_alpha=self.o.rank, init_lora_weights="gaussian",
                                         target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
        self.unet.train()
        if self.o.lean:
            self.unet.enable_gradient_checkpointing()
        adapters = [p for p in self.unet.parameters() if p.requires_grad]
        for p in adapters:
            p.data = p.data.float()
        optimizer = torch.optim.AdamW(adapters, lr=1e-4, weight_decay=.01)
        width = self.unet.config.cross_attention_dim
        x = torch.randn(1, 4, side, side, dtype=self.kind).to(memory_format=torch.channels_last)
        target = torch.randn(1, 4, side, side)
        context = torch.randn(1, 77, width, dtype=self.kind)
        pooled = torch.randn(1, 1280, dtype=self.kind)
        half = self.kind != torch.float32

        def once():
            with torch.autocast("cpu", self.kind, enabled=half):
                y = self.step(x, context, pooled)
            torch.nn.functional.mse_loss(y.float(), target).backward()
            torch.nn.utils.clip_grad_norm_(adapters, 1.0)
            optimizer.step()
            optimizer.zero_grad()

        first = "first lean step" if self.o.lean else "first training step"
        later = "lean training step" if self.o.lean else "training step"
        for i in range(self.o.rounds + 1):
            watch(later if i else first, once)


# ---- stable-diffusion.cpp


class Sdcpp:
    """Its weights stay in the file's type (f16 for ours), as it does by itself."""

    def __init__(self, o):
        try:
            import stable_diffusion_cpp
        except ImportError:
            absent("stable-diffusion-cpp-python")
        self.module, self.o = stable_diffusion_cpp, o

    def train(self):
        sys.exit("stable-diffusion.cpp does not train")

    def load(self):
        self.model = self.module.StableDiffusion(model_path=self.o.model, n_threads=self.o.threads,
                                                 verbose=False)

    def image(self):
        steps = []

        def progress(step, steps_all, seconds, *rest):
            steps.append((time.time(), time.process_time()))

        self.model.generate_image(
            prompt=PROMPT, negative_prompt="", width=self.o.size, height=self.o.size, cfg_scale=7.5,
            sample_steps=IMAGE_STEPS, sample_method="euler", seed=1, progress_callback=progress)
        for a, b in zip(steps[-IMAGE_STEPS:], steps[-IMAGE_STEPS + 1:]):
            say("step", b[0] - a[0], b[1] - a[1])

    def engine(self):
        wall, cpu = time.time(), time.process_time()
        watch("load", self.load)
        self.image()
        say("image with load", time.time() - wall, time.process_time() - cpu)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=["torch", "sdcpp"])
    parser.add_argument("what", choices=["check", "engine", "train"])
    parser.add_argument("--model", default="")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32", "fp16"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--lean", action="store_true")
    parser.add_argument("--image", action="store_true")
    o = parser.parse_args()
    side = {"torch": Torch, "sdcpp": Sdcpp}[o.peer](o)
    if o.what != "check":
        getattr(side, o.what)()


main()
