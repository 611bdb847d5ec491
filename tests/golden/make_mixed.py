#!/usr/bin/env python3
"""Makes tests/golden/mixed: pictures where two things meet, over the models of tests/golden/reference and a
tiny refiner; adapters as PEFT and diffusers themselves save them.

usage: make_mixed.py [FOLDER [ID ...]]
With IDs, only these cases are made again; the others stay.
"""
import copy
import json
import os
import shutil
import sys

import peft
import torch
from diffusers import AutoencoderTiny, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_family as mf
import make_goldens as mg
import tiny_models

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = HERE + "/reference"


def batch_cases():
    """SDXL tells each side of guidance another vector, however many pictures a side has."""
    yield dict(mf.BASE, id="batch-sdxl", model="sdxl", count=2)
    yield dict(mf.BASE, id="batch-sdxl-ancestral", model="sdxl", count=3, sampler="k_euler_a", steps=5)
    yield dict(mf.BASE, id="batch-sd2v", model="sd2v", count=2)


# --- adapters in PEFT's own folders, with what their configuration says ---


def peft_configs():
    some = r".*up_blocks\.[23].*to_(q|v)"
    yield "peft-loha", peft.LoHaConfig(r=2, alpha=3, target_modules=some, alpha_pattern={"to_v": 5})
    yield "peft-lokr", peft.LoKrConfig(r=2, alpha=3, target_modules=["to_q", "to_out.0", "proj_in"])
    yield "peft-patterns", peft.LoraConfig(r=2, lora_alpha=3, target_modules=r".*blocks\.[02].*to_(q|k|v)",
                                           rank_pattern={"attn[2-9].to_(q|v)": 1},
                                           alpha_pattern={r"^down_blocks.\d+.attentions.0.*to_(?:k|v)": 5})


def adapter_cases():
    for form, _ in peft_configs():
        yield dict(mf.BASE, id="lora-" + form, model="sd1", loras=[[form + "/adapter_model", 1, 1]])
    yield dict(mf.BASE, id="lora-diffusers-text", model="sdxl", loras=[["diffusers-text", 1, 0.7]])
    # a later file works on what the earlier ones made of the weights
    yield dict(mf.BASE, id="lora-in-turn", model="sd1", loras=[["kohya", 0.6, 0.5], ["dora", 0.8, 0], ["peft", -0.4, 0]])


def fill(module, seed):
    g = torch.Generator().manual_seed(seed)
    for name, p in module.named_parameters():
        if any(word in name for word in ("lora_", "hada_", "lokr_")):
            p.copy_(torch.randn(p.shape, generator=g) * 0.3)
    return module


def in_order(made):
    """A set of targets is written in whatever order it has."""
    config = made.peft_config["default"]
    if isinstance(config.target_modules, set):
        config.target_modules = sorted(config.target_modules)


def differences(part, module, merged):
    new = dict(merged.named_modules())
    for name, m in module.named_modules():
        if hasattr(m, "weight") and name in new and not torch.equal(m.weight, new[name].weight):
            yield part, name, lambda m, d=new[name].weight.detach() - m.weight.detach(): d


def write_peft(form, ref, folder):
    config = dict(peft_configs())[form]
    made = fill(peft.get_peft_model(copy.deepcopy(ref.unet), config), sum(map(ord, form)))
    in_order(made)
    made.save_pretrained(folder + "/lora/" + form)
    os.remove("%s/lora/%s/README.md" % (folder, form))
    again = peft.PeftModel.from_pretrained(copy.deepcopy(ref.unet), folder + "/lora/" + form)
    return list(differences("unet", ref.unet, again.merge_and_unload()))


def write_text(ref, folder):
    """Both encoders as diffusers saves them, without the level `text_model` where transformers has none."""
    layers, deltas = {}, []
    for k, (part, text) in enumerate(zip(("te", "te2"), ref.text)):
        config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj", "fc1"])
        made = fill(peft.get_peft_model(copy.deepcopy(text), config), 50 + k)
        name = "text_encoder_2" if k else "text_encoder"
        in_order(made)
        layers["%s_lora_layers" % name] = {key.removeprefix("base_model.model."): v for key, v in
                                           peft.get_peft_model_state_dict(made).items()}
        layers["%s_lora_adapter_metadata" % name] = made.peft_config["default"].to_dict()
        deltas += differences(part, text, made.merge_and_unload())
    StableDiffusionXLPipeline.save_lora_weights(folder + "/lora", weight_name="diffusers-text.safetensors", **layers)
    return deltas


def kohya_pairs(ref):
    """What tests/golden/reference/lora/kohya.safetensors and peft.safetensors do to this model."""
    deltas = {"kohya": [], "peft": []}
    kohya, plain = (load_file("%s/lora/%s.safetensors" % (DATA, n)) for n in deltas)
    for part, prefix, module in (("unet", "lora_unet_", ref.unet), ("te", "lora_te_", ref.text[0])):
        for name, m in module.named_modules():
            path = "text_model." + name if part == "te" and not name.startswith("text_model") else name
            flat = prefix + path.replace(".", "_")
            for form, state, key, a, b in (("kohya", kohya, flat, "lora_down", "lora_up"),
                                           ("peft", plain, "unet." + name, "lora_A", "lora_B")):
                if "%s.%s.weight" % (key, a) not in state:
                    continue
                down, up = (state["%s.%s.weight" % (key, x)].float() for x in (a, b))
                scale = float(state.get(key + ".alpha", len(down))) / len(down)
                d = scale * (up.flatten(1) @ down.flatten(1))
                deltas[form].append((part, name, lambda m, d=d: d.reshape(m.weight.shape)))
    return deltas


def dora(ref):
    state, deltas = load_file(DATA + "/lora/dora.safetensors"), []
    for name, m in ref.unet.named_modules():
        flat = "lora_unet_" + name.replace(".", "_")
        if flat + ".dora_scale" not in state:
            continue
        down, up, length = (state["%s.%s" % (flat, x)] for x in ("lora_down.weight", "lora_up.weight", "dora_scale"))

        def f(m, down=down, up=up, length=length):
            v = m.weight + up @ down
            return length * v / v.norm(dim=0, keepdim=True) - m.weight
        deltas.append(("unet", name, f))
    return deltas


def adapters(ref, case, folder):
    out = []
    for name, unet, text in case["loras"]:
        form = name.split("/")[0]
        if form.startswith("peft-"):
            deltas = write_peft(form, ref, folder)
        elif form == "diffusers-text":
            deltas = write_text(ref, folder)
        else:
            deltas = dora(ref) if form == "dora" else kohya_pairs(ref)[form]
        out.append((deltas, {"unet": unet, "te": text}))
    return out


# --- the refiner: one encoder, five sizes of which the last is a score ---


class Refiner(mg.Reference):
    def __init__(self, folder, tokenizer):
        self.folder, self.xl, self.sd2, self.v, self.words = folder, True, False, False, {}
        self.tokenizer = tokenizer
        self.unet = self.load(mg.UNet2DConditionModel, "unet", "diffusion_pytorch_model")
        self.vae = self.load(mg.AutoencoderKL, "vae", "diffusion_pytorch_model")
        second = self.load(mg.CLIPTextModelWithProjection, "text_encoder_2", "model")
        self.text = [second]
        self.scale = self.vae.config.scaling_factor

    def encode(self, prompt, clip_skip=0):
        self.sd2, skip = True, clip_skip or 2  # pads with 0 ...
        chunk = self.chunks(prompt, 0)[0][0]
        self.sd2 = False
        context, pooled = self.hidden(self.text[0], chunk, skip, False)
        return context, pooled, [[chunk]]


def write_refiner(folder):
    vocabulary = len(json.load(open(DATA + "/models/tokenizer/vocab.json")))
    torch.manual_seed(7)
    text = tiny_models.spread(mg.CLIPTextModelWithProjection(
        tiny_models.text_config(vocabulary, 8, "gelu", 8)), 701)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=[8, 8, 8, 8],
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        cross_attention_dim=8, attention_head_dim=2, norm_num_groups=4, use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 + 5 * 8)
    parts = {"text_encoder_2": text, "unet": tiny_models.spread(unet, 702),
             "vae": tiny_models.make_vae(705, 0.13025, [4, 4, 4, 4], 2)}
    for name, module in parts.items():
        file = "model" if name.startswith("text") else "diffusion_pytorch_model"
        tiny_models.save_component(tiny_models.round_half(module), "%s/%s" % (folder, name), file)
    os.makedirs(folder + "/scheduler")
    with open(folder + "/scheduler/scheduler_config.json", "w") as f:
        json.dump({"prediction_type": "epsilon"}, f)
    shutil.copytree(DATA + "/models/tokenizer", folder + "/tokenizer_2")


def score_network(ref, x, t, context, pooled, size, extra=None, control=None):
    n = x.shape[0]
    score = 2.5 if pooled is ref.negative else 6.0
    ids = torch.tensor([[size[1], size[0], 0, 0, score]], dtype=torch.float32).expand(n, -1)
    return ref.unet(x, t, context.expand(n, -1, -1), added_cond_kwargs={"text_embeds": pooled.expand(n, -1),
                                                                        "time_ids": ids}).sample


def refiner_cases():
    yield dict(mf.BASE, id="refiner", model="refiner", init="assets/init.png", denoise=0.4)
    yield dict(mf.BASE, id="refiner-batch", model="refiner", init="assets/init.png", denoise=0.7, count=2,
               sampler="k_euler_a")
    yield dict(mf.BASE, id="refiner-alone", model="refiner", sampler="k_dpmpp_2m", schedule="karras", width=128)


def run_refiner(ref, case):
    plain, encode = mg.network, ref.encode
    mg.network = score_network

    def noted(prompt, clip_skip=0):
        out = encode(prompt, clip_skip)
        if prompt == case["negative"]:
            ref.negative = out[1]
        return out
    ref.encode = noted
    try:
        return mg.run_case(ref, case, DATA)[0]
    finally:
        mg.network, ref.encode = plain, encode


# --- a tiny decoder in the VAE's place ---


def tiny_decoder(folder):
    g = torch.Generator().manual_seed(31)
    tiny = AutoencoderTiny(encoder_block_out_channels=(4,) * 4, decoder_block_out_channels=(8,) * 4).eval()
    for name, p in tiny.named_parameters():
        p.copy_(torch.randn(p.shape, generator=g) * (1.0 / p[0].numel() ** 0.5 if p.ndim > 1 else 0.1))
    # ranges as a picture has them
    y = tiny.decode(torch.randn(1, 4, 8, 8, generator=g)).sample
    last = tiny.decoder.layers[-1]
    last.weight.mul_(0.35 / y.std())
    last.bias.copy_((last.bias + 0.5 - (y.mean() + 1) / 2) * 0.35 / y.std() + 0.5 * (1 - 0.35 / y.std()))
    os.makedirs(folder + "/vae", exist_ok=True)
    state = {k: v.contiguous() for k, v in tiny.state_dict().items() if k.startswith("decoder.")}
    save_file(state, folder + "/vae/taesd.safetensors")
    return tiny


def tiny_cases():
    for model in ("sd1", "sdxl"):
        yield dict(mf.BASE, id="taesd-" + model, model=model, vae="vae/taesd.safetensors")


def run_tiny(ref, case, folder):
    tiny, plain = tiny_decoder(folder), ref.picture

    def picture(latent):
        x = (tiny.decode(latent).sample * 0.5 + 0.5).clamp(0, 1) * 255
        return [mg.Image.fromarray(i.permute(1, 2, 0).round().to(torch.uint8).numpy()) for i in x]
    ref.picture = picture
    try:
        return mg.run_case(ref, case, DATA)[0]
    finally:
        ref.picture = plain


def run(ref, case, folder):
    if "vae" in case:
        return run_tiny(ref, case, folder)
    if case["model"] == "refiner":
        return run_refiner(ref, case)
    with mg.Merged(ref, adapters(ref, case, folder) if "loras" in case else []):
        return mg.run_case(ref, case, DATA)[0]


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else HERE + "/mixed"
    only = sys.argv[2:]
    os.makedirs(folder + "/images", exist_ok=True)
    os.makedirs(folder + "/lora", exist_ok=True)
    tokenizer = CLIPTokenizer(DATA + "/models/tokenizer/vocab.json", DATA + "/models/tokenizer/merges.txt",
                              unk_token="<|endoftext|>")
    refs, out = {}, []
    old = json.load(open(folder + "/cases.json")) if only else []
    kept = {c["id"]: c for c in old if c["id"] not in only}
    with torch.no_grad():
        for case in [*batch_cases(), *adapter_cases(), *refiner_cases(), *tiny_cases()]:
            if case["id"] in kept:
                out.append(kept[case["id"]])
            elif not only or case["id"] in only:
                kind = case["model"]
                if kind == "refiner" and kind not in refs:
                    shutil.rmtree(folder + "/models/refiner", ignore_errors=True)
                    write_refiner(folder + "/models/refiner")
                    refs[kind] = Refiner(folder + "/models/refiner", tokenizer)
                if kind not in refs:
                    refs[kind] = mg.Reference("%s/models/%s" % (DATA, kind), tokenizer)
                mf.write(folder, case, run(refs[kind], case, folder), out)
    with open(folder + "/cases.json", "w") as f:
        json.dump(out, f, indent=None, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()
