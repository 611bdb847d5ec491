"""Alchemy from end to end: a requester asks the practice horde, kilnd pops, the real engine's networks (tiny, random
weights of the goldens) answer, the books agree.

usage: alchemy.py KILND ENGINE HORDE GOLDEN-FOLDER KILN"""
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request

from bench import Place, check, run, wait_for

CLIENT = "practice-client-key-00"
WORDS = ["caption", "nsfw", "interrogation"]
GROUPS = {"tags", "sites", "artists", "flavors", "mediums", "movements", "techniques"}


def put(golden, cache, *parts):
    """Weights into the cache folder, as `kiln models get` or their owner would."""
    files = {"caption": {"caption/BLIP.safetensors": "alchemy/blip.safetensors", "caption/vocab.txt": "alchemy/vocab.txt"},
             "original": {"caption/BLIP_Large.pth": "alchemy/blip.pth", "caption/vocab.txt": "alchemy/vocab.txt"},
             "words": {"words/" + n: "alchemy/words/" + n for n in os.listdir(golden + "/alchemy/words") if n.endswith(".txt")},
             "clip": {"safety/model.safetensors": "safety/model.safetensors", "safety/safety.tsv": "safety/rules.tsv",
                      "safety/tokenizer/vocab.json": "safety/tokenizer/vocab.json",
                      "safety/tokenizer/merges.txt": "safety/tokenizer/merges.txt"},
             "upscale": {"post/RealESRGAN_x4plus.pth": "upscale/x4.pth"}}
    for part in parts:
        for to, source in files[part].items():
            os.makedirs(os.path.dirname(f"{cache}/{to}"), exist_ok=True)
            shutil.copy(f"{golden}/{source}", f"{cache}/{to}")


def call(horde, method, path, body=None, key=CLIENT):
    request = urllib.request.Request(f"{horde.url}/api/v2/{path}", json.dumps(body).encode() if body else None,
                                     {"Content-Type": "application/json", "apikey": key}, method=method)
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.loads(reply.read())


def ask(horde, golden, forms, picture="safety/wide.png"):
    source = base64.b64encode(open(f"{golden}/{picture}", "rb").read()).decode()
    return call(horde, "POST", "interrogate/async", {"forms": [{"name": f} for f in forms], "source_image": source})["id"]


def result(horde, request, seconds=60):
    def done():
        status = call(horde, "GET", f"interrogate/status/{request}")
        return status if status["state"] in ("done", "faulted") else None
    return wait_for(done, seconds, "the forms are done")


def expected(golden, picture="wide"):
    of = json.load(open(golden + "/alchemy/expected.json"))
    seven = next(s for p in of["pictures"] if p["name"] == picture for s in p["searches"] if s["beams"] == 7)
    words = next(p for p in json.load(open(golden + "/alchemy/interrogation.json")) if p["name"] == picture)
    return seven["text"].removeprefix("a picture of").strip(), words["groups"]


def alchemist(programs, *parts, forms=("caption", "nsfw", "interrogation", "post-process"), **more):
    p = Place(programs, forms=list(forms), alchemist_name="practice alchemist", **more)
    p.parts = parts
    return p


def start(p, golden):
    put(golden, p.kilnd.state / "cache", *p.parts)
    p.kilnd.start()
    p.kilnd.ready()
    # the image worker pops at the same time, so two of its pops without one of the alchemist mean that there is none
    wait_for(lambda: "engine.ready" in p.kilnd.log(), 60, "the engine is ready")
    before = len(p.horde.calls("pop"))
    wait_for(lambda: p.horde.calls("alchemy_pop") or len(p.horde.calls("pop")) > before + 1, 60, "it pops")


def offers(p):
    pops = p.horde.calls("alchemy_pop")
    return set(pops[-1]["request"]["forms"]) if pops else set()


def every_form_is_popped_done_and_paid(programs):
    golden = programs["golden"]
    with alchemist(programs, "caption", "words", "clip", "upscale", precision="fp32") as p:
        start(p, golden)
        offered = offers(p)
        check(offered == {"caption", "nsfw", "interrogation", "RealESRGAN_x4plus"}, f"offered: {sorted(offered)}")
        status = result(p.horde, ask(p.horde, golden, WORDS + ["RealESRGAN_x4plus"]))
        got = {f["form"]: f.get("result", {}).get(f["form"]) for f in status["forms"]}
        check(all(f["state"] == "done" for f in status["forms"]), f"{status}")
        text, groups = expected(golden)
        check(got["caption"] == text, f"caption: {got['caption']!r}, not {text!r}")
        check(got["nsfw"] in (True, False), f"nsfw: {got['nsfw']!r}")
        said = got["interrogation"]
        check(set(said) == GROUPS and all((g in groups) == bool(said[g]) for g in GROUPS), f"groups: {said}")
        for group, words in groups.items():
            check([w["text"] for w in said[group]] == [w["text"] for w in words], f"{group}: {said[group]}")
            for a, b in zip(said[group], words):
                check(set(a) == {"text", "confidence"} and abs(a["confidence"] - b["confidence"]) < 1e-3, f"{group}: {a} {b}")
        with urllib.request.urlopen(got["RealESRGAN_x4plus"], timeout=10) as reply:
            head = reply.read(12)
        check(head[:4] == b"RIFF" and head[8:] == b"WEBP", f"the enlarged picture begins with {head}")
        again = result(p.horde, ask(p.horde, golden, ["caption", "interrogation"]))
        for f in again["forms"]:
            check(f["result"][f["form"]] == got[f["form"]], f"a second {f['form']} differs: {f['result']}")
        wait_for(lambda: p.kilnd.ask(request="status")["jobs_open"] == 0, 10, "all is told")
        check(p.kilnd.term() == 0, "ends with 0")
        books = p.agree()
        check(sorted(books.values()) == [1000, 1000, 1000, 3000, 3000, 3000], f"kudos: {sorted(books.values())}")
        check(set(p.kilnd.states().values()) == {"SETTLED"}, f"{p.kilnd.states()}")
        kinds = p.kilnd.rows("SELECT DISTINCT kind FROM posting WHERE milli > 0")
        check(kinds == [("alchemy",)], f"postings: {kinds}")
        vectors = [n for n in os.listdir(p.kilnd.state / "cache/words") if n.endswith(".vectors")]
        check(len(vectors) == len(groups), f"vectors kept: {vectors}")
        return f"\"{text}\""


def what_is_not_there_is_not_offered(programs):
    golden = programs["golden"]
    for parts, want in ((("caption", "upscale"), {"caption", "RealESRGAN_x4plus"}), (("original",), {"caption"}),
                        (("words", "clip"), {"nsfw", "interrogation"}), (("words",), set())):
        with alchemist(programs, *parts) as p:
            start(p, golden)
            check(offers(p) == want, f"with {parts}: {sorted(offers(p))}")
            check(p.kilnd.term() == 0, "ends with 0")
    with alchemist(programs, "caption", "words", "clip", forms=["interrogation"]) as p:
        start(p, golden)
        check(offers(p) == {"interrogation"}, f"the configuration says which: {sorted(offers(p))}")
        check(p.kilnd.term() == 0, "ends with 0")


def a_broken_file_is_named_and_not_offered(programs):
    golden = programs["golden"]
    with alchemist(programs, "caption", "clip") as p:
        put(golden, p.kilnd.state / "cache", "caption")
        path = p.kilnd.state / "cache/caption/BLIP.safetensors"
        p.parts = ("clip",)
        path.write_bytes(path.read_bytes()[:5000])
        start(p, golden)
        check(offers(p) == {"nsfw"}, f"{sorted(offers(p))}")
        check("engine.weights" in p.kilnd.log() and "BLIP.safetensors" in p.kilnd.log(), "the log does not name the file")
        check(p.kilnd.term() == 0, "ends with 0")


def what_the_horde_gives_all_the_same_is_refused(programs):
    """A form that was not offered comes as a fault, at once and by name; the horde may give it to another."""
    golden = programs["golden"]
    with alchemist(programs, "caption", "clip", "words") as p:
        start(p, golden)
        os.unlink(p.kilnd.state / "cache/caption/vocab.txt")  # offered at the start, gone when the job comes
        ask(p.horde, golden, ["caption"])
        wait_for(lambda: "vocab.txt" in p.kilnd.log(), 20, "the log says what is missing")
        wait_for(lambda: p.horde.call("GET", "/practice/state")["faulted"] > 0, 20, "the form comes back as faulted")
        done = result(p.horde, ask(p.horde, golden, ["nsfw"]))
        check(done["forms"][0]["state"] == "done", "the engine goes on")
        check(p.kilnd.term() == 0, "ends with 0")


def a_killed_engine_costs_no_form(programs):
    golden = programs["golden"]
    with alchemist(programs, "caption", "clip", "words") as p:
        start(p, golden)
        request = ask(p.horde, golden, WORDS)
        wait_for(lambda: p.kilnd.ask(request="status")["engines"][0]["job"] or
                 call(p.horde, "GET", f"interrogate/status/{request}")["state"] == "done", 20, "the engine works")
        os.kill(p.kilnd.ask(request="status")["engines"][0]["pid"], 9)
        status = result(p.horde, request)
        check(all(f["state"] == "done" for f in status["forms"]), f"{status}")
        wait_for(lambda: p.kilnd.ask(request="status")["jobs_open"] == 0, 10, "all is told")
        check(p.kilnd.term() == 0, "ends with 0")
        check(len(p.agree()) == 3, "three forms are in the books")


def kiln(programs, home, *words, code=0, env=None):
    """`kiln` of one's own home; its standard output, and what it said beside."""
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "KILN_ENGINE": programs["engine"], "CI": "true", **(env or {})}
    env.update({n: os.environ[n] for n in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS") if n in os.environ})
    r = subprocess.run([programs["kiln"], *words], env=env, capture_output=True, text=True, timeout=120)
    check(r.returncode == code, f"kiln {' '.join(words)} ended with {r.returncode}: {r.stderr}{r.stdout}")
    return r.stdout, r.stderr


def a_picture_is_described_on_this_machine(programs):
    golden, pictures = programs["golden"], [f"{programs['golden']}/safety/{n}.png" for n in ("wide", "tall")]
    with tempfile.TemporaryDirectory(prefix="kiln-describe-") as home:
        _, said = kiln(programs, home, "caption", pictures[0], code=1)
        check("kiln models get caption" in said and "caption" in said, said)
        _, said = kiln(programs, home, "interrogate", pictures[0], code=1)
        check("kiln models get interrogation" in said, said)
        put(golden, home + "/.cache/kiln", "caption", "words", "clip")
        out, _ = kiln(programs, home, "caption", "--precision", "fp32", pictures[0])
        check(out == expected(golden, "wide")[0] + "\n", f"{out!r}")
        out, _ = kiln(programs, home, "caption", "--precision", "fp32", *pictures, "--json")
        check([x["caption"] for x in json.loads(out)] == [expected(golden, n)[0] for n in ("wide", "tall")], out)
        out, _ = kiln(programs, home, "interrogate", *pictures, "--json")
        for x, name in zip(json.loads(out), ("wide", "tall")):
            want = {g: [w["text"] for w in words] for g, words in expected(golden, name)[1].items()}
            check({g: [w["text"] for w in words] for g, words in x["interrogation"].items()} == want, f"{name}: {x}")
        out, _ = kiln(programs, home, "interrogate", pictures[0])
        check("old street" in out and "97.7 %" in out, out)
        kiln(programs, home, "caption", home + "/none.png", code=1)
        kiln(programs, home, "caption", code=2)
        kiln(programs, home, "caption", pictures[0], "--dry-run", code=2)
        kiln(programs, home, "interrogate", pictures[0], "--horde", "--device", "cpu", code=2)


def a_picture_is_described_by_the_horde(programs):
    golden = programs["golden"]
    picture = golden + "/safety/wide.png"
    with alchemist(programs, "caption", "words", "clip", precision="fp32") as p:
        start(p, golden)
        config = p.folder + "/client.yaml"
        with open(config, "w") as f:
            json.dump({"api_key": CLIENT, "horde_url": p.horde.url}, f)
        os.chmod(config, 0o600)
        there = {"XDG_RUNTIME_DIR": str(p.kilnd.state / "run"), "RUNTIME_DIRECTORY": str(p.kilnd.state / "run")}
        say = lambda *words, **more: kiln(programs, p.folder, *words, "--horde", "--config", config, env=there, **more)
        out, said = say("caption", picture, "--dry-run")
        check(out == "" and "quote: 3" in said, f"{out}{said}")
        check(not p.horde.calls("alchemy_async"), "a dry run asks for nothing")
        out, said = say("caption", picture)
        check(out.strip() and "quote: 3" in said and "cost 3" in said, f"{out}{said}")
        sent = p.horde.calls("alchemy_async")[-1]["request"]
        check([f["name"] for f in sent["forms"]] == ["caption"] and sent["slow_workers"] is True, f"{sent}"[:300])
        out, said = say("interrogate", picture, "--json", "--fast-workers")
        words = json.loads(out)[0]
        check(words["interrogation"]["tags"] and words["request"] and "quote: 4" in said, f"{words}{said}")
        check(p.horde.calls("alchemy_async")[-1]["request"]["slow_workers"] is False, "--fast-workers is sent")
        spent = p.kilnd.ask(request="ledger")
        wait_for(lambda: p.kilnd.ask(request="status")["jobs_open"] == 0, 10, "all is told")
        check(p.kilnd.term() == 0, "ends with 0")
        rows = p.kilnd.rows("SELECT milli, note FROM posting WHERE kind = 'spent' ORDER BY milli")
        check([m for m, _ in rows] == [-4000, -3000], f"spent: {rows} {spent}")


def a_picture_is_changed_by_the_horde(programs):
    golden = programs["golden"]
    picture = golden + "/safety/wide.png"
    with alchemist(programs, "upscale", precision="fp32") as p:
        start(p, golden)
        config, out = p.folder + "/client.yaml", p.folder + "/large.png"
        with open(config, "w") as f:
            json.dump({"api_key": CLIENT, "horde_url": p.horde.url}, f)
        os.chmod(config, 0o600)
        there = {"RUNTIME_DIRECTORY": str(p.kilnd.state / "run")}
        say = lambda *words, **more: kiln(programs, p.folder, *words, "--horde", "--config", config, env=there, **more)
        _, said = say("upscale", picture, "--dry-run")
        check("quote: 5" in said and not p.horde.calls("alchemy_async"), said)
        made, said = say("upscale", picture, "-o", out)
        check(made == out + "\n" and "cost 5" in said, f"{made}{said}")
        size = lambda path: [int.from_bytes(open(path, "rb").read(24)[i:i + 4], "big") for i in (16, 20)]
        check(size(out) == [4 * n for n in size(picture)], f"{size(picture)} became {size(out)}")
        check([f["name"] for f in p.horde.calls("alchemy_async")[-1]["request"]["forms"]] == ["RealESRGAN_x4plus"], "the form")
        for words, told in ((["--with", "caption"], "none of the Horde's post-processors"), (["--with", picture], "none of the Horde"),
                            (["--device", "cpu"], "for this machine")):
            _, said = say("upscale", picture, *words, "-o", out, code=2)
            check(told in said, said)
        _, said = kiln(programs, p.folder, "strip", picture, "--dry-run", code=2)
        check("needs --horde" in said, said)
        p.horde.fault("alchemy_status", "status", status=404, rc="RequestNotFound", message="gone")
        _, said = say("upscale", picture, "-o", p.folder + "/none.png", code=1)
        check("RequestNotFound" in said and not os.path.exists(p.folder + "/none.png"), said)
        p.horde.clear()
        p.horde.fault("upload", "lost", every=1, count=0)  # the store forgets: the picture is paid and gone
        _, said = say("upscale", picture, "-o", p.folder + "/none.png", code=1)
        check("404" in said and not os.path.exists(p.folder + "/none.png"), said)
        wait_for(lambda: p.kilnd.ask(request="status")["jobs_open"] == 0, 20, "all is told")
        check(p.kilnd.term() == 0, "ends with 0")
        rows = p.kilnd.rows("SELECT milli FROM posting WHERE kind = 'spent'")
        check(set(rows) == {(-5000,)}, f"spent: {rows}")


if __name__ == "__main__":
    kilnd, engine, horde, golden, program = map(os.path.abspath, sys.argv[1:6])
    sys.exit(run([every_form_is_popped_done_and_paid, what_is_not_there_is_not_offered, a_broken_file_is_named_and_not_offered,
                  what_the_horde_gives_all_the_same_is_refused, a_killed_engine_costs_no_form,
                  a_picture_is_described_on_this_machine, a_picture_is_described_by_the_horde,
                  a_picture_is_changed_by_the_horde],
                 {"kilnd": kilnd, "engine": engine, "horde": horde, "golden": golden, "kiln": program}))
