"""A LoRA training that is killed (SIGKILL) at random moments ends with the same bytes as one that is not: for each optimiser,
with text encoders, accumulation, masks and cuts. Previews change nothing.

usage: train_resume.py KILN [SEED]"""
import hashlib
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from train_pictures import archive, png

KILN = os.path.abspath(sys.argv[1])
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
STEPS = 8
VARIANTS = {
    "plain": [],
    "adamw8bit": ["--optimizer", "adamw8bit", "--rank", "32"],
    "text": ["--text", "--accumulation", "2", "--caption-dropout", "0.3"],
    "all": ["--text", "--optimizer", "adamw8bit", "--accumulation", "3", "--batch", "2", "--flip", "--mask-loss", "0.1", "--random-crop", "2",
            "--pyramid-noise", "4", "--noise-offset", "0.05", "--targets", "all", "--lean", "--format", "peft"],
}


def words(out, *more):
    return [KILN, "train", "lora", "--model", "pocket", "--data", "pots", "--trigger", "zk", "--name", "zk", "-o", out, "--steps",
            str(STEPS), "--rank", "4", "--preview-every", "0", "--save-every", "1", "-q", *more]


def run(folder, out, *more):
    done = subprocess.run(words(out, *more), cwd=folder, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, (out, done.stderr[-2000:])
    return done


def data_hash(path):
    data = Path(path).read_bytes()
    return hashlib.sha256(data[8 + struct.unpack("<Q", data[:8])[0]:]).hexdigest()


def whole_hash(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


print(f"seed {SEED}")
r = random.Random(SEED)
with tempfile.TemporaryDirectory() as top:
    pots = Path(top, "pots")
    pots.mkdir()
    for i in range(3):
        png(pots / f"k{i}.png", 192 if i == 2 else 128, 128, i)
    archive(pots / "labels_p_2026-11-24-09-30-00.zip", {f"k{i}.txt": "0 0.5 0.5 0.5 0.5\n" for i in range(3)} | {"labels.txt": "cup"})
    for name, more in VARIANTS.items():
        started = time.monotonic()
        run(top, "whole.safetensors", *more)
        lasts = time.monotonic() - started
        kills, stops = 0, []
        for _ in range(4):
            child = subprocess.Popen(words("killed.safetensors", *more), cwd=top, stderr=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, start_new_session=True)
            try:
                child.wait(timeout=r.uniform(.2, .7) * lasts)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                kills += 1
                saved = sorted(Path(top).glob("killed-*.safetensors"))
                stops.append(int(saved[-1].stem[-6:]) if saved else 0)
            if Path(top, "killed.safetensors").exists():
                break
        run(top, "killed.safetensors", *more)
        assert whole_hash(Path(top, "killed.safetensors")) == whole_hash(Path(top, "whole.safetensors")), (name, stops)
        assert not Path(top, "killed.state").exists()
        print(f"{name}: {kills} kills, after steps {stops}; the same bytes")
        for old in Path(top).glob("*.safetensors"):
            old.unlink()

    # previews while it runs: the same weights; they are there, and differ as the LoRA learns
    run(top, "without.safetensors", "--lr", "1e-3")
    run(top, "with.safetensors", "--lr", "1e-3", "--preview-every", "3", "--prompt", "zk, a jug", "--preview-steps", "2")
    assert data_hash(Path(top, "with.safetensors")) == data_hash(Path(top, "without.safetensors"))
    previews = sorted(Path(top).glob("with-0*.png"))
    assert len(previews) == (STEPS - 1) // 3 and len({p.read_bytes() for p in previews}) > 1, previews
print("train_resume: all passed")
