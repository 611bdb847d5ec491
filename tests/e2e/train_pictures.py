"""Pictures and archives for the tests of training, with nothing but the standard library."""
import random
import struct
import zipfile
import zlib


def png(path, width, height, seed=0):
    """A picture of soft blobs, RGB."""
    r = random.Random(seed)
    corner = [[r.randrange(256) for _ in range(3)] for _ in range(4)]
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        for x in range(width):
            u, v = x / width, y / height
            for c in range(3):
                a = corner[0][c] * (1 - u) + corner[1][c] * u
                b = corner[2][c] * (1 - u) + corner[3][c] * u
                rows.append(int(a * (1 - v) + b * v))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
                + chunk(b"IDAT", zlib.compress(bytes(rows), 6)) + chunk(b"IEND", b""))


def archive(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as f:
        for name, text in members.items():
            f.writestr(name, text)


def voc(picture, width, height, boxes):
    objects = "".join(f"\t<object>\n\t\t<name>{n}</name>\n\t\t<bndbox>\n\t\t\t<xmin>{x}</xmin>\n\t\t\t<ymin>{y}</ymin>\n"
                      f"\t\t\t<xmax>{x + w}</xmax>\n\t\t\t<ymax>{y + h}</ymax>\n\t\t</bndbox>\n\t</object>\n"
                      for n, x, y, w, h in boxes)
    return (f"<annotation>\n\t<folder>my-project</folder>\n\t<filename>{picture}</filename>\n\t<size>\n"
            f"\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n\t\t<depth>3</depth>\n\t</size>\n{objects}"
            "</annotation>\n")
