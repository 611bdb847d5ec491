"""kiln train lora on the pocket model: annotated examples in, a LoRA out; killed at any step it ends with the same bytes.

usage: train.py KILN"""
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KILN = os.path.abspath(sys.argv[1])
MODEL = str(Path(KILN).parents[1] / "data/models/pocket/vae/diffusion_pytorch_model.safetensors")


def run(folder, *words, code=0):
    done = subprocess.run([KILN, *words], cwd=folder, capture_output=True, text=True, timeout=250)
    assert done.returncode == code, (words, done.returncode, done.stderr[-2000:])
    return done


def lora(out, *more):
    return ["train", "lora", "--model", "pocket", "--data", "pots", "--trigger", "zk", "--name", "zk", "-o", out,
            "--steps", "6", "--rank", "2", "--batch", "2", "--save-every", "2", "--preview-every", "0", "-q", *more]


def metadata(path):
    data = Path(path).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + length]), hashlib.sha256(data[8 + length:]).hexdigest()


with tempfile.TemporaryDirectory() as folder:
    run(folder, "pocket", "examples", "pots", "--count", "4")
    checked = json.loads(run(folder, "dataset", "check", "pots", "--size", "128", "--trigger", "zk", "--json").stdout)
    assert checked["pictures"] == 4 and not checked["problems"], checked
    assert all(s["caption"].startswith("zk, a ") and s["source"] == "annotations" for s in checked["samples"])
    assert Path(folder, "contact-sheet.png").stat().st_size > 1000

    run(folder, *lora("whole.safetensors", "--prompt", "zk, a jug", "--preview-steps", "2", "--card", "--licence", "cc0-1.0"))
    header, data_hash = metadata(Path(folder, "whole.safetensors"))
    meta = header["__metadata__"]
    assert meta["ss_base_model_version"] == "sd_v1" and meta["ss_network_dim"] == "2", meta
    assert meta["modelspec.trigger_phrase"] == "zk" and meta["sshs_model_hash"] == data_hash, meta
    assert len(meta["ss_new_sd_model_hash"]) == 64 and len(meta["ss_sd_model_hash"]) == 8, meta
    assert meta["modelspec.hash_sha256"] == "0x" + data_hash and meta["ss_mixed_precision"] in ("no", "bf16"), meta
    tags = json.loads(meta["ss_tag_frequency"])["pots"]
    assert tags["zk"] == 4 and sum(tags.values()) > 8, tags
    assert json.loads(meta["ss_dataset_dirs"]) == {"pots": {"n_repeats": 1, "img_count": 4}}, meta
    assert len(meta["kiln.pictures_sha256"].split()) == 4, meta
    assert all(n.startswith("lora_unet_") for n in header if n != "__metadata__")
    for name in ("whole-sheet.png", "whole-loss.png", "whole-000002.safetensors", "whole-000004.safetensors"):
        assert Path(folder, name).stat().st_size > 500, name

    # what the file and its card say
    shown = json.loads(run(folder, "lora", "show", "whole.safetensors", "--json").stdout)
    whole = hashlib.sha256(Path(folder, "whole.safetensors").read_bytes()).hexdigest()
    assert shown["trigger"] == "zk" and shown["rank"] == "2" and shown["licence"] == "cc0-1.0", shown
    assert shown["sha256"] == whole and shown["data_sha256"] == data_hash and shown["base_sha256"] == meta["ss_new_sd_model_hash"], shown
    assert "trigger      zk" in run(folder, "lora", "show", "whole.safetensors", "--all").stdout
    assert "is no LoRA" in run(folder, "lora", "show", MODEL, code=1).stderr
    card = Path(folder, "whole.md").read_text()
    for part in ('license: "cc0-1.0"', 'instance_prompt: "zk"', "whole-sheet.png", whole, whole[:10], data_hash[:12], "6 of 2 pictures"):
        assert part in card, (part, card)

    # the same again, killed once its first checkpoint is there
    child = subprocess.Popen([KILN, *lora("killed.safetensors")], cwd=folder, stderr=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not Path(folder, "killed.state").exists() and time.monotonic() < deadline:
        time.sleep(.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    done = run(folder, *lora("killed.safetensors"))
    assert "going on after step" in done.stderr, done.stderr
    assert metadata(Path(folder, "killed.safetensors"))[1] == data_hash
    assert not Path(folder, "killed.state").exists()

    # the file works in the engine, and PEFT's names are PEFT's
    run(folder, "generate", "--model", "pocket", "--prompt", "zk, a jug", "-W", "128", "-H", "128", "--steps", "2",
        "--lora", "whole.safetensors:1", "-o", "jug.png", "-q")
    run(folder, *lora("peft.safetensors", "--format", "peft", "--save-every", "0"))
    names = [n for n in metadata(Path(folder, "peft.safetensors"))[0] if n != "__metadata__"]
    run(folder, *lora("alpha.safetensors", "--format", "peft", "--save-every", "0", "--alpha", "1", "--text"))
    told = json.loads(metadata(Path(folder, "alpha.safetensors"))[0]["__metadata__"]["lora_adapter_metadata"])
    assert told["unet.r"] == 2 and told["unet.lora_alpha"] == 1 and "q_proj" in told["text_encoder.target_modules"], told
    assert all(n.startswith("unet.") and n.endswith((".lora_A.weight", ".lora_B.weight")) for n in names), names[:3]

    # bad input: a sentence, the exit code, no file
    for words, code, said in (
            (lora("x.safetensors", "--rank", "0"), 2, "rank 0"),
            (lora("x.safetensors", "--lr", "9"), 2, "--lr"),
            (lora("x.safetensors", "--stepz", "9"), 2, "did you mean --steps"),
            (lora("x.ckpt"), 2, ".safetensors"),
            (lora("x.safetensors", "--data", "nowhere"), 1, "nowhere"),
            (lora("x.safetensors", "--annotations", "jug.png"), 1, "jug.png"),
            (lora("x.safetensors", "--lr", ".9", "--weight-decay", "1e30", "--fresh"), 1, "no checkpoint was written yet")):
        refused = run(folder, *words, code=code)
        assert said in refused.stderr, (words, refused.stderr)
        assert not Path(folder, "x.safetensors").exists(), words
print("train: all passed")
