"""CivitAI on loopback: models, versions, files, and every way it says no. Give its `env` to a kilnd."""
import hashlib
import http.server
import json
import threading
import time
from urllib.parse import parse_qs, urlsplit


class CivitAI:
    def __init__(self):
        self.models, self.files, self.answers, self.seen = {}, {}, {}, []
        self.lock = threading.Lock()
        world = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                with world.lock:
                    world.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                try:
                    self.reply(*world.answer(self.path))
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def reply(self, status, body, headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.env = {"KILN_STORE_TEST_ORIGIN": self.url}
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.server.shutdown()
        self.server.server_close()

    def add(self, model, version, data, name="Ink", kind="LORA", baseline="SD 1.5", words=(), file="ink.safetensors", **more):
        """One version more of a model; the newest comes first."""
        self.files[version] = data
        entry = {"id": version, "name": "v", "baseModel": baseline, "trainedWords": list(words),
                 "files": [{"id": version, "name": file, "type": "Model", "primary": True, "sizeKB": len(data) / 1024,
                            "hashes": {"SHA256": hashlib.sha256(data).hexdigest().upper()},
                            "downloadUrl": f"https://civitai.com/api/download/models/{version}", **more}]}
        m = self.models.setdefault(model, {"id": model, "name": name, "type": kind, "modelVersions": []})
        m["modelVersions"].insert(0, entry)

    def count(self, part):
        with self.lock:
            return sum(part in path for path, _ in self.seen)

    def answer(self, path):
        """status, body, headers"""
        parts = urlsplit(path)
        where = parts.path.removeprefix("/civitai.com/api/")
        if where in self.answers:
            wait, status, body, headers = self.answers[where]
            time.sleep(wait)
            if status:
                return status, body, headers
        words = where.split("/")
        if where == "v1/models":
            asked = parse_qs(parts.query)
            found = [m for m in self.models.values() if asked["query"][0].lower() in m["name"].lower() and m["type"] in asked["types"]]
            return self.json({"items": found})
        if where.startswith("v1/models/") and int(words[2]) in self.models:
            return self.json(self.models[int(words[2])])
        if where.startswith("v1/model-versions/"):
            for m in self.models.values():
                for v in m["modelVersions"]:
                    if v["id"] == int(words[2]):
                        return self.json({**v, "model": {"name": m["name"], "type": m["type"]}})
        if where.startswith("download/models/") and int(words[2]) in self.files:
            return 200, self.files[int(words[2])], {"Content-Type": "application/octet-stream"}
        return 404, b"{}", {"Content-Type": "application/json"}

    @staticmethod
    def json(value):
        return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}
