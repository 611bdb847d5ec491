#!/usr/bin/env python3
"""Writes a checkpoint of published size with random weights in F16, for measuring memory and time.

The names and shapes are those of tests/golden/keys. Nothing but Python is needed.
usage: make_full_size.py sd15|sd15-inpainting|sd21|sdxl|refiner OUT.safetensors
"""
import gzip
import json
import os
import random
import struct
import sys

POOL = 1 << 16


def main():
    layout, out = sys.argv[1:3]
    here = os.path.dirname(os.path.abspath(__file__))
    header, shapes, at = {}, {}, 0
    with gzip.open("%s/../golden/keys/%s.txt.gz" % (here, layout), "rt") as f:
        for line in f:
            name, *dims = line.split()
            if name.startswith("model_ema."):
                continue
            shape, count = [int(d) for d in dims], 1
            for d in shape:
                count *= d
            header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + 2 * count]}
            shapes[name] = (shape, count)
            at += 2 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = random.Random(1)
    pool = [rng.gauss(0, 1) for _ in range(POOL)]
    with open(out, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        made = {}
        for name, (shape, count) in shapes.items():
            fan = count // shape[0] if len(shape) > 1 else 0
            kind = (fan, name.endswith("weight"))
            if kind not in made:
                scale, shift = (fan ** -0.5, 0) if fan else (0.1, 1 if kind[1] else 0)
                made[kind] = struct.pack("<%de" % POOL, *(scale * v + shift for v in pool))
            left = 2 * count
            while left > 0:
                left -= f.write(made[kind][:left])
    print("%s: %d tensors, %d bytes" % (out, len(header), 8 + len(text) + at))


if __name__ == "__main__":
    main()
