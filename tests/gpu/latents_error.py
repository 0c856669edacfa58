"""latents_error.py - what one unit's output differs by, from latents before and after one step.

noise LIKE OUT [SEED]    normal(0, 1) latents of LIKE's shape, to start from
compare A B START        |A - B| / |B - START|: the step from START to B is a multiple of B's
                         prediction, so this is the relative error of A's
"""
import json
import math
import random
import struct
import sys
from array import array


def read(path):
    with open(path, "rb") as file:
        head = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))["latents"]
        assert head["dtype"] == "F32", head["dtype"]
        data = file.read()[slice(*head["data_offsets"])]
    return head["shape"], array("f", data)


def noise(like, out, seed=7):
    shape, _ = read(like)
    draw = random.Random(int(seed))
    data = array("f", (draw.gauss(0, 1) for _ in range(math.prod(shape)))).tobytes()
    head = json.dumps({"latents": {"dtype": "F32", "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    head += b" " * (-len(head) % 8)
    with open(out, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head + data)


def compare(one, two, start):
    (shape, a), (_, b), (_, s) = read(one), read(two), read(start)
    assert len(a) == len(b) == len(s), shape
    wrong = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)))
    step = math.sqrt(sum((x - y) ** 2 for x, y in zip(b, s)))
    print(f"{wrong / step:.2e}")


{"noise": noise, "compare": compare}[sys.argv[1]](*sys.argv[2:])
