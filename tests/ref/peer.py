#!/usr/bin/env python3
"""The peer of `rankpool bench`: the same sampling loop in PyTorch, float32, on the CPU.

usage: peer.py [--threads N] [--steps N] [--repeat N] [--compile] [--prompt TEXT] [--json]

Network: share/models/train/model.py (parameter names of diffusers, no padding: every branch is one
evaluation of batch 1 with its own caption length, as rankpool's units are). Weights and embeddings are
the shipped model's. Works with Debian's python3-torch (1.13) and with PyPI's torch; --compile uses
torch.compile where there is one. Prints iterations per second of the loop, the median of the runs.
"""
import argparse
import json
import os
import statistics
import sys
import time

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "share/models/train"))
import model as M  # noqa: E402

MODEL = os.path.join(ROOT, "share/models/emoji-lumina2")
REFERENCE = os.path.join(ROOT, "tests/data/emoji-lumina2-reference/p0.safetensors")
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "I32": torch.int32, "U8": torch.uint8}


def load(path):
    """safetensors without the package: 8 bytes length, JSON, data."""
    with open(path, "rb") as f:
        raw = f.read()
    n = int.from_bytes(raw[:8], "little")
    head = json.loads(raw[8:8 + n])
    head.pop("__metadata__", None)
    out = {}
    for name, t in head.items():
        a, b = t["data_offsets"]
        data = torch.frombuffer(bytearray(raw[8 + n + a:8 + n + b]), dtype=DTYPES[t["dtype"]])
        out[name] = data.reshape(t["shape"])
    return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--steps", type=int, default=30)
    p.add_argument("--repeat", type=int, default=5)
    p.add_argument("--compile", action="store_true")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    torch.set_num_threads(a.threads)

    dit = M.DiT()
    state = {k: v.float() for k, v in load(os.path.join(MODEL, "transformer/diffusion_pytorch_model.safetensors")).items()}
    dit.load_state_dict(state)
    dit.eval()
    if a.compile:
        M.compile_all("block", dynamic=True)
    ref = load(REFERENCE)
    cond, uncond = ref["prompt_embeds"][None], ref["negative_prompt_embeds"][None]
    masks = [torch.ones(e.shape[:2], dtype=torch.bool) for e in (cond, uncond)]
    s = torch.linspace(1, 1 / a.steps, a.steps)
    s = torch.cat([6 * s / (1 + 5 * s), torch.zeros(1)])

    def run():
        x = ref["latents_init"][None].clone()
        for i in range(a.steps):
            t = 1 - s[i:i + 1]
            c, u = dit(x, t, cond, masks[0]), dit(x, t, uncond, masks[1])
            v = u + 4.0 * (c - u)
            v = v * (c.norm(dim=-1, keepdim=True) / v.norm(dim=-1, keepdim=True))
            x = x - (s[i + 1] - s[i]) * v
        return x

    with torch.no_grad():
        run()
        seconds = []
        for _ in range(a.repeat):
            begin = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - begin)
    m = statistics.median(seconds)
    if a.json:
        print(json.dumps({"torch": torch.__version__, "threads": a.threads, "compile": a.compile,
                          "steps": a.steps, "seconds": seconds, "steps_per_second": a.steps / m}))
    else:
        print(f"torch {torch.__version__}{' compiled' if a.compile else ''}, {a.threads} thread(s): "
              f"{a.steps / m:.2f} it/s, {m:.3f} s (median of {a.repeat})")


main()
