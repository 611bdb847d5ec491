"""Kiln and torch on the same checkpoint, alternating.

usage: compare_torch.py KILN FOLDER [bf16|f32] [ROUNDS] [SIZE]

Each round runs the whole of one, then the whole of the other, each in a process of its own with two
threads (THREADS changes that): load, text encoder, guided UNet steps, decoder. FOLDER is of make_full_size_folder.py. Printed are medians of
wall and processor time and their ratios. Processor time counts all threads; torch's workers are told
to sleep when idle, or their waiting would be counted as work. Needs torch, diffusers, transformers.
`compare_torch.py --torch FOLDER DTYPE STEPS SIZE` is the torch half alone.
"""
import os
import re
import statistics
import subprocess
import sys
import time


def torch_half(folder, dtype, steps, size):
    import resource

    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    kind = {"bf16": torch.bfloat16, "f32": torch.float32}[dtype]
    side = size // 8

    def watch(name, call):
        wall, cpu = time.time(), time.process_time()
        result = call()
        print(f"{name} wall {time.time() - wall:.3f} cpu {time.process_time() - cpu:.3f}", flush=True)
        return result

    def load():
        unet = UNet2DConditionModel.from_pretrained(folder + "/unet", torch_dtype=kind)
        vae = AutoencoderKL.from_pretrained(folder + "/vae", torch_dtype=kind)
        text = CLIPTextModel.from_pretrained(folder + "/text_encoder", torch_dtype=kind)
        unet.eval().to(memory_format=torch.channels_last)
        vae.eval().to(memory_format=torch.channels_last)
        return unet, vae, text.eval()

    with torch.inference_mode():
        unet, vae, text = watch("load", load)
        ids = torch.full((1, 77), 49407)
        for name in ("first text", "text"):
            watch(name, lambda: text(ids))
        x = torch.randn(2, 4, side, side, dtype=kind).to(memory_format=torch.channels_last)
        context = torch.randn(2, 77, 768, dtype=kind)
        for i in range(steps):
            watch("step" if i else "first step", lambda: unet(x, torch.tensor(500), context))
        z = torch.randn(1, 4, side, side, dtype=kind).to(memory_format=torch.channels_last)
        print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB before decoding")
        for name in ("first decode", "decode"):
            watch(name, lambda: vae.decode(z))
        print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


def measure(command, results):
    environment = dict(os.environ, OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0")
    text = subprocess.run(command, capture_output=True, text=True, env=environment)
    if text.returncode:
        sys.exit(text.stderr)
    for line in text.stdout.splitlines():
        found = re.fullmatch(r"(.*) wall ([\d.]+) cpu ([\d.]+)", line)
        if found:
            results.setdefault(found[1], []).append((float(found[2]), float(found[3])))
        found = re.fullmatch(r"peak (\d+) MiB", line)
        if found:
            results.setdefault("peak MiB", []).append((int(found[1]), int(found[1])))


def main():
    kiln, folder = sys.argv[1:3]
    dtype = sys.argv[3] if len(sys.argv) > 3 else "bf16"
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 2
    size = sys.argv[5] if len(sys.argv) > 5 else "512"
    ours, theirs = {}, {}
    threads = os.environ.get("THREADS", "2")
    for _ in range(rounds):
        measure([kiln, "bench", "engine", "--model", folder, "--precision",
                 {"f32": "fp32"}.get(dtype, dtype), "--device", "cpu:" + threads, "--rounds", "3",
                 "--size", size], ours)
        measure([sys.executable, __file__, "--torch", folder, dtype, "3", size], theirs)
    print(f"{dtype}, {size}x{size}, {threads} threads, {rounds} rounds, load "
          f"{os.getloadavg()[0]:.1f}")
    print(f"{'':14}{'kiln wall':>10}{'torch':>10}{'ratio':>7}{'kiln cpu':>10}{'torch':>10}{'ratio':>7}")
    for name in theirs:
        if name not in ours:
            continue
        row = []
        for which in (0, 1):
            a = statistics.median(r[which] for r in ours[name])
            b = statistics.median(r[which] for r in theirs[name])
            row += [a, b, b / a]
        print(f"{name:14}{row[0]:10.3f}{row[1]:10.3f}{row[2]:7.2f}{row[3]:10.3f}{row[4]:10.3f}"
              f"{row[5]:7.2f}")


if sys.argv[1:2] == ["--torch"]:
    torch_half(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
else:
    main()
