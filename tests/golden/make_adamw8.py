"""Golden of AdamW with 8-bit moments: ten updates of 5,000 parameters by bitsandbytes' AdamW8bit on the CPU.

    python tests/golden/make_adamw8.py tests/golden/data/adamw8.txt

Parameters R(1); the gradient of step k is R(10 + k), whose elements shrink by 10^(-6 i / 5000), so that blocks and
values in a block span decades. Ten lines with its rounding replaced by the exactly nearest value of the table, ten as
it is: its CPU rounding takes the second nearest for some 3 % of the second moments. A line: the norm of the parameters, their product with R(7), and the same of what the
two moments stand for."""
import sys

import torch
import bitsandbytes as bnb
from bitsandbytes import functional as F
from bitsandbytes.backends.cpu import ops

COUNT = 5000


def normal(seed):
    return torch.randn(COUNT, generator=torch.Generator("cpu").manual_seed(seed))


def nearest(values, code, absmax_out, out, blocksize):
    """The published rule: the nearest value of the table."""
    padded = torch.cat([values, torch.zeros(-len(values) % blocksize)]).view(-1, blocksize)
    top = padded.abs().max(1).values
    unit = (padded / top[:, None]).flatten()[:len(values)]
    out.copy_((unit[:, None].double() - code[None].double()).abs().argmin(1).to(torch.uint8))
    absmax_out.copy_(top)


def rows():
    p = torch.nn.Parameter(normal(1).clone())
    optimizer = bnb.optim.AdamW8bit([p], lr=1e-2, weight_decay=.01, min_8bit_size=4096)
    shrink = 10 ** (-6 * torch.arange(COUNT, dtype=torch.float64) / COUNT)
    random = normal(7).double()
    for k in range(10):
        p.grad = (normal(10 + k).double() * shrink).float()
        optimizer.step()
        s = optimizer.state[p]
        row = []
        for x in (p.data, F.dequantize_blockwise(s["state1"], absmax=s["absmax1"], code=s["qmap1"], blocksize=256),
                  F.dequantize_blockwise(s["state2"], absmax=s["absmax2"], code=s["qmap2"], blocksize=256)):
            row += [x.double().norm().item(), (x.double() * random).sum().item()]
        yield " ".join(f"{x:.9g}" for x in row) + "\n"


with open(sys.argv[1], "w") as f:
    ops._quant_blockwise_fp32_direct, stock = nearest, ops._quant_blockwise_fp32_direct
    f.writelines(rows())
    ops._quant_blockwise_fp32_direct = stock
    f.writelines(rows())
