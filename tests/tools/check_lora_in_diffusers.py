"""Does what Kiln trains load in diffusers with PEFT? Trains four steps on a tiny SD1 and a tiny SDXL folder, in kohya's and in PEFT's names,
and prints how many matrices were taken, the scale, the change of each network's output, and kohya's against PEFT's.

    python tests/tools/check_lora_in_diffusers.py BUILD/cli/kiln tests/golden/reference/models"""
import subprocess
import sys
import tempfile

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

KILN, MODELS = sys.argv[1:]


def networks(folder, xl):
    yield UNet2DConditionModel.from_pretrained(folder + "/unet")
    yield CLIPTextModel.from_pretrained(folder + "/text_encoder")
    if xl:
        yield CLIPTextModelWithProjection.from_pretrained(folder + "/text_encoder_2")


def outputs(nets, xl):
    g = torch.Generator().manual_seed(1)
    config = nets[0].config
    x, context = torch.randn(1, 4, 16, 16, generator=g), torch.randn(1, 77, config.cross_attention_dim, generator=g)
    added = None
    if xl:
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = dict(text_embeds=torch.randn(1, pooled, generator=g), time_ids=torch.tensor([[128., 128, 0, 0, 128, 128]]))
    ids = torch.randint(1, 200, (1, 77), generator=g)
    with torch.no_grad():
        return [nets[0](x, torch.tensor([500]), context, added_cond_kwargs=added).sample] + [
            n(ids, output_hidden_states=True).hidden_states[-1] for n in nets[1:]]


def change(a, b):
    return [f"{((q - p).norm() / p.norm()).item():.2g}" for p, q in zip(a, b)]


with tempfile.TemporaryDirectory() as top:
    subprocess.run([KILN, "pocket", "examples", top + "/pots", "--count", "4"], check=True, stdout=subprocess.DEVNULL)
    for family, mixin in (("sd1", StableDiffusionLoraLoaderMixin), ("sdxl", StableDiffusionXLLoraLoaderMixin)):
        xl, folder, seen = family == "sdxl", f"{MODELS}/{family}", {}
        for form in ("kohya", "peft"):
            out = f"{top}/{family}-{form}.safetensors"
            subprocess.run([KILN, "train", "lora", "--model", folder, "--data", top + "/pots", "--trigger", "zk", "--name", "zk", "-o", out,
                            "--steps", "4", "--rank", "4", "--alpha", "2", "--lr", "3e-2", "--warmup", "0", "--save-every", "0",
                            "--preview-every", "0", "--resolution", "128", "--format", form, "--precision", "fp32", "--text", "-q"],
                           check=True, stdout=subprocess.DEVNULL)
            nets = list(networks(folder, xl))
            before = outputs(nets, xl)
            state, alphas, meta = mixin.lora_state_dict(out, return_lora_metadata=True, **({"unet_config": nets[0].config} if xl else {}))
            mixin.load_lora_into_unet(state, network_alphas=alphas, unet=nets[0], metadata=meta)
            for prefix, net in zip(("text_encoder", "text_encoder_2"), nets[1:]):
                mixin.load_lora_into_text_encoder(state, network_alphas=alphas, text_encoder=net, prefix=prefix, metadata=meta)
            seen[form] = outputs(nets, xl)
            taken = [sum("lora_" in k for k, _ in n.named_parameters()) for n in nets]
            scales = {float(s) for n in nets for m in n.modules() if isinstance(getattr(m, "scaling", None), dict)
                      for s in m.scaling.values()}
            held = sum(not k.endswith("alpha") for k in load_file(out))
            print(family, form, f"{held} matrices in the file, taken {taken}, scale {scales}, change {change(before, seen[form])}")
            assert sum(taken) == held and scales == {.5}
        print(family, "kohya against peft", change(seen["kohya"], seen["peft"]))
