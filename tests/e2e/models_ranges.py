"""kiln models get by several requests at once: servers that can, cannot, lie, change their mind, are slow, and kill -9.

usage: models_ranges.py KILN     127.0.0.1 plays Hugging Face (KILN_STORE_TEST_ORIGIN)"""
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KILN = os.path.abspath(sys.argv[1])
SEED = int(os.environ.get("SEED", "20261124"))
MB = 1 << 20
failures = []


def check(good, what, *detail):
    if not good:
        failures.append(what)
        print("FAILED:", what, *detail, flush=True)


class File:
    """One file and how its server behaves."""

    def __init__(self, size=12 * MB + 4321, etag='"one"', accept=True, spoil=None, pace=0.0, seed=SEED):
        self.data = random.Random(seed).randbytes(size)
        self.etag, self.accept, self.spoil, self.pace = etag, accept, spoil or (lambda h, start, end, n: None), pace
        self.lock, self.open, self.most, self.sent, self.asked = threading.Lock(), 0, 0, 0, []

    def answer(self, h):
        wanted = h.headers.get("Range")
        with self.lock:
            self.asked.append(wanted)
            number = len(self.asked)
            self.open += 1
            self.most = max(self.most, self.open)
        try:
            self.give(h, wanted, number)
        finally:
            with self.lock:
                self.open -= 1

    def give(self, h, wanted, number):
        start, end = 0, len(self.data)
        if wanted and h.headers.get("If-Range") in (None, self.etag):
            a, _, b = wanted[len("bytes="):].partition("-")
            start, end = int(a), int(b) + 1 if b else end
        spoiled = self.spoil(h, start, end, number) or {}
        if spoiled.get("status"):
            h.send_response(spoiled["status"])
            h.send_header("Content-Length", "0")
            h.end_headers()
            return
        part = bool(wanted) and not spoiled.get("whole") and (start, end) != (0, len(self.data))
        if spoiled.get("whole"):
            start, end = 0, len(self.data)
        h.send_response(206 if part else 200)
        if part:
            off = spoiled.get("off", 0)
            h.send_header("Content-Range", f"bytes {start + off}-{end - 1 + off}/{len(self.data)}")
        if self.accept:
            h.send_header("Accept-Ranges", "bytes")
        if spoiled.get("etag", self.etag):
            h.send_header("ETag", spoiled.get("etag", self.etag))
        h.send_header("Content-Type", "application/octet-stream")
        h.send_header("Content-Length", str(end - start))
        h.end_headers()
        body = spoiled.get("body") or self.data[start:end]
        if "cut" in spoiled:
            body = body[:spoiled["cut"]]
            h.close_connection = True
        if spoiled.get("wait"):
            time.sleep(spoiled["wait"])
        for at in range(0, len(body), 65536):
            h.wfile.write(body[at:at + 65536])
            with self.lock:
                self.sent += len(body[at:at + 65536])
            if self.pace:
                time.sleep(self.pace)


files = {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        file = files.get(self.path.split("?")[0].rsplit("/", 1)[-1])
        try:
            if file:
                file.answer(self)
            else:
                self.send_error(404)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


server = Server(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
names = iter(f"f{i}.safetensors" for i in range(1000))


class Get:
    """kiln models get of one file into a store of its own."""

    def __init__(self, f, known=True, cache=None, name=None, options=()):
        self.file, self.name = f, name or next(names)
        files[self.name] = f
        self.cache = cache or tempfile.TemporaryDirectory(prefix="kiln-ranges-")
        home = self.cache.name
        env = {**os.environ, "XDG_CACHE_HOME": home, "XDG_STATE_HOME": home + "/s", "XDG_CONFIG_HOME": home + "/c", "CI": "true",
               "KILN_STORE_TEST_ORIGIN": f"http://127.0.0.1:{server.server_address[1]}"}
        for n in ("KILN_CONFIG", "CACHE_DIRECTORY", "STATE_DIRECTORY"):
            env.pop(n, None)
        self.words = [KILN, "models", "get", f"hf:org/repo/{self.name}", "--kind", "models", "--json", "--disk-floor-mb", "1", *options]
        if known:
            self.words += ["--sha256", hashlib.sha256(f.data).hexdigest()]
        self.began = time.monotonic()
        self.process = subprocess.Popen(self.words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self, code=0, seconds=90):
        out, err = self.process.communicate(timeout=seconds)
        self.took = time.monotonic() - self.began
        check(self.process.returncode == code and "Sanitizer" not in err, f"{self.name} ends with {code}, not {self.process.returncode}", err)
        if code == 0:
            got = Path(json.loads(out)["path"]).read_bytes()
            check(got == self.file.data, f"{self.name}: {len(got)} bytes, not the file's")
            rest = sorted(p.name for p in Path(self.cache.name, "kiln/models").iterdir() if "part" in p.name)
            check(not rest, f"{self.name}: {rest} are left")
        return err


def pieces(f):
    return [a for a in f.asked if a and not a.endswith("-")]


def several_at_once():
    f = File(pace=0.004)
    Get(f).end()
    check(2 <= f.most <= 4, f"{f.most} requests at once")
    check(len(pieces(f)) >= 3, f"asked {f.asked}")
    check(f.sent < len(f.data) * 1.3 + 4 * MB, f"{f.sent} bytes sent for {len(f.data)}")
    f = File(pace=0.002)
    Get(f, options=["--ranges", "1"]).end()
    check(f.asked == [None], f"--ranges 1 asked {f.asked}")


def one_where_it_must_be_one():
    for what, f, known in (("no Accept-Ranges", File(accept=False), True), ("a weak ETag", File(etag='W/"one"'), True),
                           ("no ETag", File(etag=None), True), ("no known hash", File(), False), ("a small file", File(size=3 * MB), True)):
        Get(f, known).end()
        check(f.asked == [None], f"{what}: asked {f.asked}")


def a_kill_costs_the_pieces_in_flight():
    for after in (0.3, 0.6):
        f = File(size=24 * MB + 99, pace=0.01)
        g = Get(f)
        end = time.monotonic() + 60
        while f.sent < after * len(f.data) and time.monotonic() < end:
            time.sleep(0.01)
        g.process.send_signal(signal.SIGKILL)
        g.process.communicate()
        before, f.sent, f.pace, f.asked = f.sent, 0, 0, []
        Get(f, cache=g.cache, name=g.name).end()
        check(f.sent <= len(f.data) - before + 9 * MB, f"{before} of {len(f.data)} were there, {f.sent} came again")
        check(f.asked[0] != "bytes=0-" and f.asked[0], f"it did not go on: {f.asked}")


def spoils(rule, size=12 * MB + 4321, **more):
    """rule(request number, start, end) -> what is wrong with that answer; only pieces are spoiled"""
    def spoil(h, start, end, number):
        wanted = h.headers.get("Range")
        return rule(number, start, end) if wanted and not wanted.endswith("-") else None
    return File(size, spoil=spoil, **more)


def lies_come_out():
    cases = {
        "other bytes": spoils(lambda n, a, b: {"body": bytes(b - a)} if n == 3 else None, pace=0.002),
        "every part the first one": spoils(lambda n, a, b: {"off": -a}, pace=0.002),
        "200 for a part": spoils(lambda n, a, b: {"whole": True}, pace=0.002),
        "another ETag midway": spoils(lambda n, a, b: {"etag": '"two"'} if n > 3 else None, pace=0.002),
        "no ETag midway": spoils(lambda n, a, b: {"etag": None} if n > 3 else None, pace=0.002),
        "cut parts": spoils(lambda n, a, b: {"cut": 70000} if n in (2, 3, 5) else None, pace=0.002),
        "429": spoils(lambda n, a, b: {"status": 429}, pace=0.002),
        "503 now and then": spoils(lambda n, a, b: {"status": 503} if n % 3 == 0 else None, pace=0.002),
        "404 for parts": spoils(lambda n, a, b: {"status": 404} if n % 2 == 0 else None, pace=0.002),
    }
    gets = {what: Get(f) for what, f in cases.items()}
    for what, g in gets.items():
        g.end()


def wrong_bytes_everywhere_are_deleted():
    f = File(size=6 * MB, pace=0.001)
    g = Get(f, known=False, options=["--sha256", "0" * 64])
    err = g.end(code=1)
    check("SHA-256" in err, err)
    left = [p.name for p in Path(g.cache.name, "kiln/models").iterdir() if p.stat().st_size > MB]
    check(not left, f"left: {left}")


def a_slow_part_is_fetched_once_more():
    slow = []

    def rule(n, a, b):
        if not slow:
            slow.append((a, b))
            return {"wait": 60}
        return None
    f = spoils(rule, pace=0.001)
    g = Get(f)
    g.end(seconds=55)
    check(f.asked.count(f"bytes={slow[0][0]}-{slow[0][1] - 1}") >= 2, f"{slow}: {f.asked}")


def no_room_is_said():
    f = File(size=20 * MB, pace=0.001)
    err = Get(f, options=["--quota-mb", "10"]).end(code=1)
    check("quota" in err, err)
    f = File(size=20 * MB, pace=0.001)
    err = Get(f, options=["--max-mb", "10"]).end(code=1)
    check("limit" in err, err)


tests = [several_at_once, one_where_it_must_be_one, a_kill_costs_the_pieces_in_flight, lies_come_out,
         wrong_bytes_everywhere_are_deleted, a_slow_part_is_fetched_once_more, no_room_is_said]


def play(test):
    began = time.monotonic()
    try:
        test()
    except Exception as e:  # noqa: a test that breaks is a test that failed
        check(False, f"{test.__name__}: {type(e).__name__}: {e}")
    print(f"[ ended ] {test.__name__} ({time.monotonic() - began:.1f} s)", flush=True)


with ThreadPoolExecutor(4) as pool:
    list(pool.map(play, tests))
print(f"seed {SEED}: {len(failures)} failures")
sys.exit(1 if failures else 0)
