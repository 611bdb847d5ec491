#!/usr/bin/env python3
"""Makes tests/golden/alchemy: a tiny BLIP captioner with random weights and what transformers makes of it, and lists of
words with what CLIPModel makes of them.

blip.safetensors has the names of transformers, blip.pth the same weights in those of salesforce/BLIP; vocab.txt is a
vocabulary of our own in BERT's form. expected.json: the rows that a picture becomes, the logits of a given text, and the
tokens that greedy and beam search find. words/*.txt and interrogation.json: the best five of each list in per cent. The
pictures and CLIP's weights are those of tests/golden/safety.
usage: make_alchemy.py [FOLDER]      (needs torch, transformers, safetensors, Pillow, numpy)
"""
import json
import os
import sys

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, CLIPConfig, CLIPModel, CLIPTokenizer

from make_safety import MEAN, STD
from make_safety import pixels as clip_pixels
from tiny_models import WORDS

LAYERS, SIDE, PATCH = 2, 24, 8
torch.set_num_threads(1)
PIECES = "[PAD] [UNK] [CLS] [SEP] [MASK] . , ! ? ' s ve ##s ##ing ##ed ##er ##est picture of the is at".split()
# beams, shortest, longest, repetition penalty, length penalty, prompt
SEARCHES = [
    (1, 0, 20, 1.0, 1.0, ""), (1, 0, 20, 1.0, 1.0, "a picture of"), (1, 12, 30, 1.3, 1.0, "a picture of"),
    (3, 0, 20, 1.0, 1.0, ""), (7, 20, 50, 1.1, 1.0, "a picture of"), (4, 0, 16, 1.5, 0.0, "a picture of"),
    (5, 8, 24, 1.0, 2.0, "the"), (2, 0, 9, 1.0, 1.0, "a picture of"),
]


def pixels(image):
    # one direction after the other: the order that every Pillow before 13 has
    image = image.convert("RGB").resize((SIDE, image.size[1]), Image.BICUBIC).resize((SIDE, SIDE), Image.BICUBIC)
    x = np.asarray(image, dtype=np.float64) / 255
    return torch.tensor(((x - MEAN) / STD).transpose(2, 0, 1)[None], dtype=torch.float32)


def original_names(weights):
    out = {}
    for name, w in weights.items():
        for a, b in (("vision_model.encoder.layers.", "visual_encoder.blocks."), ("self_attn.qkv", "attn.qkv"),
                     ("self_attn.projection", "attn.proj"), ("layer_norm", "norm"),
                     ("vision_model.embeddings.class_embedding", "visual_encoder.cls_token"),
                     ("vision_model.embeddings.position_embedding", "visual_encoder.pos_embed"),
                     ("vision_model.embeddings.patch_embedding", "visual_encoder.patch_embed.proj"),
                     ("vision_model.post_layernorm", "visual_encoder.norm")):
            if not name.startswith("text_decoder."):
                name = name.replace(a, b)
        out[name] = w
    return out


def make_captions(here, folder):
    words = PIECES + [w for w in dict.fromkeys(WORDS) if w not in PIECES]
    with open(folder + "/vocab.txt", "w") as f:
        f.write("".join(w + "\n" for w in words))
    start, end = len(words), words.index("[SEP]")
    torch.manual_seed(30)
    model = BlipForConditionalGeneration(BlipConfig(
        vision_config=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=4,
                           image_size=SIDE, patch_size=PATCH),
        text_config=dict(vocab_size=len(words) + 2, hidden_size=24, encoder_hidden_size=32, intermediate_size=48,
                         num_hidden_layers=LAYERS, num_attention_heads=4, max_position_embeddings=64,
                         bos_token_id=start, sep_token_id=end, pad_token_id=0, eos_token_id=2))).eval()
    g = torch.Generator().manual_seed(31)
    weights = {}
    with torch.no_grad():
        for name, p in model.named_parameters():
            n = torch.randn(p.shape, generator=g)
            if "embedding" in name and "patch" not in name and "LayerNorm" not in name:
                n = n * (0.45 if "word" in name else 0.6)
            elif p.dim() > 1:
                n = n / p[0].numel() ** 0.5 * 2
            else:
                n = 0.1 * n + (1 if name.endswith("norm.weight") or "norm1.weight" in name or "norm2.weight" in name
                               or "LayerNorm.weight" in name else 0)
            if name.endswith("cls.predictions.bias"):
                n = n * 5
                n[end] += 1.5
            p.copy_(n.half().float())
            weights[name] = p.detach().clone()
    save_file({k: v.half() for k, v in weights.items()}, folder + "/blip.safetensors")
    torch.save({"model": {k: v.half() for k, v in original_names(weights).items()}}, folder + "/blip.pth")

    tokenizer = BertTokenizer(folder + "/vocab.txt", do_lower_case=True)
    out = {"start": start, "end": end, "pictures": []}
    forced = [start] + [words.index(w) for w in "a picture of the red house".split()]
    out["forced"] = forced
    with torch.no_grad():
        for name in ("wide", "tall", "square"):
            x = pixels(Image.open(f"{here}/safety/{name}.png"))
            seen = model.vision_model(pixel_values=x).last_hidden_state
            logits = model.text_decoder(torch.tensor([forced]), encoder_hidden_states=seen).logits[0]
            searches = []
            for beams, least, most, repeat, length, prompt in SEARCHES:
                ids = [start] + [words.index(w) for w in prompt.split()] + [end]
                found = model.generate(pixel_values=x, input_ids=torch.tensor([ids]), num_beams=beams, min_length=least,
                                       max_length=most, repetition_penalty=repeat, length_penalty=length,
                                       do_sample=False)[0].tolist()
                text = tokenizer.decode([t for t in found if t < len(words)], skip_special_tokens=True,
                                        clean_up_tokenization_spaces=True)
                searches.append(dict(beams=beams, min_length=least, max_length=most, repetition_penalty=repeat,
                                     length_penalty=length, prompt=prompt, tokens=found, text=text))
                print(name, beams, len(found), text)
            out["pictures"].append({"name": name, "rows": [round(float(v), 7) for v in seen.flatten()],
                                    "logits": [round(float(v), 6) for v in logits[-1]], "searches": searches})
    with open(folder + "/expected.json", "w") as f:
        json.dump(out, f)
        f.write("\n")


def make_lists():
    nouns = [w for w in dict.fromkeys(WORDS) if w not in ("a", "of", "the", "in", "on", "under", "near", "with", "and")]
    tags = [f"{a} {b}" for i, a in enumerate(nouns) for b in nouns[i + 1::9]]
    return {"tags": tags, "artists": [f"by {w} {v}" for w, v in zip(nouns, reversed(nouns))],
            "mediums": ["digital art", "painting", "drawing", "a photo of the broken vase near the river with smoke and fire"],
            "sites": ["bright house"]}


def make_words(here, folder):
    safety = here + "/safety"
    vocab = json.load(open(safety + "/tokenizer/vocab.json"))
    start, end = vocab["<|startoftext|>"], vocab["<|endoftext|>"]
    shared = dict(num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, hidden_act="quick_gelu")
    model = CLIPModel(CLIPConfig(
        text_config=dict(shared, vocab_size=len(vocab), hidden_size=24, max_position_embeddings=20, bos_token_id=start,
                         eos_token_id=end, pad_token_id=end),
        vision_config=dict(shared, hidden_size=32, image_size=28, patch_size=7), projection_dim=16)).eval()
    left = model.load_state_dict({k: v.float() for k, v in load_file(safety + "/model.safetensors").items()}, strict=False)
    assert not left.unexpected_keys and all("position_ids" in k or k == "logit_scale" for k in left.missing_keys), left
    tokenizer = CLIPTokenizer(safety + "/tokenizer/vocab.json", safety + "/tokenizer/merges.txt")
    os.makedirs(folder + "/words", exist_ok=True)
    out = []
    with torch.no_grad():
        model.logit_scale.fill_(float(np.log(100.0)))
        for name in ("wide", "tall", "square"):
            picture = clip_pixels(Image.open(f"{safety}/{name}.png"), 28)
            groups = {}
            for group, phrases in make_lists().items():
                with open(f"{folder}/words/{group}.txt", "w") as f:
                    f.write("".join(p + "\n" for p in phrases))
                rows = []
                for p in phrases:
                    ids = tokenizer(p, add_special_tokens=False)["input_ids"][:18]
                    rows.append([start, *ids, *([end] * (19 - len(ids)))])
                share = model(input_ids=torch.tensor(rows), pixel_values=picture).logits_per_image[0].softmax(-1) * 100
                best = share.topk(min(5, len(phrases)))
                groups[group] = [{"text": phrases[i], "confidence": round(float(c), 6)}
                                 for c, i in zip(best.values, best.indices)]
            out.append({"name": name, "groups": groups})
            print(name, [(g, w[0]["text"], round(w[0]["confidence"], 2)) for g, w in groups.items()])
    with open(folder + "/interrogation.json", "w") as f:
        json.dump(out, f, indent=1)
        f.write("\n")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "alchemy")
    os.makedirs(folder, exist_ok=True)
    make_captions(here, folder)
    make_words(here, folder)


if __name__ == "__main__":
    main()
