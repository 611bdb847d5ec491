"""kilnd killed at every boundary of a job's life, started again, and asked to stop in every state.

usage: daemon_crash.py KILND ENGINE HORDE     (a kilnd with fault points)"""
import hashlib
import os
import random
import signal
import subprocess
import sys
import time

from bench import FINAL, Place, at_once, check, run, wait_for

LONG = bool(os.environ.get("KILN_LONG_TESTS"))


def points(programs):
    return subprocess.run([programs["kilnd"], "--fault-points"], capture_output=True, text=True,
                          check=True).stdout.split()


def settle_after(p, what):
    """A good daemon goes on with what the dead one left; then books and Horde agree."""
    p.horde.clear()
    p.kilnd.env["KILN_FAKE"] = "ok"
    p.kilnd.start()
    p.kilnd.ready()
    p.horde.fire(1)
    wait_for(lambda: p.kilnd.ask(request="status")["jobs_open"] == 0, 20, f"{what}: what was open has ended")
    # a reply that was on its way is the one thing that is lost (L2); the Horde takes it back later
    p.horde.call("POST", "/practice/clock", {"turn_ms": 200000})
    p.all_over(20)
    check(p.kilnd.term() == 0, f"{what}: ends with 0")
    books = p.kilnd.states()
    check(set(books.values()) <= FINAL, f"{what}: {books}")
    p.agree()
    given = {x["job"] for x in p.horde.lines() if str(x.get("state", "")).startswith("given") and "job" in x}
    done = {x["job"] for x in p.horde.lines() if x.get("state") == "done" and "job" in x}
    check(len(given - books.keys()) <= 1, f"{what}: {given - books.keys()} were given and are not in the books")
    for job in given:
        check((books.get(job) == "SETTLED") == (job in done),
              f"{what}: {job} is {books.get(job)} here, {'done' if job in done else 'not done'} there")
    spool = list((p.kilnd.state / "spool").iterdir())
    check(not spool, f"{what}: left in the spool: {spool}")


def killed_at_every_boundary_each_job_ends_once(programs):
    names = [n for n in points(programs) if not n.startswith("fault.")]
    rounds = [(n, k) for n in names for k in (range(1, 26) if LONG else range(1, 5))]

    def play(round_):
        name, nth = round_
        with Place(programs, "--sweep", "0.1", max_batch=1) as p:
            p.horde.fire(nth + 2)
            p.kilnd.start(fault=f"{name}:{nth}=kill")
            check(p.kilnd.wait(30) == -signal.SIGKILL, f"{name}: it was to die there")
            settle_after(p, f"{name}:{nth}")
    return f"{at_once(play, rounds)} kills"


def killed_while_giving_back(programs):
    for name in ("fault.stored", "fault.answered"):
        with Place(programs, "--sweep", "0.1", fake="invalid", max_batch=1, queue_size=0) as p:
            p.horde.fire(1)
            p.kilnd.start(fault=f"{name}:1=kill")
            check(p.kilnd.wait(15) == -signal.SIGKILL, f"{name}: it was to die there")
            settle_after(p, name)


def killed_at_any_moment(programs):
    seed = 20261124
    rng = random.Random(seed)
    rounds = [[rng.uniform(0.03, 0.35) for _ in range(2)] for _ in range(500 if LONG else 25)]

    def play(waits):
        with Place(programs, "--sweep", "0.2", fake="slow:20", max_batch=2) as p:
            p.horde.fire(6, n=2)
            p.kilnd.start()
            for wait in waits:
                time.sleep(wait)
                p.kilnd.kill()
                p.kilnd.start()
            time.sleep(0.1)
            p.horde.call("POST", "/practice/clock", {"turn_ms": 200000})
            p.all_over(40)
            check(p.kilnd.term() == 0, "ends with 0")
            p.agree()
            check(set(p.kilnd.states().values()) <= FINAL, f"{p.kilnd.states()}")
    return f"seed {seed}, {2 * at_once(play, rounds)} kills"


def an_expired_job_is_given_back_at_the_start(programs):
    with Place(programs, "--sweep", "0.1", fake="quiet", max_batch=1, queue_size=0) as p:
        p.horde.fire(1)
        p.kilnd.start()
        wait_for(lambda: "job.popped" in p.kilnd.log(), 5, "a job")
        time.sleep(0.3)
        p.kilnd.kill()
        p.kilnd.env["KILN_CLOCK_TURN_MS"] = "400000"
        settle_after(p, "expired")
        check("FAULTED" in p.kilnd.states().values(), f"{p.kilnd.states()}")


def sigterm_ends_it_in_time_from_every_state(programs):
    # what holds a job in a state: (name, engine, fault on the Horde)
    holds = [("idle", "ok", None), ("generating", "quiet", None), ("slow", "slow:700", None),
             ("uploading", "ok", ("upload", "hang", {"count": 0})), ("submitting", "ok", ("submit", "hang", {"count": 0})),
             ("popping", "ok", ("pop", "hang", {"count": 0})),
             ("refused", "ok", ("submit", "status", {"status": 500, "count": 0}))]

    def play(hold):
        name, fake, fault = hold
        with Place(programs, "--sweep", "0.1", fake=fake, max_batch=1, drain_seconds=1) as p:
            if fault:
                p.horde.fault(fault[0], fault[1], **fault[2])
            if name != "idle":
                p.horde.fire(3)
            p.kilnd.start()
            p.kilnd.ready()
            time.sleep(0.5)
            began = time.monotonic()
            p.kilnd.process.send_signal(signal.SIGTERM)
            code = p.kilnd.wait(8)
            took = time.monotonic() - began
            check(code == 0, f"{name}: ends with {code}")
            check(took <= 1 + 2 + (3 if "ASAN_OPTIONS" in os.environ else 0), f"{name}: took {took:.1f} s")
            if name == "slow":
                check("FAULTED" not in list(p.kilnd.states().values())[:1], "the one in work was finished")
            settle_after(p, name)
    return f"{at_once(play, holds, 4)} states"


def an_hours_outage_loses_nothing(programs):
    """A minute of kilnd's clock is a SIGUSR1 of this build; the Horde's own stands still, so all is payable."""
    with Place(programs, fake="slow:300", max_batch=1) as p:
        p.horde.fire(4)
        p.kilnd.start()
        wait_for(lambda: p.kilnd.log().count("job.computed") >= 1, 10, "an image is there")
        for on in ("pop", "submit", "upload"):
            p.horde.fault(on, "status", status=503, count=0)
        time.sleep(1.5)
        calls = len(p.horde.calls("pop")) + len(p.horde.calls("submit"))
        for _ in range(60):
            p.kilnd.process.send_signal(signal.SIGUSR1)
            time.sleep(0.06)
        more = len(p.horde.calls("pop")) + len(p.horde.calls("submit")) - calls
        check(more <= 70, f"{more} requests in an hour of outage")
        check(p.kilnd.process.poll() is None, "it lives")
        p.horde.clear()
        p.kilnd.process.send_signal(signal.SIGUSR1)
        p.all_over(20)
        check(p.kilnd.term() == 0, "ends with 0")
        p.agree()
        check(set(p.kilnd.states().values()) <= {"SETTLED", "FAULTED"}, f"{p.kilnd.states()}")
        check("SETTLED" in p.kilnd.states().values(), "the image that was ready is paid")
        return f"{more} requests"


def minute(p, count=1):
    """Turns kilnd's clock; it looks at its alarms at least once a second."""
    for _ in range(count):
        p.kilnd.process.send_signal(signal.SIGUSR1)
        time.sleep(0.05)
    time.sleep(1.1)


def an_engine_without_a_heartbeat_is_killed(programs):
    with Place(programs, fake="hang,ok", max_batch=1, queue_size=0) as p:
        p.horde.fire(1)
        p.kilnd.start()
        wait_for(lambda: "job.popped" in p.kilnd.log(), 5, "a job")
        time.sleep(0.3)
        minute(p)
        wait_for(lambda: "its heartbeat stopped" in p.kilnd.log(), 5, "the engine is killed")
        p.all_over(10)
        check(p.kilnd.term() == 0, "ends with 0")
        check(set(p.kilnd.states().values()) == {"SETTLED"}, f"{p.kilnd.states()}")


def a_silent_pause_is_exposed(programs):
    with Place(programs, fake="slow:50", max_batch=1) as p:  # slow: the log takes 50 lines a second
        p.kilnd.start()
        p.kilnd.ready()
        wait_for(lambda: p.kilnd.ask(request="ledger")["verdict"] == "first figure", 5, "the first figure")
        p.horde.fire(12)
        p.all_over()
        minute(p, 2)
        wait_for(lambda: p.kilnd.ask(request="ledger")["verdict"] == "agrees", 5, "books and Horde agree")
        check(p.kilnd.ask(request="status")["unexplained_milli"] == 0, "nothing is unexplained")
        p.horde.call("POST", "/practice/worker", {"name": "practice kiln", "paused": True})
        p.horde.fire(1, width=512, height=512, steps=30)  # fake jobs: told, never credited
        for _ in range(2):
            settled = p.kilnd.ask(request="status")["jobs_settled"]
            wait_for(lambda: p.kilnd.ask(request="status")["jobs_settled"] >= settled + 3, 20, "fake jobs are done")
            minute(p, 2)
        wait_for(lambda: "ledger.unexplained" in p.kilnd.log(), 5, "the log says so")
        check(any(r["gate"] == "ledger" for r in p.kilnd.ask(request="why")["reasons"]), "and so does why")


def a_model_whose_bytes_changed_leaves_the_offer(programs):
    """Files are read again after 30 days; the clock of this kilnd stands 31 days ahead."""
    with Place(programs, models_to_load=["rotten", "sound"], env={"KILN_CLOCK_TURN_MS": str(31 * 86400000)}) as p:
        folder = p.kilnd.state / "cache" / "models"
        folder.mkdir(parents=True)
        for name, noted in (("rotten", b"what it was"), ("sound", b"sound")):
            (folder / f"{name}.safetensors").write_bytes(name.encode())
            (folder / f".{name}.safetensors.note").write_text(
                f"state verified\nsha256 {hashlib.sha256(noted).hexdigest()}\nchecked_ms {int(time.time() * 1000)}\n")
        p.kilnd.start()
        p.kilnd.ready()
        for _ in range(8):
            if "model.bad" not in p.kilnd.log() or "model.checked" not in p.kilnd.log():
                minute(p)
        check("model.bad" in p.kilnd.log() and "model.checked" in p.kilnd.log(), "both were read")
        states = {m["name"]: m["state"] for m in p.kilnd.ask(request="models")["models"]}
        check(states["rotten"] == "missing" and states["sound"] == "ready", f"{states}")
        check((folder / "rotten.safetensors.bad").exists(), "it was moved aside")


def a_second_signal_gives_back_at_once(programs):
    with Place(programs, fake="quiet", max_batch=1, drain_seconds=60) as p:
        p.horde.fire(2)
        p.kilnd.start()
        wait_for(lambda: "job.popped" in p.kilnd.log(), 5, "a job")
        time.sleep(0.3)
        p.kilnd.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        check(p.kilnd.process.poll() is None, "it finishes what it has")
        p.kilnd.process.send_signal(signal.SIGTERM)
        check(p.kilnd.wait(4) == 0, "the second signal ends it")
        check(set(p.kilnd.states().values()) == {"FAULTED"}, f"{p.kilnd.states()}")


def a_hup_reads_all_or_nothing(programs):
    with Place(programs) as p:
        p.kilnd.start()
        p.kilnd.ready()
        p.kilnd.keys["dreamer_name"] = "another kiln"
        p.kilnd.write_config()
        p.kilnd.process.send_signal(signal.SIGHUP)
        wait_for(lambda: p.kilnd.ask(request="status")["worker_name"] == "another kiln", 3, "the new name")
        p.kilnd.keys["max_threads"] = 999
        p.kilnd.keys["dreamer_name"] = "third kiln"
        p.kilnd.write_config()
        p.kilnd.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "config.kept" in p.kilnd.log(), 3, "the refusal is told")
        check(p.kilnd.ask(request="status")["worker_name"] == "another kiln", "nothing of a bad file counts")


if __name__ == "__main__":
    sys.exit(run([v for k, v in list(globals().items()) if callable(v) and getattr(v, "__module__", "") == "__main__"
                  and k not in ("points", "settle_after", "minute")],
                 dict(zip(("kilnd", "engine", "horde"), map(os.path.abspath, sys.argv[1:])))))
