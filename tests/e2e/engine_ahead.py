"""Model k+1 is loaded while k samples: the real kiln-engine, on the CPU and on the emulated GPU.

Pictures are byte for byte those of an engine that loads when it is asked; what goes wrong with the later
model does not touch the job that runs; a card that breaks under the loader ends the engine with 70.

--slow draws on the emulated GPU too, minutes a picture; --measure shows what it is good for.
usage: engine_ahead.py ENGINE MODELS-FOLDER EMULATED-PLUG-IN [--slow | --measure MODEL[,MODEL,MODEL] [DEVICE ROUNDS STEPS cold]]"""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time

ENGINE, MODELS, PLUGIN = map(os.path.abspath, sys.argv[1:4])
STEPS = {"cpu": 2, "cuda": 1}  # an emulated step takes seconds
SD1, SD2 = MODELS + "/sd1", MODELS + "/sd2"
failures = []


COPIES = 1100  # the first model has 974 weights, two have more
FAULTS = {"copy": "a broken copy", "copyhang": "does not answer any more"}


def check(good, what):
    if not good:
        failures.append(what)
        print("FAILED:", what, flush=True)


class Engine:
    def __init__(self, *options, device="cpu", ahead="always", limit_s=800 if "--slow" in sys.argv else 200, **env):
        self.cache = tempfile.mkdtemp(prefix="kiln-ahead-")
        if device == "cuda" and os.path.exists(PLUGIN):  # else the machine's own card
            env = {"KILN_CUDA_PLUGIN": PLUGIN, "KILN_CUDA_PATIENCE_MS": "300", **env}
        self.log_path = self.cache + "/log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen([ENGINE, "--launch", "7", "--cache", self.cache, "--device", device,
                                             "--verbose", "--ahead", ahead, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=log, env={**os.environ, **env})
        self.guard = threading.Timer(limit_s, self.process.kill)
        self.guard.start()
        self.pending = b""
        self.take("hello")

    def log(self):
        return open(self.log_path, errors="replace").read()

    def end(self, code=0):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended, as it should where a code is wanted
        check(self.process.wait(60) == code, f"ended with {self.process.returncode}, not {code}:\n{self.log()}")
        self.guard.cancel()
        log = self.log()
        shutil.rmtree(self.cache)
        return log

    def send(self, kind, job="", more=False, **body):
        """With `more` it goes out together with the next: the engine sees both before it begins."""
        head = json.dumps({"kind": kind, "launch": "7", "job": job, "body": body}).encode()
        payload = struct.pack("<I", len(head)) + head + struct.pack("<I", 0)
        self.pending += struct.pack("<I", len(payload)) + payload
        if not more:
            self.process.stdin.write(self.pending)
            self.process.stdin.flush()
            self.pending = b""

    def take(self, *kinds):
        while True:
            size = self.process.stdout.read(4)
            if len(size) < 4:
                return None, None, None
            payload = self.process.stdout.read(struct.unpack("<I", size)[0])
            length, = struct.unpack_from("<I", payload)
            head = json.loads(payload[4:4 + length])
            if head["kind"] not in kinds:
                continue
            return head["kind"], head.get("body", {}), payload[8 + length:]

    def ask(self, name, path, steps=2, seed=1, load=True, more=False):
        if load:
            self.send("load", more=True, model=name, path=path)
        self.send("generate", name, more, request={"model": name, "prompt": "a photo of the red house", "width": 64, "height": 64,
                                             "steps": steps, "seed": str(seed), "count": 1}, format="png",
                  parameters="p")

    def answer(self):
        """The picture, or None and why."""
        kind, body, blobs = self.take("result", "error")
        if kind != "result":
            return None, (body or {}).get("text", "the engine is gone")
        return blobs, body["seconds"] if "seconds" in body else ""


known = {}


def alone(path, device):
    """The picture of an engine that has nothing else to do."""
    if (path, device) not in known:
        e = Engine(device=device)
        e.ask("m", path, steps=STEPS[device])
        known[path, device], why = e.answer()
        check(known[path, device], f"{path} alone: {why}")
        e.end()
    return known[path, device]


def loaded_ahead(log, name):
    """Begun beside the job; on a busy machine the job may be over sooner, and the rest is done by the work."""
    return f'model.ahead name="{name}" text="begun"' in log and f'model.loaded name="{name}"' in log


def queued(device):
    """The next job behind the running one: the same pictures, and its model was there before."""
    first, second = alone(SD1, device), alone(SD2, device)
    e = Engine(device=device)
    e.ask("a", SD1, steps=STEPS[device], more=True)
    e.ask("b", SD2, steps=STEPS[device])
    check(e.answer()[0] == first, f"{device}: the running job's picture")
    check(e.answer()[0] == second, f"{device}: the next job's picture")
    check(loaded_ahead(e.end(), "b"), f"{device}: the queued job's model was not loaded ahead")


def announced(device):
    """A hint alone, then the job; and the first model again."""
    first, second = alone(SD1, device), alone(SD2, device)
    e = Engine(device=device)
    e.send("load", model="a", path=SD1)
    e.take("loaded")
    e.send("prepare", model="b", path=SD2)
    e.ask("a", SD1)
    check(e.answer()[0] == first, f"{device}: the running job's picture beside a hint")
    e.ask("b", SD2)
    check(e.answer()[0] == second, f"{device}: the announced job's picture")
    e.ask("a", SD1)
    check(e.answer()[0] == first, f"{device}: the first model again")
    check(loaded_ahead(e.end(), "b"), f"{device}: the announced model was not loaded ahead")


def no_room(device):
    """One model fits, by the limit: nothing is loaded ahead, nothing fails."""
    e = Engine("--memory", "1", device=device)
    e.ask("a", SD1)
    e.ask("b", SD2)
    check(e.answer()[0] and e.answer()[0], f"{device}: both jobs without room")
    log = e.end()
    check("ahead=1" not in log, f"{device}: loaded ahead over the limit:\n{log}")
    check('model.unloaded name="a"' in log, f"{device}: the first model stayed:\n{log}")


def broken_file(device):
    """A hint that names no model: the running job does not notice, a job that wants it hears why."""
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as junk:
        junk.write(b"\x08\0\0\0\0\0\0\0{\"a\":1}x" * 40)
        junk.flush()
        e = Engine(device=device)
        e.send("load", model="a", path=SD1)
        e.take("loaded")
        e.send("prepare", model="b", path=junk.name)
        e.ask("a", SD1)
        check(e.answer()[0], f"{device}: the job beside a broken file")
        e.ask("b", junk.name, load=False)
        picture, why = e.answer()
        check(not picture and "model b" in why, f"{device}: {why}")
        check("model.ahead" in e.end(), f"{device}: nobody says why the hint failed")


def gone_while_loading(device):
    """The host leaves while a model is on its way."""
    e = Engine(device=device)
    e.ask("a", SD1, steps=1)
    e.send("prepare", model="b", path=SD2)
    e.end()


def card_breaks_under_the_loader(fail, sentence):
    """The first model is there when the second one's copies break, or never end."""
    e = Engine(device="cuda", KILN_EMULATOR_FAIL=fail)
    e.send("load", model="a", path=SD1)
    kind, body, _ = e.take("loaded", "error")
    if kind != "loaded":
        raise SystemExit(f"the fault {fail} struck the first model: {body}")
    e.ask("a", SD1, steps=1, load=False, more=True)
    e.ask("b", SD2, steps=1)
    while kind and not (kind == "error" and body["fatal"]):
        kind, body, _ = e.take("error", "result")
    check(kind and sentence in body["text"], f"{fail}: {body}")
    e.end(70)


def forget(path):
    """What is not mapped leaves the page cache."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def measure(models, device="cpu", rounds="12", steps="8", cold=""):
    """Three models in turn where two fit: from the host's asking to the first step, with and without hints.
    `models`: one path or three with commas between; "cold": their files come from the disk each time."""
    paths = (models.split(",") * 3)[:3]
    size = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(paths[0]) for f in fs) \
        if os.path.isdir(paths[0]) else os.path.getsize(paths[0])
    out = {}
    for hints in (False, True, False, True):
        e = Engine("--memory", str(max(1, int(size * 2.5) >> 20)), device=device, ahead="auto", limit_s=600)
        gaps, rounds_s, total = [], [], time.monotonic()
        e.ask("0", paths[0], steps=int(steps))
        for i in range(1, int(rounds) + 1):
            path = paths[i % 3]
            if cold:
                forget(path)
            if hints:
                e.send("prepare", model=str(i % 3), path=path)
            e.answer()
            began = time.monotonic()
            e.ask(str(i % 3), path, steps=int(steps))
            kind, body, _ = e.take("progress", "error")
            while kind == "progress" and not (body.get("phase") == "sample" and body.get("step")):
                kind, body, _ = e.take("progress", "error")
            check(kind == "progress", f"measuring: {body}")
            gaps.append(time.monotonic() - began)
        e.answer()
        total = time.monotonic() - total
        log = e.end()
        out.setdefault(hints, []).append((sorted(gaps)[len(gaps) // 2], total))
        print(f"hints {'on ' if hints else 'off'}: to the end of the first step {out[hints][-1][0] * 1000:.1f} ms (median of "
              f"{len(gaps)}), all {total:.2f} s, {log.count('ahead=1')} loaded ahead", flush=True)
    best = {h: min(x[0] for x in rounds) for h, rounds in out.items()}
    print(f"the better of two runs each: {best[False] * 1000:.1f} ms without, {best[True] * 1000:.1f} ms with hints")


if "--measure" in sys.argv:
    rest = sys.argv[sys.argv.index("--measure") + 1:]
    measure(*rest)
else:
    tests = [(t, "cpu") for t in (queued, announced, no_room, broken_file, gone_while_loading)]
    if "--slow" in sys.argv:
        tests = [(queued, "cuda"), (announced, "cuda"), (no_room, "cuda"), (broken_file, "cuda")]
    for test, of in tests + [(gone_while_loading, "cuda")]:
        start = time.monotonic()
        test(of)
        print(f"{test.__name__} {of}: {time.monotonic() - start:.1f} s", flush=True)
    for fault in ("copy", "copyhang"):
        start = time.monotonic()
        card_breaks_under_the_loader(f"{fault}:{COPIES}", FAULTS[fault])
        print(f"{fault}: {time.monotonic() - start:.1f} s", flush=True)
sys.exit(1 if failures else 0)
