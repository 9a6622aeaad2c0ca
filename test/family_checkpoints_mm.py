"""Small DICEPTION and Scaling checkpoints with random weights, in the published layouts."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDIMScheduler
from family_checkpoints import write_vae

from diffusion_perception_ros.families.dit_moe import DitConfig, DiTMultiTaskMoE


SMALL_DIT = DitConfig(tokens=16, width=64, depth=2, experts=4, hidden=128)
"""For pictures of 64 x 64 pixels."""


def write_scaling(folder: Path, seed: int = 0, config: DitConfig = SMALL_DIT) -> Path:
    """`dit_moe_generalist.pt`, with averaged weights under "ema" as the trainer saves them."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = DiTMultiTaskMoE(config)
    torch.nn.init.normal_(network.pos_embed)
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
