#!/usr/bin/env python3
"""Checksums of torch.randn on a CPU, for tests/unit/test_randn.c.

usage: make_randn.py OUT.json        needs torch on a CPU with AVX2
"""
import json
import sys

import torch

SEEDS = [0, 1, 42, 2**32 - 1, 2**32 + 1, 2**63]
ZERO_SEEDS = [1753191, 2934939]  # a radius of -0 among the first 8 of 16 values
COUNTS = list(range(1, 41)) + [100, 1000, 4097, 65536 + 5]


def fnv1a(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def main():
    rows = []
    for seed, n in [(s, n) for s in SEEDS for n in COUNTS] + [(s, 16) for s in ZERO_SEEDS]:
        generator = torch.Generator("cpu").manual_seed(seed if seed < 2**63 else seed - 2**64)
        x = torch.randn(n, generator=generator).numpy()
        rows.append({"seed": str(seed), "n": n, "fnv1a": f"{fnv1a(x.tobytes()):016x}", "first": float(x[0]),
                     "last": float(x[-1])})
    head = {"made_by": "tests/ref/make_randn.py", "torch": torch.__version__,
            "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    with open(sys.argv[1], "w") as out:
        out.write(json.dumps(head)[:-1] + ', "rows": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]}\n")


main()
