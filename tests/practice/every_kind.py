"""Weights with which a worker of the pocket model can do every kind of job: adapters and a ControlNet of the pocket's own
shapes, and tiny random networks for post-processors, alchemy forms and the safety check. For figures and tests: what
they draw is no picture of anything."""
import json
import random
import shutil
import struct
import subprocess
from pathlib import Path

UPSCALERS_X4 = ["RealESRGAN_x4plus", "RealESRGAN_x4plus_anime_6B", "NMKD_Siax", "4x_AnimeSharp"]
POSTS = [*UPSCALERS_X4, "RealESRGAN_x2plus", "GFPGAN", "CodeFormers", "strip_background"]
FORMS = ["caption", "nsfw", "interrogation", *POSTS]
KINDS = ["txt2img", "batch", "img2img", "inpainting", "outpainting", "hires", "tiling", "clipskip", "lora", "ti", "control",
         "controlmap", "post"]


def read_tensors(path):
    """name -> (dtype, shape, bytes)"""
    data = Path(path).read_bytes()
    length, = struct.unpack_from("<Q", data)
    head = json.loads(data[8:8 + length])
    head.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], data[8 + length + t["data_offsets"][0]:8 + length + t["data_offsets"][1]])
            for name, t in head.items()}


def write_tensors(path, tensors):
    head, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def drawn(rng, *shape, scale=0.02):
    count = 1
    for n in shape:
        count *= n
    return "F32", list(shape), struct.pack(f"<{count}f", *(rng.gauss(0, scale) for _ in range(count)))


def lora(unet, rng, rank=4):
    """kohya's names, over the attention of the UNet"""
    made = {}
    for name, (_, shape, _) in unet.items():
        if ".attn" not in name or not name.endswith(".weight") or len(shape) != 2:
            continue
        stem = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        made[stem + ".lora_down.weight"] = drawn(rng, rank, shape[1])
        made[stem + ".lora_up.weight"] = drawn(rng, shape[0], rank)
        made[stem + ".alpha"] = ("F32", [], struct.pack("<f", rank))
    return made


def control_net(unet, rng):
    """diffusers' names: the UNet's encoder, a small head for the map, and outputs that are not zero"""
    made = {name: t for name, t in unet.items() if name.startswith(("conv_in", "time_embedding", "down_blocks", "mid_block"))}
    channels = [unet[f"down_blocks.{i}.resnets.0.conv2.weight"][1][0] for i in range(4)]

    def conv(name, out, into, size):
        made[name + ".weight"], made[name + ".bias"] = drawn(rng, out, into, size, size, scale=0.05), drawn(rng, out)
    conv("controlnet_cond_embedding.conv_in", 4, 3, 3)
    for i, (into, out) in enumerate(((4, 4), (4, 8), (8, 8), (8, 8), (8, 8), (8, 8))):
        conv(f"controlnet_cond_embedding.blocks.{i}", out, into, 3)
    conv("controlnet_cond_embedding.conv_out", channels[0], 8, 3)
    outputs = [channels[0]]
    for i, c in enumerate(channels):
        blocks = sum(f"down_blocks.{i}.resnets.{k}.conv1.weight" in unet for k in range(4))
        outputs += [c] * blocks + ([c] if i < 3 else [])
    for i, c in enumerate(outputs):
        conv(f"controlnet_down_blocks.{i}", c, c, 1)
    conv("controlnet_mid_block", channels[3], channels[3], 1)
    return made


def furnish(cache, golden, pocket, draw, seed=8):
    """CACHE as a worker's owner would fill it; `draw` is kiln-draw-weights."""
    cache, golden, rng = Path(cache), Path(golden), random.Random(seed)
    unet = read_tensors(Path(pocket) / "unet/diffusion_pytorch_model.safetensors")
    width = read_tensors(Path(pocket) / "text_encoder/model.safetensors")["text_model.final_layer_norm.bias"][1][0]
    write_tensors(cache / "loras/practice-lora.safetensors", lora(unet, rng))
    write_tensors(cache / "embeddings/7808.safetensors", {"emb_params": drawn(rng, 2, width)})
    write_tensors(cache / "controlnet/canny.safetensors", control_net(unet, rng))
    post, faces = cache / "post", golden / "faces"
    post.mkdir(parents=True, exist_ok=True)

    def network(name, table, *words):
        subprocess.run([draw, str(post / name), str(faces / table), *words], check=True)
    network("GFPGANv1.4.safetensors", "gfpgan.txt")
    network("codeformer.safetensors", "codeformer.txt")
    # it sees faces wherever it looks: the fixers have something to do
    network("detection_Resnet50_Final.safetensors", "retinaface.txt",
            *[f"ClassHead.{i}.conv1x1.{part}=0" for i in range(2) for part in ("weight", "bias")])
    shutil.copy(golden / "matte/u2net.onnx", post)
    shutil.copy(golden / "upscale/x2.safetensors", post / "RealESRGAN_x2plus.safetensors")
    for name in UPSCALERS_X4:
        shutil.copy(golden / "upscale/x4.pth", post / f"{name}.pth")
    for to, source in {"caption/BLIP.safetensors": "alchemy/blip.safetensors", "caption/vocab.txt": "alchemy/vocab.txt",
                       "safety/model.safetensors": "safety/model.safetensors", "safety/safety.tsv": "safety/rules.tsv",
                       "safety/tokenizer/vocab.json": "safety/tokenizer/vocab.json",
                       "safety/tokenizer/merges.txt": "safety/tokenizer/merges.txt"}.items():
        (cache / to).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(golden / source, cache / to)
    (cache / "words").mkdir(exist_ok=True)
    for path in (golden / "alchemy/words").glob("*.txt"):
        shutil.copy(path, cache / "words")
