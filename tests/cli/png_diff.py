"""png_diff.py A.png B.png - the largest difference of two 8-bit RGB pictures, 0 to 255.

Standard library only; reads what the tests write: no interlace, no palette, no alpha.
"""
import struct
import sys
import zlib


def read(path):
    data = open(path, "rb").read()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", path + " is no PNG"
    at, pixels = 8, b""
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + n]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", body)
            assert (depth, colour, interlace) == (8, 2, 0), path + " is not plain 8-bit RGB"
        elif kind == b"IDAT":
            pixels += body
        at += 12 + n
    return width, height, unfilter(zlib.decompress(pixels), width * 3, height)


def paeth(a, b, c):
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    return a if pa <= pb and pa <= pc else b if pb <= pc else c


def unfilter(raw, stride, height):
    rows, last = [], bytearray(stride)
    for y in range(height):
        kind = raw[y * (stride + 1)]
        row = bytearray(raw[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        for x in range(stride):
            a = row[x - 3] if x >= 3 else 0
            b = last[x]
            c = last[x - 3] if x >= 3 else 0
            row[x] = (row[x] + (0, a, b, (a + b) // 2, paeth(a, b, c))[kind]) & 255
        rows.append(row)
        last = row
    return b"".join(rows)


if __name__ == "__main__":
    one, two = read(sys.argv[1]), read(sys.argv[2])
    assert one[:2] == two[:2], "sizes differ"
    print(max(abs(a - b) for a, b in zip(one[2], two[2])))
