"""kiln bench: its parts on the pocket model, and a peer beside it (a stand-in that prints what peers print).

usage: bench_command.py KILN POCKET"""
import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

KILN, POCKET = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])

STAND_IN = """#!/bin/sh
# called as PYTHON bench_peer.py PEER WHAT ...
case "$3" in
check) exit 0 ;;
engine) printf 'load wall 2.000 cpu 2.000\\nstep wall 1000.000 cpu 2000.000\\nnoise\\nother wall 1 cpu 1\\n' ;;
train) printf 'training step wall 500.000 cpu 600.000\\n' ;;
esac
"""


def kiln(*options, python=None, code=0):
    environment = dict(os.environ)
    environment.pop("KILN_PYTHON", None)
    if python:
        environment["KILN_PYTHON"] = python
    done = subprocess.run([KILN, "bench", *options], capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == code, f"{options}: exit {done.returncode}, not {code}\n{done.stdout}{done.stderr}"
    return done


def main():
    model = ("--model", POCKET, "--device", "cpu:2")
    engine = json.loads(kiln("engine", *model, "--size", "128", "--rounds", "1", "--json").stdout)
    names = {part["name"] for part in engine["parts"]}
    wanted = {"load", "image with load", "text", "first step", "step", "decode", "image", "training step"}
    assert wanted <= names, f"parts {wanted - names} are missing"
    assert engine["training_mib"] >= engine["peak_mib"] > 0
    assert all(part["wall_seconds"] >= 0 for part in engine["parts"])
    text = kiln("train", *model, "--size", "128", "--rounds", "1", "--lean").stdout
    for word in ("lean training step", "linear_dx", "attention_grad", "peak "):
        assert word in text, f"{word} is not in\n{text}"

    for options in (["nothing"], ["engine", "--size", "100"], ["train", "--rank", "0"], ["make", "sd3", "x"],
                    ["engine", "--peer", "abacus"], ["train", "--peer", "sdcpp"],
                    ["engine", "--peer", "torch", "--isa", "sse"]):
        kiln(*options, code=2)

    missing = kiln("engine", *model[:2], "--peer", "torch", python="/bin/false", code=1)
    for word in ("torch", "diffusers", "transformers", "peft", "KILN_PYTHON"):
        assert word in missing.stderr, f"{word} is not in {missing.stderr}"
    missing = kiln("engine", *model[:2], "--peer", "sdcpp", python="/bin/false", code=1)
    assert "stable-diffusion-cpp-python" in missing.stderr

    with tempfile.TemporaryDirectory() as folder:
        stand_in = Path(folder, "python")
        stand_in.write_text(STAND_IN)
        stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
        wrong = kiln("engine", *model[:2], "--peer", "sdcpp", python=str(stand_in), code=1)
        assert "single-file" in wrong.stderr, wrong.stderr
        small = ("--model", POCKET, "--size", "128", "--rounds", "1", "--threads", "2", "--peer", "torch",
                 "--peer-rounds", "1", "--python", str(stand_in))
        both = json.loads(kiln("engine", *small, "--no-image", "--json").stdout)
        parts = {part["name"]: part for part in both["cases"][0]["parts"]}
        assert set(parts) == {"load", "step"}, parts
        step = parts["step"]
        assert step["peer_seconds"] == 1000 and step["ratio"] > 100, step
        assert abs(step["ratio"] * step["ours_seconds"] / 1000 - 1) < .1 or step["ours_seconds"] < .01, step
        assert both["cases"][0]["ours_mib"] > 0 and both["cases"][0]["peer_mib"] > 0
        both = json.loads(kiln("train", *small, "--json").stdout)
        kinds = [(case["precision"], case["lean"]) for case in both["cases"]]
        assert kinds == [("bf16", False), ("bf16", True), ("fp32", False)], kinds
        assert both["cases"][0]["parts"][0]["peer_cpu_seconds"] == 600
        text = kiln("train", *small, "--precision", "fp32").stdout
        assert "training step" in text and "peak memory MiB" in text, text
    print("kiln bench: parts, refusals and a peer beside it")


main()
