"""The whole house: practice horde, kilnd, the real kiln-engine and a tiny Stable Diffusion with random
weights. 50 jobs of mixed sizes, samplers, seeds and kinds; books and Horde agree to the thousandth.

usage: daemon_real.py KILND ENGINE HORDE MODEL-FOLDER...     the first that exists; exit 77 when none does"""
import os
import shutil
import sys
import time

from bench import Place, check, run, wait_for

JOBS = int(os.environ.get("KILN_E2E_JOBS", "50"))


def fifty_jobs_through_the_real_engine(programs):
    with Place(programs, "--jobs", str(JOBS), "--kinds", "txt2img,batch,img2img,inpainting,hires,clipskip", "--sizes",
               "64x64,128x64,64x128,128x128", "--steps", "2-4", "--seed", "11",
               custom_models=[{"name": "stable_diffusion", "baseline": "stable_diffusion_1",
                               "filepath": programs["model"]}], devices=["cpu"]) as p:
        began = time.monotonic()
        p.kilnd.start()
        p.kilnd.ready()
        model, = p.kilnd.ask(request="models")["models"]
        check(model["state"] == "ready", f"the model is {model['state']}: {model['path']}")
        p.all_over(240)
        took = time.monotonic() - began
        check(p.kilnd.term() == 0, "ends with 0")
        books, states = p.agree(), list(p.kilnd.states().values())
        check(set(states) == {"SETTLED"}, f"{states.count('SETTLED')} of {len(states)} settled",
              *{f for (f,) in p.kilnd.rows("SELECT DISTINCT fault FROM job") if f})
        images = list(p.horde.store.glob("*.webp"))
        check(len(images) >= len(books), f"{len(images)} images of {len(books)} in the store")
        for image in images:
            head = image.read_bytes()[:12]
            check(head[:4] == b"RIFF" and head[8:] == b"WEBP", f"{image.name} is no WebP")
        return f"{len(books)} images in {took:.1f} s"


def adapters_come_from_the_cache_or_are_named(programs):
    """LoRA, embedding and ControlNet of the cache; what it lacks is told as metadata, the image is still made."""
    reference = os.path.dirname(os.path.dirname(programs["model"]))
    files = {"loras/practice-lora.safetensors": "lora/kohya.safetensors", "embeddings/7808.safetensors":
             "embedding/word.safetensors", "controlnet/canny.safetensors": "control/sd1-ldm.safetensors"}
    if not all(os.path.exists(f"{reference}/{f}") for f in files.values()):
        return "skipped: no adapters are here"
    for full in (True, False):
        with Place(programs, "--jobs", "12", "--kinds", "lora,ti,control" if full else "lora,ti", "--sizes", "64x64", "--steps",
                   "2-3", "--seed", "3", max_batch=1, devices=["cpu"], custom_models=[
                       {"name": "stable_diffusion", "baseline": "stable_diffusion_1", "filepath": programs["model"]}]) as p:
            for to, source in files.items() if full else ():
                path = p.kilnd.state / "cache" / to
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(f"{reference}/{source}", path)
            p.kilnd.start()
            p.all_over(120)
            check(p.kilnd.term() == 0, "ends with 0")
            p.agree()
            check(set(p.kilnd.states().values()) == {"SETTLED"}, f"full cache {full}: {p.kilnd.states()}",
                  *{f for (f,) in p.kilnd.rows("SELECT DISTINCT fault FROM job") if f})
            notes = [m for x in p.horde.calls("submit") for m in x["request"].get("gen_metadata") or []]
            missing = [m for m in notes if m["value"] == "download_failed"]
            check(bool(missing) != full, f"full cache {full}: {notes}")
            check(full or {m["type"] for m in missing} == {"lora", "ti"}, f"{missing}")


def transparent_pictures_need_all_weights(programs):
    """LayerDiffuse's files and a QR network stand behind one flag; the pictures have an alpha channel."""
    golden = os.path.dirname(os.path.dirname(os.path.dirname(programs["model"])))
    layered = os.path.join(golden, "layered")
    if not os.path.isdir(layered):
        return "skipped: no layered weights are here"
    with Place(programs, "--jobs", "3", "--kinds", "transparent", "--sizes", "64x64,128x64", "--steps", "2-3", "--seed", "9",
               max_batch=1, devices=["cpu"], allow_sdxl_controlnet=True, custom_models=[
                   {"name": "stable_diffusion", "baseline": "stable_diffusion_1", "filepath": programs["model"]}]) as p:
        cache = p.kilnd.state / "cache"
        (cache / "layered").mkdir(parents=True)
        (cache / "controlnet").mkdir(parents=True)
        shutil.copy(f"{golden}/reference/control/sd1-ldm.safetensors", cache / "controlnet/control_qr.safetensors")
        shutil.copy(f"{layered}/layer_sd15_transparent_attn.safetensors", cache / "layered")
        p.kilnd.start()
        p.kilnd.ready()
        wait_for(lambda: len(p.horde.calls("pop")) > 2, 20, "it pops")
        check(not any(c["request"]["allow_sdxl_controlnet"] for c in p.horde.calls("pop")), "offered without the decoder")
        shutil.copy(f"{layered}/layer_sd15_vae_transparent_decoder.safetensors", cache / "layered")
        p.all_over(120)
        check(p.kilnd.term() == 0, "ends with 0")
        p.agree()
        check(set(p.kilnd.states().values()) == {"SETTLED"}, f"{p.kilnd.states()}",
              *{f for (f,) in p.kilnd.rows("SELECT DISTINCT fault FROM job") if f})
        for image in p.horde.store.glob("*.webp"):
            head = image.read_bytes()[:21]
            check(head[12:16] == b"VP8X" and head[20] & 0x10, f"{image.name} has no alpha: {head}")


def three_families_are_served_side_by_side(programs):
    beside = os.path.dirname(programs["model"])
    models = [("stable_diffusion", "stable_diffusion_1", programs["model"]),
              ("stable_diffusion_2.1", "stable_diffusion_2_512", beside + "/sd2"),
              ("AlbedoBase XL (SDXL)", "stable_diffusion_xl", beside + "/sdxl")]
    if not all(os.path.exists(path) for _, _, path in models):
        return "skipped: only one family is here"
    custom = [{"name": n, "baseline": b, "filepath": f} for n, b, f in models]
    with Place(programs, "--jobs", "18", "--kinds", "txt2img", "--sizes", "64x64,128x128", "--steps", "2-3", "--seed", "5",
               "--models", ",".join(n for n, _, _ in models), custom_models=custom, devices=["cpu"], max_batch=1) as p:
        p.kilnd.start()
        p.all_over(120)
        check(p.kilnd.term() == 0, "ends with 0")
        p.agree()
        check(set(p.kilnd.states().values()) == {"SETTLED"}, f"{p.kilnd.states()}",
              *{f for (f,) in p.kilnd.rows("SELECT DISTINCT fault FROM job") if f})
        served = {w for (w,) in p.kilnd.rows("SELECT DISTINCT what FROM job")}
        check(len(served) == 3, f"{served}")


def a_killed_engine_costs_no_job(programs):
    with Place(programs, "--jobs", "4", "--kinds", "txt2img", "--sizes", "128x128", "--steps", "6-6",
               custom_models=[{"name": "stable_diffusion", "baseline": "stable_diffusion_1",
                               "filepath": programs["model"]}], devices=["cpu"], max_batch=1) as p:
        p.kilnd.start()
        p.kilnd.ready()
        wait_for(lambda: p.kilnd.ask(request="status")["engines"][0]["job"], 20, "the engine works")
        os.kill(p.kilnd.ask(request="status")["engines"][0]["pid"], 9)
        p.all_over(60)
        check(p.kilnd.term() == 0, "ends with 0")
        p.agree()
        check(set(p.kilnd.states().values()) == {"SETTLED"}, f"{p.kilnd.states()}")


def equal_jobs_are_drawn_together_and_a_kill_loses_none(programs):
    """Twelve requests of one prompt: own pictures, own submits, own rows; kilnd is killed while some are drawn."""
    with Place(programs, custom_models=[{"name": "stable_diffusion", "baseline": "stable_diffusion_1",
                                         "filepath": programs["model"]}], devices=["cpu"], max_batch=4, queue_size=4) as p:
        p.horde.fire(4, steps=3, width=64, height=64)
        p.kilnd.start()
        p.all_over(60)
        for _ in range(3):  # whether they meet in the queue is a matter of moments
            p.horde.fire(12, steps=3, width=64, height=64)
            wait_for(lambda: "job.together" in p.kilnd.log() or p.horde.call("GET", "/practice/state")["open"] == 0, 60, "jobs")
            p.kilnd.kill()
            p.kilnd.start()
            p.all_over(60)
            if "job.together" in p.kilnd.log():
                break
        check("job.together" in p.kilnd.log(), "no jobs were drawn together")
        check(p.kilnd.term() == 0, "ends with 0")
        books = p.agree()
        check(set(p.kilnd.states().values()) == {"SETTLED"}, f"{p.kilnd.states()}")
        seeds = [r for (r,) in p.kilnd.rows("SELECT seed FROM job")]
        check(len(books) == len(seeds), f"{len(books)} paid of {len(seeds)}")
        pictures = {image.read_bytes() for image in p.horde.store.glob("*.webp")}
        check(len(pictures) == len(set(seeds)), f"{len(pictures)} pictures of {len(set(seeds))} seeds")


if __name__ == "__main__":
    kilnd, engine, horde, *models = map(os.path.abspath, sys.argv[1:])
    model = next((m for m in models if os.path.isdir(m + "/unet")), None)
    if not model:
        print("no small checkpoint is here:", *models)
        sys.exit(77)
    sys.exit(run([fifty_jobs_through_the_real_engine, three_families_are_served_side_by_side,
                  transparent_pictures_need_all_weights,
                  adapters_come_from_the_cache_or_are_named,
                  equal_jobs_are_drawn_together_and_a_kill_loses_none, a_killed_engine_costs_no_job],
                 {"kilnd": kilnd, "engine": engine, "horde": horde, "model": model}))
