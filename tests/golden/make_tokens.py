#!/usr/bin/env python3
"""Makes tests/data/small_vocab/ and the token goldens beside it with transformers' CLIPTokenizer.

usage: make_tokens.py FOLDER_WITH_THE_PUBLIC_VOCABULARY  (vocab.json, merges.txt)
"""
import collections
import json
import pathlib
import random
import sys

from transformers import CLIPTokenizer

HERE = pathlib.Path(__file__).resolve().parent.parent / "data"
SMALL = HERE / "small_vocab"

TEXT = """a round vase with a blue glaze on a dark ground, a tall pot with stripes, a small bowl of clay,
the painter draws a picture of a red pot, a green vase with dots and a white ground, pots and vases in a row,
a photo of a cat, a lovely portrait, highly detailed, a quiet river near a garden, digital art, low quality"""


def byte_symbols():
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    symbols = {b: chr(b) for b in keep}
    extra = 0
    for b in range(256):
        if b not in symbols:
            symbols[b] = chr(256 + extra)
            extra += 1
    order = keep + [b for b in range(256) if b not in keep]
    return symbols, order


def learn(count):
    words = collections.Counter(w for w in TEXT.replace(",", " ").split())
    split = {w: list(w[:-1]) + [w[-1] + "</w>"] for w in words}
    merges = []
    for _ in range(count):
        pairs = collections.Counter()
        for w, n in words.items():
            for pair in zip(split[w], split[w][1:]):
                pairs[pair] += n
        if not pairs:
            break
        best = max(sorted(pairs), key=pairs.get)
        merges.append(best)
        for w in words:
            parts, out = split[w], []
            while parts:
                if len(parts) > 1 and (parts[0], parts[1]) == best:
                    out.append(parts[0] + parts[1])
                    parts = parts[2:]
                else:
                    out.append(parts[0])
                    parts = parts[1:]
            split[w] = out
    return merges


def strings():
    random.seed(20)
    out = ["", " ", "a photo of a cat", "A lovely, highly detailed portrait; 8k!", "Füsun’s cigarette stubs",
           "embedding test 2025", "(masterpiece:1.2)", "日本 🎨", "cafe\u0301", "a\u200bb", "ΑΣ ΣΑ İx",
           "<|endoftext|> x", "don't I'LL x's '", "１２ Ⅷ ½", "a\x07c", "𝓗ello ﬁne", "x<|startoftext|>y",
           "ﬀ Ǆ ẞ", "한국어 각", "e\u0323\u0307", "\u1e0b\u0323 ", "Å Å", "नमस्ते", "ก็",
           "a" * 43, "!!!!???!!", "it's's 'twas 're", "\u3000x\u00a0y\u2028z"]
    out += [t.strip() for t in TEXT.split(",")]
    alphabet = "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789 ,.;:!?()'\"-_/\\éüßÉÎñçøåŁżαβΔДжЯ日本語🎨🐱²½Ⅳ\u0301\u0323\u0308\t\n"
    for _ in range(160):
        out.append("".join(random.choice(alphabet) for _ in range(random.randint(1, 40))))
    blocks = [(0x20, 0x2FF), (0x300, 0x36F), (0x370, 0x17FF), (0x1E00, 0x2FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1FAFF)]
    for _ in range(100):
        out.append("".join(chr(random.randint(*random.choice(blocks))) for _ in range(random.randint(1, 12))))
    return out


def write_goldens(path, tokenizer):
    with open(path, "w") as f:
        for s in strings():
            ids = tokenizer(s).input_ids[1:-1]
            f.write("%s %s\n" % (s.encode().hex() or "-", " ".join(map(str, ids))))


SMALL.mkdir(parents=True, exist_ok=True)
symbols, order = byte_symbols()
merges = learn(120)
names = [symbols[b] for b in order]
names += [n + "</w>" for n in names] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
vocab = {n: i for i, n in enumerate(names)}
(SMALL / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False, indent=0) + "\n")
(SMALL / "merges.txt").write_text("#version: 0.2\n" + "".join("%s %s\n" % m for m in merges))
(HERE / "tokenizer_config.json").unlink(missing_ok=True)
write_goldens(HERE / "tokens_small.txt", CLIPTokenizer.from_pretrained(str(SMALL)))
write_goldens(HERE / "tokens_clip.txt", CLIPTokenizer.from_pretrained(sys.argv[1]))
