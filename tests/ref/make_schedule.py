#!/usr/bin/env python3
"""Noise levels as diffusers' scheduler and Lumina2Pipeline make them, for tests/unit/test_schedule.c.

usage: make_schedule.py OUT.json     needs diffusers, numpy, torch
Every case: the scheduler's config, the sequence length given to calculate_shift, and the bits of
scheduler.sigmas as unsigned 32-bit numbers for several step counts.
"""
import json
import sys

import diffusers
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.lumina2.pipeline_lumina2 import calculate_shift

STEPS = [1, 2, 4, 20, 30, 50]
DYNAMIC = {"use_dynamic_shifting": True}
LINEAR = {"use_dynamic_shifting": True, "time_shift_type": "linear"}
CASES = [
    ({"shift": 6.0}, 16), ({"shift": 1.0}, 16), ({"shift": 3.3}, 16), ({"shift": 1.1}, 16), ({"shift": 0.7}, 16),
    (DYNAMIC, 16), (DYNAMIC, 1024), (DYNAMIC, 4096),
    ({**DYNAMIC, "base_shift": 0.3, "max_shift": 1.7, "base_image_seq_len": 128, "max_image_seq_len": 8192}, 700),
    (LINEAR, 16), (LINEAR, 3000),
    ({"shift": 3.0, "shift_terminal": 0.1}, 16), ({**DYNAMIC, "shift_terminal": 0.02}, 1024),
    ({"shift": 6.0, "use_karras_sigmas": True}, 16), ({**DYNAMIC, "use_karras_sigmas": True}, 512),
    ({"shift": 6.0, "use_exponential_sigmas": True}, 16), ({**LINEAR, "use_exponential_sigmas": True}, 2048),
    ({"shift": 2.5, "shift_terminal": 0.05, "use_karras_sigmas": True}, 16),
]


def sigmas(config, seq_len, n):
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    get = scheduler.config.get
    mu = calculate_shift(seq_len, get("base_image_seq_len", 256), get("max_image_seq_len", 4096),
                         get("base_shift", 0.5), get("max_shift", 1.15))
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / n, n), mu=mu)
    assert scheduler.sigmas.dtype == torch.float32
    return scheduler.sigmas.numpy()


def main():
    rows = []
    for config, seq_len in CASES:
        for n in STEPS:
            if n == 1 and config.get("shift_terminal"):
                continue  # 0 / 0 there
            bits = sigmas(config, seq_len, n).view(np.uint32).tolist()
            rows.append({"config": {"_class_name": "FlowMatchEulerDiscreteScheduler", **config}, "seq_len": seq_len,
                         "steps": n, "bits": bits})
    head = {"made_by": "tests/ref/make_schedule.py", "diffusers": diffusers.__version__, "numpy": np.__version__}
    with open(sys.argv[1], "w") as out:
        out.write(json.dumps(head)[:-1] + ', "rows": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]}\n")


main()
