"""Goldens of LoRA training with text encoders (T1 with a tiny CLIP-L; T2 with a tiny CLIP-L and a tiny bigG), and of v-prediction
(SD2's target on T1), in double by torch, diffusers, transformers and PEFT.

    python tests/golden/make_text_training.py tests/golden/data

As make_lora_training.py, but the UNet's conditions come from the encoders: ids 998, 3, 141, 59, 26, 5, 999, then the padding
(999; bigG: 0). SD1 takes the last layer with its norm, SDXL the one before the last of both without, and the pooled
vector of the second."""
import re
import sys
import zlib

import torch
from peft import LoraConfig, get_peft_model
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from make_lora_training import RANK, Run, golden_weight, write_gradients, write_losses

WORDS = [998, 3, 141, 59, 26, 5, 999]


class TextRun(Run):
    def __init__(self, sdxl):
        super().__init__(sdxl)
        self.encoders, self.text_names = [], {}
        for i, (width, act, kind) in enumerate([(32, "quick_gelu", CLIPTextModel), (48, "gelu", CLIPTextModelWithProjection)] if sdxl
                                               else [(48, "quick_gelu", CLIPTextModel)]):
            encoder = kind(CLIPTextConfig(vocab_size=1000, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=3,
                                          num_attention_heads=4, max_position_embeddings=77, hidden_act=act, projection_dim=48,
                                          eos_token_id=999, bos_token_id=998, pad_token_id=1))
            full = lambda n: n if n.startswith(("text_model.", "text_projection")) else "text_model." + n
            prefix = f"text{i}."
            encoder.load_state_dict({k: golden_weight(prefix + full(k), tuple(v.shape)) if v.is_floating_point() else v
                                     for k, v in encoder.state_dict().items()})
            encoder = encoder.double()
            layers = [n for n, m in encoder.named_modules() if isinstance(m, torch.nn.Linear) and ".layers." in "." + n]
            kohya = f"lora_te{i + 1}_" if sdxl else "lora_te_"
            self.text_names[i] = {n: kohya + full(n).replace(".", "_") for n in layers}
            self.encoders.append(get_peft_model(encoder, LoraConfig(r=RANK, lora_alpha=RANK, target_modules=layers)))

    def matrices(self):
        yield from super().matrices()
        for i, encoder in enumerate(self.encoders):
            for name, p in encoder.named_parameters():
                m = re.match(r"base_model\.model\.(.*)\.lora_([AB])\.default\.weight", name)
                if m:
                    yield f"{self.text_names[i][m[1]]}.lora_{'down' if m[2] == 'A' else 'up'}.weight", p

    def conditions(self):
        states = []
        for i, encoder in enumerate(self.encoders):
            ids = torch.tensor([WORDS + [0 if i else 999] * (77 - len(WORDS))])
            out = encoder(input_ids=ids, output_hidden_states=True)
            states.append(out.hidden_states[-2] if self.sdxl else out.last_hidden_state)
        if not self.sdxl:
            return states[0], None
        return torch.cat(states, -1), dict(text_embeds=out.text_embeds, time_ids=self.added["time_ids"])


folder = sys.argv[1]
for sdxl in (False, True):
    family = "sdxl" if sdxl else "sd1"
    run = TextRun(sdxl)
    write_gradients(run, f"{folder}/text_gradients_{family}.txt", "lora_te")
    write_losses(run, f"{folder}/text_losses_{family}.txt")
write_losses(Run(False, True), f"{folder}/lora_losses_sd2v.txt")
