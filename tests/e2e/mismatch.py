"""What was made for another family: kilnd and the real engine make the picture without it and say so with the Horde's
codes, or fault the job; QR codes by the Horde's workflow.

usage: mismatch.py KILND NULL-ENGINE HORDE KILN-ENGINE FOLDER-WITH-TINY-MODELS"""
import base64
import os
import shutil
import sys

from bench import Place, check, run
from civitai import CivitAI

NAMES = {"sd1": ("stable_diffusion", "stable_diffusion_1"), "sdxl": ("AlbedoBase XL (SDXL)", "stable_diffusion_xl")}
SMALL = {"width": 64, "height": 64, "seed": "7", "steps": 2}


def models(programs, *kinds):
    return [{"name": NAMES[k][0], "baseline": NAMES[k][1], "filepath": f"{programs['reference']}/models/{k}"} for k in kinds]


def put(p, to, source):
    path = p.kilnd.state / "cache" / to
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, path)


def fire(p, kind, body=None, **params):
    p.horde.call("POST", "/practice/fire", {"prompt": "a pot ### a vase", "params": {
        "sampler_name": "k_euler", "n": 1, "karras": False, **SMALL, **params}, "nsfw": False, "censor_nsfw": False, "r2": True,
        "models": [NAMES[kind][0]], **(body or {})})
    p.all_over(60)


def picture_of(programs, name):
    with open(f"{programs['reference']}/assets/{name}", "rb") as f:
        return base64.b64encode(f.read()).decode()


def notes(p):
    return [[(m["type"], m["value"], m["ref"]) for m in x["request"].get("gen_metadata") or []] for x in p.horde.calls("submit")]


def pictures(p):
    return [next(p.horde.store.glob(f"{x['request']['id']}*")).read_bytes() for x in p.horde.calls("submit")]


def adapters_of_another_family_are_named_and_left_out(programs):
    """CivitAI calls them SD 1.5's; the files are SDXL's, and of a width that no model here has."""
    folder = programs["reference"]
    read = lambda name: open(f"{folder}/{name}", "rb").read()
    with CivitAI() as c, Place(programs, max_batch=1, civitai_api_token="canary", env=dict(c.env),
                               custom_models=models(programs, "sd1")) as p:
        c.add(1, 10, read("lora/kohya-sdxl.safetensors"))
        c.add(2, 20, read("lora/kohya.safetensors"))
        c.add(4, 40, wide(24), kind="TextualInversion")
        p.kilnd.start()
        p.kilnd.ready()
        fire(p, "sd1")
        fire(p, "sd1", loras=[{"name": "1"}])
        fire(p, "sd1", loras=[{"name": "1"}, {"name": "2"}])
        fire(p, "sd1", loras=[{"name": "2"}])
        fire(p, "sd1", tis=[{"name": "4"}])
        check(p.kilnd.term() == 0, "ends with 0")
        p.agree()
        check(set(p.kilnd.states().values()) == {"SETTLED"}, f"{p.kilnd.states()}")
        wrong = ("lora", "baseline_mismatch", "1")
        check(notes(p) == [[], [wrong], [wrong], [], [("ti", "baseline_mismatch", "4")]], f"{notes(p)}")
        plain, one, both, right, ti = pictures(p)
        check(one == plain and ti == plain, "what fits nothing changes nothing")
        check(both == right and right != plain, "the one that fits is used beside it")


def wide(width):
    """An embedding of this width: emb_params [1,width]"""
    header = b'{"emb_params":{"dtype":"F32","shape":[1,%d],"data_offsets":[0,%d]}}' % (width, 4 * width)
    return len(header).to_bytes(8, "little") + header + bytes(4 * width)


def a_control_net_of_another_family_faults_the_job(programs):
    """SDXL is refused before anything is loaded; a file of another family by the engine, which has read it."""
    body = {"source_image": picture_of(programs, "init.png"), "source_processing": "img2img"}
    cases = (("sd1-ldm.safetensors", "sd1", None), ("sd1-ldm.safetensors", "sdxl", "this worker has no ControlNet for SDXL"),
             ("sdxl/diffusion_pytorch_model.safetensors", "sd1", "text states 40 wide"))
    for file, kind, sentence in cases:
        with Place(programs, max_batch=1, custom_models=models(programs, kind), allow_controlnet=True, devices=["cpu"]) as p:
            put(p, "controlnet/canny.safetensors", f"{programs['reference']}/control/{file}")
            p.kilnd.start()
            p.kilnd.ready()
            fire(p, kind, body, control_type="canny", image_is_control=True)
            fire(p, kind)  # the next job of the model is none the worse
            check(p.kilnd.term() == 0, "ends with 0")
            p.agree()
            faults = {f for (f,) in p.kilnd.rows("SELECT fault FROM job") if f}
            states = [x["request"]["state"] for x in p.horde.calls("submit")]
            check(states[-1] == "ok" and states.count("ok") == 1 + (not sentence), f"{states}")
            check(len(faults) == bool(sentence) and (not faults or sentence in faults.copy().pop()), f"{faults}")
            check(sentence is None or "the model is SD 1.x" in faults.copy().pop() or kind == "sdxl", f"{faults}")


def a_qr_code_is_drawn_by_the_hordes_workflow(programs):
    qr = {"workflow": "qr_code", "extra_texts": [{"text": "kiln://", "reference": "qr_code"}], "width": 384, "height": 384,
          "steps": 12}
    with Place(programs, max_batch=1, custom_models=models(programs, "sd1"), allow_controlnet=True, devices=["cpu"]) as p:
        p.kilnd.start()
        p.kilnd.ready()
        fire(p, "sd1", **qr)
        check(p.kilnd.term() == 0, "ends with 0")
        fault, = {f for (f,) in p.kilnd.rows("SELECT fault FROM job")}
        check(fault == "this worker cannot do qr_code", fault)
        put(p, "controlnet/control_qr.safetensors", programs["reference"] + "/control/sd1-ldm.safetensors")
        p.kilnd.start()
        p.kilnd.ready()
        fire(p, "sd1", **qr)
        fire(p, "sd1", **dict(qr, extra_texts=[{"text": "HORDE", "reference": "qr_code"}]))
        check(p.kilnd.term() == 0, "ends with 0")
        p.agree()
        done = [x for x in p.horde.calls("submit") if x["request"]["state"] == "ok"]
        one, other = (next(p.horde.store.glob(f"{x['request']['id']}*")).read_bytes() for x in done)
        check(one != other, "another text, another picture")


if __name__ == "__main__":
    programs = dict(zip(("kilnd", "null", "horde", "engine", "reference"), map(os.path.abspath, sys.argv[1:])))
    sys.exit(run([adapters_of_another_family_are_named_and_left_out, a_control_net_of_another_family_faults_the_job,
                  a_qr_code_is_drawn_by_the_hordes_workflow], programs))
