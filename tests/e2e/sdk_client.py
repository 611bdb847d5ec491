"""A client of the Horde that is not ours, the public package horde_sdk, gets its pictures from Kiln: practice horde,
kilnd, the real engine and the pocket model. Then the package's models judge every request and reply of the log.

usage: sdk_client.py KILND ENGINE HORDE MODEL-FOLDER     exit 77 when the package or the model is not there"""
import importlib.util
import os
import socket
import sys
from pathlib import Path

from bench import Place, check

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "practice"))
import sdk_models  # noqa: E402

KINDS = "txt2img,batch,img2img,inpainting,hires,tiling,clipskip"


def ask_for_pictures(place):
    """One request of two pictures, one of img2img, an alchemist's request."""
    from horde_sdk.ai_horde_api.ai_horde_clients import AIHordeAPISimpleClient
    m, client = sdk_models.models, AIHordeAPISimpleClient()
    base = dict(apikey="practice-client-key-00", models=["stable_diffusion"])
    two, _ = client.image_generate_request(m.ImageGenerateAsyncRequest(
        **base, prompt="a jug with a green glaze, dotted, on a sand ground", params=m.ImageGenerationInputPayload(
            width=128, height=128, steps=8, n=2, sampler_name="k_euler", cfg_scale=3)))
    pictures = [client.download_image_from_generation(g) for g in two.generations]
    check([p.size for p in pictures] == [(128, 128)] * 2, f"sizes {[p.size for p in pictures]}")
    for picture in pictures:  # a pot on a ground, not one colour and not noise
        colours = picture.convert("RGB").resize((16, 16)).getcolors(256)
        check(len(colours) > 20, f"only {len(colours)} colours: nothing was drawn")
    check(pictures[0].tobytes() != pictures[1].tobytes(), "both pictures are the same")
    import base64
    import io
    webp = io.BytesIO()
    pictures[0].save(webp, "WEBP")
    again, _ = client.image_generate_request(m.ImageGenerateAsyncRequest(
        **base, prompt="a jug with a red glaze, dotted, on a sand ground", source_processing="img2img",
        source_image=base64.b64encode(webp.getvalue()).decode(), params=m.ImageGenerationInputPayload(
            width=128, height=128, steps=8, n=1, denoising_strength=0.6, cfg_scale=3)))
    check(client.download_image_from_generation(again.generations[0]).size == (128, 128), "img2img's size")
    workers = {g.worker_name for g in (*two.generations, *again.generations)}
    check(workers == {place.kilnd.keys["dreamer_name"]}, f"the pictures come from {workers}")


def main(kilnd, engine, horde, model):
    programs = {"kilnd": kilnd, "engine": engine, "horde": horde}
    with Place(programs, "--jobs", "24", "--kinds", KINDS, "--sizes", "128x128", "--steps", "2-4", "--seed", "9",
               custom_models=[{"name": "stable_diffusion", "baseline": "stable_diffusion_1", "filepath": model}],
               devices=["cpu"]) as place:
        os.environ["AI_HORDE_URL"] = place.horde.url + "/api/"
        sdk_models.load_models()
        place.kilnd.start()
        place.kilnd.ready()
        ask_for_pictures(place)
        place.all_over(120)
        check(place.kilnd.term() == 0, "kilnd ends with 0")
        place.agree()
        states = list(place.kilnd.states().values())
        check(set(states) == {"SETTLED"}, f"{states.count('SETTLED')} of {len(states)} settled",
              *{f for (f,) in place.kilnd.rows("SELECT DISTINCT fault FROM job") if f})
        judged = sdk_models.judge_log(place.horde.log_path)
        check(judged.get("ImageGenerateJobPopRequest", 0) > 5 and judged.get("JobSubmitResponse", 0) > 5, f"{judged}")
        print(f"{len(states)} images;", ", ".join(f"{n} {name}" for name, n in sorted(judged.items())))


if __name__ == "__main__":
    socket.getaddrinfo = sdk_models.only_this_machine
    programs = list(map(os.path.abspath, sys.argv[1:]))
    if not importlib.util.find_spec("horde_sdk"):
        print("horde_sdk is not installed: skipped")
        sys.exit(77)
    if not os.path.isdir(programs[3] + "/unet"):
        print("the pocket model is not here")
        sys.exit(77)
    main(*programs)
