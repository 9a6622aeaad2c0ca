"""Small DICEPTION and Scaling checkpoints with random weights, in the published layouts."""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from family_checkpoints import write_vae
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from diffusion_perception_ros.families.dit_moe import DitConfig, DiTMultiTaskMoE


SMALL_DIT = DitConfig(tokens=16, width=64, depth=1, experts=3, hidden=128)
"""For pictures of 64 x 64 pixels."""


def write_scaling(folder: Path, seed: int = 0, config: DitConfig = SMALL_DIT) -> Path:
    """`dit_moe_generalist.pt`, with averaged weights under "ema" as the trainer saves them."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = DiTMultiTaskMoE(config)
    _scatter_biases(network)
    nn.init.normal_(network.pos_embed)
    torch.save({"ema": network.state_dict()}, folder / "dit_moe_generalist.pt")
    return folder


def write_scaling_base(folder: Path, seed: int = 0, **scheduler: object) -> Path:
    """`vae` and `scheduler` of Stable Diffusion 2.

    Args:
        scheduler: Fields that differ from the published ones.
    """
    torch.manual_seed(seed)
    write_vae(folder / "vae")
    published = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    DDIMScheduler(**(published | scheduler)).save_pretrained(folder / "scheduler")
    return folder


def write_diception(folder: Path, base: Path, seed: int = 0) -> Path:
    """`DICEPTION_v1.pth`: other weights for the base's transformer, and the embedding of points, in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed + 1)
    transformer = SD3Transformer2DModel.from_config(SD3Transformer2DModel.load_config(base / "transformer"))
    _scatter_biases(transformer)
    width, frequencies = transformer.inner_dim, 32
    embedder = nn.Sequential(nn.Linear(2 * frequencies, 48), nn.GELU(), nn.Linear(48, width))
    parts = {
        "transformer": transformer.state_dict(),
        "point_embedder": embedder.state_dict(),
        "not_seg_embeddings": nn.Embedding(1, width).state_dict(),
        "seg_embeddings": nn.Embedding(1, width).state_dict(),
    }
    published = {name: {key: value.bfloat16() for key, value in part.items()} for name, part in parts.items()}
    matrix = torch.randn(2, frequencies).bfloat16()
    torch.save({**published, "positional_encoding_gaussian_matrix": matrix}, folder / "DICEPTION_v1.pth")
    return folder


def write_sd3(folder: Path, seed: int = 0) -> Path:
    """Every part of Stable Diffusion 3 medium, for pictures of up to 128 x 128 pixels."""
    torch.manual_seed(seed)
    SD3Transformer2DModel(
        sample_size=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=48,
        caption_projection_dim=32,
        pooled_projection_dim=20,
        pos_embed_max_size=8,
    ).save_pretrained(folder / "transformer")
    write_vae(folder / "vae", latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609)
    _write_clip(folder, "", width=16, projection=8)
    _write_clip(folder, "_2", width=24, projection=12)
    _write_t5(folder, width=48)
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    return folder


def _scatter_biases(network: nn.Module) -> None:
    """New biases are zero; random ones show an exchanged shift and scale."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.2)


def _write_clip(folder: Path, suffix: str, width: int, projection: int) -> None:
    characters = [*string.ascii_lowercase, *string.digits, "[", "]"]
    words = ["<|startoftext|>", "<|endoftext|>", *characters, *(f"{character}</w>" for character in characters)]
    tokenizer = folder / f"tokenizer{suffix}"
    tokenizer.mkdir(parents=True)
    (tokenizer / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    (tokenizer / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    CLIPTokenizer.from_pretrained(str(tokenizer), model_max_length=77).save_pretrained(tokenizer)
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=projection,
        num_hidden_layers=3,
        num_attention_heads=4,
        bos_token_id=0,
        eos_token_id=1,
    )
    CLIPTextModelWithProjection(config).save_pretrained(folder / f"text_encoder{suffix}")


def _write_t5(folder: Path, width: int) -> None:
    characters = [*string.ascii_lowercase, *string.digits, "[", "]", "▁"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((character, -2.0) for character in characters)]
    T5Tokenizer(vocab=pieces).save_pretrained(folder / "tokenizer_3")
    config = T5Config(vocab_size=len(pieces) + 100, d_model=width, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    T5EncoderModel(config).save_pretrained(folder / "text_encoder_3")
