"""The real kiln-engine and its safety model: what it says in hello, what it does with each verdict.

Tables whose thresholds every or no picture passes stand for pictures of each kind.
usage: engine_safety.py ENGINE SAFETY-FOLDER MODEL-FOLDER"""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading

ENGINE, SAFETY, MODEL = map(os.path.abspath, sys.argv[1:4])
ALWAYS, NEVER = -1, 1
failures = []


def check(good, what):
    if not good:
        failures.append(what)
        print("FAILED:", what)


def table(young, concept):
    return ("setting\tdrawn_sure\t0.9\nsetting\tphoto_above\t0.9\nsetting\tdrawn_share\t0.1\nsetting\tdrawn_doubt\t0\n"
            "setting\tother_share\t1\nsetting\tother_doubt\t0\nsetting\tmatches\t1\nsuspect\t old\n"
            f"drawn\t1\t-\t-\tdrawing\nlewd\t1\t-\t-\tvase\nperson\t-1\t-\t-\twoman\n"
            f"young\t{young}\t{young}\t-\tlittle child\nconcept\t{concept}\t-\t-\tblue cup\n")


class Engine:
    def __init__(self, *options, rules=None, model="model.safetensors", break_model=False):
        self.cache = tempfile.mkdtemp(prefix="kiln-safety-")
        folder = self.cache + "/safety"
        if rules is not None:
            shutil.copytree(SAFETY + "/tokenizer", folder + "/tokenizer")
            data = bytearray(open(f"{SAFETY}/{model}", "rb").read())
            if break_model:
                data[-512:] = b"\xff" * 512
            open(folder + "/model.safetensors", "wb").write(data)
            open(folder + "/safety.tsv", "w").write(rules)
        self.process = subprocess.Popen([ENGINE, "--launch", "7", "--cache", self.cache, *options], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.guard = threading.Timer(120, self.process.kill)
        self.guard.start()
        self.hello = self.take("hello")[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.log = self.process.stderr.read().decode()
        check(self.process.wait(60) == 0, f"the engine ended with {self.process.returncode}: {self.log}")
        self.guard.cancel()
        shutil.rmtree(self.cache)

    def send(self, kind, job, body, *blobs):
        head = json.dumps({"kind": kind, "launch": "7", "job": job, "body": body}).encode()
        payload = struct.pack("<I", len(head)) + head + struct.pack("<I", len(blobs))
        payload += b"".join(struct.pack("<I", len(b)) for b in blobs) + b"".join(blobs)
        self.process.stdin.write(struct.pack("<I", len(payload)) + payload)
        self.process.stdin.flush()

    def take(self, *kinds):
        """The next message of these kinds: its body and its blobs."""
        while True:
            size = self.process.stdout.read(4)
            if len(size) < 4:
                raise SystemExit(f"the engine is gone: {self.process.stderr.read().decode()}")
            payload = self.process.stdout.read(struct.unpack("<I", size)[0])
            length, = struct.unpack_from("<I", payload)
            head = json.loads(payload[4:4 + length])
            if head["kind"] not in kinds:
                continue
            count, = struct.unpack_from("<I", payload, 4 + length)
            sizes, at, blobs = struct.unpack_from(f"<{count}I", payload, 8 + length), 8 + length + 4 * count, []
            for s in sizes:
                blobs.append(payload[at:at + s])
                at += s
            return head["body"], blobs

    def generate(self, seed=1, count=1, **more):
        self.send("generate", "j", {"request": {"model": MODEL, "prompt": "a photo of the red house", "width_px": 64, "height_px": 64,
                                                "steps": 2, "seed": str(seed), "count": count},
                                    "format": "png", "parameters": "a photo of the red house", **more})
        body, blobs = self.take("result", "error")
        check("images" in body, f"an image came: {body}")
        return body.get("images", []), blobs

    def look(self, picture):
        self.send("alchemy", "a", {"form": "nsfw", "source": 0, "check_safety": True}, picture)
        return self.take("alchemy_result", "error")[0]


def judged(engine, verdict, censored, **more):
    images, blobs = engine.generate(check_safety=True, **more)
    for image, data in zip(images, blobs):
        check(image["verdict"] == verdict, f"verdict {image['verdict']}, not {verdict}")
        check(image.get("censored", False) == censored, f"censored {image.get('censored')} with {verdict}")
        check((b"red house" in data) != censored, f"the prompt stands in a replaced picture only when it is none: {verdict}")
    return blobs


def an_engine_without_a_model_fails_every_check():
    with Engine() as e:
        check(not e.hello.get("safety"), "hello without a model promises safety")
        check("nsfw" not in e.hello.get("forms", []), "the form nsfw is offered without a model")
        images, plain = e.generate()
        check(images[0]["verdict"] == "none" and not images[0].get("censored"), "nobody asked, nothing was judged")
        notice = judged(e, "failed", True)
        check(notice[0] != plain[0], "unchecked pixels left the engine")
        answer = e.look(open(SAFETY + "/wide.png", "rb").read())
        check("nsfw" in answer.get("text", "") and "code" in answer, f"nsfw without a model: {answer}")
        return notice[0]


def none_means_none():
    with Engine("--safety", "none", rules=table(NEVER, NEVER)) as e:
        check(not e.hello.get("safety"), "--safety none found a model")


def a_broken_model_is_no_model():
    for more in ({"rules": table(NEVER, NEVER).replace("matches", "match")}, {"rules": table(NEVER, NEVER), "model": "wide.png"}):
        with Engine(**more) as e:
            check(not e.hello.get("safety"), "a broken model or table promises safety")
            judged(e, "failed", True)
        check("engine.safety" in e.log, f"nothing was said: {e.log}")
    with Engine(rules=table(NEVER, NEVER), break_model=True) as e:
        check(not e.hello.get("safety"), "weights that are no numbers promise safety")
        judged(e, "failed", True)


def each_verdict(notice):
    picture = open(SAFETY + "/wide.png", "rb").read()
    with Engine(rules=table(NEVER, NEVER)) as e:
        check(e.hello.get("safety") and "nsfw" in e.hello["forms"], f"hello with a model: {e.hello}")
        judged(e, "ok", False, censor_nsfw=True)
        check(not e.look(picture).get("flag"), "a plain picture is flagged")
    with Engine(rules=table(NEVER, ALWAYS)) as e:
        judged(e, "nsfw", False)
        check(judged(e, "nsfw", True, censor_nsfw=True)[0] == notice, "the notice is one picture")
        check(e.look(picture).get("flag"), "an NSFW picture is not flagged")
    with Engine(rules=table(ALWAYS, ALWAYS), model="openclip.safetensors") as e:
        two = judged(e, "csam", True, count=2)
        check(two == [notice, notice], "both of a batch are replaced")
        check(judged(e, "csam", True, seed=2)[0] == notice, "nothing of the picture is left")
        check("red house" not in json.dumps(e.hello), "a prompt in hello")
    check("red house" not in e.log, "a prompt stands in the log")


if __name__ == "__main__":
    each_verdict(an_engine_without_a_model_fails_every_check())
    none_means_none()
    a_broken_model_is_no_model()
    print(f"{len(failures)} failures")
    sys.exit(bool(failures))
