"""Tiny checkpoints of each family: real topology, small widths, seeded random weights in fp16.

make_goldens.py calls make_all(). A UNet is trained for a few hundred steps on synthetic latents, so
that it denoises and samplers meet what they meet in life. Single files are written under the names
of the original code by the rules in ldm_names(), which know nothing of Kiln's.
"""
import json
import os

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

GROUPS = 8
CHANNELS = [16, 16, 16, 16]
WORDS = """a photo of the red blue green yellow white black old new small big house river garden cat dog tree
hill sky sea boat bird stone bread bridge cup pot vase kiln brick fire smoke water light shadow street woman
man child reading mending walking quiet broken bright dark lovely digital art painting drawing in on under
near with and blurry low quality high detail portrait landscape morning evening winter summer""".split()


# --- a vocabulary of CLIP's form ---


def byte_symbols():
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    chars, n = [chr(b) for b in keep], 0
    for b in range(256):
        if b not in keep:
            keep.append(b)
            chars.append(chr(256 + n))
            n += 1
    return dict(zip(keep, chars)), chars


def make_vocabulary(folder):
    """Byte-pair merges learned from WORDS: the most frequent pair first."""
    table, symbols = byte_symbols()
    words = [[table[b] for b in w.encode()] for w in WORDS]
    words = [w[:-1] + [w[-1] + "</w>"] for w in words]
    merges = []
    while len(merges) < 160:
        pairs = {}
        for w in words:
            for p in zip(w, w[1:]):
                pairs[p] = pairs.get(p, 0) + 1
        if not pairs:
            break
        best = max(sorted(pairs), key=lambda p: pairs[p])
        merges.append(best)
        for w in words:
            i = 0
            while i + 1 < len(w):
                if (w[i], w[i + 1]) == best:
                    w[i:i + 2] = [w[i] + w[i + 1]]
                i += 1
    entries = symbols + [s + "</w>" for s in symbols] + ["".join(m) for m in merges]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    os.makedirs(folder, exist_ok=True)
    with open(folder + "/vocab.json", "w", encoding="utf-8") as f:
        json.dump({e: i for i, e in enumerate(entries)}, f, ensure_ascii=False)
    with open(folder + "/merges.txt", "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join("%s %s\n" % m for m in merges))
    return len(entries)


# --- networks ---


def text_config(vocabulary, width, act, projection):
    return CLIPTextConfig(vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width,
                          projection_dim=projection, num_hidden_layers=3, num_attention_heads=2,
                          max_position_embeddings=77, hidden_act=act, pad_token_id=0,
                          bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1)


def spread(module, seed):
    """Random weights with enough life in them: norms and biases are not left at 1 and 0."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            n = torch.randn(p.shape, generator=g)
            if p.ndim >= 2:
                p.copy_(n / (p[0].numel() ** 0.5))
            elif name.endswith("weight"):
                p.copy_(1 + 0.1 * n)
            else:
                p.copy_(0.1 * n)
    return module


def make_vae(seed, scale, channels, groups):
    vae = AutoencoderKL(in_channels=3, out_channels=3, latent_channels=4,
                        down_block_types=["DownEncoderBlock2D"] * len(channels),
                        up_block_types=["UpDecoderBlock2D"] * len(channels),
                        block_out_channels=channels, layers_per_block=2, norm_num_groups=groups,
                        scaling_factor=scale, sample_size=64)
    spread(vae, seed)
    g = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        # latents of unit size, pictures that use the range without leaving it
        x = torch.nn.functional.interpolate(torch.rand(4, 3, 8, 8, generator=g) * 2 - 1, size=64)
        mean = vae.encode(x).latent_dist.mean
        f = 1 / (scale * mean.std())
        vae.quant_conv.weight[:4] *= f
        vae.quant_conv.bias[:4] *= f
        z = torch.randn(4, 4, 8, 8, generator=g) / scale
        y = vae.decode(z).sample
        f = 0.5 / y.std()
        vae.decoder.conv_out.weight *= f
        vae.decoder.conv_out.bias *= f
    return vae.eval()


def make_unet(seed, kind, context, vector):
    xl = kind == "sdxl"
    levels = 3 if xl else 4
    with_attention = "CrossAttnDownBlock2D"
    if xl:
        down = ["DownBlock2D", with_attention, with_attention]
        up = ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]
        extra = dict(addition_embed_type="text_time", addition_time_embed_dim=8,
                     projection_class_embeddings_input_dim=vector,
                     transformer_layers_per_block=[1, 1, 2])
    else:
        down = [with_attention] * 3 + ["DownBlock2D"]
        up = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
        extra = {}
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=9 if kind == "inpaint" else 4, out_channels=4, layers_per_block=2,
        block_out_channels=CHANNELS[:levels], down_block_types=down, up_block_types=up,
        cross_attention_dim=context, attention_head_dim=4, norm_num_groups=GROUPS,
        use_linear_projection=kind != "sd1" and kind != "inpaint", **extra)
    return spread(unet, seed)


def alphas():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def train(unet, contexts, vector, v_prediction, seed, steps=300):
    """Latents are soft blobs whose colour depends on the context: enough to learn something."""
    torch.manual_seed(seed)
    bar = alphas()
    optimiser = torch.optim.AdamW(unet.parameters(), lr=2e-3)
    for step in range(steps):
        n = 8
        pick = torch.randint(len(contexts), (n,))
        z = torch.nn.functional.interpolate(torch.randn(n, 4, 3, 3), size=8, mode="bicubic")
        z = 0.8 * z + 0.5 * torch.sin(pick.float()[:, None] * 1.7 + torch.arange(4.0))[:, :, None, None]
        noise, t = torch.randn(n, 4, 8, 8), torch.randint(1000, (n,))
        a, b = bar[t].sqrt()[:, None, None, None], (1 - bar[t]).sqrt()[:, None, None, None]
        x = a * z + b * noise
        if unet.config.in_channels == 9:
            mask = (torch.rand(n, 1, 8, 8) > 0.5).float()
            x = torch.cat([x, mask, z * (1 - mask)], 1)
        added = None
        if vector:
            added = {"text_embeds": torch.randn(n, vector - 48),
                     "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]]).repeat(n, 1)}
        out = unet(x, t, contexts[pick], added_cond_kwargs=added).sample
        target = a * noise - b * z if v_prediction else noise
        loss = ((out - target) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return loss.item()


# --- names of the original code ---


def ldm_unet(state, levels, blocks=2):
    res = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
           "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    fixed = {"conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0",
             "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
             "add_embedding.linear_2": "label_emb.0.2", "conv_norm_out": "out.0", "conv_out": "out.2"}
    out = {}
    for key, value in state.items():
        p = key.split(".")
        if p[0] in ("down_blocks", "up_blocks"):
            i, kind, j, rest = int(p[1]), p[2], int(p[3]), p[4:]
            side = "input_blocks" if p[0] == "down_blocks" else "output_blocks"
            per = blocks + 1
            index = (per * i + j + 1) if side == "input_blocks" else per * i + j
            if kind == "resnets":
                new = "%s.%d.0.%s.%s" % (side, index, res[rest[0]], rest[1])
            elif kind == "attentions":
                new = "%s.%d.1.%s" % (side, index, ".".join(rest))
            elif kind == "downsamplers":
                new = "input_blocks.%d.0.op.%s" % (per * i + per, rest[-1])
            else:
                attends = any(k.startswith("up_blocks.%d.attentions" % i) for k in state)
                new = "output_blocks.%d.%d.conv.%s" % (per * i + blocks, 2 if attends else 1, rest[-1])
        elif p[0] == "mid_block":
            if p[1] == "attentions":
                new = "middle_block.1." + ".".join(p[3:])
            else:
                new = "middle_block.%d.%s.%s" % (2 * int(p[2]), res[p[3]], p[4])
        else:
            stem = ".".join(p[:-1])
            new = fixed[stem] + "." + p[-1]
        out["model.diffusion_model." + new] = value
    return out


def ldm_vae(state, levels):
    out = {}
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    for key, value in state.items():
        new = key
        new = new.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        if "mid_block.attentions.0." in new:
            head, tail = new.split("mid_block.attentions.0.")
            stem, last = tail.rsplit(".", 1)
            new = head + "mid.attn_1." + attention[stem] + "." + last
            if value.ndim == 2:
                value = value[:, :, None, None]
        new = new.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        p = new.split(".")
        if len(p) > 2 and p[1] in ("down_blocks", "up_blocks"):
            side, i = p[0], int(p[2])
            level = i if p[1] == "down_blocks" else levels - 1 - i
            way = "down" if p[1] == "down_blocks" else "up"
            if p[3] == "resnets":
                new = "%s.%s.%d.block.%s.%s" % (side, way, level, p[4], ".".join(p[5:]))
            else:
                new = "%s.%s.%d.%s.conv.%s" % (side, way, level,
                                               "downsample" if way == "down" else "upsample", p[-1])
        out["first_stage_model." + new] = value.contiguous()
    return out


def openclip(state, prefix, layers):
    """HF names to OpenCLIP's: q, k, v stacked; the projection transposed."""
    s = {k.removeprefix("text_model."): v for k, v in state.items()}
    out = {"token_embedding.weight": s["embeddings.token_embedding.weight"],
           "positional_embedding": s["embeddings.position_embedding.weight"],
           "ln_final.weight": s["final_layer_norm.weight"], "ln_final.bias": s["final_layer_norm.bias"]}
    for i in range(layers):
        a, b = "encoder.layers.%d." % i, "transformer.resblocks.%d." % i
        for kind in ("weight", "bias"):
            out[b + "attn.in_proj_" + kind] = torch.cat(
                [s[a + "self_attn.%s_proj.%s" % (q, kind)] for q in "qkv"])
            for x, y in (("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"),
                         ("layer_norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")):
                out[b + y + "." + kind] = s[a + x + "." + kind]
    if "text_projection.weight" in s:
        out["text_projection"] = s["text_projection.weight"].T.contiguous()
    return {prefix + k: v.contiguous() for k, v in out.items()}


def hf_text(state, prefix):
    return {prefix + "text_model." + k.removeprefix("text_model."): v for k, v in state.items()
            if "position_ids" not in k}


# --- writing ---


def save_component(module, folder, name, config=None):
    os.makedirs(folder, exist_ok=True)
    state = {k: v.half().contiguous() for k, v in module.state_dict().items() if "position_ids" not in k}
    if name == "model":
        state = {(k if k.startswith(("text_model.", "text_projection")) else "text_model." + k): v
                 for k, v in state.items()}
    save_file(state, "%s/%s.safetensors" % (folder, name), metadata={"format": "pt"})
    config = dict(config or module.config.to_dict() if hasattr(module.config, "to_dict") else module.config)
    config = {k: v for k, v in config.items() if not k.startswith("_name")}
    config.setdefault("_class_name", type(module).__name__)
    with open(folder + "/config.json", "w") as f:
        json.dump(config, f, indent=1, default=str)


def round_half(module):
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(p.half().float())
    return module.eval()


KINDS = {
    #        unet kind, v-prediction, VAE scale
    "sd1": ("sd1", False, 0.18215),
    "sd2": ("sd2", False, 0.18215),
    "sd2v": ("sd2", True, 0.18215),
    "sdxl": ("sdxl", False, 0.13025),
    "inpaint": ("inpaint", False, 0.18215),
}


def make(kind, folder, vocabulary, log=print):
    unet_kind, v_prediction, scale = KINDS[kind]
    seed = 100 * (1 + list(KINDS).index(kind))
    xl = unet_kind == "sdxl"
    first = spread(CLIPTextModel(text_config(vocabulary, 16, "gelu" if unet_kind == "sd2" else "quick_gelu", 16)), seed)
    parts = {"text_encoder": round_half(first)}
    if xl:
        parts["text_encoder_2"] = round_half(
            spread(CLIPTextModelWithProjection(text_config(vocabulary, 24, "gelu", 24)), seed + 1))
    context, vector = (40, 24 + 6 * 8) if xl else (16, 0)
    unet = make_unet(seed + 2, unet_kind, context, vector)
    g = torch.Generator().manual_seed(seed + 3)
    loss = train(unet, torch.randn(4, 77, context, generator=g), vector, v_prediction, seed + 4)
    parts["unet"] = round_half(unet)
    parts["vae"] = round_half(make_vae(seed + 5, scale, CHANNELS, GROUPS))
    for name, module in parts.items():
        file = "model" if name.startswith("text") else "diffusion_pytorch_model"
        save_component(module, "%s/%s/%s" % (folder, kind, name), file)
    scheduler = {"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
                 "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
                 "prediction_type": "v_prediction" if v_prediction else "epsilon"}
    os.makedirs("%s/%s/scheduler" % (folder, kind), exist_ok=True)
    json.dump(scheduler, open("%s/%s/scheduler/scheduler_config.json" % (folder, kind), "w"), indent=1)
    log("%s: loss %.3f, %d UNet parameters" % (kind, loss, sum(p.numel() for p in unet.parameters())))
    return parts


def single_file(kind, parts, path):
    unet_kind, v_prediction, _ = KINDS[kind]
    half = lambda m: {k: v.half() for k, v in m.state_dict().items()}
    state = ldm_unet(half(parts["unet"]), 3 if unet_kind == "sdxl" else 4)
    state.update(ldm_vae(half(parts["vae"]), 4))
    if unet_kind == "sdxl":
        state.update(hf_text(half(parts["text_encoder"]), "conditioner.embedders.0.transformer."))
        state.update(openclip(half(parts["text_encoder_2"]), "conditioner.embedders.1.model.", 3))
    elif unet_kind == "sd2":
        text = openclip(half(parts["text_encoder"]), "cond_stage_model.model.", 3)
        # released files hold one layer more, which folders leave out and nothing native uses
        last = {k.replace("resblocks.2.", "resblocks.3."): -v for k, v in text.items() if "resblocks.2." in k}
        state.update(text, **last)
    else:
        state.update(hf_text(half(parts["text_encoder"]), "cond_stage_model.transformer."))
    # as in released files: things that a reader must pass over
    state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    state["alphas_cumprod"] = alphas()
    meta = {"kiln.norm_groups": str(GROUPS), "kiln.heads": "4", "kiln.text_heads": "2"}
    if v_prediction:
        meta["modelspec.prediction_type"] = "v"
    save_file({k: v.contiguous().clone() for k, v in state.items()}, path, metadata=meta)
    return state
