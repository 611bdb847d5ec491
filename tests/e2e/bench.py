"""What the end-to-end tests of the daemon share: the practice horde, a kilnd, its socket and books.

Python's standard library only. Everything runs on 127.0.0.1 in a folder of its own and is ended by
its process id; every wait has a limit."""
import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KEY = "practice-worker-key-00"
STATES = ["POPPED", "READY", "GENERATING", "CHECKED", "UPLOADED", "SUBMITTING", "SETTLED", "FAULTED",
          "FORFEITED"]
FINAL = {"SETTLED", "FAULTED", "FORFEITED"}


class Failed(AssertionError):
    pass


def check(condition, text, *more):
    if not condition:
        raise Failed(text + "".join(f"\n    {m}" for m in more))


def wait_for(what, seconds, text):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = what()
        if value:
            return value
        time.sleep(0.01)
    raise Failed(f"within {seconds} s: {text}")


class Horde:
    """kiln-practice-horde with its log, which is the oracle."""

    def __init__(self, program, folder, *options):
        self.log_path = Path(folder) / "horde.log"
        self.store = Path(folder) / "store"
        self.store.mkdir(exist_ok=True)
        self.out = open(Path(folder) / "horde.out", "wb")
        port_file = Path(folder) / "port"
        port_file.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [program, "--port-file", str(port_file), "--log", str(self.log_path), "--store", str(self.store),
             "--seconds", "1000000", "--uptime", "0", *options], stdout=self.out, stderr=self.out)
        wait_for(lambda: port_file.exists() and port_file.read_text().strip(), 10, "the practice horde starts")
        self.port = int(port_file.read_text())
        self.url = f"http://127.0.0.1:{self.port}"

    def call(self, method, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"},
                                         method=method)
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.loads(reply.read() or b"null")

    def fault(self, on, kind, **more):
        self.call("POST", "/practice/fault", {"on": on, "kind": kind, **more})

    def clear(self):
        self.call("DELETE", "/practice/fault")

    def fire(self, count=1, model="stable_diffusion", **params):
        """Requests of the client account, one image each unless n says more."""
        for i in range(count):
            p = {"width": 128, "height": 128, "steps": 2, "sampler_name": "k_euler", "n": 1,
                 "seed": str(1000 + i), "karras": False, **params}
            self.call("POST", "/practice/fire", {"prompt": "a pot ### a vase", "params": p, "nsfw": False,
                                                 "censor_nsfw": False, "r2": True,
                                                 "models": [model]})

    def lines(self):
        if not self.log_path.exists():
            return []
        whole = self.log_path.read_text(errors="replace").splitlines()
        out = []
        for line in whole:
            try:
                out.append(json.loads(line))
            except ValueError:
                pass  # the last one may be half written
        return out

    def calls(self, kind):
        return [x for x in self.lines() if x.get("call") == kind]

    def told(self):
        """job id -> milli-kudos that the Horde says it told for it"""
        told = {}
        for x in self.lines():
            if x.get("posting") in ("job", "earned", "image", "form", "alchemy") and x.get("job"):
                check(x["job"] not in told, f"the Horde paid {x['job']} twice")
                told[x["job"]] = x["told_milli"]
        return told

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)
        self.out.close()


class Kilnd:
    """A kilnd with a configuration of its own; may be killed and started again."""

    def __init__(self, program, engine, folder, horde_url, fake="ok", env=None, **keys):
        self.program, self.folder = program, Path(folder)
        self.state = self.folder / "state"
        self.log_path = self.folder / "kilnd.log"
        self.config = self.folder / "bridgeData.yaml"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "KILN_FAKE": fake,
                    "KILN_FAKE_COUNT": str(self.folder / "fake.count"),
                    "KILN_STORE_TEST_ORIGIN": "http://127.0.0.1:9",  # CivitAI is nowhere, unless a test plays it
                    **(env or {})}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"):
            if name in os.environ:
                self.env[name] = os.environ[name]
        self.keys = {"horde_url": horde_url, "api_key": KEY, "dreamer_name": "practice kiln",
                     "state_dir": str(self.state), "engine_path": engine, "max_batch": 4, "max_power": 32,
                     "allow_controlnet": True, "allow_lora": True, "drain_seconds": 3, "disk_floor_mb": 1,
                     "stats_output_frequency": 0, "devices": ["cpu"],
                     "custom_models": [{"name": "stable_diffusion", "baseline": "stable_diffusion_1",
                                        "filepath": "pocket"}], **keys}
        self.process = None
        self.write_config()

    def write_config(self, mode=0o600):
        """JSON is YAML."""
        self.config.write_text(json.dumps(self.keys, indent=1))
        self.config.chmod(mode)

    def start(self, fault=None):
        env = dict(self.env)
        if fault:
            env["KILN_FAULT"] = fault
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([self.program, "--config", str(self.config)], env=env, stdout=log,
                                            stderr=log, cwd=self.folder)
        return self

    def wait(self, seconds=10):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"kilnd did not end within {seconds} s") from None

    def term(self, seconds=10):
        self.process.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def ask(self, **request):
        """One request on the control socket."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(self.state / "run" / "kilnd.sock"))
            body = json.dumps(request).encode()
            s.sendall(struct.pack("<I", len(body)) + body)
            return self.read_frame(s)

    @staticmethod
    def read_frame(s):
        data = b""
        while len(data) < 4 or len(data) < 4 + struct.unpack("<I", data[:4])[0]:
            more = s.recv(65536)
            if not more:
                raise Failed("kilnd closed the control socket")
            data += more
        return json.loads(data[4:])

    def ready(self, seconds=15):
        def answers():
            try:
                with socket.socket(socket.AF_UNIX) as s:
                    s.connect(str(self.state / "run" / "kilnd.sock"))
                return True
            except OSError:
                return False  # not there yet, or left by one that was killed
        wait_for(answers, seconds, "the control socket is there")

    # ---- the books, read when no kilnd has them

    def rows(self, sql):
        check(self.process is None or self.process.poll() is not None, "the ledger is kilnd's while it runs")
        db = sqlite3.connect(self.state / "ledger.db")
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()

    def states(self):
        return {i: STATES[s] for i, s in self.rows("SELECT id, state FROM job")}

    def told(self):
        return dict(self.rows("SELECT job, milli FROM posting WHERE kind IN ('earned', 'alchemy') AND certainty = 0"))

    def pending(self):
        return {i for (i,) in self.rows("SELECT job FROM posting WHERE certainty = 3")}


class Place:
    """A folder, a horde, a kilnd; all gone at the end."""

    def __init__(self, programs, *horde_options, **kilnd_options):
        self.programs, self.horde_options, self.kilnd_options = programs, horde_options, kilnd_options

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="kiln-e2e-")
        self.folder = self.temporary.name
        self.horde = Horde(self.programs["horde"], self.folder, *self.horde_options)
        self.kilnd = Kilnd(self.programs["kilnd"], self.programs["engine"], self.folder, self.horde.url,
                           **self.kilnd_options)
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            print("---- kilnd.log (end)\n" + self.kilnd.log()[-6000:])
        self.kilnd.kill()
        self.horde.stop()
        self.temporary.cleanup()

    def all_over(self, seconds=20):
        """Every job that was given has ended in the books of a running kilnd, and none is waiting."""
        def quiet():
            state = self.horde.call("GET", "/practice/state")
            s = self.kilnd.ask(request="status")
            return state["fired"] > 0 and state["open"] == 0 and s["jobs_open"] == 0
        self.kilnd.ready()
        wait_for(quiet, seconds, "all jobs are over")

    def agree(self):
        """The books and the Horde's log: same jobs, same kudos, to the thousandth."""
        books, horde = self.kilnd.told(), self.horde.told()
        pending = self.kilnd.pending()
        for job, milli in books.items():
            check(horde.get(job) == milli, f"{job}: the books say {milli}, the Horde {horde.get(job)}")
        for job in horde:
            check(job in books or job in pending, f"{job}: the Horde paid {horde[job]}, the books know nothing")
        return books


def at_once(play, cases, workers=8):
    """Independent rounds that mostly wait; the first failure is raised. Returns how many there were."""
    with ThreadPoolExecutor(workers) as pool:
        return len(list(pool.map(play, cases)))


def run(tests, programs):
    """Prints a line for each; returns the exit code."""
    failed = 0
    for test in tests:
        began = time.monotonic()
        try:
            note = test(programs)
            print(f"[       OK ] {test.__name__} ({time.monotonic() - began:.1f} s)" + (f" {note}" if note else ""),
                  flush=True)
        except Exception as e:  # noqa: a test that breaks is a test that failed
            failed += 1
            print(f"[  FAILED  ] {test.__name__}: {type(e).__name__}: {e}", flush=True)
    return 1 if failed else 0
