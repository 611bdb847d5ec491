"""kiln models search|get|list|rm|verify against a server of our own on loopback: resume, hashes, redirects, refusals.

usage: models_store.py KILN

127.0.0.1 plays the Horde's lists, Hugging Face, CivitAI and GitHub (KILN_STORE_TEST_ORIGIN); 127.0.0.2 is the other host
that they send us to. Nothing outside of loopback is reached: with that variable kiln itself refuses to.
"""
import hashlib
import http.server
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

KILN = os.path.abspath(sys.argv[1])
SEED = int(os.environ.get("SEED", "20261124"))
rng = random.Random(SEED)
LISTS = "/raw.githubusercontent.com/Haidra-Org/AI-Horde-image-model-reference/main/"
HUB = "/huggingface.co/org/repo/resolve/main/"
checks = 0
failures = []


def check(what, good, *detail):
    global checks
    checks += 1
    if not good:
        failures.append(f"{what}: {' '.join(str(d) for d in detail)}")


def sha(data):
    return hashlib.sha256(data).hexdigest()


class World:
    """What the server gives; each answer is a function of the handler, by path."""

    def __init__(self):
        self.routes, self.seen, self.lock = {}, [], threading.Lock()

    def count(self, path, host=None):
        return len(self.of(path, host))

    def of(self, path, host=None):
        with self.lock:
            return [s for s in self.seen if s["path"] == path and (host is None or s["host"] == host)]


world = World()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        path = self.path.split("?")[0]
        with world.lock:
            world.seen.append({"path": path, "query": self.path, "host": self.server.server_address[0],
                               "headers": {k.lower(): v for k, v in self.headers.items()}})
        answer = world.routes.get(path)
        try:
            answer(self) if answer else self.plain(404, b"no")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def plain(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def gives(data, etag=None, cut_at=None, cuts=1, resume=True, kind="application/octet-stream", slow_s=0):
    """A file with ranges; the first `cuts` answers break off after cut_at bytes."""
    left = [cuts if cut_at is not None else 0]

    def answer(h):
        start, headers = 0, {"Content-Type": kind}
        if etag:
            headers["ETag"] = etag
        wanted = h.headers.get("Range")
        same = h.headers.get("If-Range") in (None, etag)
        if wanted and resume and same:
            start = int(wanted[len("bytes="):].rstrip("-"))
            if start >= len(data):
                h.plain(416, b"", Content_Range=f"bytes */{len(data)}")
                return
            h.send_response(206)
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        else:
            h.send_response(200)
        for name, value in headers.items():
            h.send_header(name, value)
        h.send_header("Content-Length", str(len(data) - start))
        h.end_headers()
        end = len(data)
        if left[0]:
            left[0] -= 1
            end = min(end, start + cut_at)
            h.close_connection = True
        for at in range(start, end, 65536):
            h.wfile.write(data[at:min(end, at + 65536)])
            if slow_s:
                time.sleep(slow_s)
    return answer


def sends_to(url, **headers):
    return lambda h: h.plain(302, b"moved", Location=url, **headers)


def says(status):
    return lambda h: h.plain(status, b"no")


def document(text, etag='"v1"'):
    def answer(h):
        if h.headers.get("If-None-Match") == etag:
            h.plain(304, ETag=etag)
        else:
            h.plain(200, text.encode(), ETag=etag, Content_Type="text/plain")
    return answer


def record(file, url, digest, **more):
    return {"name": file, "baseline": "stable diffusion 1", "type": "ckpt", "description": "a test", "style": "other",
            "unknown_field": [1, {"x": None}], "size_on_disk_bytes": 1000, "nsfw": False,
            "config": {"files": [{"path": file, "sha256sum": digest}, {"path": "v1.yaml"}],
                       "download": [{"file_name": file, "file_path": "", "file_url": url}]}, **more}


def run(cache, *args, origin=True, env=None, timeout=60):
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "XDG_STATE_HOME": str(cache) + ".state",
                   "XDG_CONFIG_HOME": str(cache) + ".config", "HF_TOKEN": "hub-secret", "CIVITAI_API_TOKEN": "civ-secret",
                   "CI": "true", "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9",
                   "all_proxy": "http://127.0.0.1:9"}
    for name in ("KILN_CONFIG", "CACHE_DIRECTORY", "STATE_DIRECTORY", "KILN_STORE_TEST_ORIGIN"):
        environment.pop(name, None)
    if origin:
        environment["KILN_STORE_TEST_ORIGIN"] = ORIGIN
    environment.update(env or {})
    done = subprocess.run([KILN, "models", *args], env=environment, capture_output=True, text=True, timeout=timeout)
    check(f"{args} ends by itself", done.returncode in (0, 1, 2) and "Sanitizer" not in done.stderr, done.stderr[-1500:])
    return done


def get(cache, *args, **more):
    return run(cache, "get", *args, "--disk-floor-mb", "1", **more)


def files(cache, kind="models"):
    folder = Path(cache, "kiln", kind)
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def state(cache, name):
    for e in json.loads(run(cache, "list", "--json").stdout or "[]"):
        if e["name"] == name:
            return e["state"]
    return None


def refused(what, done, *words, code=1):
    check(what, done.returncode == code, "exit", done.returncode, done.stderr)
    for word in words:
        check(f"{what}, the sentence", word in done.stderr, repr(word), "is not in", done.stderr)
    check(f"{what}, secrets", "secret" not in done.stderr + done.stdout, done.stderr)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # kiln hangs up on what it refuses
            super().handle_error(request, client_address)


servers = []
for address in ("127.0.0.1", "127.0.0.2"):
    server = Server((address, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    servers.append(server)
ORIGIN = f"http://127.0.0.1:{servers[0].server_address[1]}"
OTHER = f"http://127.0.0.2:{servers[1].server_address[1]}"

good, changed, wrong = rng.randbytes(1_000_003), rng.randbytes(1_000_003), rng.randbytes(5000)
models = {
    "Good": record("Good.ckpt", "https://huggingface.co/org/repo/resolve/main/Good.ckpt?download=true", sha(good)),
    "It's A Model - v1 (SDXL)": record("x.safetensors", "https://huggingface.co/org/repo/resolve/main/x.safetensors", sha(good)),
    "Wrong": record("Wrong.ckpt", "https://huggingface.co/org/repo/resolve/main/Wrong.ckpt", sha(good)),
    "Cut": record("Cut.safetensors", "https://huggingface.co/org/repo/resolve/main/Cut.safetensors", sha(good)),
    "Gone": record("Gone.ckpt", "https://huggingface.co/org/repo/resolve/main/Gone.ckpt", sha(good)),
    "Law": record("Law.ckpt", "https://huggingface.co/org/repo/resolve/main/Law.ckpt", sha(good)),
    "Key": record("Key.ckpt", "https://huggingface.co/org/repo/resolve/main/Key.ckpt", sha(good)),
    "../../evil": record("e.ckpt", "https://huggingface.co/org/repo/resolve/main/Good.ckpt", sha(good)),
    "a/b": record("e.ckpt", "https://huggingface.co/org/repo/resolve/main/Good.ckpt", sha(good)),
    ".hidden": record("e.ckpt", "https://huggingface.co/org/repo/resolve/main/Good.ckpt", sha(good)),
    "n" * 200: record("e.ckpt", "https://huggingface.co/org/repo/resolve/main/Good.ckpt", sha(good)),
    "Inside": record("../../../inside.ckpt", "https://huggingface.co/org/repo/resolve/main/Good.ckpt", sha(good)),
    "Elsewhere": record("e.ckpt", "https://evil.example/e.ckpt", sha(good)),
    "Plain": record("e.ckpt", "http://huggingface.co/e.ckpt", sha(good)),
    "Two": {**record("a.safetensors", "https://huggingface.co/a", sha(good)),
            "config": {"files": [{"path": "a.safetensors"}, {"path": "b.safetensors"}], "download": []}},
    "Odd": record("o.ckpt", "https://huggingface.co/o", sha(good), nsfw="perhaps"),
    "Odder": 7,
}
world.routes.update({
    LISTS + "stable_diffusion.json": document(json.dumps(models)),
    LISTS + "esrgan.json": document(json.dumps({"RealESRGAN_x4plus": record(
        "RealESRGAN_x4plus.pth", "https://github.com/r/releases/download/v0.1.0/RealESRGAN_x4plus.pth", sha(wrong))})),
    LISTS + "controlnet.json": document(json.dumps({"control_canny": record(
        "diff_control_sd15_canny_fp16.safetensors", "https://huggingface.co/org/repo/resolve/main/canny.safetensors", sha(wrong))})),
    HUB + "Good.ckpt": sends_to(OTHER + "/blob/good?signed=1"),
    HUB + "x.safetensors": sends_to("/huggingface.co/renamed/x.safetensors"),
    "/huggingface.co/renamed/x.safetensors": gives(good, '"e"'),
    "/blob/good": gives(good, '"e1"'),
    HUB + "Wrong.ckpt": gives(wrong, '"w"'),
    HUB + "canny.safetensors": gives(wrong, '"w"'),
    "/github.com/r/releases/download/v0.1.0/RealESRGAN_x4plus.pth": sends_to(OTHER + "/blob/esrgan"),
    "/blob/esrgan": gives(wrong),
    HUB + "Gone.ckpt": says(404), HUB + "Law.ckpt": says(451), HUB + "Key.ckpt": says(401),
})

with tempfile.TemporaryDirectory() as top:
    # ---- the lists
    cache = Path(top, "a")
    done = run(cache, "search", "good", "--json")
    found = json.loads(done.stdout or "[]")
    check("search", [f["name"] for f in found] == ["Good"] and found[0]["sha256"] == sha(good), done.stdout, done.stderr)
    done = run(cache, "search", "", "--json")
    names = {f["name"]: f["kind"] for f in json.loads(done.stdout or "[]")}
    check("odd records are passed over, their neighbours stay", "Odd" not in names and "Odder" not in names
          and names.get("RealESRGAN_x4plus") == "post" and names.get("control_canny") == "controlnet", names)
    check("asked once", world.count(LISTS + "stable_diffusion.json") == 1)
    run(cache, "search", "good", env={"KILN_CLOCK_TURN_MS": str(2 * 3600 * 1000)})
    asked = world.of(LISTS + "stable_diffusion.json")
    check("asked again when old, conditionally", len(asked) == 2 and asked[1]["headers"].get("if-none-match") == '"v1"', asked)
    world.routes[LISTS + "stable_diffusion.json"] = document('{"Good": ', '"v2"')
    done = run(cache, "search", "good", env={"KILN_CLOCK_TURN_MS": str(9 * 3600 * 1000)})
    check("a broken list does not replace a good one", done.returncode == 0 and "older copy" in done.stderr, done.stderr)
    world.routes[LISTS + "stable_diffusion.json"] = document("[" * 60 + "]" * 60, '"v3"')
    refused("nesting", run(Path(top, "n"), "get", "Good"), "Good")
    world.routes[LISTS + "stable_diffusion.json"] = document(json.dumps({"a": "x" * (9 << 20)}), '"v4"')
    done = run(Path(top, "n"), "search", "good")
    check("a list that is too long", "longer than" in done.stderr, done.stderr)
    world.routes[LISTS + "stable_diffusion.json"] = document(json.dumps(models))
    check("no key goes to the lists", all("authorization" not in s["headers"] for s in asked))
    refused("nearest name", get(cache, "Goood"), 'did you mean "Good"')

    # ---- a good file, by way of another host
    done = get(cache, "Good")
    path = cache / "kiln/models/Good.ckpt"
    check("get", done.returncode == 0 and done.stdout.strip() == str(path) and path.read_bytes() == good, done.stderr)
    check("nothing is left over", files(cache) == [".Good.ckpt.note", "Good.ckpt"], files(cache))
    check("verified", state(cache, "Good") == "verified", state(cache, "Good"))
    first, second = world.of(HUB + "Good.ckpt")[-1], world.of("/blob/good")[-1]
    check("the token goes to its host", first["headers"].get("authorization") == "Bearer hub-secret", first)
    check("the token stops there", "authorization" not in second["headers"] and second["host"] == "127.0.0.2", second)
    before = world.count("/blob/good")
    done = get(cache, "Good")
    check("had it", done.returncode == 0 and "already" in done.stderr and world.count("/blob/good") == before, done.stderr)
    done = get(cache, "It's A Model - v1 (SDXL)")
    check("a name with blanks; same host keeps the token", done.returncode == 0 and
          world.of("/huggingface.co/renamed/x.safetensors")[-1]["headers"].get("authorization") == "Bearer hub-secret", done.stderr)
    for word, kind, file in (("canny", "controlnet", "canny.safetensors"), ("RealESRGAN_x4plus", "post", "RealESRGAN_x4plus.pth")):
        done = get(cache, word)
        check(word, done.returncode == 0 and (cache / "kiln" / kind / file).read_bytes() == wrong, done.stderr)

    # ---- wrong bytes
    refused("wrong hash", get(cache, "Wrong"), sha(wrong), sha(good), "deleted")
    check("nothing of it stays", not [f for f in files(cache) if "Wrong" in f], files(cache))
    before = world.count(HUB + "Wrong.ckpt")
    refused("wrong hash, again", get(cache, "Wrong"), "wrong SHA-256", "--again")
    check("it is left alone", world.count(HUB + "Wrong.ckpt") == before)
    get(cache, "Wrong", "--again")
    check("--again asks", world.count(HUB + "Wrong.ckpt") == before + 1)

    # ---- cut, killed, resumed
    world.routes[HUB + "Cut.safetensors"] = gives(good, '"c1"', cut_at=300_000)
    refused("cut", get(cache, "Cut", "--tries", "1"), "Cut")
    part = cache / "kiln/models/.Cut.safetensors.part"
    check("what came stays", part.exists() and part.stat().st_size == 300_000, files(cache))
    check("it is listed", state(cache, "Cut") == "partial", state(cache, "Cut"))
    done = get(cache, "Cut")
    last = world.of(HUB + "Cut.safetensors")[-1]["headers"]
    check("resumed", done.returncode == 0 and last.get("range") == "bytes=300000-" and last.get("if-range") == '"c1"', last, done.stderr)
    check("whole", (cache / "kiln/models/Cut.safetensors").read_bytes() == good and state(cache, "Cut") == "verified")
    run(cache, "rm", "Cut")
    check("rm", not [f for f in files(cache) if "Cut" in f], files(cache))
    world.routes[HUB + "Cut.safetensors"] = gives(good, '"c1"', cut_at=400_000, cuts=2)
    done = get(cache, "Cut")
    check("goes on by itself", done.returncode == 0 and state(cache, "Cut") == "verified", done.stderr)
    run(cache, "rm", "models/Cut")
    part.write_bytes(good)
    (part.parent / ".Cut.safetensors.part.note").write_text(f"sha256 {sha(good)}\n")
    done = get(cache, "Cut")
    check("all of it was there (416)", done.returncode == 0 and state(cache, "Cut") == "verified", done.stderr)
    run(cache, "rm", "Cut")
    part.write_bytes(b"x" * 100)
    (part.parent / ".Cut.safetensors.part.note").write_text(f"sha256 {sha(good)}\n")
    refused("a start that is not its", get(cache, "Cut"), "deleted")
    slow = gives(good, '"s"', slow_s=0.2)
    world.routes[HUB + "Cut.safetensors"] = slow
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "XDG_CONFIG_HOME": str(cache) + ".config",
                   "KILN_STORE_TEST_ORIGIN": ORIGIN, "CI": "true"}
    child = subprocess.Popen([KILN, "models", "get", "Cut", "--again", "--disk-floor-mb", "1"], env=environment,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > 60_000) and time.monotonic() < limit:
        time.sleep(0.02)
    refused("two at once", get(cache, "Cut", "--again", "--tries", "1"), "another kiln")
    child.send_signal(signal.SIGKILL)
    child.wait()
    world.routes[HUB + "Cut.safetensors"] = gives(good, '"s"')
    done = get(cache, "Cut", "--again")
    check("killed, then resumed", done.returncode == 0 and state(cache, "Cut") == "verified" and
          "range" in world.of(HUB + "Cut.safetensors")[-1]["headers"], done.stderr)

    # ---- nobody knows the hash
    U = "https://github.com/o/r/releases/download/v1/"
    world.routes["/github.com/o/r/releases/download/v1/u.safetensors"] = gives(good, '"one"', cut_at=200_000)
    get(cache, U + "u.safetensors", "--tries", "1")
    world.routes["/github.com/o/r/releases/download/v1/u.safetensors"] = gives(changed, '"two"')
    done = get(cache, U + "u.safetensors")
    check("changed in between: from the start", (cache / "kiln/models/u.safetensors").read_bytes() == changed, done.stderr)
    check("unverified", state(cache, "u") == "unverified" and "unverified" in done.stderr, done.stderr)
    done = run(cache, "verify", "u", "--sha256", sha(changed).upper())
    check("verified by its owner", done.returncode == 0 and state(cache, "u") == "verified", done.stderr)
    world.routes["/github.com/o/r/releases/download/v1/v.safetensors"] = gives(good, None, cut_at=200_000)
    get(cache, U + "v.safetensors", "--tries", "1")
    world.routes["/github.com/o/r/releases/download/v1/v.safetensors"] = gives(changed, None)
    get(cache, U + "v.safetensors")
    check("without hash or ETag nothing is glued", (cache / "kiln/models/v.safetensors").read_bytes() == changed)
    world.routes[HUB + "linked.safetensors"] = sends_to(OTHER + "/blob/linked", X_Linked_ETag=f'"{sha(changed)}"')
    world.routes["/blob/linked"] = gives(changed, '"l"')
    done = get(cache, "hf:org/repo/linked.safetensors", "--kind", "loras")
    check("Hugging Face knows the hash", state(cache, "linked") == "verified", done.stderr)
    world.routes["/blob/linked2"] = lambda h: h.plain(200, good, X_Linked_ETag=f'"{sha(good)}"')
    world.routes[HUB + "linked2.safetensors"] = sends_to(OTHER + "/blob/linked2")
    get(cache, "https://huggingface.co/org/repo/blob/main/linked2.safetensors?x=1")
    check("another host's word is no hash", state(cache, "linked2") == "unverified", state(cache, "linked2"))
    refused("a Horde name for another file", get(cache, U + "u.safetensors", "--as", "Law", "--sha256", sha(changed)), "another file", "--as")

    # ---- CivitAI
    version = {"id": 5, "name": "v1", "baseModel": "SD 1.5", "model": {"name": "A LoRA", "type": "LORA", "x": 1}, "files": [
        {"id": 1, "name": "t.zip", "type": "Training Data", "downloadUrl": "https://civitai.com/api/download/models/5?type=Training"},
        {"id": 2, "name": "pot.safetensors", "type": "Model", "primary": True, "hashes": {"SHA256": sha(wrong).upper()},
         "downloadUrl": "https://civitai.com/api/download/models/5"}]}
    world.routes["/civitai.com/api/v1/model-versions/5"] = document(json.dumps(version))
    world.routes["/civitai.com/api/download/models/5"] = sends_to(OTHER + "/blob/pot?X-Amz-Signature=1&token=1")
    world.routes["/blob/pot"] = gives(wrong, '"p"')
    done = get(cache, "https://civitai.com/models/4/a-lora?modelVersionId=5")
    check("CivitAI", done.returncode == 0 and (cache / "kiln/loras/pot.safetensors").read_bytes() == wrong and
          state(cache, "pot") == "verified", done.stderr)
    check("its token", world.of("/civitai.com/api/download/models/5")[-1]["headers"].get("authorization") == "Bearer civ-secret"
          and world.of("/civitai.com/api/v1/model-versions/5")[-1]["headers"].get("authorization") == "Bearer civ-secret"
          and "authorization" not in world.of("/blob/pot")[-1]["headers"])
    note = (cache / "kiln/loras/.pot.safetensors.note").read_text()
    check("no query in notes", "?" not in note and "secret" not in note, note)
    refused("a token in a URL", get(cache, "https://civitai.com/api/download/models/5?token=abc"), "token in a URL")
    refused("which version", get(cache, "https://civitai.com/models/4/a-lora"), "modelVersionId", code=2)
    version["files"][1].update(name="../../../up.safetensors")
    world.routes["/civitai.com/api/v1/model-versions/6"] = document(json.dumps(version))
    refused("CivitAI's name leaves the folder", get(cache, "civitai:6"), "slash", code=2)
    version["files"][1].update(name="ok.safetensors", downloadUrl="https://evil.example/x")
    world.routes["/civitai.com/api/v1/model-versions/7"] = document(json.dumps(version))
    refused("CivitAI sends elsewhere", get(cache, "civitai:7"), "evil.example", "list of hosts")

    # ---- what is said once
    for name, status in (("Gone", "404"), ("Law", "451")):
        refused(name, get(cache, name), status)
        before = world.count(HUB + name + ".ckpt")
        refused(f"{name}, remembered", get(cache, name), status, "--again")
        check(f"{name} is not asked again", world.count(HUB + name + ".ckpt") == before)
    refused("401", get(cache, "Key"), "token", "401")
    refused("401 is asked again", get(cache, "Key"), "401")
    check("401 is not remembered", world.count(HUB + "Key.ckpt") == 2)
    check("no empty files", not [f for f in files(cache) if "Key" in f or "Gone" in f or "Law" in f], files(cache))

    # ---- redirects
    for i in range(1, 6):
        world.routes[f"/blob/hop{i}"] = sends_to(f"{OTHER}/blob/hop{i - 1}")
    world.routes["/blob/hop0"] = gives(wrong)
    for hops, fine in ((2, True), (3, False)):
        world.routes[HUB + f"hops{hops}.safetensors"] = sends_to(f"{OTHER}/blob/hop{hops}")
        done = get(cache, f"hf:org/repo/hops{hops}.safetensors")
        check(f"{hops + 1} redirects", (done.returncode == 0) == fine, done.stderr)
        if not fine:
            refused("too many", done, "more than 3 redirects")
    for name, to, words in (("inner", "http://10.0.0.1/x", ["10.0.0.1"]), ("meta", "http://169.254.169.254/x", ["169.254"]),
                            ("file", "file:///etc/passwd", ["redirects to"]), ("evil", "https://evil.example/x", ["evil.example"]),
                            ("named", "https://u:p@huggingface.co/x", ["user name"]),
                            # a listed name; with the test's variable only loopback is reached
                            ("public", "https://huggingface.co/x", ["huggingface.co"])):
        world.routes[HUB + name + ".safetensors"] = sends_to(to)
        refused(f"redirect to {to}", get(cache, f"hf:org/repo/{name}.safetensors", "--tries", "1"), *words)
        check(f"nothing of {name}", not [f for f in files(cache) if name + "." in f], files(cache))

    # ---- sizes and room
    big = bytes(3_000_000)
    world.routes[HUB + "big.safetensors"] = gives(big)
    refused("declared too large", get(cache, "hf:org/repo/big.safetensors", "--max-mb", "2"), "2000000 bytes")

    def endless(h):
        h.send_response(200)
        h.end_headers()
        h.close_connection = True
        for _ in range(100):
            h.wfile.write(bytes(100_000))
    world.routes[HUB + "endless.safetensors"] = endless
    refused("grows too large", get(cache, "hf:org/repo/endless.safetensors", "--max-mb", "2"), "2000000 bytes")
    refused("disk floor", run(cache, "get", "hf:org/repo/big.safetensors", "--disk-floor-mb", "900000000"), "floor of 900000000 MB")
    for name, fits in (("one", True), ("two", False)):
        done = get(cache, "hf:org/repo/big.safetensors", "--again", "--quota-mb", "4", "--kind", "embeddings", "--as", name)
        check(f"quota, {name}", (done.returncode == 0) == fits and ("quota" in done.stderr) != fits, done.stderr)
    refused("no such kind", get(cache, "Good", "--kind", "nonsense"), "--kind", code=2)
    world.routes[HUB + "page.safetensors"] = gives(b"<html>log in</html>", kind="text/html; charset=utf-8")
    refused("a web page", get(cache, "hf:org/repo/page.safetensors"), "web page")
    world.routes[HUB + "empty.safetensors"] = gives(b"")
    refused("an empty file", get(cache, "hf:org/repo/empty.safetensors"), "empty")
    check("nothing of these", not [f for f in files(cache) if any(w in f for w in ("big", "endless", "page", "empty"))], files(cache))

    # ---- names
    for name in ("../../evil", "a/b", ".hidden", "n" * 200):
        refused(f"name {name[:12]}", get(cache, name), "name", code=2)
    for name in ("../x", "", "a\nb", "..", "x" * 161, "\\x"):
        refused(f"--as {name[:12]!r}", get(cache, "Good", "--as", name), "name", code=2)
    refused("a name in a URL", get(cache, "https://huggingface.co/org/repo/resolve/main/%2e%2e%2f%2e%2e%2fup.safetensors"), "name", code=2)
    done = get(cache, "Inside")
    check("a path in the list is no path here", done.returncode == 0 and (cache / "kiln/models/Inside.ckpt").exists(), done.stderr)
    refused("two files", get(cache, "Two"), "2 files")
    refused("extension", get(cache, "hf:org/repo/x.exe"), "x.exe")
    refused("not a listed host", get(cache, "Elsewhere"), "evil.example")
    refused("not https", get(cache, "Plain"), "https")
    outside = [str(p) for p in Path(top).rglob("*") if p.is_file() and not str(p).startswith((str(cache / "kiln"), str(Path(top, "n", "kiln"))))]
    check("nothing outside the cache", not outside, outside)

    # ---- what the forms caption and interrogation need: pinned bytes or none, and lists of one's own
    NATAILI = "/raw.githubusercontent.com/db0/nataili/3cfc46fc81734293292778f35bb9f636839db5ef/nataili/"
    BLIP = "/storage.googleapis.com/sfr-vision-language-research/BLIP/models/model_large_caption.pth"
    alchemy = Path(top, "alchemy")
    world.routes.update({BLIP: gives(wrong), NATAILI + "tags.txt": gives(b"red\nblue\n", kind="text/plain"),
                         "/raw.githubusercontent.com/me/lists/main/mine.txt": gives(b"red vase\n", kind="text/plain")})
    refused("other bytes than the captioner's", run(alchemy, "get", "caption"), sha(wrong))
    refused("other bytes than the list's", run(alchemy, "get", "words"), sha(b"red\nblue\n"))
    check("nothing of them stays", not files(alchemy, "caption") and not files(alchemy, "words"),
          files(alchemy, "caption"), files(alchemy, "words"))
    refused("one name for eight files", run(alchemy, "get", "interrogation", "--as", "x"), "8 files", code=2)
    done = run(alchemy, "get", "https://raw.githubusercontent.com/me/lists/main/mine.txt", "--kind", "words", "--as", "tags")
    check("a list of one's own", done.returncode == 0 and sha(b"red vase\n") in done.stderr, done.stderr)
    listed = {e["file"]: e for e in json.loads(run(alchemy, "list", "--json").stdout)}
    check("is pinned to what came", listed["tags.txt"]["sha256"] == sha(b"red vase\n") and listed["tags.txt"]["kind"] == "words", listed)
    (alchemy / "kiln/words/tags.txt").write_bytes(b"blue vase\n")
    refused("and a changed one is found", run(alchemy, "verify", "words/tags"), sha(b"blue vase\n"))

    # ---- searching CivitAI and Hugging Face
    offer = lambda n: [{"id": n, "name": f"f{n}.safetensors", "type": "Model", "sizeKB": 2048, "downloadUrl": f"https://civitai.com/api/download/models/{n}"}]
    items = [{"id": 1, "name": "Pot\x1b[31m lora", "type": "LORA", "modelVersions": [{"id": 12, "baseModel": "SDXL 1.0", "files": offer(12), "trainedWords": ["pott"]},
                                                                                  {"id": 11, "baseModel": "SD 1.5", "files": offer(11)}]},
             {"id": 2, "name": "Pot\x1b[31m lora", "type": "LORA", "modelVersions": [{"id": 21, "baseModel": "SD 1.5", "files": offer(21)}]},
             {"id": 3, "name": "a workflow", "type": "Workflows", "modelVersions": [{"id": 31, "files": offer(31)}]}, "rubbish",
             {"id": 4, "name": "no files", "type": "LORA", "modelVersions": [{"id": 41}]}]
    world.routes["/civitai.com/api/v1/models"] = document(json.dumps({"items": items, "metadata": {}}))
    done = run(cache, "search", "pot & jug", "--from", "civitai", "--kind", "loras", "--json")
    check("CivitAI is searched", done.returncode == 0 and [x["get"] for x in json.loads(done.stdout)] == ["civitai:12", "civitai:21"], done.stdout, done.stderr)
    check("what is told of it", json.loads(done.stdout)[0] == {"get": "civitai:12", "name": "Pot\x1b[31m lora", "kind": "loras", "baseline": "SDXL 1.0",
                                                              "size_bytes": 2097152, "note": "pott"}, done.stdout)
    asked = world.of("/civitai.com/api/v1/models")[-1]
    check("as it was asked", "query=pot%20%26%20jug" in asked["query"] and "types=LORA" in asked["query"] and "secret" not in asked["query"]
          and asked["headers"].get("authorization") == "Bearer civ-secret", asked)
    done = run(cache, "search", "pot", "--from", "civitai")
    check("a table of it", "civitai:21" in done.stdout and "\x1b" not in done.stdout and "workflow" not in done.stdout, repr(done.stdout))
    check("no kind that it is not", run(cache, "search", "pot", "--from", "civitai", "--kind", "post").returncode == 1)
    hub = [{"id": "org/repo", "downloads": 7, "gated": False, "siblings": [{"rfilename": "linked.safetensors"}, {"rfilename": "unet/x.safetensors"}, {"rfilename": "README.md"}]},
           {"id": "org/gate", "gated": "manual", "siblings": [{"rfilename": "g.ckpt"}]}, {"id": "../etc", "siblings": [{"rfilename": "p.ckpt"}]},
           {"id": "a/b/c", "siblings": [{"rfilename": "q.ckpt"}]}, {"id": "org/x?y", "siblings": [{"rfilename": "q.ckpt"}]}, {"siblings": []}, 5,
           {"id": "org/folder", "siblings": [{"rfilename": "unet/a.safetensors"}]}]
    world.routes["/huggingface.co/api/models"] = document(json.dumps(hub))
    done = run(cache, "search", "pot", "--from", "huggingface", "--json")
    check("Hugging Face is searched", done.returncode == 0 and [x["get"] for x in json.loads(done.stdout)] == ["hf:org/repo/linked.safetensors", "hf:org/gate/g.ckpt"],
          done.stdout, done.stderr)
    asked = world.of("/huggingface.co/api/models")[-1]
    check("as Hugging Face was asked", "search=pot" in asked["query"] and "secret" not in asked["query"]
          and asked["headers"].get("authorization") == "Bearer hub-secret", asked)
    check("a gate is told", "gated" in run(cache, "search", "pot", "--from", "huggingface").stdout)
    done = run(cache, "search", "pot", "--from", "huggingface", "--limit", "1")
    check("the limit holds", done.returncode == 0 and "org/gate" not in done.stdout and "--limit 1" in done.stderr, done.stdout, done.stderr)
    check("what it shows can be fetched", get(cache, "hf:org/repo/linked.safetensors", "--kind", "loras").returncode == 0)
    for where, route in (("civitai", "/civitai.com/api/v1/models"), ("huggingface", "/huggingface.co/api/models")):
        for text, said in (('{"items": []}' if where == "civitai" else "[]", "no file for Kiln"), ("<html>", "answer"), ("[" * 2000, "answer"), ('"x"', "answer"),
                           (" " * (9 << 20), "bytes")):
            world.routes[route] = document(text)
            refused(f"{where} says {text[:9]}", run(cache, "search", "pot", "--from", where), said)
        world.routes[route] = says(429)
        refused(f"{where} is busy", run(cache, "search", "pot", "--from", where), "429")
        world.routes[route] = sends_to("https://evil.example/models")
        refused(f"{where} sends elsewhere", run(cache, "search", "pot", "--from", where), "evil.example")
    refused("no word", run(cache, "search", "--from", "civitai"), "WORD", code=2)
    refused("offline", run(cache, "search", "x", "--from", "civitai", "--offline"), "--offline", code=2)
    refused("an unknown place", run(cache, "search", "x", "--from", "elsewhere"), "--from elsewhere", code=2)
    refused("too many", run(cache, "search", "x", "--from", "huggingface", "--limit", "101"), "at most 100", code=2)
    refused("from and get", run(cache, "get", "x", "--from", "civitai"), "search", code=2)

    # ---- without the test's variable, or with a wrong one
    for url in ("https://127.0.0.1/x.safetensors", "https://[::1]/x.safetensors", "https://10.1.2.3/x.safetensors",
                "http://huggingface.co/o/r/resolve/main/x.safetensors", "https://huggingface.co:8443/o/r/resolve/main/x.safetensors",
                "https://huggingface.co.evil.example/o/r/resolve/main/x.safetensors", "file:///etc/passwd"):
        refused(url, get(cache, url, origin=False, timeout=20), "URL")
    for origin in ("http://example.org:80", "https://127.0.0.1:1", "http://127.0.0.1.example.org", "http://10.0.0.1:80", "http://127.0.0.1:1@example.org"):
        refused(f"origin {origin}", run(cache, "search", env={"KILN_STORE_TEST_ORIGIN": origin}), "127.0.0.1:PORT", code=2)

    # ---- verify
    done = run(cache, "verify")
    check("verify all", done.returncode == 0, done.stderr)
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    refused("verify", run(cache, "verify", "Good"), sha(data), sha(good), ".bad")
    check("moved aside", "Good.ckpt.bad" in files(cache) and "Good.ckpt" not in files(cache) and state(cache, "Good") == "bad")
    done = get(cache, "Good")
    check("fetched anew", done.returncode == 0 and path.read_bytes() == good, done.stderr)
    (cache / "kiln/models/Mine.safetensors").write_bytes(b"mine")
    check("one's own file", state(cache, "Mine") == "own")
    (cache / "kiln/models/Law.ckpt").write_bytes(good)
    run(cache, "verify", "Law")
    check("one's own file that the list knows", state(cache, "Law") == "verified", state(cache, "Law"))
    refused("rm of nothing", run(cache, "rm", "Nothing"), "not in the store")

    # ---- a folder that is a link
    linked = Path(top, "linked")
    target = Path(top, "target")
    target.mkdir()
    (linked / "kiln").mkdir(parents=True)
    (linked / "kiln/models").symlink_to(target)
    refused("a link", get(linked, "Good"), "link")
    check("nothing behind the link", not list(target.iterdir()))

for server in servers:
    server.shutdown()
print(f"{checks - len(failures)} of {checks} checks are right (seed {SEED})")
for failure in failures:
    print("FAILED", failure)
sys.exit(1 if failures else 0)
