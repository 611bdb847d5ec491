#!/usr/bin/env python3
"""Writes unicode_tables.c: what the CLIP tokenizer needs to know of Unicode.

usage: make_unicode_tables.py > unicode_tables.c && clang-format -i unicode_tables.c
"""
import sys
import unicodedata as u

ALL = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def ranges(points):
    out = []
    for c in points:
        if out and c == out[-1][1] + 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def emit(name, kind, rows):
    print("const struct %s %s[] = {" % (kind, name))
    print(", ".join("{" + ", ".join(hex(v) if v >= 0 else str(v) for v in r) + "}" for r in rows) + "};")
    print("const size_t %s_count = %d;\n" % (name, len(rows)))


# small letters: runs of equal distance, every code point (step 1) or every other (step 2)
lower = []
for c in ALL:
    t = chr(c).lower()
    if len(t) == 1 and ord(t) != c:
        delta = ord(t) - c
        last = lower[-1] if lower else None
        if last and last[2] == delta and c - last[1] in (1, 2) and (last[0] == last[1] or last[3] == c - last[1]):
            last[3] = c - last[1]
            last[1] = c
        else:
            lower.append([c, c, delta, 1])

# canonical decompositions into one or two, without Hangul (computed)
decompose, compose = [], []
for c in ALL:
    d = u.decomposition(chr(c))
    if d and not d.startswith("<") and not 0xAC00 <= c <= 0xD7A3:
        parts = [int(x, 16) for x in d.split()]
        decompose.append([c, parts[0], parts[1] if len(parts) > 1 else 0])
        if len(parts) == 2 and u.normalize("NFC", chr(c)) == chr(c):
            compose.append([parts[0], parts[1], c])
compose.sort()
classes = []
for c in ALL:
    k = u.combining(chr(c))
    if k:
        if classes and classes[-1][1] == c - 1 and classes[-1][2] == k:
            classes[-1][1] = c
        else:
            classes.append([c, c, k])

print("/* Made by make_unicode_tables.py from Unicode %s. */" % u.unidata_version)
print('#include "diffusion/text/unicode_tables.h"\n')
emit("unicode_letters", "code_range", ranges(c for c in ALL if u.category(chr(c))[0] == "L"))
emit("unicode_numbers", "code_range", ranges(c for c in ALL if u.category(chr(c))[0] == "N"))
emit("unicode_small", "code_shift", lower)
emit("unicode_decompositions", "code_pair", decompose)
emit("unicode_compositions", "code_join", compose)
emit("unicode_classes", "code_class", classes)
print("entries", [len(x) for x in (lower, decompose, compose, classes)], file=sys.stderr)
