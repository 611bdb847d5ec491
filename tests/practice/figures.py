"""What Kiln adds to the computing: how busy the device is while jobs wait, how long a job takes beside its
computing, how many jobs a second one daemon carries and what that costs it.

usage: figures.py KILND KILN-ENGINE NULL-ENGINE HORDE POCKET DRAW-WEIGHTS [--long] [--crowded] [--gaps] [NAME...]

Prints one line a figure with its limit and ends with 1 when one is missed. Short, or --long for the figures of
docs/practice-horde.md (1,000 jobs). --crowded, for every CI run, has limits that a machine busy with other work
keeps too; what stalls or loses jobs misses them all the same. NAME: null, added, rate, peak, pocket. The null engine is
tests/e2e/fake_engine: it answers after a set time. Times are those of the practice horde's log and of the ledger."""
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))
import every_kind  # noqa: E402
from bench import Place, check, wait_for  # noqa: E402

ENGINE_EFFECT = 0
LONG, CROWDED = "--long" in sys.argv, "--crowded" in sys.argv
missed = []


def tell(name, value, limit, unit, at_most, crowded):
    limit = crowded if CROWDED else limit
    good = value <= limit if at_most else value >= limit
    if not good:
        missed.append(name)
    print(f"[{'       OK ' if good else '  MISSED  '}] {name}: {value:.3g} {unit}, {'at most' if at_most else 'at least'} "
          f"{limit:g}", flush=True)


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sync_ms():
    """The disk's share: a job is written down five times on its way."""
    times = []
    with tempfile.NamedTemporaryFile() as f:
        for _ in range(30):
            began = time.monotonic()
            f.write(bytes(4096))
            f.flush()
            os.fdatasync(f.fileno())
            times.append(1000 * (time.monotonic() - began))
    return statistics.median(times)


def span_of(kilnd):
    """Seconds between the first job's way to an engine and the last one's return, by the ledger."""
    (first, last), = kilnd.rows(f"SELECT min(intent_wall_ms), max(result_wall_ms) FROM effect WHERE effect = {ENGINE_EFFECT}")
    return (last - first) / 1000


def added_ms(p, seconds):
    """Milliseconds from the pop's answer to the submit, beside the computing, for each image of one-image jobs."""
    popped, added = {}, []
    for line in p.horde.lines():
        reply = line.get("reply") or {}
        if line.get("call") == "pop" and reply.get("id") and len(reply["ids"]) == 1:
            popped[reply["id"]] = line["t"]
        if line.get("call") == "submit" and line["request"]["id"] in popped and line["request"]["state"] == "ok":
            job = line["request"]["id"]
            added.append(line["t"] - popped[job] - seconds(job) * 1000)
    return added


def null_busy(programs):
    jobs = 300 if LONG else 30
    with Place(programs, "--jobs", str(jobs), "--kinds", "txt2img", fake="slow:200", max_batch=1) as p:
        p.kilnd.start()
        p.all_over(jobs * 0.4 + 20)
        check(p.kilnd.term() == 0, "ends with 0")
        (done,), = p.kilnd.rows("SELECT count(*) FROM job WHERE state = 6")
        check(done == jobs, f"{done} of {jobs} settled")
        tell(f"device busy while jobs wait, null engine of 200 ms, {jobs} jobs", 100 * jobs * 0.2 / span_of(p.kilnd), 99, "%",
             at_most=False, crowded=70)


def added(programs):
    jobs = 200 if LONG else 30
    with Place(programs, "--jobs", str(jobs), "--kinds", "txt2img", fake="slow:50", max_batch=1, queue_size=0) as p:
        p.kilnd.start()
        p.all_over(jobs * 0.3 + 20)
        check(p.kilnd.term() == 0, "ends with 0")
        times = added_ms(p, lambda job: 0.05)
        check(len(times) == jobs, f"{len(times)} of {jobs} submits")
        tell(f"added from pop to submit, median of {jobs} jobs", statistics.median(times), 30, "ms", at_most=True, crowded=400)
        print(f"             slowest tenth from {sorted(times)[len(times) * 9 // 10]:.0f} ms")


def many(programs, jobs, fake, *horde):
    """8 null engines; jobs a second and the share of a core between the first and the last tenth."""
    with Place(programs, "--jobs", str(jobs), "--kinds", "txt2img", *horde, fake=fake, devices=["cpu"] * 8,
               max_batch=1) as p:
        p.kilnd.start()
        p.kilnd.ready()

        def done():
            return p.horde.call("GET", "/practice/state")["done"]
        wait_for(lambda: done() >= jobs // 10, 60, "the first tenth")
        began, cpu, first = time.monotonic(), cpu_seconds(p.kilnd.process.pid), done()
        wait_for(lambda: done() >= jobs * 9 // 10, 300, "the last tenth")
        took, cpu, last = time.monotonic() - began, cpu_seconds(p.kilnd.process.pid) - cpu, done()
        p.all_over(60)
        check(p.kilnd.term() == 0, "ends with 0")
        p.agree()
        (settled,), = p.kilnd.rows("SELECT count(*) FROM job WHERE state = 6")
        check(settled == jobs, f"{settled} of {jobs} settled")
        return (last - first) / took, 100 * cpu / took


def rate(programs):
    jobs = 2000 if LONG else 200
    a_second, share = many(programs, jobs, "slow:150", "--rate", "41")
    tell(f"durable jobs a second offered 41, 8 null engines of 150 ms, {jobs} jobs", a_second, 40, "/s", at_most=False, crowded=12)
    tell("    of one core for kilnd meanwhile", share, 25, "%", at_most=True, crowded=25)


def peak(programs):
    jobs = 2000 if LONG else 200
    a_second, share = many(programs, jobs, "slow:1")
    tell(f"durable jobs a second at most, 8 null engines of 1 ms, {jobs} jobs", a_second, 40, "/s", at_most=False, crowded=12)
    print(f"             with {share:.0f} % of a core")


def pocket(programs):
    """The real engine and the pocket model: every kind of image job and alchemy form (every_kind.py), drawn at random."""
    jobs = int(os.environ.get("KILN_FIGURES_JOBS", "1000" if LONG else "48"))
    forms = jobs // 6
    golden = Path(__file__).resolve().parent.parent / "golden"
    kinds = [*every_kind.KINDS, *(["twopass"] if LONG else [])]
    with Place({**programs, "engine": programs["real"]}, "--jobs", str(jobs - forms), "--kinds", ",".join(kinds), "--seed", "8",
               "--forms", str(forms), "--form-names", ",".join(every_kind.FORMS), max_batch=4, max_power=32,
               forms=["caption", "nsfw", "interrogation", "post-process"], alchemist_name="practice alchemist") as p:
        every_kind.furnish(p.kilnd.state / "cache", golden, programs["pocket"], programs["draw"])
        p.kilnd.start()
        p.all_over(jobs * 2 + 60)
        check(p.kilnd.term() == 0, "ends with 0")
        books = p.agree()
        states = p.kilnd.rows("SELECT state, count(*) FROM job GROUP BY state")
        check(states == [(6, len(books))], f"{states}", *(f for (f,) in p.kilnd.rows("SELECT DISTINCT fault FROM job")))
        served = {w for (w,) in p.kilnd.rows("SELECT DISTINCT what FROM job WHERE form")}
        check(CROWDED or not LONG or served == set(every_kind.FORMS), f"forms served: {sorted(served)}")
        notes = [m["value"] for x in p.horde.calls("submit") for m in x["request"].get("gen_metadata") or []]
        check("download_failed" not in notes and "baseline_mismatch" not in notes and "parse_failed" not in notes, "an adapter did not fit")
        (seconds,), = p.kilnd.rows("SELECT sum(seconds) FROM job")
        tell(f"device busy while jobs wait, pocket model, {jobs} jobs of every kind", 100 * seconds / span_of(p.kilnd), 97,
             "%", at_most=False, crowded=60)
        print(f"             {len(books)} images and answers, {seconds / len(books) * 1000:.0f} ms of computing each")
        if "--gaps" in sys.argv:
            tell_gaps(p.kilnd)


def tell_gaps(kilnd):
    """Where the device was idle: between the last word about one run and the first about the next."""
    runs = sorted(kilnd.rows("SELECT e.intent_wall_ms, e.result_wall_ms, j.seconds, j.what, j.form FROM effect e JOIN job j ON "
                             f"j.id = e.job WHERE e.effect = {ENGINE_EFFECT}"), key=lambda r: r[1])
    gaps = [(b[1] - b[2] * 1000 - a[1], a[3], b[3]) for a, b in zip(runs, runs[1:])]
    for gap, before, after in sorted(gaps, reverse=True)[:12]:
        print(f"             {gap:.0f} ms idle or beside, between {before} and {after}")


FIGURES = {"null": null_busy, "added": added, "rate": rate, "peak": peak, "pocket": pocket}


def main():
    words = [w for w in sys.argv[1:] if not w.startswith("--")]
    programs = dict(zip(("kilnd", "real", "engine", "horde", "pocket", "draw"), map(os.path.abspath, words[:6])))
    for name in words[6:] or FIGURES:
        FIGURES[name](programs)
    print(f"load {os.getloadavg()[0]:.1f}, a synced write of 4 KiB takes {sync_ms():.1f} ms" + (f"; {len(missed)} missed" if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
