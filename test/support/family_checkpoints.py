"""Small checkpoints with random weights in the published layouts, written with `save_pretrained`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDPMScheduler, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


TEXT_WIDTH = 32


TWO_LEVELS: dict[str, Any] = {
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": (2, 4),
}
"""Config of a U-Net with two of the four levels, which exports in half the time."""


def write_sd2_parts(folder: Path, *, in_channels: int, seed: int = 0, **unet: Any) -> Path:
    """Writes `unet`, `vae`, `text_encoder` and `tokenizer` as every family on Stable Diffusion 2 has them.

    Args:
        in_channels: Of the U-Net's first convolution.
        unet: Further fields of the U-Net's config.
    """
    torch.manual_seed(seed)
    config = {
        "sample_size": 16,
        "out_channels": 4,
        "block_out_channels": (32, 32, 64, 64),
        "layers_per_block": 1,
        "attention_head_dim": (2, 2, 4, 4),
        "cross_attention_dim": TEXT_WIDTH,
        "norm_num_groups": 16,
        "use_linear_projection": True,
    }
    UNet2DConditionModel(in_channels=in_channels, **(config | unet)).save_pretrained(folder / "unet")
    write_vae(folder / "vae")
    write_clip(folder)
    return folder


def write_vae(folder: Path, latent_channels: int = 4, **config: Any) -> None:
    """A VAE that shrinks by 8, like that of Stable Diffusion."""
    AutoencoderKL(
        block_out_channels=(16, 16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=latent_channels,
        norm_num_groups=8,
        **({"scaling_factor": 0.18215} | config),
    ).save_pretrained(folder)


def write_tiny_vae(folder: Path, latent_channels: int = 4) -> Path:
    """A TAESD-like autoencoder that shrinks by 8, at the root of its checkpoint."""
    AutoencoderTiny(
        latent_channels=latent_channels,
        encoder_block_out_channels=(16, 16, 16, 16),
        decoder_block_out_channels=(16, 16, 16, 16),
    ).save_pretrained(folder)
    return folder


def write_clip(folder: Path, width: int = TEXT_WIDTH) -> None:
    """`tokenizer` and `text_encoder`: the empty prompt is begin and end, two tokens."""
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "b</w>": 3, "a": 4, "b": 5}
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    vocab, merges = folder / "tokenizer" / "vocab.json", folder / "tokenizer" / "merges.txt"
    vocab.write_text(json.dumps(vocabulary), encoding="utf-8")
    merges.write_text("#version: 0.2\n", encoding="utf-8")
    CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), model_max_length=77).save_pretrained(folder / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=1,
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")


def write_model_index(folder: Path, class_name: str, **parts: tuple[str, str]) -> None:
    """`model_index.json`, which for most of these families names a class of no installed package."""
    index = {"_class_name": class_name, "_diffusers_version": "0.29.2", **{k: list(v) for k, v in parts.items()}}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


def write_lotus(folder: Path, variant: str = "d", seed: int = 0, **unet: Any) -> Path:
    """A Lotus D or G checkpoint as on the hub; `unet` are further fields of the U-Net's config."""
    write_sd2_parts(
        folder,
        in_channels=8 if variant == "g" else 4,
        seed=seed,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=4,
        **unet,
    )
    scheduler = DDPMScheduler if variant == "g" else PNDMScheduler
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler(**betas, num_train_timesteps=1000, steps_offset=1).save_pretrained(folder / "scheduler")
    write_model_index(
        folder,
        "DirectDiffusionY0Pipeline" if variant == "g" else "DirectRegressionPipeline",
        unet=("diffusers", "UNet2DConditionModel"),
        vae=("diffusers", "AutoencoderKL"),
        text_encoder=("transformers", "CLIPTextModel"),
        tokenizer=("transformers", "CLIPTokenizer"),
        scheduler=("diffusers", scheduler.__name__),
    )
    return folder


def teach_decoder(folder: Path, latent: torch.Tensor, picture: torch.Tensor, steps: int = 80) -> None:
    """Trains the decoder of a checkpoint's VAE until it draws `picture` when given `latent`, and writes it back.

    Args:
        folder: The checkpoint.
        latent: (1, c, h, w), the network's clean latent.
        picture: (1, 3, 8 h, 8 w) in [-1, 1]; small, 64x48 takes two seconds.
        steps: Of Adam.
    """
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    optimizer = torch.optim.Adam([*vae.decoder.parameters(), *vae.post_quant_conv.parameters()])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (vae.decode(latent / vae.config.scaling_factor).sample - picture).abs().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
    vae.save_pretrained(folder / "vae")
