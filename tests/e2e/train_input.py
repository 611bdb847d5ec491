"""Bad and unusual input to kiln train and kiln dataset: archives, pictures, rows, a full disk, a loss that is no number.

usage: train_input.py KILN"""
import hashlib
import json
import os
import re
import resource
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from train_pictures import archive, png, voc

KILN = os.path.abspath(sys.argv[1])


def run(folder, *words, code=0, file_limit=None):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    done = subprocess.run([KILN, *words], cwd=folder, capture_output=True, text=True, timeout=250,
                          preexec_fn=limit if file_limit else None)
    assert done.returncode == code, (words, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done


def lora(data, out, *more):
    return ["train", "lora", "--model", "pocket", "--data", data, "--trigger", "zk", "--name", "zk", "-o", out,
            "--steps", "4", "--rank", "2", "--preview-every", "0", "--warmup", "0", *more]


def weights(path):
    data = Path(path).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + length]), data[8 + length:]


def finite(path):
    _, data = weights(path)
    return all(h & 0x7c00 != 0x7c00 for (h,) in struct.iter_unpack("<H", data))


def checked(folder, *more, code=0):
    return json.loads(run(folder, "dataset", "check", *more, "--size", "128", "--no-sheet", "--json", code=code).stdout)


with tempfile.TemporaryDirectory() as top:
    # ---- archives that makesense.ai exports ----
    pots = Path(top, "pots")
    pots.mkdir()
    for i in range(3):
        png(pots / f"k{i}.png", 160, 128, i)
    archive(pots / "labels_my-project_2026-11-24-09-30-00.zip",
            {f"k{i}.png"[:-4] + ".txt": f"{i % 2} 0.5 0.5 0.5 0.5\n" for i in range(3)})
    Path(pots, "labels.txt").write_text("oven\nwoman\n")
    found = checked(top, "pots")
    assert [s["caption"] for s in found["samples"]] == ["oven", "woman", "oven"], found
    assert all(s["source"] == "annotations" for s in found["samples"]) and not found["problems"], found
    run(top, *lora("pots", "masked.safetensors", "--mask-loss", "0.1", "-q"))
    run(top, *lora("pots", "plain.safetensors", "-q"))
    assert weights(Path(top, "masked.safetensors"))[1] != weights(Path(top, "plain.safetensors"))[1]
    meta = weights(Path(top, "masked.safetensors"))[0]["__metadata__"]
    export = next(pots.glob("*.zip"))
    assert meta["kiln.annotations_sha256"] == hashlib.sha256(export.read_bytes()).hexdigest(), meta

    archive(Path(top, "voc.zip"), {"k0.xml": voc("k0.png", 160, 128, [("tea & pot", 8, 8, 80, 80)]),
                                   "__MACOSX/k1.xml": "rubbish", "../k2.xml": voc("k2.png", 160, 128, [("cup", 1, 1, 9, 9)]),
                                   "deep/er/": ""}, zipfile.ZIP_STORED)
    found = checked(top, "pots", "--annotations", "voc.zip")
    assert [s["caption"] for s in found["samples"]] == ["tea & pot", "", "cup"], found
    assert not Path(top, "k2.xml").exists() and not Path(top).parent.joinpath("k2.xml").exists()

    # ---- hostile archives: named, nothing written, nothing endless ----
    good = export.read_bytes()
    Path(top, "cut.zip").write_bytes(good[:-10])
    archive(Path(top, "bomb.zip"), {"k0.txt": "0 0.5 0.5 0.1 0.1\n" + " " * (8 << 20)})
    archive(Path(top, "empty.zip"), {})
    damaged = bytearray(Path(top, "voc.zip").read_bytes())
    at = damaged.index(b"tea & pot")
    damaged[at] ^= 1
    Path(top, "damaged.zip").write_bytes(damaged)
    secret = bytearray(good)
    at = secret.index(b"PK\1\2")
    secret[at + 8] |= 1
    Path(top, "secret.zip").write_bytes(secret)
    for name, said in (("cut.zip", "no directory"), ("bomb.zip", "more than the 4194304 allowed"),
                       ("empty.zip", "neither VOC"), ("damaged.zip", "k0.xml is damaged"), ("secret.zip", "encrypted")):
        code = 1 if name in ("cut.zip", "empty.zip", "bomb.zip") else 0
        done = run(top, "dataset", "check", "pots", "--annotations", name, "--size", "128", "--no-sheet", code=code)
        assert said in done.stdout + done.stderr, (name, done.stdout, done.stderr)

    # ---- what does not fit is named, the rest is trained on ----
    bad = Path(top, "bad")
    bad.mkdir()
    png(bad / "good.png", 128, 128, 5)
    png(bad / "tiny.png", 20, 200, 6)
    Path(bad, "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture at all")
    Path(bad, "cut.png").write_bytes((bad / "good.png").read_bytes()[:200])
    Path(bad, "alone.txt").write_text("a caption without a picture")
    Path(bad, "good.txt").write_bytes(b"caf\xe9, not UTF-8")
    Path(bad, "labels_x.csv").write_text("label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\n"
                                         "oven,100,100,90,90,good.png,128,128\nghost,1,1,9,9,gone.png,128,128\nno row at all\n")
    expected = ("tiny.png is left out: 20x200", "broken.jpg is left out", "cut.png is left out", "alone.txt is a caption without a picture",
                "good.txt is not UTF-8", "'oven' at 100,100 90x90 reaches outside the 128x128 picture", "gone.png", "line 4 is no annotation")
    done = run(top, "dataset", "check", "bad", "--size", "128", "--no-sheet", code=1)
    trained = run(top, *lora("bad", "bad.safetensors", "-q"))
    for said in expected:
        assert said in done.stdout and said in trained.stderr, (said, done.stdout, trained.stderr)
    os.unlink(bad / "good.png")
    done = run(top, *lora("bad", "none.safetensors", "-q"), code=1)
    assert "holds no picture to train on" in done.stderr and not list(Path(top).glob("none*")), done.stderr
    done = run(top, *lora("nowhere", "none.safetensors", "-q"), code=1)
    assert "nowhere" in done.stderr, done.stderr

    # ---- a disk that is full at a checkpoint: the one before stays, and the run goes on from it ----
    words = lora("pots", "full.safetensors", "--save-every", "2", "-q")
    half = lora("pots", "half.safetensors", "--save-every", "2", "-q")
    run(top, *half)
    size = Path(top, "half-000002.safetensors").stat().st_size
    done = run(top, *words, code=1, file_limit=size + 4096)  # room for the LoRA, none for the state
    assert "the checkpoint of step 2 was not written" in done.stderr, done.stderr
    assert "no checkpoint was written yet" in done.stderr and "full.state" in done.stderr, done.stderr
    assert not Path(top, "full.safetensors").exists() and not list(Path(top).glob("*.tmp")), os.listdir(top)
    child = subprocess.Popen([KILN, *lora("pots", "full.safetensors", "--save-every", "2", "-q")], cwd=top,
                             stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    while not Path(top, "full.state").exists() and child.poll() is None:
        pass
    os.killpg(child.pid, 9)
    child.wait()
    if Path(top, "full.state").exists():  # it may have been faster than the kill
        before = Path(top, "full.state").read_bytes()
        done = run(top, *words, code=1, file_limit=4096)
        step = re.search(r"the checkpoint of step (\d+) stays", done.stderr)
        assert step and int(step[1]) in (2, 4), done.stderr
        assert Path(top, "full.state").read_bytes() == before
    run(top, *words)
    assert weights(Path(top, "full.safetensors"))[1] == weights(Path(top, "half.safetensors"))[1]

    # ---- a learning that runs away: named, exit 1, every file that was kept is whole ----
    away = lora("pots", "away.safetensors", "--lr", "0.9", "--weight-decay", "1000", "--steps", "60", "--warmup", "60",
                "--save-every", "1", "-q")
    done = run(top, *away, code=1)
    kept = sorted(Path(top).glob("away-*.safetensors"))
    step = re.search(r"the checkpoint of step (\d+) stays", done.stderr)
    assert step and kept and kept[-1].name == f"away-{int(step[1]):06d}.safetensors", (done.stderr, kept)
    assert all(finite(k) for k in kept) and Path(top, "away.state").exists()
    assert not Path(top, "away.safetensors").exists()
    again = run(top, *away, code=1)
    assert f"going on after step {step[1]}" in again.stderr and f"step {step[1]} stays" in again.stderr, again.stderr
print("train_input: all passed")
