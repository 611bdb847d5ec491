"""Exchanges of the kinds a real Horde has (tests/data/horde), replayed through kilnd: each job ends as its case says.

usage: daemon_replay.py KILND ENGINE HORDE DATA-FOLDER"""
import json
import os
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench import Kilnd, at_once, check, run, wait_for

NO_FORMS = json.dumps({"forms": None, "skipped": {}})
EMPTY = json.dumps({"id": None, "ids": [], "payload": {"ddim_steps": 30, "n_iter": 1}, "messages": [], "skipped": {}})
ID = "5e1f0c01-0d53-4c0b-8a77-2f6f0a3b1c01"


class Script:
    """A server that says what it was told to, once each, then nothing new."""

    def __init__(self):
        script = self
        self.pops, self.submits = [], []  # (status, text) still to be said
        self.popped, self.submitted, self.put = 0, [], []
        self.form_pops, self.forms_popped = [], 0  # the same for alchemy
        self.lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def answer(self, status, text):
                data = text.encode("utf-8", "surrogatepass")
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_PUT(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                script.put.append(self.path)
                self.answer(200, "")

            def do_GET(self):
                if "source" in self.path or "store" in self.path:
                    self.answer(200, "RIFF....WEBP")
                else:
                    self.answer(404, "{}")

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with script.lock:
                    if self.path.endswith("/interrogate/pop"):
                        script.forms_popped += 1
                        status, text = script.form_pops.pop(0) if script.form_pops else (200, NO_FORMS)
                    elif self.path.endswith("/pop"):
                        script.popped += 1
                        status, text = script.pops.pop(0) if script.pops else (200, EMPTY)
                    else:
                        script.submitted.append(body)
                        status, text = script.submits.pop(0) if script.submits else (
                            200, json.dumps({"reward": 0.0 if body["state"] == "faulted" else 8.07}))
                self.answer(status, text)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def text(self, case):
        text = case["text"] if "text" in case else json.dumps(case["body"])
        return text.replace("https://store.example", self.url + "/store")

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Stage:
    def __init__(self, programs, env=(), **keys):
        self.temporary = tempfile.TemporaryDirectory(prefix="kiln-replay-")
        self.script = Script()
        self.kilnd = Kilnd(programs["kilnd"], programs["engine"], self.temporary.name, self.script.url,
                           env={"KILN_FAKE_SAFETY": "1", **dict(env)}, max_power=288, max_batch=20, **keys)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            print("---- kilnd.log (end)\n" + self.kilnd.log()[-3000:])
        self.kilnd.kill()
        self.script.close()
        self.temporary.cleanup()


def cases(programs, name, call):
    return [c for c in json.loads((Path(programs["data"]) / name).read_text()) if c["path"].endswith(call)]


def alchemist(programs, **env):
    return Stage(programs, {"KILN_FAKE_FORMS": "caption,nsfw,interrogation,RealESRGAN_x4plus", **env},
                 forms=["caption", "nsfw", "interrogation", "post-process"], alchemist_name="a reader of pictures")


def each_pop_ends_as_its_case_says(programs):
    pops = cases(programs, "pops.json", "generate/pop")

    def play(case):
        with Stage(programs) as s:
            s.script.pops.append((case["status"], s.script.text(case)))
            s.kilnd.start()
            name, expect = case["name"], case["expect"]
            wait_for(lambda: s.script.popped >= 2, 10, f"{name}: it goes on popping")
            count = expect.get("count", 0)
            wait_for(lambda: len({x["id"] for x in s.script.submitted}) >= count, 15, f"{name}: {count} submits")
            check(s.kilnd.term() == 0, f"{name}: ends with 0")
            states = s.kilnd.states()
            check(len(states) == count, f"{name}: {states}")
            if "error" in expect:
                check("pop.unreadable" in s.kilnd.log(), f"{name}: the log says what is wrong")
            if "refused" in expect:
                check(set(states.values()) == {"FAULTED"}, f"{name}: {states}")
                check(not s.script.put, f"{name}: uploaded")
                (reason,), = s.kilnd.rows("SELECT DISTINCT fault FROM job")
                check(expect["refused"] in reason, f"{name}: {reason}")
            elif "this worker cannot do" in s.kilnd.log() or "this worker has no" in s.kilnd.log():  # what is not built, or has no weights here, is given back
                check(set(states.values()) == {"FAULTED"} and not s.script.put, f"{name}: {states}")
            elif count and "ttl" not in name:
                check(set(states.values()) == {"SETTLED"}, f"{name}: {states}",
                      *(f for (f,) in s.kilnd.rows("SELECT DISTINCT fault FROM job")))
            if int(expect.get("seed", 2**64)) < 2**63 and "refused" not in expect:
                check(s.script.submitted[0]["seed"] == int(expect["seed"]), f"{name}: seed {s.script.submitted[0]['seed']}")

    return f"{at_once(play, pops)} replies"


def each_submit_ends_as_its_case_says(programs):
    pop = next(c for c in cases(programs, "pops.json", "generate/pop") if c["name"] == "one image")
    ends = {"settled": "SETTLED", "forfeit": "FORFEITED", "schema": "FAULTED", "retry": "SETTLED"}
    submits = cases(programs, "refusals.json", "generate/submit")

    def play(case):
        with Stage(programs) as s:
            s.script.pops.append((200, s.script.text(pop)))
            s.script.submits.append((case["status"], s.script.text(case)))
            s.kilnd.start()
            name, expect = case["name"], case["expect"]
            action = expect.get("action", "retry" if "error" in expect else "settled")
            if action == "keep":
                wait_for(lambda: "submit.retry" in s.kilnd.log(), 10, f"{name}: it is kept")
                check(s.kilnd.ask(request="why")["reasons"][0]["gate"] == "key", f"{name}: and no more is popped")
                s.kilnd.kill()
                check(s.kilnd.states() == {ID: "SUBMITTING"}, f"{name}: {s.kilnd.states()}")
                check(list((s.kilnd.state / "spool").iterdir()), f"{name}: the image is kept")
                return
            wait_for(lambda: "job.ended" in s.kilnd.log(), 20, f"{name}: it ends")
            check(s.kilnd.term() == 0, f"{name}: ends with 0")
            check(s.kilnd.states() == {ID: ends[action]}, f"{name}: {s.kilnd.states()}, wanted {ends[action]}")
            if expect.get("reward_milli"):
                check(s.kilnd.told() == {ID: expect["reward_milli"]}, f"{name}: {s.kilnd.told()}")

    return f"{at_once(play, submits)} replies"


def each_refused_pop_is_told(programs):
    pops = cases(programs, "refusals.json", "generate/pop")

    def play(case):
        with Stage(programs, priority_usernames=["a#1"]) as s:
            s.script.pops.append((case["status"], s.script.text(case)))
            s.kilnd.start()
            s.kilnd.ready()
            name, action = case["name"], case["expect"]["action"]
            wait_for(lambda: "pop.refused" in s.kilnd.log(), 10, f"{name}: the log says so")
            reasons = s.kilnd.ask(request="why")["reasons"]
            check(any(r["gate"] == "key" and r["blocks"] for r in reasons) == (action == "stop"), f"{name}: {reasons}")
            check(f'action="{action}"' in s.kilnd.log(), f"{name}: wanted {action}")
            check(s.kilnd.term() == 0, f"{name}: ends with 0")

    return f"{at_once(play, pops)} replies"


def each_pop_of_forms_ends_as_its_case_says(programs):
    pops = cases(programs, "alchemy.json", "interrogate/pop")

    def play(case):
        with alchemist(programs) as s:
            s.script.form_pops.append((case["status"], s.script.text(case)))
            s.kilnd.start()
            name, expect = case["name"], case["expect"]
            wait_for(lambda: s.script.forms_popped >= 2, 10, f"{name}: it goes on popping forms")
            count = expect.get("count", 0)
            wait_for(lambda: len({x["id"] for x in s.script.submitted}) >= count, 15, f"{name}: {count} submits")
            check(s.kilnd.term() == 0, f"{name}: ends with 0")
            check(("error" in expect) == ("unreadable" in s.kilnd.log()), f"{name}: the log says what is wrong")
            states, forms = s.kilnd.states(), {f["id"]: f for f in case["body"].get("forms") or [] if "id" in f}
            check(len(states) == count, f"{name}: {states}")
            submitted = {x["id"]: x for x in s.script.submitted}
            for job, state in states.items():
                form, told = forms[job], submitted[job]
                known = form["form"] in ("caption", "nsfw", "interrogation", "RealESRGAN_x4plus")
                check(state == ("SETTLED" if known else "FAULTED"), f"{name}: {form['form']} is {state}")
                check(told["state"] == ("ok" if known else "faulted"), f"{name}: {form['form']} is told as {told['state']}")
                check(isinstance(told["result"], dict) and list(told["result"]) == ([form["form"]] if known else []),
                      f"{name}: {form['form']}: {told['result']}")
                uploaded = any(job in path for path in s.script.put)
                check(uploaded == ("r2_upload" in form and known), f"{name}: {form['form']} uploaded: {uploaded}")
                if uploaded:
                    check(told["result"][form["form"]] == "R2", f"{name}: {told['result']}")

    return f"{at_once(play, pops)} replies"


def each_submit_of_a_form_ends_as_its_case_says(programs):
    ends = {"settled": "SETTLED", "forfeit": "FORFEITED", "schema": "FAULTED", "retry": "SETTLED"}
    submits = [c for file in ("alchemy.json", "refusals.json") for c in cases(programs, file, "interrogate/submit")]
    form = {"id": ID, "form": "caption", "source_image": "https://store.example/s.webp"}

    def play(case):
        with alchemist(programs) as s:
            s.script.form_pops.append((200, s.script.text({"body": {"forms": [form], "skipped": {}}})))
            s.script.submits.append((case["status"], s.script.text(case)))
            s.kilnd.start()
            name, expect = case["name"], case["expect"]
            wait_for(lambda: "job.ended" in s.kilnd.log(), 20, f"{name}: it ends")
            check(s.kilnd.term() == 0, f"{name}: ends with 0")
            wanted = ends[expect.get("action", "settled")]
            check(s.kilnd.states() == {ID: wanted}, f"{name}: {s.kilnd.states()}, wanted {wanted}")
            if expect.get("reward_milli"):
                check(s.kilnd.told() == {ID: expect["reward_milli"]}, f"{name}: {s.kilnd.told()}")

    return f"{at_once(play, submits)} replies"


def a_refused_pop_of_forms_leaves_the_image_worker_alone(programs):
    pops = cases(programs, "refusals.json", "interrogate/pop")

    def play(case):
        with alchemist(programs) as s:
            s.script.form_pops.append((case["status"], s.script.text(case)))
            s.kilnd.start()
            wait_for(lambda: "pop.refused" in s.kilnd.log(), 10, f"{case['name']}: the log says so")
            popped = s.script.popped
            wait_for(lambda: s.script.popped > popped, 15, f"{case['name']}: images are still asked for")
            check(s.script.forms_popped == 1, f"{case['name']}: forms were asked for {s.script.forms_popped} times")
            check(s.kilnd.term() == 0, f"{case['name']}: ends with 0")

    return f"{at_once(play, pops)} replies"


def a_form_given_back_and_given_again_is_done(programs):
    """416 to 418 of the recordings: a form that we gave up comes back under its old id"""
    form = {"id": ID, "form": "caption", "source_image": "https://store.example/s.webp"}
    with tempfile.TemporaryDirectory() as counter:
        with alchemist(programs, KILN_FAKE="invalid,ok", KILN_FAKE_COUNT=counter + "/turn") as s:
            text = s.script.text({"body": {"forms": [form], "skipped": {}}})
            s.script.form_pops.append((200, text))
            s.kilnd.start()
            wait_for(lambda: "state=FAULTED" in s.kilnd.log(), 20, "it is given back")
            s.script.form_pops.append((200, text))
            wait_for(lambda: "state=SETTLED" in s.kilnd.log(), 20, "it is done the second time")
            check(s.kilnd.term() == 0, "ends with 0")
            check(s.kilnd.states() == {ID: "SETTLED"}, f"{s.kilnd.states()}")
            check([x["state"] for x in s.script.submitted] == ["faulted", "ok"], f"{s.script.submitted}")
            check(s.kilnd.told() == {ID: 8070}, f"{s.kilnd.told()}")


if __name__ == "__main__":
    sys.exit(run([each_pop_ends_as_its_case_says, each_submit_ends_as_its_case_says, each_refused_pop_is_told,
                  each_pop_of_forms_ends_as_its_case_says, each_submit_of_a_form_ends_as_its_case_says,
                  a_refused_pop_of_forms_leaves_the_image_worker_alone, a_form_given_back_and_given_again_is_done],
                 dict(zip(("kilnd", "engine", "horde", "data"), map(os.path.abspath, sys.argv[1:])))))
