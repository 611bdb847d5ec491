#!/usr/bin/env python3
"""Makes the golden models, tensors and pictures below tests/golden/reference.

Needs torch, diffusers, transformers, peft, k_diffusion, safetensors, Pillow. The reference is
diffusers' and transformers' modules in fp32 on the CPU, k-diffusion's samplers (make_samplers.py has
those that it lacks), and for prompts, schedules and masks the rules of ComfyUI written out below.

usage: make_goldens.py [FOLDER] [--only ID]
--only adds or replaces one case without adapters, over the models that are there.
"""
import json
import os
import re
import shutil
import sys

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_samplers as ms
import tiny_models
from golden_adapters import Merged, ldm_control, write_controls, write_embeddings, write_loras  # noqa: F401

torch.set_num_threads(1)
torch.set_grad_enabled(True)

EMPTY = ""


class Reference:
    """One model folder, everything in fp32."""

    def __init__(self, folder, tokenizer):
        self.folder = folder
        self.xl = os.path.isdir(folder + "/text_encoder_2")
        self.sd2 = "sd2" in os.path.basename(folder)
        self.tokenizer = tokenizer
        self.unet = self.load(UNet2DConditionModel, "unet", "diffusion_pytorch_model")
        self.vae = self.load(AutoencoderKL, "vae", "diffusion_pytorch_model")
        self.text = [self.load(CLIPTextModel, "text_encoder", "model")]
        if self.xl:
            self.text.append(self.load(CLIPTextModelWithProjection, "text_encoder_2", "model"))
        self.scale = self.vae.config.scaling_factor
        self.words = {}  # textual inversion: name -> ids past the vocabulary, the same in every encoder
        scheduler = json.load(open(folder + "/scheduler/scheduler_config.json"))
        self.v = scheduler["prediction_type"] == "v_prediction"

    def load(self, kind, name, file):
        folder = "%s/%s" % (self.folder, name)
        state = {k: v.float() for k, v in load_file("%s/%s.safetensors" % (folder, file)).items()}
        config = json.load(open(folder + "/config.json"))
        if file == "model":
            module = kind(tiny_models.CLIPTextConfig.from_dict(config))
            own = module.state_dict()
            state = {(k if k in own else k.removeprefix("text_model.")): v for k, v in state.items()}
            missing, unexpected = module.load_state_dict(state, strict=False)
            assert not unexpected and all("position_ids" in m for m in missing), (missing, unexpected)
        else:
            module = kind.from_config(config)
            module.load_state_dict(state)
        return module.float().eval()

    # --- text, after comfy/sd1_clip.py ---

    def spans(self, prompt):
        out = []
        for part in re.split(r"(\([^()]*\))", prompt):
            m = re.fullmatch(r"\((.*?)(?::([\d.]+))?\)", part)
            if m:
                out.append((m.group(1), float(m.group(2)) if m.group(2) else 1.1))
            elif part:
                out.append((part, 1.0))
        return out

    def add_word(self, name, vectors):
        """Rows behind the vocabulary, so that a word can mean vectors."""
        for encoder, rows in zip(self.text, vectors):
            e = encoder.text_model.embeddings if hasattr(encoder, "text_model") else encoder.embeddings
            old = e.token_embedding.weight.detach()
            self.words[name] = list(range(len(old), len(old) + len(rows)))
            e.token_embedding = torch.nn.Embedding.from_pretrained(torch.cat([old, rows]))

    def ids(self, text):
        out = []
        for part in re.split(r"(embedding:\w+)", text):
            if part.startswith("embedding:"):
                out += self.words[part[len("embedding:"):]]
            elif part.strip():
                out += self.tokenizer(part, add_special_tokens=False).input_ids
        return out

    def chunks(self, prompt, pad):
        start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        ids, weights = [], []
        for text, w in self.spans(prompt):
            t = self.ids(text)
            ids += t
            weights += [w] * len(t)
        out = []
        for i in range(0, max(len(ids), 1), 75):
            a, w = ids[i:i + 75], weights[i:i + 75]
            fill = 75 - len(a)
            out.append(([start] + a + [end] + [pad] * fill, [1.0] + w + [1.0] * (1 + fill)))
        return out

    def hidden(self, encoder, ids, skip, norm):
        """State `skip` layers from the end (1: the last), final LayerNorm or not; pooled."""
        out = encoder(input_ids=torch.tensor([ids]), output_hidden_states=True)
        h = out.hidden_states[-skip]
        final = encoder.text_model.final_layer_norm if hasattr(encoder, "text_model") \
            else encoder.final_layer_norm
        return (final(h) if norm else h), getattr(out, "text_embeds", None)

    def encode(self, prompt, clip_skip=0):
        contexts, pooled, tokens = [], None, []
        for n, encoder in enumerate(self.text):
            bigg = n == 1 or self.sd2
            pad = 0 if bigg else self.tokenizer.eos_token_id
            skip = clip_skip or (2 if self.xl or self.sd2 else 1)
            if self.sd2 and skip > 1:
                skip -= 1  # folders leave out the last layer, which nothing native uses
            norm = not self.xl
            chunks = self.chunks(prompt, pad)
            empty, _ = self.hidden(encoder, self.chunks(EMPTY, pad)[0][0], skip, norm)
            rows = []
            for i, (ids, weights) in enumerate(chunks):
                z, p = self.hidden(encoder, ids, skip, norm)
                w = torch.tensor(weights)[None, :, None]
                rows.append(torch.where(w == 1, z, empty + w * (z - empty)))
                if p is not None and i == 0:
                    pooled = p
            contexts.append(torch.cat(rows, 1))
            tokens.append([c[0] for c in chunks])
        return torch.cat(contexts, 2), pooled, tokens

    # --- pictures ---

    def picture(self, latent):
        x = self.vae.decode(latent / self.scale).sample
        x = (x * 0.5 + 0.5).clamp(0, 1) * 255
        return [Image.fromarray(i.permute(1, 2, 0).round().to(torch.uint8).numpy()) for i in x]

    def latent_of(self, image):
        x = torch.tensor(np.asarray(image.convert("RGB"))).float().permute(2, 0, 1)[None] / 127.5 - 1
        return self.vae.encode(x).latent_dist.mean * self.scale


def network(ref, x, t, context, pooled, size, extra=None, control=None):
    if extra is not None:
        x = torch.cat([x, extra.expand(x.shape[0], -1, -1, -1)], 1)
    kw = {}
    n = x.shape[0]
    if pooled is not None:
        ids = torch.tensor([[size[1], size[0], 0, 0, size[1], size[0]]], dtype=torch.float32)
        kw["added_cond_kwargs"] = {"text_embeds": pooled.expand(n, -1), "time_ids": ids.expand(n, -1)}
    context = context.expand(n, -1, -1)
    if control:
        down, mid = control["net"](x, t, context, control["hint"].expand(n, -1, -1, -1),
                                   conditioning_scale=control["strength"], return_dict=False,
                                   **({"added_cond_kwargs": kw["added_cond_kwargs"]} if kw else {}))
        kw.update(down_block_additional_residuals=down, mid_block_additional_residual=mid)
    return ref.unet(x, t, context, **kw).sample


SIGMA = torch.tensor(ms.S32)


def make_denoiser(ref, case, positive, negative, size, inpaint=None, extra=None, control=None):
    cfg, rescale = case.get("cfg", 7.5), case.get("guidance_rescale", 0)

    def denoise(x, sigma, **kw):
        s = torch.as_tensor(sigma, dtype=torch.float32).reshape(-1)[0]
        if inpaint:
            known = inpaint["latent"] + inpaint["noise"] * s
            x = x * inpaint["mask"] + known * (1 - inpaint["mask"])
        t = (SIGMA.log() - s.log()).abs().argmin()
        scaled = x / (s * s + 1).sqrt()
        f = network(ref, scaled, t, *positive, size, extra, control)
        if negative is not None:
            fp, fn = f, network(ref, scaled, t, *negative, size, extra, control)
            f = fn + cfg * (fp - fn)
            if rescale:
                dims = [1, 2, 3]
                ratio = fp.std(dim=dims, keepdim=True) / f.std(dim=dims, keepdim=True)
                f = rescale * f * ratio + (1 - rescale) * f
        d = x / (s * s + 1) - f * s / (s * s + 1).sqrt() if ref.v else x - s * f
        if inpaint:
            d = d * inpaint["mask"] + inpaint["latent"] * (1 - inpaint["mask"])
        return d

    return denoise


def sigmas_for(sampler, schedule, steps, denoise=1.0):
    drop = sampler in ("k_dpm_2", "k_dpm_2_a", "uni_pc", "uni_pc_bh2")

    def build(n):
        s = ms.schedule(schedule, n + 1 if drop else n)
        return s[:-2] + s[-1:] if drop else s

    if denoise >= 0.9999:
        return build(steps)
    return build(int(steps / denoise))[-(steps + 1):]


K_NAMES = {"k_euler": "euler", "k_euler_a": "euler_ancestral", "k_heun": "heun", "k_lms": "lms",
           "k_dpm_2": "dpm_2", "k_dpm_2_a": "dpm_2_ancestral", "k_dpm_fast": "dpm_fast",
           "k_dpm_adaptive": "dpm_adaptive", "k_dpmpp_2s_a": "dpmpp_2s_ancestral",
           "k_dpmpp_2m": "dpmpp_2m", "k_dpmpp_sde": "dpmpp_sde", "dpmpp_2m_sde": "dpmpp_2m_sde",
           "dpmpp_3m_sde": "dpmpp_3m_sde", "DDIM": "euler", "dpmsolver": "euler"}
OWN = {"lcm": ms.lcm, "ddpm": ms.ddpm, "deis": ms.deis, "ipndm": ms.ipndm,
       "res_multistep": ms.res_multistep, "heunpp2": ms.heunpp2, "er_sde": ms.er_sde,
       "uni_pc": ms.uni_pc("bh1"), "uni_pc_bh2": ms.uni_pc("bh2")}
RANDOM = {"k_euler_a", "k_dpm_2_a", "k_dpmpp_2s_a", "k_dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "lcm",
          "ddpm", "er_sde"}


def run_sampler(name, denoise, x, sigmas, seed, generator):
    step_noise = lambda a, b: torch.randn(x.shape, generator=generator)
    if name in OWN:
        ms.D = lambda y, q: denoise(torch.tensor(y).float(), torch.tensor(float(q))).double().numpy()
        s = np.array(sigmas, dtype=np.float32)
        return torch.tensor(OWN[name](x.double().numpy(), [float(q) for q in s], step_noise)).float()
    s = torch.tensor(sigmas, dtype=torch.float32)
    kw, function = {}, K_NAMES[name]
    if name in RANDOM:
        kw["noise_sampler"] = step_noise
    if "sde" in name:
        kw["noise_sampler"] = ms.kd.BrownianTreeNoiseSampler(x, s[s > 0].min(), s.max(), seed=seed)
    run = getattr(ms.kd, "sample_" + function)
    if function == "dpm_fast":
        return run(denoise, x, float(s[-2]), float(s[0]), len(s) - 1, disable=True)
    if function == "dpm_adaptive":
        return run(denoise, x, float(s[-2]), float(s[0]), disable=True, rtol=0.05, atol=0.0078)
    return run(denoise, x, s, disable=True, **kw)


def slerp(a, b, t):
    dot = torch.clamp((a * b).sum() / (a.norm() * b.norm()), -1, 1)
    theta = torch.acos(dot)
    return (torch.sin((1 - t) * theta) * a + torch.sin(t * theta) * b) / torch.sin(theta)


def first_noise(case, shape, generator):
    noise = torch.randn(shape, generator=generator)
    strength = case.get("variation_strength", 0)
    if strength:
        other = torch.randn(shape, generator=torch.Generator().manual_seed(case["variation_seed"]))
        noise = torch.stack([slerp(a, b, strength) for a, b in zip(noise, other)])
    return noise


def one_pass(ref, case, positive, negative, size, denoise, latent=None, mask=None, extra=None,
             control=None):
    w, h = size
    n = case.get("count", 1)
    generator = torch.Generator().manual_seed(case["seed"])
    noise = first_noise(case, (n, 4, h // 8, w // 8), generator)
    sigmas = sigmas_for(case["sampler"], case.get("schedule", "normal"), case["steps"], denoise)
    full = abs(sigmas[0] - ms.S_MAX) <= 1e-5 * ms.S_MAX or sigmas[0] > ms.S_MAX
    x = noise * ((1 + sigmas[0] ** 2) ** 0.5 if full else sigmas[0])
    if latent is not None:
        x = x + latent
    known = noise
    if case["sampler"] == "DDIM":  # ComfyUI: known areas are noised from seed + 1
        known = torch.randn(noise.shape, generator=torch.Generator().manual_seed(case["seed"] + 1))
    inpaint = {"mask": mask, "latent": latent, "noise": known} if mask is not None else None
    d = make_denoiser(ref, case, positive, negative, size, inpaint, extra, control)
    return run_sampler(case["sampler"], d, x, sigmas, case["seed"], generator)


def set_circular(module, on):
    for m in module.modules():
        if isinstance(m, torch.nn.Conv2d):
            m.padding_mode = "circular" if on else "zeros"


def latent_mask(image):
    m = torch.tensor(np.asarray(image.convert("L"))).float()[None, None] / 255
    m = torch.nn.functional.interpolate(m, scale_factor=1 / 8, mode="bilinear")
    return (m >= 0.5).float()


def inpaint_extra(ref, case, source, mask, area):
    if source is None:
        blank = torch.tensor([.8223, -.6876, .6364, .1380])[None, :, None, None] * ref.scale
        return torch.cat([torch.ones(1, 1, *area), blank.expand(1, 4, *area)], 1)
    grey = np.asarray(source.convert("RGB")).copy()
    hole = np.asarray(mask.convert("L")) >= 128
    x = torch.tensor(grey).float().permute(2, 0, 1)[None] / 127.5 - 1
    x[:, :, torch.tensor(hole)] = 0
    masked = ref.vae.encode(x).latent_dist.mean * ref.scale
    return torch.cat([latent_mask(mask), masked], 1)


def run_case(ref, case, data, control=None):
    size = (case["width"], case["height"])
    skip = case.get("clip_skip", 0)
    positive = ref.encode(case["prompt"], skip)
    tokens = {"positive": positive[2]}
    negative = None
    if case.get("cfg", 7.5) != 1:
        negative = ref.encode(case.get("negative", ""), skip)
        tokens["negative"] = negative[2]
    source = Image.open(data + "/" + case["init"]) if "init" in case else None
    mask = Image.open(data + "/" + case["mask"]) if "mask" in case else None
    if mask is None and source is not None and source.mode == "RGBA" and case.get("alpha"):
        mask = Image.fromarray(255 - np.asarray(source)[:, :, 3])
    positive, negative = positive[:2], negative and negative[:2]
    latent = ref.latent_of(source) if source is not None else None
    extra = None
    if ref.unet.config.in_channels == 9:
        extra = inpaint_extra(ref, case, source if mask is not None else None, mask,
                              (size[1] // 8, size[0] // 8))
    if case.get("tiling"):
        set_circular(ref.unet, True)
        set_circular(ref.vae.decoder, True)
    denoise = case.get("denoise", 1.0)
    if case.get("hires"):
        first = case["hires"]
        x = one_pass(ref, case, positive, negative, first, denoise)
        x = torch.nn.functional.interpolate(x, size=(size[1] // 8, size[0] // 8), mode="nearest-exact")
        # the Horde's worker leaves the second pass its graph's schedule, and fewer steps
        again = dict(case, schedule="simple", steps=case.get("hires_steps", case["steps"]))
        x = one_pass(ref, again, positive, negative, size, case.get("hires_denoise", 0.65), x)
    else:
        x = one_pass(ref, case, positive, negative, size, denoise, latent,
                     latent_mask(mask) if mask is not None else None, extra, control)
    images = ref.picture(x)
    set_circular(ref.unet, False)
    set_circular(ref.vae.decoder, False)
    return images, x, tokens, positive, negative


def stages(ref, case):
    """Tensors for the comparison of each network by itself."""
    out = {}
    c, p, _ = ref.encode(case["prompt"], case.get("clip_skip", 0))
    out["context"] = c
    if p is not None:
        out["pooled"] = p
    g = torch.Generator().manual_seed(5)
    x = torch.randn(1, ref.unet.config.in_channels, 8, 16, generator=g)
    out["unet_in"] = x
    for t in (981, 37):
        out["unet_%d" % t] = network(ref, x, torch.tensor(t), c, p, (128, 64))
    z = torch.randn(1, 4, 8, 16, generator=g)
    out["vae_in"] = z
    out["vae_out"] = ref.vae.decode(z).sample
    picture = torch.rand(1, 3, 64, 128, generator=g) * 2 - 1
    out["vae_picture"] = picture
    out["vae_moments"] = ref.vae.encode(picture).latent_dist.parameters
    return {k: v.detach().float().contiguous() for k, v in out.items()}


def make_assets(data):
    os.makedirs(data + "/assets", exist_ok=True)
    rng = np.random.default_rng(11)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    init = small.resize((64, 64), Image.BICUBIC)
    init.save(data + "/assets/init.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[16:56, 24:64] = 255
    Image.fromarray(mask).save(data + "/assets/mask.png")
    rgba = np.dstack([np.asarray(init), 255 - mask])
    Image.fromarray(rgba).save(data + "/assets/alpha.png")


def all_cases():
    base = {"model": "sd1", "prompt": "a photo of the red house near a river", "negative": "blurry, low quality",
            "width": 64, "height": 64, "steps": 8, "cfg": 5.0, "sampler": "k_euler", "seed": 1001}

    def case(name, **kw):
        return dict(base, id=name, **kw)

    for sampler in list(K_NAMES) + list(OWN):
        for schedule in ("normal", "karras"):
            steps = 9 if sampler in ("k_dpm_fast",) else 8
            yield case("%s-%s" % (sampler, schedule), sampler=sampler, schedule=schedule, steps=steps)
    for model in ("sd2", "sd2v", "sdxl", "inpaint"):
        yield case(model + "-k_euler", model=model, width=64, height=128)
        yield case(model + "-k_dpmpp_2m-karras", model=model, sampler="k_dpmpp_2m", schedule="karras")
        yield case(model + "-k_euler_a", model=model, sampler="k_euler_a")
    for model in ("sd1", "sd2", "sdxl"):
        yield case("single-" + model, model=model, single=True)
    yield case("sd2v-karras-cfg1", model="sd2v", cfg=1.0, schedule="karras")
    yield case("pickle-sd1", pickled=True)
    yield case("img2img", init="assets/init.png", denoise=0.6)
    yield case("img2img-karras", init="assets/init.png", denoise=0.4, schedule="karras", sampler="k_dpmpp_2m")
    yield case("img2img-sdxl", model="sdxl", init="assets/init.png", denoise=0.6)
    yield case("img2img-ancestral", init="assets/init.png", denoise=0.7, sampler="k_euler_a")
    yield case("inpaint-normal-model", init="assets/init.png", mask="assets/mask.png", use="inpainting")
    yield case("inpaint-alpha", init="assets/alpha.png", alpha=True, use="inpainting", denoise=0.8)
    yield case("inpaint-model", model="inpaint", init="assets/init.png", mask="assets/mask.png",
               use="inpainting")
    yield case("outpaint-model", model="inpaint", init="assets/alpha.png", alpha=True, use="outpainting")
    yield case("inpaint-DDIM", init="assets/init.png", mask="assets/mask.png", use="inpainting",
               sampler="DDIM", denoise=0.9)
    yield case("batch", count=3, width=64, height=64)
    yield case("batch-ancestral", count=2, sampler="k_euler_a")
    yield case("clip-skip-2", clip_skip=2)
    yield case("clip-skip-1-sdxl", model="sdxl", clip_skip=1)
    yield case("clip-skip-1-sd2", model="sd2", clip_skip=1)
    yield case("emphasis", prompt="a (photo:1.4) of the (red) house near a (river:0.6)")
    yield case("emphasis-sdxl", model="sdxl", prompt="a (photo:1.4) of the (red) house near a (river:0.6)")
    yield case("long-prompt", prompt="a photo of the red house " * 16, negative="blurry")
    yield case("no-guidance", cfg=1.0)
    yield case("rescale", guidance_rescale=0.7, cfg=9.0)
    yield case("rescale-v", model="sd2v", guidance_rescale=0.7, cfg=9.0)
    yield case("tiling", tiling=True)
    yield case("variation", variation_seed=77, variation_strength=0.3)
    yield case("portrait", width=64, height=192)
    yield case("hires", width=576, height=576, hires=[512, 512], steps=2)


def more_cases():
    base = {"prompt": "a photo of the red house near a river", "negative": "blurry, low quality",
            "width": 64, "height": 64, "steps": 8, "cfg": 5.0, "sampler": "k_euler", "seed": 1001}
    for model in ("sd1", "sd2", "sdxl"):
        yield dict(base, id="control-" + model, model=model, control=[model, 1.0])
    yield dict(base, id="control-single-file", model="sd1", control=["sd1-ldm.safetensors", 0.6])
    yield dict(base, id="control-difference", model="sd1", control=["sd1-diff.safetensors", 0.8])
    yield dict(base, id="embedding", model="sd1", prompt="a photo of embedding:word near a river",
               embeddings=[["word.safetensors", "word"]])
    yield dict(base, id="embedding-pt", model="sd1", prompt="a photo of (embedding:word:1.3) near a river",
               embeddings=[["word.pt", "word"]])
    yield dict(base, id="embedding-sdxl", model="sdxl", prompt="a photo of embedding:wordxl near a river",
               negative="embedding:wordxl", embeddings=[["wordxl.safetensors", "wordxl"]])


def lora_cases():
    base = {"prompt": "a photo of the red house near a river", "negative": "blurry, low quality",
            "width": 64, "height": 64, "steps": 8, "cfg": 5.0, "sampler": "k_euler", "seed": 1001}
    for form, model, ms_, cs in (("kohya", "sd1", 0.8, 0.5), ("locon", "sd1", 0.7, 0), ("loha", "sd1", 0.9, 0),
                                 ("lokr", "sd1", 0.8, 0), ("diff", "sd1", 1.0, 0), ("dora", "sd1", 0.7, 0),
                                 ("dora-peft", "sd1", 1.0, 0), ("peft", "sd1", 0.6, 0),
                                 ("diffusers-old", "sd1", 0.6, 0), ("kohya-sdxl", "sdxl", 0.8, 0.6)):
        yield dict(base, id="lora-" + form, model=model, loras=[[form, ms_, cs]])
    yield dict(base, id="lora-three", model="sd1",
               loras=[["kohya", 0.5, 0.5], ["peft", -0.4, 0], ["loha", 0.5, 0]])


def pickled(source, target):
    """The same folder with torch pickles instead of safetensors."""
    shutil.copytree(source, target)
    for root, _, files in os.walk(target):
        for f in (f for f in files if f.endswith(".safetensors")):
            state = load_file(root + "/" + f)
            os.remove(root + "/" + f)
            name = "pytorch_model.bin" if f == "model.safetensors" else f.replace(".safetensors", ".bin")
            torch.save(state, root + "/" + name)


def add_one(data, wanted):
    folder = data + "/models"
    tokenizer = CLIPTokenizer(folder + "/tokenizer/vocab.json", folder + "/tokenizer/merges.txt",
                              unk_token="<|endoftext|>")
    case = next(c for c in all_cases() if c["id"] == wanted)
    out = [c for c in json.load(open(data + "/cases.json")) if c["id"] != wanted]
    with torch.no_grad():
        write_case(Reference("%s/%s" % (folder, case["model"]), tokenizer), case, data, None, out)
    write_cases(data, out)


def write_case(ref, case, data, control, out):
    images, latent, tokens, positive, negative = run_case(ref, case, data, control)
    case["random"] = case["sampler"] in RANDOM
    case["images"] = []
    for i, image in enumerate(images):
        name = "images/%s%s.png" % (case["id"], "-%d" % i if len(images) > 1 else "")
        image.save("%s/%s" % (data, name), optimize=True)
        case["images"].append(name)
    case["tokens"] = tokens
    case["image_std"] = round(float(np.asarray(images[0]).std()), 2)
    out.append(case)
    print(case["id"], case["image_std"], "latent std %.2f" % latent.std(), flush=True)


def write_cases(data, out):
    with open(data + "/cases.json", "w") as f:
        json.dump(out, f, indent=None, separators=(",", ":"))
        f.write("\n")


def main():
    if "--only" in sys.argv:
        at = sys.argv.index("--only")
        wanted = sys.argv[at + 1]
        del sys.argv[at:at + 2]
    else:
        wanted = None
    data = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "reference")
    if wanted:
        return add_one(data, wanted)
    shutil.rmtree(data, ignore_errors=True)
    os.makedirs(data + "/models")
    os.makedirs(data + "/images")
    make_assets(data)
    vocabulary = tiny_models.make_vocabulary(data + "/models/tokenizer")
    tokenizer = CLIPTokenizer(data + "/models/tokenizer/vocab.json", data + "/models/tokenizer/merges.txt",
                              unk_token="<|endoftext|>")
    refs = {}
    for kind in tiny_models.KINDS:
        parts = tiny_models.make(kind, data + "/models", vocabulary)
        if kind in ("sd1", "sd2", "sdxl"):
            tiny_models.single_file(kind, parts, "%s/models/%s.safetensors" % (data, kind))
        if kind == "sd1":
            pickled(data + "/models/sd1", data + "/models/sd1-bin")
        refs[kind] = Reference("%s/models/%s" % (data, kind), tokenizer)
    out, tensors = [], {}
    with torch.no_grad():
        for kind, ref in refs.items():
            s = stages(ref, {"prompt": "a (photo:1.4) of the red house near a river"})
            tensors.update({"%s.%s" % (kind, k): v for k, v in s.items()})
        loras = write_loras(data, refs["sd1"], refs["sdxl"])
        controls = write_controls(data, refs)
        write_embeddings(data, refs["sd1"], refs["sdxl"])
        for case in list(all_cases()) + list(lora_cases()) + list(more_cases()):
            ref = refs[case["model"]]
            control = None
            if "control" in case:
                hint = torch.tensor(np.asarray(Image.open(data + "/assets/init.png"))).float() / 255
                control = {"net": controls[case["model"]], "hint": hint.permute(2, 0, 1)[None],
                           "strength": case["control"][1]}
            with Merged(ref, [(loras[n][1], {"unet": a, "te": b}) for n, a, b in case.get("loras", [])]):
                write_case(ref, case, data, control, out)
    save_file(tensors, data + "/stages.safetensors")
    write_cases(data, out)


if __name__ == "__main__":
    main()
