"""The spending side over the practice horde: shared keys of a workshop, styles, and the books of both sides.

usage: spending.py KILND ENGINE HORDE KILN"""
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

from bench import Place, check, run, wait_for

CLIENT = "practice-client-key-00"
SMALL = ["-W", "128", "-H", "128", "--steps", "5", "--sampler", "k_euler", "--model", "stable_diffusion"]


class Workshop(Place):
    """A horde, a kilnd that works, the account's configuration, and one for each shared key."""

    def __enter__(self):
        super().__enter__()
        self.kilnd.start()
        self.kilnd.ready()
        self.number = 0
        self.account = self.config(CLIENT)
        return self

    def config(self, key):
        self.number += 1
        path = f"{self.folder}/client-{self.number}.yaml"
        with open(path, "w") as f:
            json.dump({"api_key": key, "horde_url": self.horde.url}, f)
        os.chmod(path, 0o600)
        return path

    def kiln(self, *words, config=None, code=0):
        env = {"PATH": os.environ["PATH"], "HOME": self.folder, "CI": "true",
               "RUNTIME_DIRECTORY": str(self.kilnd.state / "run")}
        env.update({n: os.environ[n] for n in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS") if n in os.environ})
        r = subprocess.run([self.programs["kiln"], *words, "--config", config or self.account], env=env,
                           capture_output=True, text=True, timeout=120)
        check(r.returncode == code, f"kiln {' '.join(words)} ended with {r.returncode}: {r.stderr}{r.stdout}")
        return r.stdout, r.stderr

    def key(self, *words, **more):
        return json.loads(self.kiln("sharedkey", *words, "--json", **more)[0])

    def draw(self, *words, **more):
        return self.kiln("generate", "--horde", "-p", "a pot", *words, "-o", f"{self.folder}/out.webp", **more)

    def post(self, path, body, key=CLIENT):
        request = urllib.request.Request(f"{self.horde.url}/api/v2/{path}", json.dumps(body).encode(),
                                         {"Content-Type": "application/json", "apikey": key}, method="POST")
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.loads(reply.read())

    def balance(self):
        return self.horde_user()["kudos"]

    def horde_user(self, key=CLIENT):
        request = urllib.request.Request(f"{self.horde.url}/api/v2/find_user", headers={"apikey": key})
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.loads(reply.read())

    def spent(self):
        return -sum(x["credited_milli"] for x in self.horde.lines() if x.get("posting") == "spent") / 1000


def workshop(programs):
    return Workshop(programs, max_batch=1)


def a_key_is_made_and_draws_and_both_books_agree(programs):
    with workshop(programs) as p:
        made = p.key("create", "--name", "Töpferkurs", "--kudos", "100", "--days", "7", "--max-pixels", "512x512",
                     "--max-steps", "20")
        check(made["kudos"] == 100 and made["max_image_pixels"] == 262144 and made["max_image_steps"] == 20, f"{made}")
        check(made["name"] == "Töpferkurs" and made["username"] == "client#1" and made["state"] == "good", f"{made}")
        check(p.key("list") == [made], "the list is that key")
        out, _ = p.kiln("sharedkey", "list")
        check(made["id"] in out and "Töpferkurs" in out and "good" in out, out)
        child = p.config(made["id"])
        check(p.key("show", config=child)["id"] == made["id"], "the key in use shows itself")
        out, _ = p.kiln("horde", "account", config=child)
        check("client#1 (Shared Key: Töpferkurs)" in out, out)
        check("no keys of its own" in p.kiln("sharedkey", "list", config=child)[0], "a shared key lists nothing")

        before = p.balance()
        _, said = p.draw(*SMALL, config=child)
        check("quote: " in said and " cost " in said, said)
        after, key = p.balance(), p.key("show", made["id"])
        spent = p.spent()
        check(spent > 0 and abs(before - after - spent) < 1e-6, f"the owner paid {before - after}, the log says {spent}")
        check(abs(key["utilized"] - spent) <= 1 and key["kudos"] == 100 - key["utilized"], f"{spent}: {key}")
        sent = p.horde.calls("async")[-1]
        check(sent["user"] == "client#1", f"asked in the name of {sent['user']}")
        log = p.horde.log_path.read_text()
        check(made["id"] not in log and CLIENT not in log, "a key is in the practice horde's log")
        wait_for(lambda: p.kilnd.ask(request="status")["jobs_open"] == 0, 10, "all is told")
        check(p.kilnd.term() == 0, "ends with 0")
        p.agree()
        rows = p.kilnd.rows("SELECT milli FROM posting WHERE kind = 'spent'")
        check(rows == [(-round(spent * 1000),)], f"own books: {rows}, spent {spent}")
        check(made["id"] not in p.kilnd.log(), "a key is in kilnd's log")
        return f"{spent} kudos"


def limits_are_refused_by_name(programs):
    with workshop(programs) as p:
        made = p.key("create", "--name", "small", "--kudos", "2", "--max-pixels", "128x128", "--max-steps", "5")
        child = p.config(made["id"])
        _, said = p.draw(*SMALL, config=child, code=1)
        check("SharedKeyInsufficientKudos" in said and "(2)" in said, said)
        check(made["id"] not in said, "the key is in a message")
        p.key("change", made["id"], "--kudos", "unlimited")
        for wrong, words in ((["-W", "192"], "limited to 16384 pixels"), (["--steps", "6"], "limited to 5 steps")):
            _, said = p.draw(*SMALL, *wrong, config=child, code=1)
            check(words in said and "HTTP 400" in said, said)
        p.draw(*SMALL, config=child)
        check(p.key("show", made["id"])["kudos"] == -1, "unlimited stays unlimited")
        p.key("change", made["id"], "--kudos", "0")
        _, said = p.draw(*SMALL, config=child, code=1)
        check("SharedKeyEmpty" in said and "HTTP 403" in said, said)
        check(p.key("show", made["id"])["state"] == "spent", "its state is spent")
        # somebody else fills it up, and the picture is paid from it
        stranger = p.config("practice-other-key-000")
        p.kiln("kudos", "send", made["id"], "50", config=stranger)
        check(p.key("show", made["id"])["kudos"] == 50, "50 kudos came")
        p.draw(*SMALL, config=child)
        p.kilnd.term()


def an_ended_key_draws_nothing(programs):
    with workshop(programs) as p:
        made, other = p.key("create", "--name", "one day", "--days", "1"), p.key("create", "--name", "until told")
        first, second = p.config(made["id"]), p.config(other["id"])
        check(other["expiry"] is None and made["expiry"], f"{made} {other}")
        p.draw(*SMALL, config=second)
        check(p.key("expire", other["id"])["state"] == "expired", "it is over at once")
        _, said = p.draw(*SMALL, config=second, code=1)
        check("SharedKeyExpired" in said and "HTTP 403" in said, said)
        p.draw(*SMALL, "--dry-run", config=first)
        p.horde.call("POST", "/practice/clock", {"turn_ms": 86400000 + 60000})
        _, said = p.draw(*SMALL, "--dry-run", config=first, code=1)
        check("SharedKeyExpired" in said, said)
        _, said = p.kiln("kudos", "send", made["id"], "5", config=p.config("practice-other-key-000"), code=1)
        check("SharedKeyExpired" in said, said)
        check(p.key("change", made["id"], "--days", "never")["expiry"] is None, "it lasts again")
        p.draw(*SMALL, "--dry-run", config=first)
        p.kiln("sharedkey", "delete", made["id"])
        _, said = p.draw(*SMALL, config=first, code=1)
        check("InvalidAPIKey" in said, said)
        check([k["id"] for k in p.key("list")] == [other["id"]], "one is left")
        p.kilnd.term()


def what_is_wrong_is_said_before_it_is_asked(programs):
    with workshop(programs) as p:
        made = p.key("create", "--name", "mine")
        calls = len(p.horde.lines())
        for words, said in (
                (["create"], "--name"), (["create", "--name", "ab"], "3 to 255"), (["create", "--name", "x" * 256], "3 to 255"),
                (["create", "--name", "abc", "--kudos", "50000001"], "50000001"), (["create", "--name", "abc", "--kudos", "-1"], "unlimited"),
                (["create", "--name", "abc", "--days", "0"], "at least 1 day"), (["create", "--name", "abc", "--days", "x"], "never"),
                (["create", "--name", "abc", "--max-steps", "501"], "501"), (["create", "--name", "abc", "--max-pixels", "2049x2048"], "4194304"),
                (["create", "--name", "abc", "--max-pixels", "9x"], "WxH"), (["change", made["id"]], "nothing to change"),
                (["change"], "ID"), (["expire", "../users/1"], "hexadecimal"), (["list", made["id"]], "too many words"),
                (["list", "--kudos", "5"], "limits"), (["lend"], "none of"), (["create", "--name", "abc", "--colour", "red"], "--colour")):
            _, err = p.kiln("sharedkey", *words, code=2)
            check(said in err, f"{words}: {err}")
        check(not p.horde.lines()[calls:] or all(x.get("call") not in ("sharedkey_put", "sharedkey_patch")
                                                 for x in p.horde.lines()[calls:]), "something was asked all the same")
        stranger = p.config("practice-other-key-000")
        _, said = p.kiln("sharedkey", "change", made["id"], "--kudos", "9", config=stranger, code=1)
        check("belongs to client#1" in said and "HTTP 403" in said, said)
        _, said = p.kiln("sharedkey", "create", "--name", "nobody's", config=p.config("0000000000"), code=1)
        check("AnonForbidden" in said, said)
        _, said = p.kiln("sharedkey", "show", "00000000-0000-4000-a000-000000000999", code=1)
        check("InvalidAPIKey" in said and "000999" not in said, said)
        _, said = p.kiln("sharedkey", "show", code=2)
        check("ID is missing" in said, said)
        for i in range(9):
            p.key("create", "--name", f"child {i}")
        _, said = p.kiln("sharedkey", "create", "--name", "one more", code=1)
        check("more than 10 shared keys" in said, said)
        log = p.horde.log_path.read_text()
        check(made["id"] not in log, "a key is in the practice horde's log")
        p.kilnd.term()


def a_style_decides(programs):
    with workshop(programs) as p:
        gifts = p.key("create", "--name", "the style's", "--max-steps", "2")
        of = {"name": "clay", "info": "what is drawn is of clay", "prompt": "{p}, of clay{np}", "models": ["stable_diffusion"],
              "params": {"steps": 3, "sampler_name": "k_euler", "cfg_scale": 4}, "tags": ["craft"]}
        clay = p.post("styles/image", of)["id"]
        p.post("styles/image", {**of, "name": "old ink", "prompt": "ink drawing of {p} ### colour {np}", "tags": ["ink"],
                                "models": ["Deliberate"], "sharedkey": gifts["id"]})
        p.draw("--style", "clay", "-n", "glass", "-W", "128", "-H", "128")
        asked = p.horde.calls("async")[-1]["request"]
        check(asked["style"] == "clay" and asked["prompt"] == "a pot ### glass", f"{asked}")
        check(asked["params"] == {"width": 128, "height": 128, "n": 1} and "models" not in asked, f"{asked}")
        got = [x["reply"]["payload"] for x in p.horde.calls("pop") if x["reply"].get("id")][-1]
        check(got["prompt"] == "a pot , of clay### glass" and got["ddim_steps"] == 3 and got["cfg_scale"] == 4, f"{got}")
        shown = subprocess.run([programs["kiln"], "trace", p.folder + "/out.webp"], capture_output=True, text=True).stdout
        check("clay" in shown and "k_euler_a" not in shown, shown)
        p.draw("--style", clay, "-W", "128", "-H", "128")
        out, _ = p.kiln("horde", "styles")
        check(out.index("clay") < out.index("old ink") and clay in out and "client#1" in out, out)
        for words, names in ((["--tag", "ink"], {"old ink"}), (["--model", "stable_diffusion"], {"clay"}), (["--page", "3"], set()),
                             (["--sort", "age"], {"clay", "old ink"}), (["--tag", "no & such=one"], set())):
            got = {s["name"] for s in json.loads(p.kiln("horde", "styles", "--json", *words)[0])}
            check(got == names, f"{words}: {got}")
        # the style's own key pays, whatever its limits
        anonymous = p.config("0000000000")
        _, said = p.draw("--style", "old ink", "--dry-run", "-W", "128", "-H", "128", config=anonymous)
        check("quote: " in said, said)
        _, said = p.draw(*SMALL, config=p.config(gifts["id"]), code=1)
        check("SharedKeyAssignedStyles" in said, said)
        _, said = p.draw("--style", "no such", code=1)
        check("StyleNotFound" in said and "HTTP 404" in said, said)
        for words, said in ((["--steps", "5"], "--steps: the style decides"), (["--model", "x"], "--model: the style"),
                            (["--seed", "5"], "--seed: the style"), (["--karras"], "--karras: the style")):
            _, err = p.draw("--style", "clay", *words, code=2)
            check(said in err, err)
        _, err = p.draw("--style", "xy", code=1)
        check("3 to 1024" in err, err)
        _, err = p.kiln("generate", "--model", "pocket", "-p", "x", "-o", "x.png", "--style", "clay", code=2)
        check("--style needs --horde" in err, err)
        _, err = p.kiln("horde", "models", "--tag", "ink", code=2)
        check("are of styles" in err, err)
        _, err = p.kiln("horde", "styles", "--sort", "size", code=2)
        check("popular or age" in err, err)
        p.kilnd.term()


if __name__ == "__main__":
    kilnd, engine, horde, program = map(os.path.abspath, sys.argv[1:5])
    sys.exit(run([a_key_is_made_and_draws_and_both_books_agree, limits_are_refused_by_name, an_ended_key_draws_nothing,
                  what_is_wrong_is_said_before_it_is_asked, a_style_decides],
                 {"kilnd": kilnd, "engine": engine, "horde": horde, "kiln": program}))
