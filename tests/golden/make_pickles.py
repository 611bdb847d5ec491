#!/usr/bin/env python3
"""Makes the small torch files of tests/unit/test_pickle.c.

usage: make_pickles.py [FOLDER]     (needs torch)
"""
import collections
import io
import os
import pickle
import sys
import zipfile

import torch

folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "../unit/data/pickle")
os.makedirs(folder, exist_ok=True)


def path(name):
    return os.path.join(folder, name)


base = torch.arange(24, dtype=torch.float32)
state = collections.OrderedDict(
    plain=base.reshape(2, 3, 4), turned=base.reshape(4, 6).T, cut=base[5:11], half=torch.tensor([1.5, -2]).half(),
    whole=torch.tensor([3, 4]), scalar=torch.tensor(7.0), parameter=torch.nn.Parameter(torch.ones(2)))
torch.save({"state_dict": state, "epoch": 3, "lr": 1e-4, "name": "x"}, path("zip.pt"))
torch.save({"state_dict": state, "epoch": 3}, path("legacy.pt"), _use_new_zipfile_serialization=False)
torch.save({"params_ema": {"body.0.weight": base.reshape(4, 6)}, "params": {"no": base}}, path("nested.pt"))
torch.save({"string_to_param": {"*": base.reshape(3, 8)}, "name": "word"}, path("embedding.pt"))


class Evil:
    def __reduce__(self):
        return (os.system, ("true",))


torch.save({"state_dict": state, "callback": Evil()}, path("evil.pt"))
with open(path("bare.pkl"), "wb") as f:
    pickle.dump({"a": 1}, f, protocol=2)

# the same archive, compressed: torch never writes that
with zipfile.ZipFile(path("zip.pt")) as z, zipfile.ZipFile(path("deflated.pt"), "w", zipfile.ZIP_DEFLATED) as out:
    for n in z.namelist():
        out.writestr(n, z.read(n))
# a tensor that reaches past its storage
with zipfile.ZipFile(path("nested.pt")) as z, zipfile.ZipFile(path("past.pt"), "w") as out:
    for n in z.namelist():
        data = z.read(n)
        if n.endswith("data.pkl"):
            data = data.replace(b"K\x04K\x06\x86", b"K\x05K\x06\x86")
        out.writestr(n, data)
with zipfile.ZipFile(path("pictures.zip"), "w") as out:
    out.writestr("a.txt", "no checkpoint")
