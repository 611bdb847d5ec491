"""Everything written on the wire, judged by the models of the public package horde_sdk.

usage: sdk_models.py HORDE         a practice horde, a worker played here, the package's own client
       sdk_models.py --log FILE    every request and reply in a practice horde's log, whoever wrote them

Exits 77 (skipped) when the package is not installed."""
import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

models = None  # horde_sdk's; it reads AI_HORDE_URL when it is imported, so that comes late


def only_this_machine(host, *rest, real=socket.getaddrinfo, **more):
    """Whatever the package believes its server to be: no test leaves the machine."""
    if host not in ("127.0.0.1", "localhost"):
        raise OSError(f"{host} is not this machine")
    return real(host, *rest, **more)


def load_models():
    global models
    import loguru
    loguru.logger.remove()
    from horde_sdk.ai_horde_api import apimodels
    models = apimodels


# call in the log: model of the request, model of the reply
MODELS = {
    "pop": ("ImageGenerateJobPopRequest", "ImageGenerateJobPopResponse"),
    "submit": ("ImageGenerationJobSubmitRequest", "JobSubmitResponse"),
    "async": ("ImageGenerateAsyncRequest", "ImageGenerateAsyncResponse"),
    "check": (None, "ImageGenerateCheckResponse"),
    "status": (None, "ImageGenerateStatusResponse"),
    "alchemy_pop": ("AlchemyPopRequest", "AlchemyPopResponse"),
    "alchemy_submit": (None, "AlchemyJobSubmitResponse"),  # wants a text where the server wants an object
    "alchemy_async": ("AlchemyAsyncRequest", "AlchemyAsyncResponse"),
    "alchemy_status": (None, "AlchemyStatusResponse"),
    "user": (None, "UserDetailsResponse"),
    "worker": (None, "SingleWorkerDetailsResponse"),
    "workers": (None, "AllWorkersDetailsResponse"),
    "heartbeat": (None, "AIHordeHeartbeatResponse"),
}


def judge(name, value, what):
    """None when the model takes it, else what it says."""
    model = getattr(models, name, None) if name else None
    if model is None or value is None or (isinstance(value, dict) and set(value) == {"bytes"}):
        return False  # nothing to judge: no such model, or too long for the log
    try:
        model.model_validate(value)
    except Exception as wrong:
        sys.exit(f"{what}: {name}: {wrong}\n{json.dumps(value)[:1000]}")
    return True


def judge_log(path):
    judged = {}
    for line in open(path, encoding="utf-8"):
        x = json.loads(line)
        call = x.get("call")
        if call not in MODELS or x.get("fault") or not 200 <= x["status"] < 300:
            continue
        request, reply = MODELS[call]
        body = x.get("request")
        if isinstance(body, dict) and request:
            body = dict(body, apikey="0123456789012345678901")
        for name, value in ((request, body), (reply, x.get("reply"))):
            if judge(name, value, f"line {x['n']}, {call}"):
                judged[name] = judged.get(name, 0) + 1
    return judged


class Worker(threading.Thread):
    """Pops, uploads one picture for everything, submits."""

    def __init__(self, base):
        super().__init__(daemon=True)
        from PIL import Image
        picture = io.BytesIO()
        Image.new("RGB", (128, 128), (180, 60, 30)).save(picture, "WEBP")
        self.base, self.picture, self.over = base, picture.getvalue(), False

    def call(self, method, path, body):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = path if path.startswith("http") else self.base + path
        request = urllib.request.Request(url, data, method=method, headers={
            "apikey": "practice-worker-key-00", "Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or b"null")

    def run(self):
        pop = {"name": "sdk worker", "models": ["stable_diffusion"], "amount": 4, "nsfw": True, "max_pixels": 4194304,
               "bridge_agent": "kiln:0.1.0:https://example.org", "allow_lora": True, "allow_controlnet": True}
        while not self.over:
            given = self.call("POST", "/generate/pop", pop)
            for job, url in zip(given["ids"], given["r2_uploads"] or []):
                self.call("PUT", url, self.picture)
                self.call("POST", "/generate/submit", {
                    "id": job, "generation": "R2", "state": "ok", "seed": int(given["payload"]["seed"]),
                    "gen_metadata": [{"type": "batch_index", "value": "see_ref", "ref": "0"}]})
            if not given["ids"]:
                time.sleep(0.2)


def main(horde):
    log = tempfile.NamedTemporaryFile(suffix=".jsonl")
    kinds = "txt2img,batch,img2img,inpainting,hires,tiling,clipskip,post,lora,ti,control"
    server = subprocess.Popen([horde, "--seconds", "90", "--quiet", "--jobs", "60", "--kinds", kinds, "--forms", "4",
                               "--log", log.name], stdout=subprocess.PIPE, text=True)
    try:
        base = server.stdout.readline().split(" on ")[1].split()[0]
        os.environ["AI_HORDE_URL"] = base.removesuffix("v2")
        load_models()
        worker = Worker(base)
        worker.start()
        from horde_sdk.ai_horde_api.ai_horde_clients import AIHordeAPISimpleClient
        client = AIHordeAPISimpleClient()
        answer, _ = client.image_generate_request(models.ImageGenerateAsyncRequest(
            apikey="practice-client-key-00", prompt="a jug", models=["stable_diffusion"],
            params=models.ImageGenerationInputPayload(width=128, height=128, steps=2, n=2)))
        sizes = [client.download_image_from_generation(g).size for g in answer.generations]
        if sizes != [(128, 128)] * 2:
            sys.exit(f"the package's client got {sizes}")
        worker.over = True
        worker.join()
    finally:
        server.terminate()
        server.wait()
    return judge_log(log.name)


if __name__ == "__main__":
    socket.getaddrinfo = only_this_machine
    if not importlib.util.find_spec("horde_sdk"):
        print("horde_sdk is not installed: skipped")
        sys.exit(77)
    if len(sys.argv) == 3 and sys.argv[1] == "--log":
        load_models()
        found = judge_log(sys.argv[2])
    elif len(sys.argv) == 2:
        found = main(sys.argv[1])
    else:
        sys.exit(__doc__)
    if not found:
        sys.exit("nothing was judged")
    print(", ".join(f"{n} {name}" for name, n in sorted(found.items())))
