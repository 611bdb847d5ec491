"""LoRAs and embeddings on demand: the practice horde asks, CivitAI on loopback has them or says no.

usage: adapters.py KILND NULL-ENGINE HORDE KILN-ENGINE [FOLDER-WITH-A-TINY-MODEL-AND-ITS-LORA]"""
import os
import sys
import time

from bench import Place, at_once, check, run, wait_for
from civitai import CivitAI

TOKEN = "canary-civitai-token-1234"


def place(programs, civitai, *horde_options, **keys):
    p = Place(programs, *horde_options, max_batch=1, civitai_api_token=TOKEN, env=dict(civitai.env), **keys)
    return p


def start(p):
    p.kilnd.env["KILN_FAKE_DUMP"] = p.folder + "/asked"
    p.kilnd.start()
    p.kilnd.ready()


def asked(p):
    """What the engine was asked: prompt, negative prompt, {name: path}"""
    lines = open(p.folder + "/asked").read().splitlines()
    return [(f[0], f[1], dict(x.split("=", 1) for x in f[2:])) for f in (line.split("\t") for line in lines)]


def notes(p, kind):
    return [(m["value"], m["ref"]) for x in p.horde.calls("submit") for m in x["request"].get("gen_metadata") or [] if m["type"] == kind]


def one(p, **params):
    p.horde.fire(1, **params)
    p.all_over(30)
    return asked(p)[-1]


def each_way_of_naming_one_is_understood(programs):
    with CivitAI() as c, place(programs, c) as p:
        c.add(135867, 500, b"old ink" * 100, words=["old"])
        c.add(135867, 501, b"new ink" * 100, words=["ink style", "black lines", "drawn"])
        c.add(7808, 60, b"word" * 10, name="EasyNegative", kind="TextualInversion", file="easy.pt")
        start(p)
        prompt, _, files = one(p, loras=[{"name": "135867", "model": 0.8, "inject_trigger": "any"}])
        check(files["135867"].endswith("/loras/civitai-501.safetensors"), f"the newest version: {files}")
        check(open(files["135867"], "rb").read() == b"new ink" * 100, "its bytes")
        check(prompt.startswith("a pot, ") and prompt[len("a pot, "):] in ("ink style", "black lines", "drawn"), prompt)
        prompt, _, _ = one(p, loras=[{"name": "135867", "inject_trigger": "all"}])
        check(prompt == "a pot, ink style, black lines, drawn", prompt)
        prompt, _, _ = one(p, loras=[{"name": "135867", "inject_trigger": "black line"}])
        check(prompt == "a pot, black lines", prompt)
        prompt, _, files = one(p, loras=[{"name": "500", "is_version": True}])
        check(files["500"].endswith("/loras/civitai-500.safetensors") and prompt.strip() == "a pot", f"{prompt} {files}")
        _, _, files = one(p, loras=[{"name": "ink"}])
        check(files["ink"].endswith("/loras/civitai-501.safetensors"), f"by its name: {files}")
        _, negative, files = one(p, tis=[{"name": "7808", "inject_ti": "negprompt", "strength": 0.5}])
        check(files["7808"].endswith("/embeddings/civitai-60.pt") and negative.endswith("(embedding:7808:0.5)"),
              f"{negative} {files}")
        check(c.count("download/models/501") == 1 and c.count("v1/models/135867") == 1, f"each was asked for once: {c.seen}")
        check(not notes(p, "lora") + notes(p, "ti"), f"{notes(p, 'lora')}")
        check(p.kilnd.term() == 0, "ends with 0")
        p.agree()
        c.answers = {k: (0, 500, b"", {}) for k in ("v1/models/135867",)}
        p.kilnd.env["KILN_CLOCK_TURN_MS"] = str(2 * 86400000)  # the word is asked again after a day: CivitAI is down
        start(p)
        _, _, files = one(p, loras=[{"name": "135867"}])
        check(files["135867"].endswith("501.safetensors"), "what it meant is still here")


def tokens_stay_in_the_header(programs):
    with CivitAI() as c, place(programs, c) as p:
        c.add(1, 10, b"x" * 100)
        c.answers["download/models/10"] = (0, 302, b"", {"Location": f"{c.url}/b2.civitai.com/file?sign=1"})
        start(p)
        one(p, loras=[{"name": "1"}])
        with_token = [path for path, headers in c.seen if TOKEN in headers.get("authorization", "")]
        check(any("v1/models/1" in path for path in with_token), "the API gets it")
        check(not any(TOKEN in path for path, _ in c.seen), "it is in no URL")
        check(p.kilnd.term() == 0, "ends with 0")
        for path in [p.kilnd.log_path, *p.kilnd.state.rglob("*")]:
            check(not path.is_file() or TOKEN.encode() not in path.read_bytes(), f"{path.name} has the token")


def what_cannot_be_had_is_named_and_not_asked_twice(programs):
    cases = {  # what the server does, the code, how often the address that failed may be asked
        "no such model": (lambda c: None, "download_failed", "v1/models/1", 1),
        "withheld": (lambda c: c.answers.update({"v1/models/1": (0, 451, b"", {})}), "download_failed", "v1/models/1", 1),
        "file withheld": (lambda c: (c.add(1, 10, b"x"), c.answers.update({"download/models/10": (0, 451, b"", {})})),
                          "download_failed", "download/models/10", 1),
        "another family": (lambda c: c.add(1, 10, b"x", baseline="SDXL 1.0"), "baseline_mismatch", "download/models/10", 0),
        "a checkpoint": (lambda c: c.add(1, 10, b"x", kind="Checkpoint"), "download_failed", "download/models/10", 0),
        "wrong bytes": (lambda c: (c.add(1, 10, b"x" * 50), c.files.update({10: b"y" * 50})), "download_failed",
                        "download/models/10", 1),
        "a web page": (lambda c: (c.add(1, 10, b"x"), c.answers.update(
            {"download/models/10": (0, 200, b"<html>", {"Content-Type": "text/html"})})), "download_failed", "download/models/10", 2),
        "another host": (lambda c: c.add(1, 10, b"x", downloadUrl="https://10.0.0.1/a.safetensors"), "download_failed",
                         "10.0.0.1", 0),
        "far too large": (lambda c: c.add(1, 10, b"x", sizeKB=5e6), "download_failed", "download/models/10", 0),
        "no weights": (lambda c: c.add(1, 10, b"x", file="readme.zip"), "download_failed", "download/models/10", 0),
        "nonsense": (lambda c: c.answers.update({"v1/models/1": (0, 200, b'{"id":', {})}), "download_failed", "v1/models/1", 2),
    }
    def play(case):
        name, (prepare, code, address, most) = case
        with CivitAI() as c, place(programs, c) as p:
            prepare(c)
            start(p)
            for _ in range(2):
                _, _, files = one(p, loras=[{"name": "1"}])
                check(not files, f"{name}: {files}")
            check(notes(p, "lora") == [(code, "1")] * 2, f"{name}: {notes(p, 'lora')}")
            check(c.count(address) <= most, f"{name}: {address} was asked {c.count(address)} times")
            left = list((p.kilnd.state / "cache" / "loras").glob("*")) if (p.kilnd.state / "cache" / "loras").exists() else []
            check(not left, f"{name}: left {left}")
            check(p.kilnd.term() == 0, "ends with 0")
            check(set(p.kilnd.states().values()) == {"SETTLED"}, f"{name}: the images are made all the same: {p.kilnd.states()}")
            p.agree()

    return f"{at_once(play, cases.items())} cases"


def one_fetch_for_all_who_wait_and_before_the_engine_needs_it(programs):
    with CivitAI() as c, place(programs, c, fake="slow:300", queue_size=3) as p:
        c.add(1, 10, b"x" * 1000)
        c.answers["download/models/10"] = (0.4, 0, b"", {})
        p.horde.fire(4, loras=[{"name": "1"}])
        start(p)
        p.all_over(30)
        check(c.count("download/models/10") == 1, f"{c.count('download/models/10')} downloads")
        check([sorted(f) for _, _, f in asked(p)] == [["1"]] * 4, f"{asked(p)}")


def a_slow_one_costs_half_of_the_time_at_most(programs):
    with CivitAI() as c, place(programs, c) as p:
        c.add(1, 10, b"x" * 1000)
        c.answers["download/models/10"] = (30, 0, b"", {})
        p.horde.fault("pop", "ttl", ms=19000)
        p.horde.fire(1, loras=[{"name": "1"}])
        began = time.monotonic()
        start(p)
        wait_for(lambda: p.horde.calls("submit"), 12, "the image is made without it")
        took = time.monotonic() - began
        check(took < 4.5, f"after {took:.1f} s of 4")
        check(notes(p, "lora") == [("download_failed", "1")], f"{notes(p, 'lora')}")
        began = time.monotonic()
        check(p.kilnd.term() == 0, "ends with 0")
        check(time.monotonic() - began < 4, "the fetch under way does not hold it")
        check(p.kilnd.states().popitem()[1] == "SETTLED", "and paid")


def the_quota_removes_what_was_used_longest_ago(programs):
    with CivitAI() as c, place(programs, c, max_lora_cache_size=1) as p:
        for i in (1, 2, 3):
            c.add(i, 10 + i, bytes([i]) * 1000)
        c.add(4, 14, b"4" * 1000, sizeKB=(1 << 20) - 1.5)  # says it fills the quota but for one of the others
        start(p)
        folder = p.kilnd.state / "cache" / "loras"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mine.safetensors").write_bytes(b"its owner's")
        for i in (1, 2, 3, 1):
            one(p, loras=[{"name": str(i)}])
            time.sleep(0.02)
        _, _, files = one(p, loras=[{"name": "4"}])
        check(list(files) == ["4"], f"{files}")
        left = sorted(f.name for f in folder.glob("*.safetensors"))
        check(left == ["civitai-11.safetensors", "civitai-14.safetensors", "mine.safetensors"], f"{left}")
        one(p, loras=[{"name": "2"}])
        check(c.count("download/models/12") == 2, "what was removed comes again")


def weights_that_came_change_the_picture(programs):
    """The real engine: a LoRA and an embedding of the right family are used, one that is none is named."""
    reference = programs.get("reference")
    if not reference or not os.path.isdir(reference + "/models/sd1/unet"):
        return "skipped: no small checkpoint is here"
    with CivitAI() as c, place({**programs, "engine": programs["real"]}, c, custom_models=[
            {"name": "stable_diffusion", "baseline": "stable_diffusion_1", "filepath": reference + "/models/sd1"}]) as p:
        c.add(1, 10, open(reference + "/lora/kohya.safetensors", "rb").read(), words=["ink"])
        c.add(2, 20, b"no weights at all " * 50)
        c.add(3, 30, open(reference + "/embedding/word.safetensors", "rb").read(), kind="TextualInversion")
        p.kilnd.start()
        p.kilnd.ready()
        same = {"width": 64, "height": 64, "seed": "7"}
        for more in ({}, {"loras": [{"name": "1", "inject_trigger": "any"}]}, {"loras": [{"name": "2"}]},
                     {"tis": [{"name": "3", "inject_ti": "prompt"}]}):
            p.horde.fire(1, **same, **more)
            p.all_over(60)
        check(p.kilnd.term() == 0, "ends with 0")
        p.agree()
        ids = [x["request"]["id"] for x in p.horde.calls("submit")]
        plain, lora, broken, ti = (next(p.horde.store.glob(f"{i}*")).read_bytes() for i in ids)
        check(lora != plain and ti != plain, "LoRA and embedding change the picture")
        check(broken == plain, "what is no LoRA changes nothing")
        check(notes(p, "lora") == [("parse_failed", "2")] and not notes(p, "ti"), f"{notes(p, 'lora')} {notes(p, 'ti')}")


if __name__ == "__main__":
    sys.exit(run([v for k, v in list(globals().items()) if callable(v) and getattr(v, "__module__", "") == "__main__"
                  and k not in ("place", "start", "asked", "notes", "one")],
                 dict(zip(("kilnd", "engine", "horde", "real", "reference"), map(os.path.abspath, sys.argv[1:])))))
