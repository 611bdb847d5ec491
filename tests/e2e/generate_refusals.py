"""kiln generate with bad input: a sentence that names the thing and the limit, the exit code, nothing written.

usage: generate_refusals.py KILN"""
import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

KILN = os.path.abspath(sys.argv[1])
failures = []
cases = 0


def header(entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def run(folder, *options, prompt="a pot"):
    command = [KILN, "generate", "--prompt", prompt, "--steps", "2", "-o", "out.png", "--quiet", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def refuses(name, code, words, *options, **more):
    """Runs in an empty folder; afterwards it must be empty but for what was put there."""
    global cases
    cases += 1
    with tempfile.TemporaryDirectory() as folder:
        for file, data in more.pop("files", {}).items():
            path = Path(folder, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        before = sorted(str(p) for p in Path(folder).rglob("*"))
        done = run(folder, *options, **more)
        after = sorted(str(p) for p in Path(folder).rglob("*"))
        text = done.stderr
        problems = []
        if done.returncode != code:
            problems.append(f"exit {done.returncode}, {code} expected")
        problems += [f'"{w}" is not in the message' for w in words if w not in text]
        if after != before:
            problems.append(f"left behind: {set(after) - set(before)}")
        if done.stdout:
            problems.append(f"on standard output: {done.stdout!r}")
        if problems:
            failures.append(f"{name}: {'; '.join(problems)}\n    {text.strip()}")


tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
whole = header({"a": tensor}) + b"12345678"
model = ["--model", "m.safetensors"]

refuses("missing file", 1, ["m.safetensors"], *model)
refuses("truncated", 1, ["m.safetensors", "spans"], *model, files={"m.safetensors": whole[:-3]})
refuses("cut header", 1, ["m.safetensors", "cut short", "61"], *model, files={"m.safetensors": whole[:20]})
refuses("overlapping", 1, ["overlaps"], *model,
        files={"m.safetensors": header({"a": tensor, "b": {**tensor, "data_offsets": [4, 12]}}) + b"123456789012"})
refuses("oversized header", 1, ["1099511627776", "10"], *model, files={"m.safetensors": struct.pack("<Q", 1 << 40) + b"{}"})
refuses("no model in it", 1, ["m.safetensors"], *model, files={"m.safetensors": whole})
refuses("pickle that calls", 1, ["m.ckpt"], "--model", "m.ckpt",
        files={"m.ckpt": b"\x80\x02cposix\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03."})
refuses("web page", 1, ["m.safetensors"], *model, files={"m.safetensors": b"<!DOCTYPE html><html>not found</html>"})
refuses("LFS pointer", 1, ["LFS"], *model,
        files={"m.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"})
refuses("GGUF", 1, ["GGUF"], *model, files={"m.safetensors": b"GGUF" + bytes(60)})
refuses("empty folder", 1, ["m"], "--model", "m", files={"m/x.txt": b""})

refuses("unknown sampler", 2, ["k_eulr", "k_euler_a"], *model, "--sampler", "k_eulr")
refuses("unknown schedule", 2, ["karas", "karras"], *model, "--schedule", "karas")
refuses("width", 2, ["width 100", "multiple of 64", "3072"], *model, "--width", "100")
refuses("height", 2, ["height 4096", "3072"], *model, "--height", "4096")
refuses("steps", 2, ["steps 0", "500"], *model, "--steps", "0")
refuses("no number", 2, ["--steps", "ten"], *model, "--steps", "ten")
refuses("cfg", 2, ["cfg", "100"], *model, "--cfg", "101")
refuses("count", 2, ["count", "20"], *model, "--count", "21")
refuses("long prompt", 2, ["10000", "7500"], *model, prompt="a" * 10000)
refuses("prompt that is no text", 2, ["UTF-8"], *model, prompt=os.fsdecode(b"a \xff pot"))
refuses("seed", 2, ["seed", "-1"], *model, "--seed", "-1")
refuses("strength", 2, ["strength", "x"], *model, "--lora", "a.safetensors:x")
refuses("unknown option", 2, ["--stesp"], *model, "--stesp", "3")
refuses("no model", 2, ["--model"])
refuses("extension", 2, [".png or .webp"], *model, "-o", "out.tga")
refuses("no such folder", 1, ["nowhere"], *model, "-o", "nowhere/out.png")
refuses("missing init image", 1, ["none.png"], *model, "--init", "none.png")
refuses("mask alone", 2, ["--init"], *model, "--mask", "m.png", files={"m.png": b"x"})
refuses("device", 1, ["gpu9"], *model, "--device", "gpu9", files={"m.safetensors": whole})

print(f"{cases - len(failures)} of {cases} refusals are right")
for failure in failures:
    print("FAILED", failure)
sys.exit(1 if failures else 0)
