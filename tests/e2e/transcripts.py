"""Recorded exchanges of a real server, each replayed to a kilnd of its own: every pop's and every submit's answer.

usage: transcripts.py KILND NULL-ENGINE FOLDER     (NUMBER-NAME.json with "request" and "response"; not part of ./setup test)

A job that was given ends once, under each of its ids, with the recorded seed; an empty pop gives none; a refusal is
told and survived. A submit's answer ends the job as reliability.md section 1 says."""
import json
import os
import sys
from pathlib import Path

from bench import FINAL, check, run, wait_for, at_once
from daemon_replay import Stage

ENDS = {"DuplicateGen": "SETTLED", "AbortedGen": "FORFEITED", "InvalidJobID": "FORFEITED"}


def answers(programs, call):
    for path in sorted(Path(programs["folder"]).glob("*.json")):
        exchange = json.loads(path.read_text())
        if isinstance(exchange, dict) and exchange.get("request", {}).get("path") == f"/api/v2/{call}":
            yield path.stem, exchange["request"], exchange["response"]


def text_of(response, script):
    text = json.dumps(response["json"]) if "json" in response else response.get("text", response.get("body", ""))
    return str(text).replace("https://r2.horde.example", script.url + "/store").replace("http://r2.horde.example", script.url + "/store")


def each_pop_is_survived(programs):
    def play(case):
        name, _, response = case
        ids = (response.get("json") or {}).get("ids") or []
        with Stage(programs) as s:
            s.script.pops.append((response["status"], text_of(response, s.script)))
            s.kilnd.start()
            s.kilnd.ready()
            wait_for(lambda: s.script.popped >= 1, 10, f"{name}: it pops")
            wait_for(lambda: {x["id"] for x in s.script.submitted} >= set(ids), 25, f"{name}: {len(ids)} submits")
            if response["status"] != 200:
                wait_for(lambda: "pop.refused" in s.kilnd.log(), 10, f"{name}: the refusal is told")
            check(s.kilnd.term() == 0, f"{name}: ends with 0")
            states = s.kilnd.states()
            check(set(states) == set(ids) and set(states.values()) <= FINAL, f"{name}: {states}")
            sent = [x["id"] for x in s.script.submitted]
            check(sorted(sent) == sorted(ids), f"{name}: submitted {sent}")
            for x in s.script.submitted:
                check(x["state"] == "faulted" or x["seed"] == int(response["json"]["payload"]["seed"]), f"{name}: {x}")
            return states
    cases = list(answers(programs, "generate/pop"))
    ends = []
    at_once(lambda c: ends.append(play(c)), cases)
    given = [s for s in ends if s]
    settled = sum(set(s.values()) == {"SETTLED"} for s in given)
    return f"{len(cases)} answers: {len(given)} jobs, {settled} settled, {len(given) - settled} given back"


def each_submit_ends_the_job(programs):
    plain = next(r for n, _, r in answers(programs, "generate/pop") if len((r.get("json") or {}).get("ids") or []) == 1)
    job = plain["json"]["ids"][0]

    def play(case):
        name, request, response = case
        with Stage(programs) as s:
            s.script.pops.append((200, text_of(plain, s.script)))
            s.script.submits.append((response["status"], text_of(response, s.script)))
            s.kilnd.start()
            s.kilnd.ready()
            rc = (response.get("json") or {}).get("rc", "")
            if response["status"] == 200:
                end = "SETTLED"
            elif response["status"] in (401, 403):
                end = "SUBMITTING"
            else:
                end = ENDS.get(rc, "SETTLED" if response["status"] >= 500 else "FAULTED")
            wait_for(lambda: s.script.submitted, 20, f"{name}: it is handed in")
            if end == "SUBMITTING":
                wait_for(lambda: "submit.retry" in s.kilnd.log(), 10, f"{name}: it is kept")
                s.kilnd.kill()
            else:
                wait_for(lambda: "job.ended" in s.kilnd.log(), 40, f"{name}: it ends")
                check(s.kilnd.term() == 0, f"{name}: ends with 0")
            check(s.kilnd.states() == {job: end}, f"{name} {response['status']} {rc}: {s.kilnd.states()}, wanted {end}")
            reward = (response.get("json") or {}).get("reward")
            if response["status"] == 200 and reward:
                check(s.kilnd.told() == {job: round(reward * 1000)}, f"{name}: {s.kilnd.told()}, wanted {reward}")
    return f"{at_once(play, list(answers(programs, 'generate/submit')))} answers"


if __name__ == "__main__":
    sys.exit(run([each_pop_is_survived, each_submit_ends_the_job],
                 dict(zip(("kilnd", "engine", "folder"), map(os.path.abspath, sys.argv[1:])))))
