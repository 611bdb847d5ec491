"""kiln convert: pickles, precisions and shards come back as they were; bad input is a sentence.

usage: convert.py KILN REFERENCE"""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile

KILN, DATA = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])


def read(path):
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        head = json.loads(f.read(n))
        body = f.read()
    meta = head.pop("__metadata__", {})
    return meta, {k: (v["dtype"], v["shape"], body[slice(*v["data_offsets"])]) for k, v in head.items()}


def convert(*args, code=0):
    done = subprocess.run([KILN, "convert", *args], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, (args, done.returncode, done.stderr)
    return done.stderr


with tempfile.TemporaryDirectory() as folder:
    out = lambda name: os.path.join(folder, name + ".safetensors")
    single = DATA + "/models/sd1.safetensors"
    meta, before = read(single)

    convert(single, out("same"))
    assert read(out("same")) == (meta, before)

    # a pickle holds the same network as the folder's safetensors
    convert(DATA + "/models/sd1-bin/unet/diffusion_pytorch_model.bin", out("unet"))
    _, unet = read(DATA + "/models/sd1/unet/diffusion_pytorch_model.safetensors")
    assert read(out("unet"))[1] == unet

    # wider and back is exact; there and back by bf16 keeps eight bits
    kinds = {v[0] for v in unet.values()}
    assert kinds == {"F16"}, kinds
    convert(out("unet"), out("wide"), "--precision", "fp32")
    wide = read(out("wide"))[1]
    assert {v[0] for v in wide.values()} == {"F32"} and all(len(wide[k][2]) == 2 * len(unet[k][2]) for k in unet)
    convert(out("wide"), out("back"), "--precision", "fp16")
    assert read(out("back"))[1] == unet
    convert(out("wide"), out("brain"), "--precision", "bf16")
    brain = read(out("brain"))[1]
    for k, (_, shape, data) in wide.items():
        assert brain[k][1] == shape
        a = struct.unpack("<%df" % (len(data) // 4), data)
        b = [struct.unpack("<f", b"\0\0" + brain[k][2][i:i + 2])[0] for i in range(0, len(brain[k][2]), 2)]
        assert all(abs(x - y) <= abs(x) / 256 for x, y in zip(a, b)), k

    # metadata of a LoRA stays
    lora = DATA + "/lora/kohya.safetensors"
    convert(lora, out("lora"), "--precision", "fp32")
    assert read(out("lora"))[0] == read(lora)[0] == {"ss_base_model_version": "sd_v1"}

    def write(path, tensors):
        head, body = {}, b""
        for name, data in tensors.items():
            head[name] = {"dtype": "F32", "shape": [len(data) // 4], "data_offsets": [len(body), len(body) + len(data)]}
            body += data
        text = json.dumps(head).encode()
        with open(path, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text + body)

    write(out("big"), {"a.weight": struct.pack("<2f", 1, 70000), "model_ema.a": struct.pack("<f", 2)})
    assert "a.weight holds 70000" in convert(out("big"), out("no"), "--precision", "fp16", code=1)
    assert not os.path.exists(out("no"))
    convert(out("big"), out("pruned"), "--prune")
    assert list(read(out("pruned"))[1]) == ["a.weight"]

    # the picture of a converted checkpoint is the picture of the checkpoint
    shutil.copytree(DATA + "/models/tokenizer", folder + "/tokenizer")
    pictures = []
    for model in (single, out("same")):
        done = subprocess.run([KILN, "generate", "-m", model, "-p", "a photo of the red house", "-W", "64", "-H", "64", "-s", "2",
                               "--seed", "3", "-q", "--no-provenance", "-o", folder + "/one.png"],
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        pictures.append(open(folder + "/one.png", "rb").read())
    assert pictures[0] == pictures[1]

    assert "usage" in convert(single, folder + "/x.ckpt", code=2)
    assert "usage" in convert(single, out("x"), "--precision", "fp8", code=2)
    with open(folder + "/page.ckpt", "w") as f:
        f.write("<!DOCTYPE html><html>")
    assert "web page" in convert(folder + "/page.ckpt", out("x"), code=1)
    convert(folder + "/nothing.ckpt", out("x"), code=1)
print("convert: ok")
