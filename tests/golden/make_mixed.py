#!/usr/bin/env python3
"""Makes tests/golden/mixed: pictures where two things meet, over the models of tests/golden/reference.

usage: make_mixed.py [FOLDER [ID ...]]
With IDs, only these cases are made again; the others stay.
"""
import json
import os
import sys

import torch
from transformers import CLIPTokenizer

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_family as mf
import make_goldens as mg

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = HERE + "/reference"


def batch_cases():
    """SDXL tells each side of guidance another vector, however many pictures a side has."""
    yield dict(mf.BASE, id="batch-sdxl", model="sdxl", count=2)
    yield dict(mf.BASE, id="batch-sdxl-ancestral", model="sdxl", count=3, sampler="k_euler_a", steps=5)
    yield dict(mf.BASE, id="batch-sd2v", model="sd2v", count=2)


def run(ref, case):
    return mg.run_case(ref, case, DATA)[0]


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else HERE + "/mixed"
    only = sys.argv[2:]
    os.makedirs(folder + "/images", exist_ok=True)
    tokenizer = CLIPTokenizer(DATA + "/models/tokenizer/vocab.json", DATA + "/models/tokenizer/merges.txt",
                              unk_token="<|endoftext|>")
    refs, out = {}, []
    old = json.load(open(folder + "/cases.json")) if only else []
    kept = {c["id"]: c for c in old if c["id"] not in only}
    with torch.no_grad():
        for case in [*batch_cases()]:
            if case["id"] in kept:
                out.append(kept[case["id"]])
            elif not only or case["id"] in only:
                kind = case["model"]
                if kind not in refs:
                    refs[kind] = mg.Reference("%s/models/%s" % (DATA, kind), tokenizer)
                mf.write(folder, case, run(refs[kind], case), out)
    with open(folder + "/cases.json", "w") as f:
        json.dump(out, f, indent=None, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()
