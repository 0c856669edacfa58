#!/usr/bin/env python3
"""Guided predictions, for tests/unit/test_guide.c.

usage: make_guide.py OUT.json        needs diffusers, torch
cfg: the lines of Lumina2Pipeline on torch tensors; cfg_zero_star: diffusers' own guider, first steps not zeroed.
"""
import json
import sys

import diffusers
import torch
from diffusers.guiders import ClassifierFreeZeroStarGuidance

C, H, W = 2, 3, 8


def main():
    torch.manual_seed(3)
    cond = torch.randn(1, C, H, W)
    uncond = 0.5 * cond + torch.randn(1, C, H, W)
    rows = []
    for scale in (1.5, 4.0, 7.3):
        plain = uncond + scale * (cond - uncond)
        norm = plain * (torch.norm(cond, dim=-1, keepdim=True) / torch.norm(plain, dim=-1, keepdim=True))
        guider = ClassifierFreeZeroStarGuidance(guidance_scale=scale, zero_init_steps=0)
        guider.set_state(step=1, num_inference_steps=10, timestep=torch.tensor(500.0))
        star = guider.forward(cond, uncond).pred
        for name, renorm, out in (("cfg", False, plain), ("cfg", True, norm), ("cfg_zero_star", False, star)):
            rows.append({"guider": name, "scale": scale, "renorm": renorm, "out": out.flatten().tolist()})
    head = {"made_by": "tests/ref/make_guide.py", "diffusers": diffusers.__version__, "torch": torch.__version__,
            "shape": [C, H, W], "cond": cond.flatten().tolist(), "uncond": uncond.flatten().tolist()}
    with open(sys.argv[1], "w") as out:
        out.write(json.dumps(head)[:-1] + ', "rows": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]}\n")


main()
