"""Writes tests/unit/data/resize_pillow.inc: checksums of Pillow's resampling of a painted picture.

Needs numpy and Pillow 11 (13 changed the order of the two directions); only for people who change the cases."""
import numpy as np
from PIL import Image

h, w = 17, 23
y, x, c = np.mgrid[0:h, 0:w, 0:3]
a = ((x * 7 + y * 13 + c * 50) & 255).astype(np.uint8)
filters = [("BOX", Image.BOX), ("BILINEAR", Image.BILINEAR), ("BICUBIC", Image.BICUBIC),
           ("LANCZOS", Image.LANCZOS)]
for name, f in filters:
    for size in [(23, 17), (46, 34), (11, 8), (64, 5), (7, 40)]:
        s = 5381
        for v in np.asarray(Image.fromarray(a).resize(size, f)).reshape(-1):
            s = (s * 33 + int(v)) & 0xFFFFFFFF
        print(f"        {{{size[0]}, {size[1]}, RESIZE_{name}, {s}}},")
