"""What goes in and out of kilnd: exit codes, the key, redirects, the socket, files of others.

usage: daemon_doors.py KILND ENGINE HORDE"""
import json
import os
import re
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import Horde, Place, check, run, wait_for


def exit_codes_name_the_trouble(programs):
    with Place(programs) as p:
        def ends(code, word, mode=0o600):
            p.kilnd.log_path.unlink(missing_ok=True)
            p.kilnd.write_config(mode)
            p.kilnd.start()
            got = p.kilnd.wait(5)
            check(got == code, f"{word}: ended with {got}, wanted {code}")
            check(word in p.kilnd.log(), f"the log does not say {word!r}", p.kilnd.log())
        good = dict(p.kilnd.keys)
        p.kilnd.keys["max_pwer"] = 8
        ends(78, "did you mean max_power?")
        p.kilnd.keys = {**good, "bridge_agent": "AI Horde Worker reGen:18.0.0:https://example.org"}
        ends(78, "bridge_agent")
        p.kilnd.keys = {**good, "api_key": "0000000000"}
        ends(77, "anonymous key")
        p.kilnd.keys = good
        ends(77, "mode 0644", 0o644)
        p.kilnd.write_config()
        p.kilnd.start()
        p.kilnd.ready()
        first, p.kilnd.process = p.kilnd.process, None
        ends(75, "another kilnd")
        p.kilnd.process = first
        check(p.kilnd.term() == 0, "the first is not disturbed")
        p.kilnd.config.unlink()
        p.kilnd.start()
        check(p.kilnd.wait(5) == 78, "a missing file is 78")


def the_key_is_nowhere_but_in_its_header(programs):
    canary = "canary-1234567890-abcd"
    with Place(programs, "--user", f"{canary}:canary", api_key=canary) as p:
        p.horde.fault("submit", "status", status=500)
        p.horde.fire(3)
        p.kilnd.start()
        p.all_over()
        pid = p.kilnd.process.pid
        for what in ("cmdline", "environ"):
            for engine in [pid] + [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]:
                try:
                    check(canary.encode() not in Path(f"/proc/{engine}/{what}").read_bytes(), f"{what} has the key")
                except PermissionError:
                    pass  # not even we may look
        for request in ("status", "jobs", "ledger", "why", "models", "workers"):
            check(canary not in str(p.kilnd.ask(request=request)), f"{request} shows the key")
        check(p.kilnd.term() == 0, "ends with 0")
        for path in p.kilnd.folder.rglob("*"):
            if path.is_file() and path != p.kilnd.config and not path.name.startswith("horde"):
                check(canary.encode() not in path.read_bytes(), f"{path.name} has the key")
        for path in [p.kilnd.log_path, *p.kilnd.state.rglob("*")]:
            if path.is_file():
                check(b"X-Amz" not in path.read_bytes() and b"a pot" not in path.read_bytes(),
                      f"{path.name} has a signed URL or a prompt")


def http(port, request, more=b""):
    """The whole answer to raw bytes; b"" when the connection was closed without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        s.sendall(request.encode() + more)
        data = b""
        try:
            while part := s.recv(65536):
                data += part
        except OSError:
            pass
        return data


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def numbers_are_for_this_machine_only(programs):
    canary, port = "canary-1234567890-abcd", free_port()
    with Place(programs, "--user", f"{canary}:canary", api_key=canary, metrics_port=port, max_batch=1) as p:
        p.horde.fire(3)
        p.kilnd.start()
        p.all_over()
        good = f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
        head, _, page = http(port, good).partition(b"\r\n\r\n")
        check(head.startswith(b"HTTP/1.1 200 ") and b"Content-Security-Policy: default-src 'none'" in head, f"{head}")
        names, series, typed = set(), [], {}
        for line in page.decode().splitlines():
            if line.startswith("# TYPE "):
                check(line.split()[2] not in typed, f"{line} twice")
                typed[line.split()[2]] = line.split()[3]
            elif not line.startswith("#"):
                match = re.fullmatch(r'(kiln_[a-z_]+)(\{[a-z]+="[^"\\]*"\})? (-?[0-9.e+]+)', line)
                check(match, f"{line!r} is no sample")
                names.add(match[1])
                series.append((match[1], match[2]))
        check(len(series) == len(set(series)) and len(series) < 200, f"{len(series)} series")
        for name in names:
            family = name.removesuffix("_sum").removesuffix("_count") if name not in typed else name
            check(family in typed, f"{name} has no type")
            check((typed[family] == "counter") == family.endswith("_total"), f"{name} is a {typed[family]}")
        check(b'kiln_jobs_total{end="paid"} 3\n' in page, f"{page}")
        check(canary.encode() not in page and b"a pot" not in page, "the key or a prompt is shown")
        for job in p.horde.told():
            check(job.encode() not in page, "a job's id is shown")
        forged = {  # what comes, and how the answer begins
            "rebound": (good.replace("127.0.0.1", "evil.example"), b"HTTP/1.1 403 "),
            "another port": (good.replace(f":{port}", ":80"), b"HTTP/1.1 403 "),
            "no host": (good.replace("Host", "Ghost"), b"HTTP/1.1 403 "),
            "two hosts": (good.replace("Host:", f"Host: 127.0.0.1:{port}\r\nHost:"), b"HTTP/1.1 403 "),
            "a page's script": (good.replace("Connection", "Origin: http://evil.example\r\nConnection"), b"HTTP/1.1 403 "),
            "cross-site": (good.replace("Connection", "Sec-Fetch-Site: cross-site\r\nConnection"), b"HTTP/1.1 403 "),
            "a body": (good.replace("Connection", "Content-Length: 5\r\nConnection") + "hello", b"HTTP/1.1 413 "),
            "elsewhere": (good.replace("/metrics", "/"), b"HTTP/1.1 404 "),
            "nonsense": ("hello\r\n\r\n", b""), "http 2": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""),
            "endless": ("GET /metrics HTTP/1.1\r\n" + "X: y\r\n" * 3000, b"")}
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get"):
            forged[method] = (good.replace("GET", method), b"HTTP/1.1 405 ")
        for name, (request, begins) in forged.items():
            answer = http(port, request)
            check(answer.startswith(begins) and (begins or not answer), f"{name}: {answer[:80]}")
            check(b"kiln_" not in answer, f"{name}: it is told something")
        check(http(port, good.replace("GET", "HEAD")).partition(b"\r\n\r\n")[2] == b"", "HEAD has no body")
        check(http(port, good.replace("127.0.0.1", "localhost")).startswith(b"HTTP/1.1 200 "), "localhost is here")
        idle = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(16)]
        check(http(port, good) == b"", "the seventeenth is closed")
        for s in idle:
            check(s.recv(10) == b"", "after five seconds the others too")
            s.close()
        times = []
        for _ in range(200):
            began = time.monotonic()
            check(http(port, good).startswith(b"HTTP/1.1 200 "), "each is answered")
            times.append(time.monotonic() - began)
        times.sort()
        check(times[100] <= 0.010, f"the median of 200 pages is {times[100] * 1000:.1f} ms")
        return f"{len(series)} series, {len(forged)} forgeries, median {times[100] * 1000:.1f} ms, p99 {times[197] * 1000:.1f} ms"


def no_redirect_takes_the_key_along(programs):
    with Place(programs, max_batch=1) as p:
        trap = p.horde.url + "/practice/trap"
        p.kilnd.start()
        p.kilnd.ready()
        for on in ("pop", "submit", "upload"):
            for nth, status in enumerate((301, 302, 307, 308)):
                p.horde.fault(on, "redirect", nth=nth + 1, status=status, location=trap)
        p.horde.fire(4)
        p.all_over(40)
        traps = [x for x in p.horde.lines() if str(x.get("path", "")).startswith("/practice/trap")]
        check(not traps, f"{len(traps)} requests followed a redirect")
        hits = [x for x in p.horde.lines() if x.get("fault") == "redirect"]
        check(len(hits) >= 12, f"{len(hits)} redirects were tried")


def a_certificate_nobody_signed_gets_nothing(programs):
    if not shutil.which("openssl"):
        return "skipped: no openssl"
    with tempfile.TemporaryDirectory() as t:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-days", "1", "-subj", "/CN=127.0.0.1", "-keyout", t + "/key", "-out", t + "/cert"],
                       check=True, capture_output=True)
        with Place(programs) as p:
            folder = Path(p.folder) / "tls"
            folder.mkdir()
            tls = Horde(programs["horde"], folder, "--tls-cert", t + "/cert", "--tls-key", t + "/key")
            try:
                p.kilnd.keys["horde_url"] = f"https://127.0.0.1:{tls.port}"
                p.kilnd.write_config()
                p.kilnd.start()
                wait_for(lambda: "pop.refused" in p.kilnd.log(), 10, "the refusal is told")
                check("certificate" in p.kilnd.log(), "it says certificate", p.kilnd.log())
                check(not tls.calls("pop"), "a pop, and with it the key, went to a server without a name")
            finally:
                tls.stop()


def the_socket_is_for_its_group_only(programs):
    with Place(programs) as p:
        p.kilnd.start()
        p.kilnd.ready()
        path = p.kilnd.state / "run" / "kilnd.sock"
        check(stat.S_IMODE(path.stat().st_mode) == 0o660, f"mode {path.stat().st_mode:o}")
        check(stat.S_IMODE(p.kilnd.state.stat().st_mode) == 0o700, "the state folder is ours alone")

        def connect():
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(3)
            s.connect(str(path))
            return s
        # too long, no JSON, empty, cut off: the daemon cuts the client off or says what is wrong
        for bytes_ in (b"\xff\xff\xff\xff", struct.pack("<I", 0), struct.pack("<I", 5) + b"{nope", b"\x01",
                       struct.pack("<I", 2) + b"[]"):
            with connect() as s:
                s.sendall(bytes_)
                s.shutdown(socket.SHUT_WR)
                try:
                    while s.recv(65536):
                        pass
                except ConnectionResetError:
                    pass  # cut off with bytes unread
        many = []
        for _ in range(60):
            try:
                many.append(connect())
            except OSError:
                time.sleep(0.02)  # the kernel's own queue is full
        for s in many:
            s.close()
        def still():
            try:
                return p.kilnd.ask(request="status")["document"] == "status"
            except OSError:
                return False  # the last of the many are not gone yet
        wait_for(still, 3, "it still answers")
        with connect() as s:  # several requests on one connection are answered in order
            for name in ("why", "models", "status", "why"):
                body = b'{"request": "%s"}' % name.encode()
                s.sendall(struct.pack("<I", len(body)) + body)
            data = b""
            while data.count(b'"document"') < 4:
                data += s.recv(65536)
            order = [w for w in ("why", "models", "status")]
            check(all(f'"{w}"'.encode() in data for w in order), "all are answered")


def systemd_is_told(programs):
    with Place(programs) as p, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        path = p.folder + "/notify"
        s.bind(path)
        s.settimeout(5)
        p.kilnd.env.update({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"})
        p.kilnd.start()
        heard = []
        while sum("WATCHDOG=1" in h for h in heard) < 3:
            heard.append(s.recv(4096).decode())
        check(any("READY=1" in h for h in heard), f"{heard}")
        check(p.kilnd.term() == 0, "ends with 0")
        s.setblocking(False)
        try:
            while True:
                heard.append(s.recv(4096).decode())
        except BlockingIOError:
            pass
        check(any("STOPPING=1" in h and "EXTEND_TIMEOUT_USEC=" in h for h in heard), f"{heard}")


def upload_urls_of_strangers_are_not_called(programs):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.2)
        # a horde on this machine may name this machine, but nothing else inside the network
        with Place(programs, max_batch=1) as p:
            p.horde.fault("upload", "redirect", status=307, location="http://169.254.169.254/latest/meta-data")
            p.horde.fire(1)
            p.kilnd.start()
            p.all_over()
            check("169.254" not in p.kilnd.log(), "the address was not even looked at")


def an_old_log_is_short(programs):
    with Place(programs) as p:
        p.kilnd.start()
        p.kilnd.ready()
        time.sleep(2.5)
        pops = len(p.horde.calls("pop"))
        check(2 <= pops <= 4, f"{pops} pops in 2.5 s of idleness")
        check(len(p.kilnd.log().splitlines()) <= 6, "idleness is not logged")


def meta_commands_mean_models_that_are_here(programs):
    """TOP 2 by the Horde's month, ALL SDXL by its list; what has no file is named, not offered."""
    def record(name, baseline):
        return {"name": name, "baseline": baseline, "type": "ckpt", "style": "generalist", "nsfw": False,
                "inpainting": False, "config": {"files": [{"path": f"{name}.safetensors"}], "download": []}}
    records = [("stable_diffusion", "stable diffusion 1"), ("Deliberate", "stable diffusion 1"),
               ("Rare", "stable diffusion 1"), ("AlbedoBase XL (SDXL)", "stable_diffusion_xl")]
    with Place(programs, "--jobs", "6", "--kinds", "txt2img", "--models", "Deliberate,Rare",
               models_to_load=["TOP 2", "all sdxl models"], custom_models=[]) as p:
        cache = p.kilnd.state / "cache"
        (cache / "reference").mkdir(parents=True)
        for folder in (p.kilnd.state, cache, cache / "reference"):
            folder.chmod(0o700)
        (cache / "reference" / "stable_diffusion.json").write_text(json.dumps({n: record(n, b) for n, b in records}))
        (cache / "models").mkdir()
        for name in ("stable_diffusion", "Rare", "AlbedoBase XL (SDXL)"):
            (cache / "models" / f"{name}.safetensors").write_bytes(b"a file that the fake engine never reads")
        p.kilnd.start()
        p.kilnd.ready()
        expected = {"Rare", "AlbedoBase XL (SDXL)"}  # Deliberate has no file, stable_diffusion no images this month
        wait_for(lambda: {m["name"] for m in p.kilnd.ask(request="models")["models"]} == expected, 10,
                 f"{expected} are offered")
        check("brings the others: Deliberate" in p.kilnd.log(), "the missing one is named")
        wait_for(lambda: any(set(x["request"]["models"]) == expected for x in p.horde.calls("pop")), 10,
                 "pops name them")
        check(p.kilnd.term() == 0, "ends with 0")


if __name__ == "__main__":
    sys.exit(run([v for k, v in list(globals().items()) if callable(v) and getattr(v, "__module__", "") == "__main__"
                  and k not in ("http", "free_port")],
                 dict(zip(("kilnd", "engine", "horde"), map(os.path.abspath, sys.argv[1:])))))
