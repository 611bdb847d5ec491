"""The machine is wanted for something else: by its GPU's other users, by heat, by its owner, and when the card is lost.

usage: gates.py KILND ENGINE HORDE FAKE-NVML     (kilnd with a clock that SIGUSR1 turns by a minute; the real engine)"""
import os
import signal
import sys
import time
from pathlib import Path

from bench import Place, check, run, wait_for


def place(programs, **keys):
    p = Place(programs, "--ttl-scale", "20", max_batch=1, queue_size=0, **keys)
    return p


def card(p, celsius=50, watts=30, joules=1000, foreign=0, lost=0):
    """What the stand-in for NVIDIA's library says from now on."""
    path = p.folder + "/nvml"
    with open(path + ".new", "w") as f:
        f.write(f"{celsius} {watts} {joules} {foreign} {lost}\n")
    os.rename(path + ".new", path)
    p.kilnd.env.update(KILN_NVML=p.programs["nvml"], KILN_FAKE_NVML=path)


def engine(p):
    return p.kilnd.ask(request="status")["engines"][0]


def reasons(p):
    return {r["gate"]: r["text"] for r in p.kilnd.ask(request="why")["reasons"] if r["blocks"]}


def long_job(p, steps=400, side=256):
    p.horde.fire(1, width=side, height=side, steps=steps)
    wait_for(lambda: engine(p)["step"] >= 2, 60, "it samples")


def minutes(p, count):
    for _ in range(count):
        p.kilnd.process.send_signal(signal.SIGUSR1)
        time.sleep(0.05)
    time.sleep(1.2)


def another_user_of_the_card_comes_first(programs):
    with place(programs, pause_when_gpu_busy=True, max_temperature=80) as p:
        card(p)
        p.kilnd.start()
        p.kilnd.ready()
        p.horde.fire(1)
        p.all_over(60)
        wait_for(lambda: engine(p)["temperature_c"] == 50 and engine(p)["watts"] == 30, 10, "status shows heat and power")
        check(engine(p)["memory_bytes"] == 8 << 30, "and memory")
        long_job(p, side=768)  # still at work when the gate shuts, on a fast machine too
        card(p, foreign=60)
        began = time.monotonic()
        wait_for(lambda: "foreign_use" in reasons(p), 25, "the gate shuts")
        wait_for(lambda: "model.unloaded" in p.kilnd.log() or "engine.parked" in p.kilnd.log(), 10, "the card is free")
        took = time.monotonic() - began
        wait_for(lambda: engine(p)["state"] == "idle", 10, "the engine stops at a step")
        pops = len(p.horde.calls("pop"))
        card(p)
        check("foreign_use" in reasons(p), "quiet does not count at once")
        for _ in range(8):  # two minutes of quiet, from the heartbeat on that says so
            if "foreign_use" in reasons(p):
                minutes(p, 3)
        wait_for(lambda: engine(p)["state"] == "busy", 60, "it goes on with the job")
        check(len(p.horde.calls("pop")) == pops, "the same one")
        check(p.kilnd.term() == 0, "ends with 0")
        p.agree()
        (joules,), = p.kilnd.rows("SELECT joules FROM job ORDER BY seq LIMIT 1")
        check(joules and joules >= 1, f"the card's own counter: {joules} J")
        return f"free {took:.0f} s after the other one came"


def the_owner_comes_first(programs):
    with place(programs) as p:
        p.kilnd.start()
        p.kilnd.ready()
        long_job(p, steps=40)
        began = time.monotonic()
        check("wait" in p.kilnd.ask(request="pause", now=True, for_seconds=2)["text"], "it says what happens")
        wait_for(lambda: engine(p)["state"] == "idle", 10, "the engine stops at a step")
        took = time.monotonic() - began
        check(engine(p)["restarts"] == 0, "and is not killed for it")
        p.all_over(60)  # after the pause it goes on
        long_job(p)
        p.kilnd.ask(request="pause", now=True)
        wait_for(lambda: p.kilnd.ask(request="status")["jobs_open"] == 0, 10, "without an end it is given back")
        check(p.kilnd.term() == 0, "ends with 0")
        check(list(p.kilnd.states().values()) == ["SETTLED", "FAULTED"], f"{p.kilnd.states()}")
        return f"idle after {took:.1f} s"


def terminals_idle_s():
    """As kilnd sees them: whoever runs this test may be typing."""
    nodes = [*Path("/dev").glob("tty[0-9]*"), *Path("/dev/pts").glob("[0-9]*")]
    return time.time() - max((n.stat().st_atime for n in nodes), default=0)


def somebody_at_the_desktop_comes_first(programs):
    """By a stand-in for libsystemd: sessions of logind, who of them is a person in front, and for how long idle."""
    with place(programs, user_idle_minutes=1) as p:
        logind = Path(p.folder) / "logind"
        p.kilnd.env.update(KILN_LIBSYSTEMD=programs["logind"], KILN_FAKE_LOGIND=str(logind))

        def says(*sessions):
            new = Path(p.folder) / "logind.new"
            new.write_text("".join(s + "\n" for s in sessions))
            new.rename(logind)
        away = ["1 x11 user 1 1 3600", "2 wayland user 1 1 7200"]
        quiet = ["g wayland greeter 1 0 0", "r tty user 1 0 0", "b x11 user 0 0 0"]  # no person's desktop that is in front
        says(*away, *quiet, "3 wayland user 1 0 5")
        p.kilnd.start()
        p.kilnd.ready()
        shut = lambda: [r["text"] for r in p.kilnd.ask(request="why")["reasons"] if r["gate"] == "user"]  # noqa: E731
        wait_for(shut, 20, "the gate is shut while somebody is there")
        check("desktop" in shut()[0], shut()[0])
        if terminals_idle_s() < 90:
            return "the other half skipped: somebody types here"
        says(*away, *quiet, "3 wayland user 1 1 300")
        wait_for(lambda: not shut(), 20, "it opens when all are idle")
        says(*away, "3 wayland user 1 1 20")
        wait_for(shut, 20, "idle, but not for long enough")
        says()
        wait_for(lambda: not shut(), 20, "it opens when nobody is logged in")
        check(p.kilnd.term() == 0, "ends with 0")


def a_lost_card_is_not_started_again(programs):
    with place(programs) as p:
        card(p)
        p.kilnd.start()
        p.kilnd.ready()
        long_job(p, side=768)
        card(p, lost=1)
        wait_for(lambda: "gpu_lost" in reasons(p), 15, "why says so")
        wait_for(lambda: p.kilnd.ask(request="status")["jobs_open"] == 0, 10, "the job is given back")
        time.sleep(1)
        check(p.kilnd.log().count("engine.started") == 1, "it is not started again by itself")
        pops = len(p.horde.calls("pop"))
        time.sleep(1.5)
        check(len(p.horde.calls("pop")) == pops, "nothing is popped")
        card(p)
        p.kilnd.ask(request="resume")  # the machine was started again
        wait_for(lambda: engine(p)["state"] == "busy", 60, "it works again")


if __name__ == "__main__":
    sys.exit(run([another_user_of_the_card_comes_first, the_owner_comes_first, somebody_at_the_desktop_comes_first,
                  a_lost_card_is_not_started_again], dict(zip(("kilnd", "engine", "horde", "nvml", "logind"), map(os.path.abspath, sys.argv[1:])))))
