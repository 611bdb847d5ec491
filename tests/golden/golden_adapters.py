"""Adapter files of the golden cases, in the dialects of the field, and what each does to the reference: for
make_goldens.py and the generators above it."""
import os

import torch
from diffusers import ControlNetModel
from safetensors.torch import save_file

import tiny_models


def write_loras(data, ref_sd1, ref_xl):
    """Adapter files in the dialects of the field, and how to make the reference agree."""
    os.makedirs(data + "/lora", exist_ok=True)
    g = torch.Generator().manual_seed(99)
    randn = lambda *s: torch.randn(*s, generator=g)
    made = {}

    def linear_targets(ref, part):
        module = {"unet": ref.unet, "te": ref.text[0], "te2": ref.text[-1]}[part]
        for name, m in module.named_modules():
            if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)):
                yield name, m

    def attention(name):
        return "attn" in name and name.split(".")[-1] in ("to_q", "to_k", "to_v", "0") or "self_attn" in name

    def te_name(name):
        return name if name.startswith("text_model") else "text_model." + name

    def delta_of(m, down, up, scale):
        w = m.weight
        d = up.flatten(1) @ down.flatten(1)
        return scale * d.reshape(w.shape)

    # kohya, UNet and text encoder, with alpha
    state, deltas = {}, []
    for part, prefix in (("unet", "lora_unet_"), ("te", "lora_te_")):
        for name, m in linear_targets(ref_sd1, part):
            if not attention(name) and "proj" not in name and "ff.net" not in name:
                continue
            rank = 3
            down = (randn(rank, *m.weight.shape[1:]) * 0.3).half()
            up = (randn(m.weight.shape[0], rank, *[1] * (m.weight.ndim - 2)) * 0.3).half()
            flat = prefix + (te_name(name) if part == "te" else name).replace(".", "_")
            state[flat + ".lora_down.weight"], state[flat + ".lora_up.weight"] = down, up
            state[flat + ".alpha"] = torch.tensor(2.0)
            deltas.append((part, name, lambda m, d=down, u=up: delta_of(m, d.float(), u.float(), 2 / 3)))
    save_file(state, data + "/lora/kohya.safetensors", metadata={"ss_base_model_version": "sd_v1"})
    made["kohya"] = ("sd1", deltas)

    # LoCon: 3x3 convolutions too, some with a Tucker core
    state, deltas = {}, []
    for k, (name, m) in enumerate(linear_targets(ref_sd1, "unet")):
        if "resnets" not in name and "downsamplers" not in name and not attention(name):
            continue
        rank, flat = 2, "lora_unet_" + name.replace(".", "_")
        out, inner = m.weight.shape[:2]
        if m.weight.ndim == 4 and m.weight.shape[2] == 3 and k % 2:
            down, mid, up = randn(rank, inner, 1, 1) * 0.3, randn(rank, rank, 3, 3) * 0.3, randn(out, rank, 1, 1) * 0.3
            state[flat + ".lora_mid.weight"] = mid
            f = lambda m, d=down, t=mid, u=up: torch.einsum("ijkl,jr,pi->prkl", t, d[:, :, 0, 0], u[:, :, 0, 0])
        else:
            down = randn(rank, *m.weight.shape[1:]) * 0.2
            up = randn(out, rank, *[1] * (m.weight.ndim - 2)) * 0.2
            f = lambda m, d=down, u=up: delta_of(m, d, u, 1.0)
        state[flat + ".lora_down.weight"], state[flat + ".lora_up.weight"] = down, up
        deltas.append(("unet", name, f))
    save_file({k: v.contiguous() for k, v in state.items()}, data + "/lora/locon.safetensors")
    made["locon"] = ("sd1", deltas)

    # LoHa, LoKr, full differences
    for form in ("loha", "lokr", "diff"):
        state, deltas = {}, []
        for name, m in linear_targets(ref_sd1, "unet"):
            conv3 = m.weight.ndim == 4 and m.weight.shape[2] == 3
            if not attention(name) and not (conv3 and "up_blocks.1.resnets" in name):
                continue
            out, inner = m.weight.shape[0], m.weight[0].numel()
            flat = "lora_unet_" + name.replace(".", "_")
            if form == "loha":
                p = [randn(out, 2), randn(2, inner), randn(out, 2), randn(2, inner)]
                p = [q * 0.35 for q in p]
                for key, q in zip(("w1_a", "w1_b", "w2_a", "w2_b"), p):
                    state["%s.hada_%s" % (flat, key)] = q
                state[flat + ".alpha"] = torch.tensor(1.0)
                f = lambda m, p=p: ((p[0] @ p[1]) * (p[2] @ p[3]) * 0.5).reshape(m.weight.shape)
            elif form == "lokr":
                w1 = randn(4, 4) * 0.3
                state[flat + ".lokr_w1"] = w1
                o2, i2 = out // 4, m.weight.shape[1] // 4
                tail = m.weight.shape[2:]
                a, b = randn(o2, 2) * 0.3, randn(2, i2 * (9 if conv3 else 1)) * 0.3
                state[flat + ".lokr_w2_a"], state[flat + ".lokr_w2_b"] = a, b
                state[flat + ".alpha"] = torch.tensor(1.0)

                def f(m, w1=w1, a=a, b=b, i2=i2):
                    w2 = (a @ b).reshape(-1, i2, *m.weight.shape[2:])
                    x = w1[:, :, None, None] if m.weight.ndim == 4 else w1
                    return torch.kron(x, w2) * 0.5
            else:
                d = randn(*m.weight.shape) * 0.02
                state[flat + ".diff"] = d
                f = lambda m, d=d: d
                if m.bias is not None:
                    state[flat + ".diff_b"] = randn(out) * 0.02
                    deltas.append(("unet", name + "|bias", lambda m, d=state[flat + ".diff_b"]: d))
            deltas.append(("unet", name, f))
        save_file({k: v.contiguous() for k, v in state.items()}, data + "/lora/%s.safetensors" % form)
        made[form] = ("sd1", deltas)

    # DoRA, by input column (LyCORIS) and by output row (peft)
    for form in ("dora", "dora-peft"):
        state, deltas = {}, []
        for name, m in linear_targets(ref_sd1, "unet"):
            if not attention(name):
                continue
            w = m.weight
            out, inner = w.shape[:2]
            down, up = randn(2, inner) * 0.3, randn(out, 2) * 0.3
            if form == "dora":
                flat = "lora_unet_" + name.replace(".", "_")
                length = w.detach().norm(dim=0, keepdim=True) * (1 + 0.1 * randn(1, inner))
                state[flat + ".lora_down.weight"], state[flat + ".lora_up.weight"] = down, up
                state[flat + ".dora_scale"] = length
                dim = 0
            else:
                flat = "unet." + name
                length = w.detach().norm(dim=1) * (1 + 0.1 * randn(out))
                state[flat + ".lora_A.weight"], state[flat + ".lora_B.weight"] = down, up
                state[flat + ".lora_magnitude_vector"] = length
                length, dim = length[:, None], 1

            def f(m, down=down, up=up, length=length, dim=dim):
                v = m.weight + up @ down
                return length * v / v.norm(dim=dim, keepdim=True) - m.weight
            deltas.append(("unet", name, f))
        save_file({k: v.contiguous() for k, v in state.items()}, data + "/lora/%s.safetensors" % form)
        made[form] = ("sd1", deltas)

    # PEFT / diffusers names and the older diffusers names
    for form in ("peft", "diffusers-old"):
        state, deltas = {}, []
        for name, m in linear_targets(ref_sd1, "unet"):
            if not attention(name):
                continue
            down, up = randn(2, m.weight.shape[1]) * 0.3, randn(m.weight.shape[0], 2) * 0.3
            if form == "peft":
                a, b = "unet.%s.lora_A.weight" % name, "unet.%s.lora_B.weight" % name
            else:
                stem, last = name.rsplit(".", 1) if not name.endswith("to_out.0") else (name[:-9], "to_out")
                a = "unet.%s.processor.%s_lora.down.weight" % (stem, last)
                b = "unet.%s.processor.%s_lora.up.weight" % (stem, last)
            state[a], state[b] = down, up
            deltas.append(("unet", name, lambda m, d=down, u=up: u @ d))
        save_file({k: v.contiguous() for k, v in state.items()}, data + "/lora/%s.safetensors" % form)
        made[form] = ("sd1", deltas)

    # SDXL as kohya writes it: LDM paths, both text encoders
    state, deltas = {}, []
    ldm = {k[len("model.diffusion_model."):]: None for k in
           tiny_models.ldm_unet({k: v for k, v in ref_xl.unet.state_dict().items()}, 3)}
    order = list(tiny_models.ldm_unet({k: v for k, v in ref_xl.unet.state_dict().items()}, 3))
    renamed = dict(zip(ref_xl.unet.state_dict(), [k[len("model.diffusion_model."):] for k in order]))
    for part, prefix in (("unet", "lora_unet_"), ("te", "lora_te1_"), ("te2", "lora_te2_")):
        for name, m in linear_targets(ref_xl, part):
            if not attention(name):
                continue
            down, up = randn(2, m.weight.shape[1]) * 0.3, randn(m.weight.shape[0], 2) * 0.3
            flat = renamed[name + ".weight"][:-len(".weight")] if part == "unet" else te_name(name)
            flat = prefix + flat.replace(".", "_")
            state[flat + ".lora_down.weight"], state[flat + ".lora_up.weight"] = down, up
            state[flat + ".alpha"] = torch.tensor(1.0)
            deltas.append((part, name, lambda m, d=down, u=up: 0.5 * u @ d))
    save_file({k: v.contiguous() for k, v in state.items()}, data + "/lora/kohya-sdxl.safetensors",
              metadata={"ss_base_model_version": "sdxl_base_v1-0"})
    made["kohya-sdxl"] = ("sdxl", deltas)
    return made


def write_embeddings(data, ref_sd1, ref_xl):
    os.makedirs(data + "/embedding", exist_ok=True)
    g = torch.Generator().manual_seed(123)
    one = torch.randn(2, 16, generator=g)
    save_file({"emb_params": one}, data + "/embedding/word.safetensors")
    torch.save({"string_to_param": {"*": one}, "name": "word"}, data + "/embedding/word.pt")
    ref_sd1.add_word("word", [one])
    both = [torch.randn(3, 16, generator=g), torch.randn(3, 24, generator=g)]
    save_file({"clip_l": both[0], "clip_g": both[1]}, data + "/embedding/wordxl.safetensors")
    ref_xl.add_word("wordxl", both)


def ldm_control(state):
    """ControlNet keys of diffusers under the original code's names."""
    shared = {k: v for k, v in state.items() if not k.startswith("controlnet_")}
    out = {k.replace("model.diffusion_model.", "control_model."): v
           for k, v in tiny_models.ldm_unet(shared, 4).items()}
    for key, value in state.items():
        p = key.split(".")
        if p[0] == "controlnet_cond_embedding":
            index = {"conv_in": 0, "conv_out": 14}.get(p[1])
            index = 2 * (int(p[2]) + 1) if index is None else index
            out["control_model.input_hint_block.%d.%s" % (index, p[-1])] = value
        elif p[0] == "controlnet_down_blocks":
            out["control_model.zero_convs.%s.0.%s" % (p[1], p[2])] = value
        elif p[0] == "controlnet_mid_block":
            out["control_model.middle_block_out.0." + p[1]] = value
    return out


def write_controls(data, refs):
    """ControlNets with random weights: a folder, a single file, a difference file."""
    made = {}
    for kind in ("sd1", "sd2", "sdxl"):
        net = ControlNetModel.from_unet(refs[kind].unet, conditioning_channels=3,
                                        conditioning_embedding_out_channels=(4, 4, 8, 8))
        own = {k: p for k, p in net.named_parameters()}
        g = torch.Generator().manual_seed(17)
        for k, p in own.items():
            n = torch.randn(p.shape, generator=g)
            if k.startswith("controlnet_"):
                p.copy_((n / p[0].numel() ** 0.5 if p.ndim > 1 else 0.1 * n).half().float())
                if "cond_embedding" not in k:
                    p.mul_(0.5)
            else:
                p.add_(0.02 * n).copy_(p.half().float())
        tiny_models.save_component(net.half().float(), "%s/control/%s" % (data, kind), "diffusion_pytorch_model")
        made[kind] = net.eval()
    state = {k: v.half() for k, v in made["sd1"].state_dict().items()}
    ldm = ldm_control(state)
    save_file({k: v.contiguous() for k, v in ldm.items()}, data + "/control/sd1-ldm.safetensors")
    base = {k.replace("model.diffusion_model.", "control_model."): v for k, v in
            tiny_models.ldm_unet(refs["sd1"].unet.state_dict(), 4).items()}
    diff = {k: (v.float() - base[k] if k in base else v.float()) for k, v in ldm.items()}
    diff["difference"] = torch.tensor([])
    save_file({k: v.contiguous() for k, v in diff.items()}, data + "/control/sd1-diff.safetensors")
    return made


class Merged:
    """Weights with the adapters' differences, for the length of a `with`."""

    def __init__(self, ref, items):
        self.ref, self.items, self.saved = ref, items, []

    def __enter__(self):
        modules = {"unet": self.ref.unet, "te": self.ref.text[0], "te2": self.ref.text[-1]}
        with torch.no_grad():
            for deltas, strengths in self.items:
                for part, name, f in deltas:
                    stem, _, bias = name.partition("|")
                    m = dict(modules[part].named_modules())[stem]
                    p = m.bias if bias else m.weight
                    self.saved.append((p, p.detach().clone()))
                    p += strengths["unet" if part == "unet" else "te"] * f(m)
        return self

    def __exit__(self, *a):
        with torch.no_grad():
            for p, old in reversed(self.saved):
                p.copy_(old)
