#!/usr/bin/env python3
"""Writes the names and shapes of the published post-processors' files, for test_vision_keys.c.

They come from make_faces.py's and make_matte.py's tables at the published sizes (GFPGAN 1.4, CodeFormer
0.1.0, RetinaFace on ResNet-50, ParseNet, U2-Net), and what those files hold besides. One line a tensor: name,
then its dimensions.

usage: make_vision_keys.py [FOLDER]      (needs torch and what make_faces.py needs)
"""
import gzip
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_faces as faces
import make_matte as matte


def rows(table):
    return [(n, tuple(s)) for n, s, _, _ in table.rows]


def counted(table):
    """torch counts the batches that a normalisation has seen."""
    out = []
    for n, s in rows(table):
        out.append((n, s))
        if n.endswith(".running_var"):
            out.append((n[:-len("running_var")] + "num_batches_tracked", ()))
    return out


def gfpgan():
    out = rows(faces.gfpgan_table([32, 64, 128, 256, 256, 256, 256, 256], 512,
                                  [512, 512, 512, 512, 512, 256, 128, 64], True))
    for i in range(1, 16, 2):
        out += [("stylegan_decoder.style_mlp.%d.weight" % i, (512, 512)), ("stylegan_decoder.style_mlp.%d.bias" % i, (512,))]
    return out


def codeformer():
    return rows(faces.codeformer_table(64, [1, 2, 2, 4, 4, 8], 256, 1024, 512, 9,
                                       [(32, 256), (64, 256), (128, 128), (256, 128)]))


def retinaface():
    table = faces.retinaface_table(64, [64, 128, 256, 512], [3, 4, 6, 3], 4, 256)
    return [("module." + n, s) for n, s in counted(table)]


def parsenet():
    return counted(faces.parsenet_table(64, [128, 256, 256, 256], 10, 19))


def u2net():
    matte.SIZES = {"stage1": (3, 32, 64), "stage2": (64, 32, 128), "stage3": (128, 64, 256), "stage4": (256, 128, 512),
                   "stage5": (512, 256, 512), "stage6": (512, 256, 512), "stage5d": (1024, 256, 512),
                   "stage4d": (1024, 128, 256), "stage3d": (512, 64, 128), "stage2d": (256, 32, 64),
                   "stage1d": (128, 16, 64)}
    return [(n, tuple(t.shape)) for n, t in matte.weights(None).items()]


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "keys")
    for make in (gfpgan, codeformer, retinaface, parsenet, u2net):
        text = "".join("%s %s\n" % (n, " ".join(map(str, s))) for n, s in make())
        with open("%s/%s.txt.gz" % (folder, make.__name__), "wb") as f:
            f.write(gzip.compress(text.encode(), mtime=0))
        print(make.__name__, text.count("\n"))


if __name__ == "__main__":
    main()
