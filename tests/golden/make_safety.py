#!/usr/bin/env python3
"""Makes tests/golden/safety: a tiny CLIP with random weights, a picture, and what torch makes of them.

Beside model.safetensors (names of transformers) stand the same weights as openclip.safetensors in the names of
mlfoundations/open_clip. expected.json: the picture's projected vectors and the cosines to the phrases of rules.tsv.
usage: make_safety.py [FOLDER]      (needs torch, transformers, safetensors, Pillow, numpy)
"""
import json
import os
import sys

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

from tiny_models import make_vocabulary

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
RULES = """# a table of our own; similarities of random weights mean nothing, so tests set their thresholds themselves
setting\tdrawn_sure\t0.5
setting\tphoto_above\t0.6
setting\tdrawn_share\t0.1
setting\tdrawn_doubt\t0.05
setting\tother_share\t0.5
setting\tother_doubt\t0.25
setting\tmatches\t2
suspect\t old
drawn\t0.3\t-\t-\tdrawing
person\t0.3\t-\td\twoman
person\t0.3\t-\tp\ta photo of a man
lewd\t0.3\t-\t-\tbroken vase
young\t0.3\t0.5\td\tsmall child
young\t0.3\t0.5\td\tsmall children
young\t0.3\t0.5\t-\tlittle
concept\t0.3\t-\t-\tred brick house in the evening with smoke and fire near the river
concept\t0.3\t0.2\t-\tblue cup
pair\tsmall child\tsmall children
"""


def pixels(image, side):
    """Shorter side to `side`, bicubic; a square of the middle; [1,3,side,side]."""
    w, h = image.size
    short = min(w, h)
    w, h = (side * w // short, side) if w > h else (side, side * h // short)
    # one direction after the other: the order that every Pillow before 13 has
    image = image.resize((w, image.size[1]), Image.BICUBIC).resize((w, h), Image.BICUBIC)
    left, top = int(round((w - side) / 2)), int(round((h - side) / 2))
    x = np.asarray(image.crop((left, top, left + side, top + side)).convert("RGB"), dtype=np.float64) / 255
    return torch.tensor(((x - MEAN) / STD).transpose(2, 0, 1)[None], dtype=torch.float32)


def openclip_names(weights, layers):
    out = {}
    for side, to in (("vision_model.", "visual."), ("text_model.", "")):
        for i in range(layers):
            a, b = f"{side}encoder.layers.{i}.", f"{to}transformer.resblocks.{i}."
            for kind in ("weight", "bias"):
                out[b + "attn.in_proj_" + kind] = torch.cat([weights[f"{a}self_attn.{n}_proj.{kind}"] for n in "qkv"])
                for old, new in (("self_attn.out_proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
                                 ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2")):
                    out[f"{b}{new}.{kind}"] = weights[f"{a}{old}.{kind}"]
    for old, new in (("vision_model.pre_layrnorm", "visual.ln_pre"), ("vision_model.post_layernorm", "visual.ln_post"),
                     ("text_model.final_layer_norm", "ln_final")):
        for kind in ("weight", "bias"):
            out[f"{new}.{kind}"] = weights[f"{old}.{kind}"]
    out["visual.conv1.weight"] = weights["vision_model.embeddings.patch_embedding.weight"]
    out["visual.class_embedding"] = weights["vision_model.embeddings.class_embedding"]
    out["visual.positional_embedding"] = weights["vision_model.embeddings.position_embedding.weight"]
    out["token_embedding.weight"] = weights["text_model.embeddings.token_embedding.weight"]
    out["positional_embedding"] = weights["text_model.embeddings.position_embedding.weight"]
    out["visual.proj"] = weights["visual_projection.weight"].T
    out["text_projection"] = weights["text_projection.weight"].T
    return {k: v.contiguous().clone() for k, v in out.items()}


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "safety")
    os.makedirs(folder, exist_ok=True)
    make_vocabulary(folder + "/tokenizer")
    vocab = json.load(open(folder + "/tokenizer/vocab.json"))
    start, end = vocab["<|startoftext|>"], vocab["<|endoftext|>"]
    torch.manual_seed(20)
    shared = dict(num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, hidden_act="quick_gelu")
    model = CLIPModel(CLIPConfig(
        text_config=dict(shared, vocab_size=len(vocab), hidden_size=24, max_position_embeddings=20, bos_token_id=start,
                         eos_token_id=end, pad_token_id=end),
        vision_config=dict(shared, hidden_size=32, image_size=28, patch_size=7), projection_dim=16)).eval()
    g = torch.Generator().manual_seed(21)
    weights = {}
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name == "logit_scale":
                continue
            n = torch.randn(p.shape, generator=g)
            if p.dim() > 1:
                n = n / p[0].numel() ** 0.5 * (1 if "embedding" not in name or "patch" in name else 3)
            else:
                n = 0.1 * n + (1 if name.endswith("norm.weight") or "norm1.weight" in name or "norm2.weight" in name
                               or "layrnorm.weight" in name else 0)
            p.copy_(n.half().float())
            weights[name] = p.detach().clone()
    save_file({k: v.half() for k, v in weights.items()}, folder + "/model.safetensors")
    save_file({k: v.half() for k, v in openclip_names(weights, 2).items()}, folder + "/openclip.safetensors")
    with open(folder + "/rules.tsv", "w") as f:
        f.write(RULES)

    from transformers import CLIPTokenizer
    tokenizer = CLIPTokenizer(folder + "/tokenizer/vocab.json", folder + "/tokenizer/merges.txt")
    rows = [line.split("\t") for line in RULES.splitlines() if not line.startswith("#")]
    phrases = [row[4] for row in rows if len(row) == 5]
    texts = []
    rng = np.random.default_rng(5)
    out = {"phrases": phrases, "pictures": []}
    with torch.no_grad():
        for phrase in phrases:
            ids = tokenizer(phrase, add_special_tokens=False)["input_ids"][:18]
            ids = [start, *ids, *([end] * (19 - len(ids)))]
            hidden = model.text_model(input_ids=torch.tensor([ids])).last_hidden_state[0, ids.index(end)]
            texts.append(torch.nn.functional.normalize(model.text_projection(hidden), dim=-1))
        for name, size in (("wide", (65, 41)), ("tall", (30, 77)), ("square", (28, 28))):
            image = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(size, Image.BICUBIC)
            image.save(f"{folder}/{name}.png", optimize=True)
            pooled = model.vision_model(pixel_values=pixels(image, 28)).pooler_output
            vector = model.visual_projection(pooled)[0]
            similar = torch.stack(texts) @ torch.nn.functional.normalize(vector, dim=-1)
            out["pictures"].append({"name": name, "vector": [round(float(v), 8) for v in vector],
                                    "similarity": [round(float(v), 8) for v in similar]})
            print(name, [round(float(v), 3) for v in similar])
    with open(folder + "/expected.json", "w") as f:
        json.dump(out, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
