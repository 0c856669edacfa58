"""Writes tests/data/second-lumina2: a tiny random pipeline shaped differently from the shipped model, and the
values that diffusers and transformers compute with it.

    python make_second.py OUT_DIR

Weights are random with a fixed seed; the transformer is stored in float32 shards, the text encoder in float16,
the VAE in bfloat16. All reference values are computed in float32 from the rounded weights.
"""
import json
import pathlib
import platform
import shutil
import sys

import diffusers
import safetensors.torch
import torch
import transformers
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel
from transformers import Gemma2Config, Gemma2Model

STEPS, GUIDANCE, H, W, LONG = 4, 3.0, 12, 20, 23


def randomize(model, seed, norm_mean):
    """Matrices as xavier draws them, norms and biases away from their neutral values, so that none is untested."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        noise = torch.randn(p.shape, generator=generator)
        if p.ndim >= 2:
            fan = p[0].numel() + p.shape[0] * p[0, 0].numel()
            p.data = noise * (2.0 / fan) ** 0.5
        elif name.endswith("bias"):
            p.data = noise * 0.1
        else:
            p.data = noise * 0.2 + norm_mean
    return model.eval()


def rounded(model, dtype):
    """float32 parameters with the values that `dtype` keeps. Buffers (embedding scale, rotary frequencies) stay as
    they are: they are not stored, and a model loaded in float32 has them in float32."""
    for p in model.parameters():
        p.data = p.data.to(dtype).float()
    return model


def make_transformer():
    model = Lumina2Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, hidden_size=48, num_layers=2, num_refiner_layers=1,
        num_attention_heads=3, num_kv_heads=1, multiple_of=40, ffn_dim_multiplier=None, norm_eps=1e-6,
        axes_dim_rope=[8, 4, 4], axes_lens=[64, 32, 32], cap_feat_dim=40)
    randomize(model, 1, 1.0)
    for name, p in model.named_parameters():
        if name.endswith("to_q.weight"):
            p.data *= 0.03  # so small that the epsilon of the query norm shows
    return model


def make_text():
    config = Gemma2Config(
        vocab_size=300, hidden_size=40, intermediate_size=88, num_hidden_layers=5, num_attention_heads=5,
        num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=24, sliding_window=8, attn_logit_softcapping=5.0,
        max_position_embeddings=64, rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
    return rounded(randomize(Gemma2Model(config), 2, 0.0), torch.float16)


def make_vae():
    model = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=[8, 16, 24], layers_per_block=2, latent_channels=4, norm_num_groups=4, sample_size=64,
        scaling_factor=0.75, shift_factor=0.1, use_quant_conv=True, use_post_quant_conv=True)
    return rounded(randomize(model, 3, 1.0), torch.bfloat16)


def text_values(model, ids, out, name):
    """hidden_states of every layer, without and with attention soft-capping (transformers' sdpa attention left it
    out; versions from 5.x on pick eager for Gemma 2, which applies it)."""
    out[f"{name}.ids"] = ids.int()
    model.set_attn_implementation("eager")
    for cap, key in ((None, "hidden_states"), (model.config.attn_logit_softcapping, "hidden_states_softcap")):
        for layer in model.layers:
            layer.self_attn.attn_logit_softcapping = cap
        result = model(ids[None], attention_mask=torch.ones_like(ids)[None], output_hidden_states=True)
        out[f"{name}.{key}"] = torch.cat(result.hidden_states)
    return out[f"{name}.hidden_states"][-2]


def run_pipeline(pipe, latents, embeds, out):
    steps = []

    def keep(_pipe, _step, _t, values):
        steps.append(values["latents"][0].clone())
        return values

    # the pipeline wants both of one length: the short one is padded under its mask
    masks = {k: (torch.arange(LONG) < e.shape[0]).long()[None] for k, e in embeds.items()}
    embeds = {k: torch.nn.functional.pad(e, (0, 0, 0, LONG - e.shape[0])) for k, e in embeds.items()}
    pipe.set_progress_bar_config(disable=True)
    result = pipe(
        prompt_embeds=embeds["long"][None], prompt_attention_mask=masks["long"],
        negative_prompt_embeds=embeds["short"][None], negative_prompt_attention_mask=masks["short"],
        latents=latents[None], height=4 * H, width=4 * W, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        output_type="latent", callback_on_step_end=keep).images
    out["run.latents_start"] = latents
    out["run.sigmas"] = pipe.scheduler.sigmas.clone()
    out["run.timesteps"] = pipe.scheduler.timesteps.clone()
    out["run.latents"] = torch.stack(steps)
    assert torch.equal(result[0], steps[-1])


@torch.no_grad()
def main(out_dir):
    torch.set_num_threads(1)
    transformer, text, vae = make_transformer(), make_text(), make_vae()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=6.0, use_dynamic_shifting=True)
    pipe = Lumina2Pipeline(transformer=transformer, text_encoder=text, vae=vae, scheduler=scheduler, tokenizer=None)

    out = {}
    generator = torch.Generator().manual_seed(4)
    ids = {"short": torch.tensor([2]),
           "long": torch.cat([torch.tensor([2]), torch.randint(7, 300, (LONG - 1,), generator=generator)])}
    embeds = {name: text_values(text, v, out, name) for name, v in ids.items()}

    latents = torch.randn((1, 4, H, W), generator=torch.Generator("cpu").manual_seed(5))[0]
    run_pipeline(pipe, latents, embeds, out)
    for step in (0, 2):
        x = latents if step == 0 else out["run.latents"][step - 1]
        t = 1 - out["run.timesteps"][step] / 1000
        out[f"step{step}.timestep"] = t[None]
        for name, e in embeds.items():
            mask = torch.ones(1, e.shape[0], dtype=torch.long)
            out[f"step{step}.{name}"] = transformer(x[None], t[None], e[None], mask, return_dict=False)[0][0]
    z = out["run.latents"][-1] / vae.config.scaling_factor + vae.config.shift_factor
    out["run.picture"] = vae.decode(z[None], return_dict=False)[0][0]

    out_dir = pathlib.Path(out_dir)
    for part in ("transformer", "text_encoder", "vae", "scheduler"):
        shutil.rmtree(out_dir / part, ignore_errors=True)
    transformer.save_pretrained(out_dir / "transformer", max_shard_size="300KB")
    text.half().save_pretrained(out_dir / "text_encoder")
    vae.bfloat16().save_pretrained(out_dir / "vae")
    scheduler.save_pretrained(out_dir / "scheduler")
    index = {"_class_name": "Lumina2Pipeline", "_diffusers_version": diffusers.__version__,
             "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"], "text_encoder": ["transformers", "Gemma2Model"],
             "tokenizer": [None, None], "transformer": ["diffusers", "Lumina2Transformer2DModel"],
             "vae": ["diffusers", "AutoencoderKL"]}
    (out_dir / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")

    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__, "transformers": transformers.__version__,
                "python": platform.python_version()}
    out = {k: v.contiguous() for k, v in out.items()}
    safetensors.torch.save_file(out, out_dir / "reference.safetensors", metadata=versions)
    for path in out_dir.rglob("*.safetensors"):
        path.chmod(0o644)
    for k, v in sorted(out.items()):
        print(f"{k:32s} {str(v.dtype)[6:]:8s} {list(v.shape)}  rms {v.float().pow(2).mean().sqrt():.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
