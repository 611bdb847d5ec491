"""kilnd's good days and the Horde's bad ones: 50 mixed jobs, then one fault after the other.

usage: daemon_jobs.py KILND ENGINE HORDE"""
import os
import sys
import tempfile
import time

from bench import FINAL, STATES, Failed, Place, at_once, check, run, wait_for


def fifty_mixed_jobs_agree_to_the_thousandth(programs):
    kinds = "txt2img,batch,img2img,inpainting,hires,tiling,clipskip"
    with Place(programs, "--jobs", "50", "--kinds", kinds, "--seed", "7") as p:
        began = time.monotonic()
        p.kilnd.start()
        wait_for(lambda: p.horde.calls("pop"), 5, "the first pop")
        first_pop = time.monotonic() - began
        p.all_over(40)
        status = p.kilnd.ask(request="status")
        time.sleep(0.5)
        rss = p.kilnd.ask(request="status")["resident_bytes"] / 2**20
        check(p.kilnd.term() == 0, "SIGTERM ends it with 0")
        books = p.agree()
        states = p.kilnd.states()
        check(set(states.values()) == {"SETTLED"}, f"all settle, not {sorted(set(states.values()))}")
        check(sum(books.values()) == status["earned_milli"] - sum(
            m for (m,) in p.kilnd.rows("SELECT milli FROM posting WHERE kind = 'corrected'")), "status adds up")
        credited = sum(x["credited_milli"] for x in p.horde.lines() if x.get("posting") and x.get("job") in books
                       and x["told_milli"] == books[x["job"]])
        (balance,), = p.kilnd.rows("SELECT sum(milli) FROM posting")
        check(balance == credited, f"own balance {balance}, credited {credited}")
        check(not list((p.kilnd.state / "spool").iterdir()), "the spool is empty")
        check(p.kilnd.rows("SELECT count(*) FROM pop WHERE reply IS NOT NULL") == [(0,)], "no prompt is kept")
        limit = 1.0 if "ASAN_OPTIONS" in os.environ else 0.3
        limit *= max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # others' work is not ours to answer for
        check(first_pop <= limit, f"first pop after {first_pop:.3f} s")
        if "ASAN_OPTIONS" not in os.environ:
            check(rss <= 20, f"{rss:.1f} MiB resident")
        return f"{len(books)} images, first pop {first_pop * 1000:.0f} ms, {rss:.1f} MiB resident"


# fault, and how many of three single-image jobs end in which states
FAULTS = [
    ("pop", "status", {"status": 500}), ("pop", "status", {"status": 502}), ("pop", "status", {"status": 429}),
    ("pop", "status", {"status": 429, "retry_after": 1}), ("pop", "reset", {}), ("pop", "slow_body", {"ms": 300}),
    ("pop", "delay", {"ms": 300}),
    ("upload", "status", {"status": 500}), ("upload", "reset", {}), ("upload", "drop", {}),
    ("upload", "slow_headers", {"ms": 300}), ("upload", "twice", {}),
    ("submit", "status", {"status": 500}), ("submit", "status", {"status": 503, "retry_after": 1}),
    ("submit", "status", {"status": 429}), ("submit", "reset", {}), ("submit", "slow_body", {"ms": 300}),
    ("submit", "delay", {"ms": 300}),
]
# replies lost after the work was done: paid, the amount may be unknown
LOST = [("submit", "drop", {}), ("submit", "drop_reset", {}), ("submit", "cut", {}), ("submit", "html", {}),
        ("submit", "truncated", {})]


def each_fault_is_survived(programs):
    def play(fault):
        on, kind, more = fault
        with Place(programs, max_batch=1) as p:
            p.kilnd.start()
            p.kilnd.ready()
            p.horde.fault(on, kind, **more)
            p.horde.fire(4)
            try:
                p.all_over(30)
            except Failed as e:
                raise Failed(f"{on} {kind} {more}: {e}") from None
            check(p.kilnd.term() == 0, "ends with 0")
            p.agree()
            states = list(p.kilnd.states().values())
            check(states == ["SETTLED"] * 4, f"{on} {kind} {more}: {states}")
    return f"{at_once(play, FAULTS)} faults, 4 jobs each"


def lost_replies_are_pending(programs):
    with Place(programs, max_batch=1) as p:
        p.kilnd.start()
        p.kilnd.ready()
        for on, kind, more in LOST:
            p.horde.clear()
            p.horde.fault(on, kind, **more)
            p.horde.fire(1)
            p.all_over(15)
        check(p.kilnd.term() == 0, "ends with 0")
        p.agree()
        states = list(p.kilnd.states().values())
        check(states == ["SETTLED"] * len(LOST), f"{states}")
        check(len(p.kilnd.pending()) == len(LOST), f"{len(p.kilnd.pending())} pending")


def spoilt_pops_are_dropped_whole(programs):
    """The job in such a reply is lost to us; the Horde takes it back when its time is over. Requests end after 20
    minutes without activity, so some of them never come again."""
    kinds = ["html", "truncated", "flood", "duplicate_keys", "nul", "wrong_types", "mismatch", "drop", "cut"]
    with Place(programs, "--sweep", "0.1", max_batch=1) as p:
        p.kilnd.start()
        p.kilnd.ready()
        for kind in kinds:
            pops = len(p.horde.calls("pop"))
            p.horde.fault("pop", kind)
            p.horde.fire(1)
            wait_for(lambda: any(x.get("fault") == kind for x in p.horde.calls("pop")[pops:]), 40, f"{kind} hits")
            p.horde.clear()
            wait_for(lambda: p.kilnd.ask(request="status")["jobs_open"] == 0, 20, "nothing is in flight")
            p.horde.call("POST", "/practice/clock", {"turn_ms": 200000})
        p.all_over(60)
        check(p.kilnd.term() == 0, "ends with 0")
        p.agree()
        # the turned clock may abort one that is on its way: then it is forfeited and comes again
        states = list(p.kilnd.states().values())
        check(states.count("SETTLED") >= len(kinds) // 2 and states.count("FAULTED") == 1 and set(states) <= FINAL,
              f"{states}: the one with too few upload URLs is given back, the others settle")
        return f"{len(kinds)} kinds"


def a_wrong_key_stops_the_popping(programs):
    with Place(programs, api_key="wrong-key-wrong-key-00") as p:
        p.horde.fire(1)
        p.kilnd.start()
        p.kilnd.ready()
        wait_for(lambda: "pop.refused" in p.kilnd.log(), 5, "the refusal is told")
        time.sleep(2)
        check(len(p.horde.calls("pop")) == 1, f"{len(p.horde.calls('pop'))} pops with a wrong key")
        why = p.kilnd.ask(request="why")
        check(why["reasons"][0]["gate"] == "key" and why["reasons"][0]["blocks"], f"{why}")
        check(p.kilnd.term() == 0, "ends with 0")
        check("wrong-key" not in p.kilnd.log(), "the key is in the log")


def maintenance_is_told_and_waited_out(programs):
    with Place(programs) as p:
        p.kilnd.start()
        wait_for(lambda: p.horde.calls("pop"), 5, "the first pop")
        time.sleep(0.2)
        p.horde.call("POST", "/practice/worker", {"name": "practice kiln", "maintenance": True})
        wait_for(lambda: p.kilnd.ask(request="status")["state"] == "maintenance", 5, "status says maintenance")
        pops = len(p.horde.calls("pop"))
        time.sleep(2)
        check(len(p.horde.calls("pop")) <= pops + 1, "it pops slowly in maintenance")
        p.horde.call("POST", "/practice/worker", {"name": "practice kiln", "maintenance": False})
        p.horde.fire(1)
        p.kilnd.ask(request="resume")
        p.all_over(10)


def aborted_jobs_are_forfeited(programs):
    with Place(programs, "--sweep", "0.2", fake="slow:1500", max_batch=1) as p:
        p.horde.fault("pop", "ttl", ms=1000)
        p.horde.fire(1)
        p.kilnd.start()
        wait_for(lambda: p.kilnd.log().count("job.ended") == 1, 15, "the job ends")
        p.horde.call("DELETE", "/practice/fault")
        check(p.kilnd.term() == 0, "ends with 0")
        states = sorted(p.kilnd.states().values())
        check(states and states[0] in ("FAULTED", "FORFEITED"), f"{states}")
        check(not p.kilnd.told().keys() & {j for j, s in p.kilnd.states().items() if s != "SETTLED"}, "paid")


def the_engine_may_fail_in_every_way(programs):
    # behaviour, and the end of a job that meets it first and a good engine afterwards
    cases = [("70", "SETTLED"), ("segv", "SETTLED"), ("oom", "SETTLED"), ("oom,oom", "FAULTED"), ("few", "SETTLED"), ("junk", "SETTLED"),
             ("failed", "SETTLED"), ("nan", "FAULTED"), ("constant", "FAULTED"), ("invalid", "FAULTED"),
             ("70,70", "FAULTED"), ("failed,failed", "FAULTED")]
    for fake, end in cases:
        with Place(programs, fake=fake + ",ok", max_batch=1, queue_size=0) as p:
            p.horde.fire(1)
            p.kilnd.start()
            wait_for(lambda: p.kilnd.log().count("job.ended") >= 1, 15, f"{fake}: the job ends")
            check(p.kilnd.term() == 0, "ends with 0")
            # a faulted one goes back into the queue and may come again under another id
            (first, state), = p.kilnd.rows("SELECT id, state FROM job ORDER BY seq LIMIT 1")
            check(STATES[state] == end, f"{fake}: {STATES[state]}, wanted {end}")
            uploads = [x for x in p.horde.calls("upload") if first in x["path"]]
            check(end == "SETTLED" or not uploads, f"{fake}: {len(uploads)} uploads of a faulted job")
            p.agree()
    return f"{len(cases)} ways"


def a_silent_engine_is_replaced(programs):
    # heartbeats go on, the job does not: 15 s before the Horde's deadline it is given back
    with Place(programs, fake="quiet,ok", max_batch=1, queue_size=0) as p:
        p.horde.fault("pop", "ttl", ms=17000, count=1)
        p.horde.fire(1)
        p.kilnd.start()
        wait_for(lambda: "job.fault" in p.kilnd.log(), 20, "the job is given back")
        p.all_over(20)
        check(p.kilnd.term() == 0, "ends with 0")
        check(sorted(p.kilnd.states().values()) == ["FAULTED", "SETTLED"], f"{p.kilnd.states()}")
        check(p.kilnd.log().count("engine.started") == 2, "the engine was replaced once")


def a_dying_engine_is_not_restarted_for_ever(programs):
    with Place(programs, fake="70", max_batch=1, queue_size=0) as p:
        p.horde.fire(8)
        p.kilnd.start()
        wait_for(lambda: "engine.broken" in p.kilnd.log(), 20, "it gives up")
        wait_for(lambda: any(r["gate"] == "engine_down" for r in p.kilnd.ask(request="why")["reasons"]), 5,
                 "why says so")
        check(p.kilnd.log().count("engine.started") == 6, f"{p.kilnd.log().count('engine.started')} launches")
        pops = len(p.horde.calls("pop"))
        time.sleep(1.5)
        check(len(p.horde.calls("pop")) == pops, "it does not pop without an engine")
        check(p.kilnd.term() == 0, "ends with 0")


def unchecked_pixels_never_leave(programs):
    # a safety model is present, so even a loopback horde gets checked images only
    for fake in ("none", "failed"):
        with Place(programs, fake=fake, env={"KILN_FAKE_SAFETY": "1"}, max_batch=1, queue_size=0) as p:
            p.horde.fire(1)
            p.kilnd.start()
            wait_for(lambda: p.kilnd.log().count("job.ended") >= 1, 10, "the job ends")
            check(p.kilnd.term() == 0, "ends with 0")
            check(set(p.kilnd.states().values()) == {"FAULTED"}, f"{fake}: {p.kilnd.states()}")
            check(not p.horde.calls("upload"), f"{fake}: uploaded")
            check(not list((p.kilnd.state / "spool").iterdir()), f"{fake}: spooled")


def verdicts_become_metadata(programs):
    wanted = {"csam": ("csam", {"type": "censorship", "value": "csam"}),
              "nsfw": ("ok", {"type": "information", "value": "nsfw"})}
    for fake, (state, note) in wanted.items():
        with Place(programs, fake=fake, env={"KILN_FAKE_SAFETY": "1"}, max_batch=1) as p:
            p.horde.fire(1)
            p.kilnd.start()
            p.all_over()
            submit = p.horde.calls("submit")[0]["request"]
            check(submit["state"] == state, f"{fake}: state {submit['state']}")
            check(any(note.items() <= m.items() for m in submit["gen_metadata"]), f"{fake}: {submit['gen_metadata']}")


def a_batch_names_its_images(programs):
    with Place(programs) as p:
        p.horde.fire(1, n=4)
        p.kilnd.start()
        p.all_over()
        submits = p.horde.calls("submit")
        indices = sorted(m["ref"] for s in submits for m in s["request"]["gen_metadata"] if m["type"] == "batch_index")
        check(indices == ["0", "1", "2", "3"], f"{indices}")
        check(len({s["request"]["seed"] for s in submits}) == 1, "one seed")


def every_image_of_a_failed_batch_is_given_back(programs):
    with Place(programs, fake="nan") as p:
        p.horde.fire(1, n=4)
        p.kilnd.start()
        wait_for(lambda: p.kilnd.log().count("job.ended") >= 4, 10, "all four end")
        p.kilnd.term()
        check(list(p.kilnd.states().values())[:4] == ["FAULTED"] * 4, f"{p.kilnd.states()}")


def faults_stop_the_popping_at_fifteen(programs):
    with Place(programs, fake="invalid", max_batch=1) as p:
        p.horde.fire(30)
        p.kilnd.start()
        p.kilnd.ready()
        wait_for(lambda: any(r["gate"] == "faults" for r in p.kilnd.ask(request="why")["reasons"]), 15,
                 "why says faults")
        time.sleep(1)
        faulted = [x for x in p.horde.calls("submit") if x["request"]["state"] == "faulted"]
        check(15 <= len(faulted) < 20, f"{len(faulted)} faults told")


def three_failures_break_a_model_or_a_feature(programs):
    with Place(programs, fake="nan", max_batch=1, queue_size=0) as p:
        p.horde.fire(5)
        p.kilnd.start()
        wait_for(lambda: "model.breaker" in p.kilnd.log(), 10, "the model's breaker opens")
        wait_for(lambda: any(r["gate"] == "no_model" for r in p.kilnd.ask(request="why")["reasons"]), 5, "why says so")
        check(p.kilnd.ask(request="models")["models"][0]["state"] == "quarantined", "models says so")
    with Place(programs, "--jobs", "5", "--kinds", "img2img", fake="nan", max_batch=1, queue_size=0) as p:
        p.kilnd.start()
        wait_for(lambda: "feature.breaker" in p.kilnd.log(), 10, "the feature's breaker opens")
        p.kilnd.ready()
        wait_for(lambda: not p.horde.calls("pop")[-1]["request"]["allow_img2img"], 5, "img2img is not offered")


def alchemy_is_a_job_like_others(programs):
    with Place(programs, "--forms", "6", env={"KILN_FAKE_FORMS": "caption,nsfw,RealESRGAN_x2plus"},
               forms=["caption", "nsfw", "post-process"], alchemist_name="practice alchemist") as p:
        p.kilnd.start()
        p.kilnd.ready()
        wait_for(lambda: p.kilnd.log().count("job.ended") >= 3, 20, "forms end")
        time.sleep(0.5)
        check(p.kilnd.term() == 0, "ends with 0")
        p.agree()
        check(set(p.kilnd.states().values()) == {"SETTLED"}, f"{p.kilnd.states()}")
        check(p.kilnd.rows("SELECT count(*) FROM posting WHERE kind = 'corrected'") == [(0,)],
              "alchemy has no multiplier")


def a_device_never_waits_and_nothing_grows(programs):
    with Place(programs, "--jobs", "80", "--kinds", "txt2img", fake="slow:100", max_batch=1) as p:
        p.kilnd.start()
        p.kilnd.ready()
        proc = f"/proc/{p.kilnd.process.pid}"
        wait_for(lambda: "job.computed" in p.kilnd.log(), 10, "the first")
        began, done = time.monotonic(), p.kilnd.log().count("job.computed")
        early = p.kilnd.ask(request="status")["resident_bytes"], len(os.listdir(proc + "/task"))
        wait_for(lambda: p.kilnd.log().count("job.computed") >= 80, 60, "all are computed")
        busy = (80 - done) * 0.1 / (time.monotonic() - began)
        p.all_over()
        late = p.kilnd.ask(request="status")["resident_bytes"], len(os.listdir(proc + "/task"))
        if "ASAN_OPTIONS" not in os.environ:  # its quarantine grows
            check(late[0] - early[0] < 4 << 20, f"{(late[0] - early[0]) / 2**20:.1f} MiB more")
        check(late[1] <= early[1] + 4, f"{late[1]} threads, {early[1]} before")  # libcurl's resolver, libuv's pool
        if "ASAN_OPTIONS" not in os.environ:
            check(busy >= 0.9, f"the device was busy {busy:.1%} of the time")
        return f"busy {busy:.1%}"


def the_speed_governor_waits_while_untrusted(programs):
    with Place(programs, "--user", "practice-slow-key-0000:newcomer", api_key="practice-slow-key-0000",
               max_batch=1) as p:
        p.horde.fire(1, width=512, height=512, steps=30)
        p.kilnd.start()
        p.all_over()
        pop = next(x for x in p.horde.calls("pop") if (x.get("reply") or {}).get("id"))
        submit = p.horde.calls("submit")[0]
        check(submit["t"] - pop["t"] >= 430, f"submitted after {submit['t'] - pop['t']} ms, 437 is the limit")


def the_offer_follows_the_demand(programs):
    models = [{"name": n, "baseline": "stable_diffusion_1", "filepath": "pocket"} for n in ("stable_diffusion", "Deliberate")]
    with Place(programs, fake="slow:400", max_batch=1, dynamic_models=True, custom_models=models) as p:
        p.horde.fire(30)
        p.kilnd.start()
        p.kilnd.ready()
        wait_for(lambda: p.horde.calls("models"), 6, "it asks for the demand")
        wait_for(lambda: p.horde.calls("pop")[-1]["request"]["models"] == ["stable_diffusion"], 10,
                 "what nobody waits for is not offered")
        shown = {m["name"]: m for m in p.kilnd.ask(request="models")["models"]}
        check(shown["stable_diffusion"]["queued_mps"] > 0 and shown["stable_diffusion"]["kudos_per_second"] > 0, f"{shown}")


def new_fields_are_sent_only_to_who_knows_them(programs):
    def play(which):
        options = ("--swagger", which) if which else ()
        with Place(programs, *options, fake="nsfw", env={"KILN_FAKE_SAFETY": "1", "KILN_FAKE_FORMS": "caption,nsfw"},
                   max_batch=1, forms=["caption", "nsfw"], alchemist_name="practice alchemist") as p:
            p.kilnd.start()
            p.kilnd.ready()
            wait_for(lambda: p.kilnd.ask(request="status")["server_knows"], 10, f"{which}: it was asked")
            pops = len(p.horde.calls("pop"))
            p.horde.fire(1)
            wait_for(lambda: len(p.horde.calls("pop")) > pops and p.horde.calls("submit"), 20, f"{which}: it pops")
            pop = p.horde.calls("pop")[-1]["request"]
            check(("allow_extended_controlnet" in pop) == (which == "newer"), f"{which}: {sorted(pop)}")
            check("sampler_execution_contract_version" not in pop, "what Kiln does not promise is never sent")
            types = {m["type"] for m in p.horde.calls("submit")[0]["request"].get("gen_metadata") or []}
            check(types == (set() if which == "older" else {"information"}), f"{which}: {types}")
            wait_for(lambda: p.horde.calls("alchemy_pop"), 10, f"{which}: forms are asked for")
            wait_for(lambda: len(p.horde.calls("alchemy_pop")[-1]["request"]["forms"]) == (1 if which == "older" else 2), 15,
                     f"{which}: forms that the server knows")
            why = p.kilnd.ask(request="why")["reasons"]
            told = next(r for r in why if r["gate"] == "server:swagger")
            check(not told["blocks"] and ("a_sampler_of_tomorrow" in told["text"]) == (which == "newer"), f"{which}: {told}")
    at_once(play, ["older", None, "newer"])
    # a server that does not describe itself is one of 5.1.5; it is asked again after a minute, not at once
    with Place(programs, max_batch=1) as p:
        p.horde.fault("swagger", "status", status=500, count=0)
        p.kilnd.start()
        p.kilnd.ready()
        wait_for(lambda: "cannot be had" in p.kilnd.ask(request="status")["server_knows"], 10, "status says so")
        p.horde.fire(1)
        p.all_over()
        check("allow_extended_controlnet" not in p.horde.calls("pop")[-1]["request"], "nothing new is sent")
        check(len(p.horde.calls("swagger")) == 1, "asked once")


def a_job_that_is_nearly_done_is_not_thrown_away(programs):
    """Its time is known from the first one; the last one takes longer than it should and is put aside after all."""
    with Place(programs, "--jobs", "3", "--kinds", "txt2img", "--sizes", "128x128", "--steps", "4-4", "--samplers", "k_euler",
               fake="slow:1500,slow:1500,slow:60000,ok", max_batch=1, queue_size=0) as p:
        p.kilnd.start()
        p.kilnd.ready()
        for done in (1, 2):
            wait_for(lambda: p.kilnd.log().count("job.computed") == done, 20, f"{done} are computed")
            wait_for(lambda: p.kilnd.ask(request="status")["engines"][0].get("step"), 20, "the next one runs")
            p.kilnd.ask(request="pause", now=True, for_seconds=30)
            if done == 1:
                wait_for(lambda: p.kilnd.log().count("job.computed") == 2, 20, "it may finish")
                check("job.returned" not in p.kilnd.log(), "it was put aside")
            else:
                wait_for(lambda: "job.returned" in p.kilnd.log(), 20, "it is put aside")
            p.kilnd.ask(request="resume")
        p.all_over(30)
        check(p.kilnd.term() == 0, "ends with 0")
        p.agree()
        check(set(p.kilnd.states().values()) == {"SETTLED"}, f"{p.kilnd.states()}")


def control_requests_are_answered(programs):
    with Place(programs) as p:
        p.horde.fire(2)
        p.kilnd.start()
        p.all_over()
        jobs = p.kilnd.ask(request="jobs", limit=1)
        check(jobs["document"] == "jobs" and jobs["total"] == 2 and len(jobs["jobs"]) == 1, f"{jobs}")
        check(p.kilnd.ask(request="jobs", state="FAULTED")["total"] == 0, "no faulted job")
        check(p.kilnd.ask(request="jobs", state="NOWHERE")["document"] == "error", "an unknown state is refused")
        ledger = p.kilnd.ask(request="ledger")
        check(ledger["told_milli"] == sum(p.horde.told().values()), f"{ledger}")
        check(p.kilnd.ask(request="models")["models"][0]["offered"], "the model is offered")
        check(any(w["ours"] for w in p.kilnd.ask(request="workers")["workers"]), "our worker is listed")
        check(p.kilnd.ask(request="spent", kudos_milli=12070, job="r-1")["document"] == "done", "booked")
        check(p.kilnd.ask(request="spent", kudos_milli=12070, job="r-1")["document"] == "done", "once")
        check(p.kilnd.ask(request="ledger")["balance_milli"] == ledger["balance_milli"] - 12070, "spent once")
        check(p.kilnd.ask(request="pause", for_seconds=1, text="lunch")["document"] == "done", "paused")
        pops = len(p.horde.calls("pop"))
        check(p.kilnd.ask(request="why")["reasons"][0]["gate"] == "paused", "why says paused")
        p.horde.fire(1)
        time.sleep(0.6)
        check(len(p.horde.calls("pop")) <= pops + 1, "no pops while paused")
        p.kilnd.ask(request="resume")
        p.all_over()
        check(p.kilnd.ask(request="maintenance", now=True, text="dust")["document"] == "done", "maintenance")
        check(p.kilnd.ask(request="nonsense")["document"] == "error", "nonsense is refused")
        check(p.kilnd.ask(request="reload")["document"] == "done", "reload")
        p.kilnd.keys["max_power"] = 1
        p.kilnd.write_config()
        check(p.kilnd.ask(request="reload")["document"] == "error", "a bad file is refused whole")
        check(p.kilnd.ask(request="status")["document"] == "status", "and the old one stays")


def the_engine_hears_what_comes_next(programs):
    """A job that waits in kilnd while the engine is busy with another model is announced, once."""
    models = [{"name": n, "baseline": "stable_diffusion_1", "filepath": "pocket"} for n in ("stable_diffusion", "other")]
    with tempfile.TemporaryDirectory(prefix="kiln-e2e-") as folder, \
            Place(programs, max_batch=1, queue_size=3, fake="slow:1500,slow:1500,ok", custom_models=models,
                  env={"KILN_FAKE_PREPARED": folder + "/prepared"}) as p:
        p.kilnd.start()
        p.kilnd.ready()
        p.horde.fire(2)
        wait_for(lambda: len(p.horde.calls("pop")) > 2, 10, "two jobs are at the engine")
        p.horde.fire(2, model="other")
        p.all_over(30)
        check(p.kilnd.term() == 0, "ends with 0")
        check(list(p.kilnd.states().values()) == ["SETTLED"] * 4, "all settle")
        prepared = open(folder + "/prepared").read().split("\n")[:-1]
        check(prepared and all(x.split("\t")[0] == "other" for x in prepared), f"{prepared}")
        check(all(int(x.split("\t")[1]) > 0 for x in prepared), f"told to an idle engine: {prepared}")
        check(len(prepared) <= 2, f"told again and again: {prepared}")
        return f"{len(prepared)} hints"


if __name__ == "__main__":
    sys.exit(run([v for k, v in list(globals().items()) if callable(v) and getattr(v, "__module__", "") == "__main__"],
                 dict(zip(("kilnd", "engine", "horde"), map(os.path.abspath, sys.argv[1:])))))
