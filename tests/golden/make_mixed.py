#!/usr/bin/env python3
"""Makes tests/golden/mixed: pictures where two things meet, over the models of tests/golden/reference.

usage: make_mixed.py [FOLDER [ID ...]]
With IDs, only these cases are made again; the others stay.
"""
import copy
import json
import os
import sys

import peft
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file
from transformers import CLIPTokenizer

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_family as mf
import make_goldens as mg

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


def differences(part, module, merged):
    new = dict(merged.named_modules())
    for name, m in module.named_modules():
        if hasattr(m, "weight") and name in new and not torch.equal(m.weight, new[name].weight):
            yield part, name, lambda m, d=new[name].weight.detach() - m.weight.detach(): d


def write_peft(form, ref, folder):
    config = dict(peft_configs())[form]
    made = fill(peft.get_peft_model(copy.deepcopy(ref.unet), config), sum(map(ord, form)))
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


def run(ref, case, folder):
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
        for case in [*batch_cases(), *adapter_cases()]:
            if case["id"] in kept:
                out.append(kept[case["id"]])
            elif not only or case["id"] in only:
                kind = case["model"]
                if kind not in refs:
                    refs[kind] = mg.Reference("%s/models/%s" % (DATA, kind), tokenizer)
                mf.write(folder, case, run(refs[kind], case, folder), out)
    with open(folder + "/cases.json", "w") as f:
        json.dump(out, f, indent=None, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()
