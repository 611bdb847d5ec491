"""kiln generate --preview: the picture as it grows, by a tiny decoder, by the linear fit, and in the terminal.

usage: preview.py KILN GOLDEN-FOLDER"""
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

KILN, GOLDEN = map(os.path.abspath, sys.argv[1:])


def check(condition, text):
    if not condition:
        sys.exit(f"FAILED: {text}")


def chunks(path):
    data = path.read_bytes()
    check(data[:8] == b"\x89PNG\r\n\x1a\n", f"{path} is no PNG")
    at = 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        yield kind, data[at + 8:at + 8 + length]
        at += 12 + length


def pixels(path):
    """Its size, and the scan lines as they were filtered: one encoder wrote all of these."""
    found = list(chunks(path))
    size = struct.unpack(">II", dict(found)[b"IHDR"][:8])
    return size, zlib.decompress(b"".join(data for kind, data in found if kind == b"IDAT"))


def draw(folder, *options, steps=3):
    command = [KILN, "generate", "--model", f"{GOLDEN}/reference/models/sd1", "--prompt", "a red house", "--width", "64",
               "--height", "128", "--steps", str(steps), "--sampler", "k_euler", "--seed", "5", "--device", "cpu:1",
               "--precision", "fp32", "-o", "out.png", "--quiet", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=120)


def in_a_folder(test):
    with tempfile.TemporaryDirectory() as folder:
        test(Path(folder))
    print("ok", test.__name__)


def the_last_preview_of_a_tiny_decoder_is_the_picture(folder):
    done = draw(folder, "--vae", f"{GOLDEN}/mixed/vae/taesd.safetensors", "--preview", "p.png")
    check(done.returncode == 0, done.stderr)
    size, whole = pixels(folder / "p.png")
    check(size == (64, 128), f"{size}")
    check((size, whole) == pixels(folder / "out.png"), "the last step's guess is what comes out")
    check(sorted(f.name for f in folder.iterdir()) == ["out.png", "p.png"], f"{sorted(folder.iterdir())}")


def steps_between_previews_are_kept(folder):
    """--preview-every 2 of 3 steps: the last preview is the second step's, not the picture."""
    done = draw(folder, "--vae", f"{GOLDEN}/mixed/vae/taesd.safetensors", "--preview", "p.png", "--preview-every", "2")
    check(done.returncode == 0, done.stderr)
    check(pixels(folder / "p.png") != pixels(folder / "out.png"), "it is the second of three")
    done = draw(folder, "--preview", "none.png", "--preview-every", "4")
    check(done.returncode == 0 and not (folder / "none.png").exists(), "fewer steps than that: none")


def without_a_decoder_it_is_small(folder):
    done = draw(folder, "--preview", "p.png")
    check(done.returncode == 0, done.stderr)
    check(pixels(folder / "p.png")[0] == (8, 16), f"{pixels(folder / 'p.png')[0]}")


def a_dash_draws_in_the_terminal_and_leaves_nothing(folder):
    done = draw(folder, "--preview", "-", steps=2)
    check(done.returncode == 0, done.stderr)
    drawn = done.stdout.decode()
    check(drawn.rstrip().endswith("out.png") and len(drawn) > 2 * 64, f"{drawn[-200:]!r}")
    check([f.name for f in folder.iterdir()] == ["out.png"], f"{list(folder.iterdir())}")


def what_cannot_be_written_costs_no_picture(folder):
    done = draw(folder, "--preview", "nowhere/p.png")
    check(done.returncode == 0 and (folder / "out.png").exists(), done.stderr)


for test in (the_last_preview_of_a_tiny_decoder_is_the_picture, steps_between_previews_are_kept, without_a_decoder_it_is_small,
             a_dash_draws_in_the_terminal_and_leaves_nothing, what_cannot_be_written_costs_no_picture):
    in_a_folder(test)
