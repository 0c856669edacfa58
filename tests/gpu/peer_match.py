#!/usr/bin/env python3
"""A random Lumina2 pipeline, and the latents that diffusers makes with it on this GPU.

usage: peer_match.py make OUT_DIR --parts DIR [--config DIR] [--steps N] [--size PX]
       peer_match.py compare A.safetensors B.safetensors

make     OUT_DIR/model: the pipeline, bf16. Without --config its networks are small and shaped unlike the
         shipped model; with it they have the sizes of that folder's JSON configs. Tokenizer and scheduler
         come from --parts. Beside it, but for --steps 0: start.safetensors (first latents) and f32.safetensors,
         bf16.safetensors (what diffusers makes of them for the prompt, computing in that type).
compare  prints the relative L2 distance of both files' `latents`.
"""
import argparse
import json
import os
import pathlib
import shutil

import safetensors.torch
import torch

PROMPT, NEGATIVE, GUIDANCE = "a small red heart on a blue table", "blurry", 4.0


def randomize(model, seed):
    """Matrices small enough for any depth; norms and biases away from their neutral values."""
    generator = torch.Generator("cuda").manual_seed(seed)
    gemma = "Gemma" in type(model).__name__
    for name, p in model.named_parameters():
        p.data.normal_(0, 0.02, generator=generator)
        if p.ndim == 1 and name.endswith("weight") and not gemma:  # Gemma's norms are (1 + weight)
            p.data += 1
    return model.to(torch.bfloat16).eval().requires_grad_(False)


def small_networks():
    from diffusers import AutoencoderKL, Lumina2Transformer2DModel
    from transformers import Gemma2Config, Gemma2Model
    transformer = Lumina2Transformer2DModel(
        sample_size=32, patch_size=2, in_channels=8, hidden_size=320, num_layers=5, num_refiner_layers=1,
        num_attention_heads=5, num_kv_heads=1, multiple_of=64, ffn_dim_multiplier=None, norm_eps=1e-5,
        axes_dim_rope=[16, 24, 24], axes_lens=[300, 128, 128], cap_feat_dim=144)
    text = Gemma2Model(Gemma2Config(
        vocab_size=4096, hidden_size=144, intermediate_size=400, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=2, head_dim=32, query_pre_attn_scalar=32, sliding_window=64, attn_logit_softcapping=None,
        max_position_embeddings=512))
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[16, 32, 64, 64], layers_per_block=1, latent_channels=8, norm_num_groups=8, sample_size=256,
        scaling_factor=0.5, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False)
    return transformer, text, vae


def sized_networks(folder):
    from diffusers import AutoencoderKL, Lumina2Transformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    def config(part):
        with open(os.path.join(folder, part, "config.json")) as f:
            return json.load(f)
    text = config("text_encoder") | {"attn_logit_softcapping": None}
    return (Lumina2Transformer2DModel.from_config(config("transformer")), Gemma2Model(Gemma2Config(**text)),
            AutoencoderKL.from_config(config("vae")))


def draw(folder, start, dtype, a):
    """Read anew for every `dtype`: a pipeline that was cast to bf16 and back has rotary frequencies that were too."""
    from diffusers import Lumina2Pipeline
    pipe = Lumina2Pipeline.from_pretrained(folder, torch_dtype=dtype).to("cuda")
    pipe.set_progress_bar_config(disable=True)
    size = a.size or 8 * pipe.transformer.config.sample_size
    return pipe(PROMPT, negative_prompt=NEGATIVE, height=size, width=size, num_inference_steps=a.steps,
                guidance_scale=GUIDANCE, latents=start.to("cuda", dtype), output_type="latent",
                generator=torch.Generator("cpu").manual_seed(0)).images.float().cpu().contiguous()


@torch.no_grad()
def make(a):
    from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline
    from transformers import AutoTokenizer
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    with torch.device("cuda"):
        networks = sized_networks(a.config) if a.config else small_networks()
    transformer, text, vae = (randomize(n, i) for i, n in enumerate(networks))
    pipe = Lumina2Pipeline(
        transformer=transformer, text_encoder=text, vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(os.path.join(a.parts, "scheduler")),
        tokenizer=AutoTokenizer.from_pretrained(os.path.join(a.parts, "tokenizer")))
    out = pathlib.Path(a.out)
    pipe.save_pretrained(out / "model")
    shutil.rmtree(out / "model" / "tokenizer")  # as it was, not as this version writes it
    shutil.copytree(os.path.join(a.parts, "tokenizer"), out / "model" / "tokenizer")

    if a.steps == 0:
        return
    channels, sample_size = transformer.config.in_channels, transformer.config.sample_size
    del pipe, networks, transformer, text, vae  # their memory is needed
    side = (a.size or 8 * sample_size) // 8
    start = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(5))
    safetensors.torch.save_file({"latents": start}, str(out / "start.safetensors"))
    for name, dtype in (("bf16", torch.bfloat16), ("f32", torch.float32)):
        safetensors.torch.save_file({"latents": draw(out / "model", start, dtype, a)}, str(out / f"{name}.safetensors"))
    print(json.dumps({"prompt": PROMPT, "negative": NEGATIVE, "guidance": GUIDANCE, "steps": a.steps}))


def compare(a):
    x, y = (safetensors.torch.load_file(path)["latents"].double() for path in (a.a, a.b))
    print(f"{((x - y).norm() / y.norm()).item():.3e}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = p.add_subparsers(dest="command", required=True)
    m = commands.add_parser("make")
    m.add_argument("out")
    m.add_argument("--parts", required=True)
    m.add_argument("--config")
    m.add_argument("--steps", type=int, default=4)
    m.add_argument("--size", type=int)
    c = commands.add_parser("compare")
    c.add_argument("a")
    c.add_argument("b")
    a = p.parse_args()
    make(a) if a.command == "make" else compare(a)


main()
