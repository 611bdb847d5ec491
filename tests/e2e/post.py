"""Post-processors from end to end, with tiny random networks: practice horde, kilnd, the real kiln-engine.

usage: post.py KILND ENGINE HORDE KILN DRAW-WEIGHTS GOLDEN-FOLDER"""
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from bench import Place, check, run, wait_for

UPSCALERS, FIXERS, CUTTER = ["RealESRGAN_x2plus"], ["GFPGAN", "CodeFormers"], "strip_background"


def fill(programs, post, parser=False):
    """CACHE/post with networks that a test can wait for. The finder sees faces wherever it looks."""
    golden, faces = Path(programs["golden"]), Path(programs["golden"]) / "faces"
    post.mkdir(parents=True, exist_ok=True)

    def draw(name, table, *words):
        subprocess.run([programs["draw"], str(post / name), str(faces / table), *words], check=True)

    draw("GFPGANv1.4.safetensors", "gfpgan.txt")
    draw("codeformer.safetensors", "codeformer.txt")
    draw("detection_Resnet50_Final.safetensors", "retinaface.txt",
         *[f"ClassHead.{i}.conv1x1.{part}=0" for i in range(2) for part in ("weight", "bias")])
    if parser:
        draw("parsing_parsenet.safetensors", "parsenet.txt")
    shutil.copy(golden / "matte/u2net.onnx", post)
    shutil.copy(golden / "upscale/x2.safetensors", post / "RealESRGAN_x2plus.safetensors")


def size_of(webp):
    """(width, height, has alpha) of a WebP file's first chunk"""
    kind, data = webp[12:16], webp[20:]
    if kind == b"VP8X":
        return int.from_bytes(data[4:7], "little") + 1, int.from_bytes(data[7:10], "little") + 1, bool(data[0] & 16)
    if kind == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return (bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1, bool(bits >> 28 & 1)
    check(kind == b"VP8 ", f"a chunk {kind}")
    return int.from_bytes(data[6:8], "little") & 0x3fff, int.from_bytes(data[8:10], "little") & 0x3fff, False


def place(programs, forms=("nsfw", "post-process"), **keys):
    return Place(programs, "--user", "a-client-of-ours:client", max_batch=2, forms=list(forms), alchemist_name="practice alchemist",
                 custom_models=[{"name": "stable_diffusion", "baseline": "stable_diffusion_1",
                                 "filepath": programs["golden"] + "/reference/models/sd1"}], **keys)


def settled(p):
    p.agree()
    check(set(p.kilnd.states().values()) == {"SETTLED"}, f"{p.kilnd.states()}",
          *{f for (f,) in p.kilnd.rows("SELECT DISTINCT fault FROM job") if f})


def images_are_post_processed(programs):
    """Several a job, named in another order than they run: the background goes last, so alpha is kept."""
    with place(programs) as p:
        fill(programs, p.kilnd.state / "cache/post")
        p.kilnd.start()
        p.kilnd.ready()
        asks = [([CUTTER, "GFPGAN", "RealESRGAN_x2plus"], 1, 256, True), (["CodeFormers"], 2, 128, False),
                (["RealESRGAN_x2plus", "CodeFormers"], 1, 256, False), ([CUTTER], 2, 128, True)]
        for posts, n, size, alpha in asks:
            before = set(p.horde.store.glob("*.webp"))
            p.horde.fire(1, post_processing=posts, facefixer_strength=0.75, n=n, width=128, height=128)
            p.all_over(90)
            made = [size_of(x.read_bytes()) for x in set(p.horde.store.glob("*.webp")) - before]
            check(made == [(size, size, alpha)] * n, f"{posts}: {made}")
        pops = [x["request"] for x in p.horde.calls("pop")]
        check(pops[-1]["allow_post_processing"] is True, "pops say that it post-processes")
        check(p.kilnd.term() == 0, "ends with 0")
        settled(p)


def forms_are_served(programs):
    with place(programs) as p:
        fill(programs, p.kilnd.state / "cache/post")
        p.kilnd.start()
        p.kilnd.ready()
        p.horde.fire(1)
        p.all_over(60)
        picture = next(p.horde.store.glob("*.webp")).read_bytes()
        wanted = UPSCALERS + FIXERS + [CUTTER]
        body = {"forms": [{"name": name} for name in wanted], "source_image": base64.b64encode(picture).decode()}
        request = urllib.request.Request(p.horde.url + "/api/v2/interrogate/async", json.dumps(body).encode(),
                                         {"Content-Type": "application/json", "apikey": "a-client-of-ours"})
        reply = json.loads(urllib.request.urlopen(request, timeout=10).read())

        def done():
            state = p.horde.call("GET", f"/api/v2/interrogate/status/{reply['id']}")
            return state if state["state"] in ("done", "faulted", "partial") else None
        wait_for(lambda: (done() or {}).get("state") == "done", 90, f"all forms are done: {done()}")
        forms = {f["form"]: f for f in p.horde.call("GET", f"/api/v2/interrogate/status/{reply['id']}")["forms"]}
        check(set(forms) == set(wanted) and all(f["state"] == "done" for f in forms.values()), f"{forms}")
        p.all_over(20)
        made = sorted(size_of(x.read_bytes()) for x in p.horde.store.glob("*.webp") if x.read_bytes() != picture)
        check(made == [(128, 128, False), (128, 128, False), (128, 128, True), (256, 256, False)], f"{made}")
        check(p.kilnd.term() == 0, "ends with 0")
        settled(p)


def what_is_not_here_is_not_offered(programs):
    with place(programs) as p:
        post = p.kilnd.state / "cache/post"
        fill(programs, post)
        (post / "detection_Resnet50_Final.safetensors").unlink()  # no finder, no face fixers
        p.kilnd.start()
        p.kilnd.ready()
        wait_for(lambda: p.horde.calls("alchemy_pop") or p.horde.calls("interrogate_pop"), 20, "it asks for forms")
        calls = p.horde.calls("alchemy_pop") or p.horde.calls("interrogate_pop")
        check(sorted(calls[-1]["request"]["forms"]) == sorted(UPSCALERS + [CUTTER]), f"{calls[-1]['request']['forms']}")
        # who says which it can do is not given the others: the request waits for somebody else
        p.horde.fire(1, post_processing=["GFPGAN"])
        p.horde.fire(1, post_processing=["RealESRGAN_x2plus"])
        wait_for(lambda: len(p.horde.calls("submit")) == 1, 60, "the other one is done")
        wait_for(lambda: (p.horde.calls("pop")[-1]["reply"].get("skipped") or {}).get("bridge_version"), 20, "GFPGAN is passed over")
        check(p.kilnd.term() == 0, "ends with 0")
        check(list(p.kilnd.states().values()) == ["SETTLED"], f"{p.kilnd.states()}")
    with place(programs, forms=()) as p:  # one that says nothing is given it, and gives it back by name
        post = p.kilnd.state / "cache/post"
        fill(programs, post)
        (post / "detection_Resnet50_Final.safetensors").unlink()
        p.kilnd.start()
        p.kilnd.ready()
        wait_for(lambda: "engine.ready" in p.kilnd.log(), 20, "the engine said what it can do")
        p.horde.fire(1, post_processing=["GFPGAN"])
        p.all_over(30)
        check(p.kilnd.term() == 0, "ends with 0")
        faults = {f for (f,) in p.kilnd.rows("SELECT fault FROM job")}
        check(faults == {"this worker cannot do GFPGAN"}, f"{faults}")
    with place(programs) as p:  # nothing at all: the flag is off
        p.kilnd.start()
        p.kilnd.ready()
        wait_for(lambda: any(x["request"]["allow_post_processing"] is False for x in p.horde.calls("pop")), 20,
                 "a pop says that there is nothing to post-process with")


def commands_do_the_same(programs):
    with tempfile.TemporaryDirectory(prefix="kiln-post-") as t:
        fill(programs, Path(t) / "cache/post", parser=True)
        env = {**os.environ, "CACHE_DIRECTORY": t + "/cache", "CI": "true"}

        def kiln(*words):
            return subprocess.run([programs["kiln"], *words], env=env, capture_output=True, text=True, timeout=120)
        source = programs["golden"] + "/faces/align.png"
        plain = Path(source).read_bytes()
        for words in (["fix", source, "--with", "gfpgan"], ["fix", source, "--with", "codeformers", "--strength", "0.5"],
                      ["strip", source], ["fix", source, "--with", t + "/cache/post/codeformer.safetensors"]):
            out = t + "/out.png"
            done = kiln(*words, "-o", out)
            check(done.returncode == 0 and done.stdout == out + "\n", f"{words}: {done.stderr}")
            head = Path(out).read_bytes()[:33]
            check(head[16:24] == plain[16:24], f"{words}: the size stays")
            check(head[25] == (6 if words[0] == "strip" else 2), f"{words}: colour type {head[25]}")
            if words[0] == "fix":
                check("face" in done.stderr, f"{words}: {done.stderr}")
        for words, code, word in ((["fix", source, "-o", out, "--strength", "2"], 2, "0 to 1"),
                                  (["strip", source, "-o", out, "--strength", "1"], 2, "unknown"),
                                  (["strip", "/nowhere.png", "-o", out], 1, "nowhere.png"),
                                  (["fix", source, "-o", out, "--with", source], 1, "align.png")):
            done = kiln(*words)
            check(done.returncode == code and word in done.stderr, f"{words}: {done.returncode} {done.stderr}")
        shutil.rmtree(t + "/cache/post")
        done = kiln("fix", source, "-o", out)
        check(done.returncode == 1 and "GFPGANv1.4" in done.stderr, done.stderr)


if __name__ == "__main__":
    kilnd, engine, horde, kiln, draw, golden = map(os.path.abspath, sys.argv[1:])
    sys.exit(run([images_are_post_processed, forms_are_served, what_is_not_here_is_not_offered, commands_do_the_same],
                 {"kilnd": kilnd, "engine": engine, "horde": horde, "kiln": kiln, "draw": draw, "golden": golden}))
