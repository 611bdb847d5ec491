"""kiln convert: pickles, precisions and shards come back as they were; bad input is a sentence.

usage: convert.py KILN REFERENCE"""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile

KILN, DATA = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])


def read(path):
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        head = json.loads(f.read(n))
        body = f.read()
    meta = head.pop("__metadata__", {})
    return meta, {k: (v["dtype"], v["shape"], body[slice(*v["data_offsets"])]) for k, v in head.items()}


def convert(*args, code=0):
    done = subprocess.run([KILN, "convert", *args], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, (args, done.returncode, done.stderr)
    return done.stderr


with tempfile.TemporaryDirectory() as folder:
    out = lambda name: os.path.join(folder, name + ".safetensors")
    single = DATA + "/models/sd1.safetensors"
    meta, before = read(single)

    convert(single, out("same"))
    assert read(out("same")) == (meta, before)

    # a pickle holds the same network as the folder's safetensors
    convert(DATA + "/models/sd1-bin/unet/diffusion_pytorch_model.bin", out("unet"))
    _, unet = read(DATA + "/models/sd1/unet/diffusion_pytorch_model.safetensors")
    assert read(out("unet"))[1] == unet

    # wider and back is exact; there and back by bf16 keeps eight bits
    kinds = {v[0] for v in unet.values()}
    assert kinds == {"F16"}, kinds
    convert(out("unet"), out("wide"), "--precision", "fp32")
    wide = read(out("wide"))[1]
    assert {v[0] for v in wide.values()} == {"F32"} and all(len(wide[k][2]) == 2 * len(unet[k][2]) for k in unet)
    convert(out("wide"), out("back"), "--precision", "fp16")
    assert read(out("back"))[1] == unet
    convert(out("wide"), out("brain"), "--precision", "bf16")
    brain = read(out("brain"))[1]
    for k, (_, shape, data) in wide.items():
        assert brain[k][1] == shape
        a = struct.unpack("<%df" % (len(data) // 4), data)
        b = [struct.unpack("<f", b"\0\0" + brain[k][2][i:i + 2])[0] for i in range(0, len(brain[k][2]), 2)]
        assert all(abs(x - y) <= abs(x) / 256 for x, y in zip(a, b)), k

    # metadata of a LoRA stays
    lora = DATA + "/lora/kohya.safetensors"
    convert(lora, out("lora"), "--precision", "fp32")
    assert read(out("lora"))[0] == read(lora)[0] == {"ss_base_model_version": "sd_v1"}

    def write(path, tensors):
        head, body = {}, b""
        for name, data in tensors.items():
            head[name] = {"dtype": "F32", "shape": [len(data) // 4], "data_offsets": [len(body), len(body) + len(data)]}
            body += data
        text = json.dumps(head).encode()
        with open(path, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text + body)

    write(out("big"), {"a.weight": struct.pack("<2f", 1, 70000), "model_ema.a": struct.pack("<f", 2)})
    assert "a.weight holds 70000" in convert(out("big"), out("no"), "--precision", "fp16", code=1)
    assert not os.path.exists(out("no"))
    convert(out("big"), out("pruned"), "--prune")
    assert list(read(out("pruned"))[1]) == ["a.weight"]

    # the picture of a converted checkpoint is the picture of the checkpoint, to the bit
    shutil.copytree(DATA + "/models/tokenizer", folder + "/tokenizer")

    def draw(model, *more):
        done = subprocess.run([KILN, "generate", "-m", model, "-p", "a photo of the red house", "-W", "64", "-H", "64", "-s", "2",
                               "--seed", "3", "-q", "--no-provenance", "-o", folder + "/one.png", *more],
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return open(folder + "/one.png", "rb").read()

    def part(name, component):
        file = "model" if component.startswith("text") else "diffusion_pytorch_model"
        return read("%s/%s/%s.safetensors" % (name, component, file))[1]

    assert draw(single) == draw(out("same"))

    # one file <-> a folder of diffusers: the recorded folders were written by diffusers itself
    for kind in ("sd1", "sd2", "sdxl", "sd2v", "inpaint"):
        made, there = folder + "/" + kind, DATA + "/models/" + kind
        file = there + ".safetensors" if os.path.exists(there + ".safetensors") else None
        convert(there, out(kind + "-single"))
        if file:  # what the original single file holds, beside what nobody reads
            one, other = read(file)[1], read(out(kind + "-single"))[1]
            idle = {k for k in one if k.endswith("position_ids") or k == "alphas_cumprod" or ".resblocks.3." in k}
            assert one.keys() - other.keys() <= idle and not other.keys() - one.keys(), kind
            assert all(other[k] == one[k] for k in one.keys() - idle), kind
        convert(file or out(kind + "-single"), made, "--to", "folder")
        parts = [c for c in sorted(os.listdir(there)) if c != "scheduler"]
        for c in parts:
            assert part(made, c) == part(there, c), (kind, c)
            ours, theirs = (json.load(open("%s/%s/config.json" % (d, c))) for d in (made, there))
            same = {k for k in ours.keys() & theirs.keys() if k not in
                    ("sample_size", "attention_head_dim", "transformer_layers_per_block", "upcast_attention", "pad_token_id",
                     "architectures")}
            assert len(same) > 8 and all(ours[k] == theirs[k] for k in same), (kind, c, [k for k in same if ours[k] != theirs[k]])
        for name in ("vocab.json", "merges.txt"):
            ours, theirs = (open(d + "/tokenizer/" + name).read() for d in (made, DATA + "/models"))
            assert ours == theirs if name == "merges.txt" else json.loads(ours) == json.loads(theirs)
        assert json.load(open(made + "/model_index.json"))["_class_name"].startswith("StableDiffusion")
        if kind != "inpaint":
            assert len({draw(m) for m in (there, made, out(kind + "-single"))}) == 1, kind

    # an adapter merged into a checkpoint: what is written is W + strength alpha/rank up down
    def matrix(entry):
        kind, shape, data = entry
        numbers = struct.unpack("<%d%s" % (len(data) // (4 if kind == "F32" else 2), "f" if kind == "F32" else "e"), data)
        columns = len(numbers) // shape[0]
        return [numbers[i * columns:(i + 1) * columns] for i in range(shape[0])]

    convert(single, out("merged"), "--lora", lora + ":0.5", "--precision", "fp32")
    base, merged, pairs = read(single)[1], read(out("merged"))[1], read(lora)[1]
    for place, name in (("cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.k_proj.weight",
                         "lora_te_text_model_encoder_layers_0_self_attn_k_proj"),
                        ("model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight",
                         "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q")):
        down, up = (matrix(pairs["%s.lora_%s.weight" % (name, x)]) for x in ("down", "up"))
        alpha = matrix((pairs[name + ".alpha"][0], [1], pairs[name + ".alpha"][2]))[0][0]
        changed, written = 0, matrix(merged[place])
        for i, row in enumerate(matrix(base[place])):
            for j, w in enumerate(row):
                want = w + 0.5 * alpha / len(down) * sum(up[i][r] * down[r][j] for r in range(len(down)))
                assert abs(written[i][j] - want) < 1e-5, (place, i, j)
                changed = max(changed, abs(want - w))
        assert changed > 1e-3, changed
    assert merged.keys() == {k for k in base if not k.endswith("position_ids") and k != "alphas_cumprod"}
    sentence = convert(single, out("no"), "--lora", DATA + "/lora/kohya-sdxl.safetensors", code=1)
    assert "was made for SDXL" in sentence and not os.path.exists(out("no")), sentence
    assert "exists already" in convert(single, folder + "/sd1", "--to", "folder", code=1)
    assert "holds no UNet" in convert(lora, folder + "/x", "--to", "folder", code=1)

    # a LoRA under other names draws the same picture, to the bit; there and back nothing is lost
    for kind, name in (("sd1", "kohya"), ("sdxl", "kohya-sdxl"), ("sd1", "peft")):
        model, given = DATA + "/models/" + kind, DATA + "/lora/%s.safetensors" % name
        convert(given, out("as-peft"), "--to", "peft")
        convert(out("as-peft"), out("as-kohya"), "--to", "kohya")
        assert all(k.startswith(("unet.", "text_encoder")) for k in read(out("as-peft"))[1])
        assert all(k.startswith(("lora_unet_", "lora_te")) for k in read(out("as-kohya"))[1])
        if name == "peft":  # without its adapter_config.json alpha is the rank
            assert read(out("as-peft"))[1] == read(given)[1]
        pictures = {draw(model, "--lora", lora) for lora in (given, out("as-peft"), out("as-kohya"))}
        assert len(pictures) == 1 and draw(model) not in pictures, name
    # the original code's names, which SDXL's LoRAs use
    named = {"input_blocks_4_1_transformer_blocks_0_attn1_to_q": "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
             "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
             "input_blocks_8_0_emb_layers_1": "down_blocks.2.resnets.1.time_emb_proj",
             "middle_block_1_transformer_blocks_9_ff_net_0_proj": "mid_block.attentions.0.transformer_blocks.9.ff.net.0.proj",
             "middle_block_2_in_layers_2": "mid_block.resnets.1.conv1",
             "output_blocks_2_1_proj_in": "up_blocks.0.attentions.2.proj_in",
             "output_blocks_2_2_conv": "up_blocks.0.upsamplers.0.conv",
             "output_blocks_5_0_skip_connection": "up_blocks.1.resnets.2.conv_shortcut",
             "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_out_0":
                 "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0"}
    pair = struct.pack("<2f", 1, 2)
    write(out("ldm"), {"lora_unet_%s.lora_%s.weight" % (n, x): pair for n in named for x in ("down", "up")})
    convert(out("ldm"), out("hf"), "--to", "peft")
    assert set(read(out("hf"))[1]) == {"unet.%s.lora_%s.weight" % (n, x) for n in named.values() for x in "AB"}
    # other forms: kohya's and LyCORIS' names have all but PEFT's own, PEFT's are for LoRA and DoRA by row
    lora = lambda name: DATA + "/lora/%s.safetensors" % name
    more = lambda name: DATA + "/../mixed/lora/%s/adapter_model.safetensors" % name
    family = lambda name: DATA + "/../family/lora/%s.safetensors" % name
    forms = ((lora("dora-peft"), "DoRA"), (more("peft-loha"), "LoHa"), (more("peft-lokr"), "LoKr"), (lora("locon"), "LoCon with a core"),
             (lora("diff"), "a full difference"), (family("glora"), "GLoRA"), (family("boft"), "BOFT"))
    for given, form in forms:
        convert(given, out("anew"), "--to", "kohya")
        pictures = {draw(DATA + "/models/sd1", "--lora", p) for p in (given, out("anew"))}
        assert len(pictures) == 1, form
        if form == "DoRA":
            convert(out("anew"), out("back"), "--to", "peft")
            assert read(out("back"))[1] == read(given)[1], "there and back"
            continue
        sentence = convert(given, out("no"), "--to", "peft", code=1)
        assert "is %s" % form in sentence and not os.path.exists(out("no")), sentence
    assert "DoRA by input column" in convert(lora("dora"), out("no"), "--to", "peft", code=1)
    for key, form in (("oft_R.weight", "OFT"), ("boft_R", "BOFT"), ("vera_lambda_b", "VeRA")):
        write(out("turn"), {"base_model.model.mid_block.attentions.0.proj_in." + key: struct.pack("<2f", 1, 2)})
        for to in ("kohya", "peft"):
            sentence = convert(out("turn"), out("no"), "--to", to, code=1)
            assert "is %s of PEFT" % form in sentence, sentence
    assert "(IA)^3 of PEFT" in convert(family("ia3-peft"), out("no"), "--to", "kohya", code=1)

    assert "usage" in convert(single, folder + "/x.ckpt", code=2)
    assert "usage" in convert(single, out("x"), "--precision", "fp8", code=2)
    with open(folder + "/page.ckpt", "w") as f:
        f.write("<!DOCTYPE html><html>")
    assert "web page" in convert(folder + "/page.ckpt", out("x"), code=1)
    convert(folder + "/nothing.ckpt", out("x"), code=1)
print("convert: ok")
