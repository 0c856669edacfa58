#!/usr/bin/env python3
"""The peers of `rankpool bench` on a GPU: diffusers and transformers, eager or compiled.

usage: peer_gpu.py --config DIR [--compile] [--only NAMES] [--repeat N] [--seconds S] [--tokens N]
                   [--text-tokens N] [--size PX]

Networks of a pipeline folder's JSON configs with random bf16 weights, batch 1. One JSON line for each
number as soon as it is there: {"peer", "what", "median_ms", "min_ms", "max_ms", "n", "first_s"};
first_s is the first call, with compilation.

  unit_ms         one evaluation of the transformer
  step_ms         two evaluations, as diffusers' pipeline does guidance
  decode_ms       latents to picture
  encode_ms       text encoder, the hidden state before the last
  step_batch2_ms  both evaluations as a batch of two
"""
import argparse
import gc
import json
import os
import statistics
import time

import torch

NAMES = ["unit_ms", "step_ms", "decode_ms", "encode_ms", "step_batch2_ms"]
WARM_UP = 5


def config_of(folder, part):
    with open(os.path.join(folder, part, "config.json")) as f:
        return json.load(f)


def randomize(model):
    """Small matrices, so that nothing overflows; norms and biases as they begin."""
    generator = torch.Generator("cuda").manual_seed(1)
    for p in model.parameters():
        if p.ndim >= 2:
            p.data.normal_(0, 0.02, generator=generator)
    return model.to(torch.bfloat16).eval().requires_grad_(False)


def noise(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def transformer_net(a):
    """On the current device; the same on every GPU, with the biases that it begins with."""
    from diffusers import Lumina2Transformer2DModel
    torch.manual_seed(0)
    with torch.device("cuda"):
        net = Lumina2Transformer2DModel.from_config(config_of(a.config, "transformer"))
    return randomize(net)


def transformer_calls(a):
    net = transformer_net(a)
    side, dim, channels = a.size // 8, net.config.cap_feat_dim, net.config.in_channels
    call = torch.compile(net) if a.compile else net
    inputs = {}
    for batch in (1, 2):
        inputs[batch] = (noise(batch, channels, side, side),
                         torch.full((batch,), 0.5, device="cuda", dtype=torch.bfloat16),
                         noise(batch, a.tokens, dim),
                         torch.ones(batch, a.tokens, device="cuda", dtype=torch.bool))

    def run(batch):
        return call(*inputs[batch], return_dict=False)[0]

    def two():
        run(1)
        return run(1)

    return {"unit_ms": lambda: run(1), "step_ms": two, "step_batch2_ms": lambda: run(2)}


def vae_calls(a):
    from diffusers import AutoencoderKL
    with torch.device("cuda"):
        net = AutoencoderKL.from_config(config_of(a.config, "vae"))
    net = randomize(net)
    call = torch.compile(net.decode) if a.compile else net.decode
    z = noise(1, net.config.latent_channels, a.size // 8, a.size // 8)
    return {"decode_ms": lambda: call(z, return_dict=False)[0]}


def encoder_calls(a):
    from transformers import Gemma2Config, Gemma2Model
    config = Gemma2Config(**config_of(a.config, "text_encoder"))
    config._attn_implementation = "sdpa"
    with torch.device("cuda"):
        net = Gemma2Model(config)
    net = randomize(net)
    call = torch.compile(net) if a.compile else net
    ids = torch.randint(7, config.vocab_size, (1, a.text_tokens), device="cuda")
    mask = torch.ones_like(ids)
    return {"encode_ms": lambda: call(ids, attention_mask=mask, use_cache=False,
                                      output_hidden_states=True).hidden_states[-2]}


def measure(call, repeat, seconds):
    begin = time.perf_counter()
    out = call()
    torch.cuda.synchronize()
    first = time.perf_counter() - begin
    assert torch.isfinite(out).all(), "not finite"
    for _ in range(WARM_UP):
        call()
    times = []
    begin = time.perf_counter()
    while len(times) < repeat or time.perf_counter() - begin < 1:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
        if time.perf_counter() - begin > seconds:
            break
    return first, times


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--config", required=True)
    p.add_argument("--compile", action="store_true")
    p.add_argument("--only", default=",".join(NAMES))
    p.add_argument("--repeat", type=int, default=20)
    p.add_argument("--seconds", type=float, default=30)
    p.add_argument("--tokens", type=int, default=128)
    p.add_argument("--text-tokens", type=int, default=256)
    p.add_argument("--size", type=int, default=1024)
    a = p.parse_args()
    wanted = a.only.split(",")
    peer = "compile" if a.compile else "eager"

    import diffusers
    import transformers
    print(json.dumps({"peer": peer, "device": torch.cuda.get_device_name(), "torch": torch.__version__,
                      "diffusers": diffusers.__version__, "transformers": transformers.__version__}), flush=True)
    # the batch of two compiles once more, so it comes last: a time limit then costs the least
    groups = [(transformer_calls, ["unit_ms", "step_ms"]), (vae_calls, ["decode_ms"]),
              (encoder_calls, ["encode_ms"]), (transformer_calls, ["step_batch2_ms"])]
    for make, names in groups:
        names = [n for n in names if n in wanted]
        if not names:
            continue
        try:
            with torch.inference_mode():
                calls = make(a)
                for name in names:
                    first, t = measure(calls[name], a.repeat, a.seconds)
                    print(json.dumps({"peer": peer, "what": name, "median_ms": round(statistics.median(t), 3),
                                      "min_ms": round(min(t), 3), "max_ms": round(max(t), 3), "n": len(t),
                                      "first_s": round(first, 1)}), flush=True)
        except Exception as e:  # one network that a version cannot build must not cost the others
            print(json.dumps({"peer": peer, "what": names[0], "failed": f"{type(e).__name__}: {e}"[:300]}), flush=True)
        calls = None
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
