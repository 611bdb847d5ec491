"""The shapes of `kiln bench kernels --json` through torch on the same card: ratio of times.

usage: cuda_rivals.py KERNELS.json

Linear goes to cuBLASLt, convolution (channels last, benchmark on) to cuDNN, attention to the best
backend of scaled_dot_product_attention. Median of CUDA-graph replays, fp16, random data. A ratio over 1
means that Kiln's kernel is faster.
"""
import json
import statistics
import sys

import torch
import torch.nn.functional as F

LINEAR = {  # rows, out, k
    "linear sd15 qkv 64": (8192, 960, 320), "linear sd15 geglu 64": (8192, 2560, 320),
    "linear sd15 ff-out 32": (2048, 640, 2560), "linear sd15 out 16": (512, 1280, 1280),
    "linear sdxl geglu 32": (2048, 10240, 1280), "linear sdxl ff-out 32": (2048, 1280, 5120),
    "linear sdxl qkv 32": (2048, 3840, 1280), "linear sdxl out 32": (2048, 1280, 1280),
    "linear sdxl geglu 64": (8192, 5120, 640), "linear sdxl kv 77": (154, 2560, 2048)}
CONV = {  # images, side, c, out, kernel, stride, upsample
    "conv3x3 sd15 64 320": (2, 64, 320, 320, 3, 1, 1), "conv3x3 sd15 32 640": (2, 32, 640, 640, 3, 1, 1),
    "conv3x3 sd15 16 1280": (2, 16, 1280, 1280, 3, 1, 1), "conv3x3 sd15 8 1280": (2, 8, 1280, 1280, 3, 1, 1),
    "conv3x3 sd15 16 2560": (2, 16, 2560, 1280, 3, 1, 1), "conv1x1 sd15 32 1920": (2, 32, 1920, 640, 1, 1, 1),
    "conv3x3/2 sd15 64 320": (2, 64, 320, 320, 3, 2, 1), "up+conv sd15 16 1280": (2, 16, 1280, 1280, 3, 1, 2),
    "conv3x3 sdxl 128 320": (2, 128, 320, 320, 3, 1, 1), "conv3x3 sdxl 64 640": (2, 64, 640, 640, 3, 1, 1),
    "conv3x3 sdxl 32 1280": (2, 32, 1280, 1280, 3, 1, 1), "up+conv sdxl 32 1280": (2, 32, 1280, 1280, 3, 1, 2),
    "conv3x3 vae 128 512": (1, 128, 512, 512, 3, 1, 1), "conv3x3 vae 512 256": (1, 512, 256, 256, 3, 1, 1),
    "conv3x3 vae 1024 128": (1, 1024, 128, 128, 3, 1, 1)}
ATTENTION = {  # images, heads, lq, lk, d
    "attention sd15 4096 d40": (2, 8, 4096, 4096, 40), "attention sd15 1024 d80": (2, 8, 1024, 1024, 80),
    "attention sd15 256 d160": (2, 8, 256, 256, 160), "attention sd15 4096x77 d40": (2, 8, 4096, 77, 40),
    "attention sdxl 4096 d64": (2, 10, 4096, 4096, 64), "attention sdxl 1024 d64": (2, 20, 1024, 1024, 64),
    "attention sdxl 1024x77 d64": (2, 20, 1024, 77, 64), "attention vae 4096 d512": (1, 1, 4096, 4096, 512)}


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.float16)


def call_of(name):
    if name in LINEAR:
        m, n, k = LINEAR[name]
        x, w = random(m, k), random(n, k) / k**0.5
        return lambda: F.linear(x, w)
    if name in CONV:
        n, side, c, out, kernel, stride, up = CONV[name]
        x = random(n, c, side, side).to(memory_format=torch.channels_last)
        w = (random(out, c, kernel, kernel) / (c * kernel * kernel) ** 0.5).to(memory_format=torch.channels_last)
        if up == 2:
            return lambda: F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), w, None, stride, kernel // 2)
        return lambda: F.conv2d(x, w, None, stride, kernel // 2)
    if name in ATTENTION:
        n, heads, lq, lk, d = ATTENTION[name]
        q, k, v = random(n, heads, lq, d), random(n, heads, lk, d), random(n, heads, lk, d)
        return lambda: F.scaled_dot_product_attention(q, k, v)
    return None


def milliseconds(call):
    for _ in range(5):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(10):
            call()
    times = []
    for _ in range(20):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 10)
    return statistics.median(times)


def main():
    torch.backends.cudnn.benchmark = True
    with open(sys.argv[1]) as f:
        ours = json.load(f)
    print("%s, torch %s" % (torch.cuda.get_device_name(), torch.__version__))
    for case in ours["cases"]:
        with torch.no_grad():
            call = call_of(case["case"])
            if not call:
                continue
            theirs = milliseconds(call)
        print("%-28s ours %8.4f ms  torch %8.4f ms  ratio %.2f" % (case["case"], case["ms"], theirs, theirs / case["ms"]))


main()
