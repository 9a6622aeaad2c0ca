"""Small diffusion backbones: their configs, and checkpoints with random weights as the trainer writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from diffusion_perception_ros.training.checkpoint import AVERAGED, write_checkpoint
from diffusion_perception_ros.training.config import TrainingConfig
from diffusion_perception_ros.training.diffusion.learner import DiffusionLearner


TINY_UNET = {
    "sample_size": 16,
    "block_out_channels": [16, 32],
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "mid_block_type": None,
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 8,
    "norm_num_groups": 8,
}


SMALL_UNET = {
    "sample_size": 16,
    "block_out_channels": [32, 64],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 8,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
"""Large enough to learn toy rooms."""


def write_backbone_checkpoint(folder: Path, tasks: list[str], side: int = 64, **objective: Any) -> DiffusionLearner:
    """Writes a checkpoint below `folder` and returns what wrote it.

    Args:
        side: of the square pictures that it would have been trained on.
        objective: fields of the config's `objective`.
    """
    torch.manual_seed(0)
    fields = {
        "name": "tiny",
        "network": {"kind": "unet", "tasks": tasks, "config": TINY_UNET},
        "objective": objective,
        "data": {"train": "shards", "validation": "shards", "sizes": [[side, side]]},
        "run": {"max_steps": 1},
    }
    config = TrainingConfig.model_validate(fields)
    learner = DiffusionLearner(config)
    scores = {"abs_rel": 0.25, "flow_epe": 1.5, "still_flow_epe": 2.0}
    state = {
        "name": "tiny",
        "step": 7,
        "samples": 56,
        "seconds": 60.0,
        "config": config.model_dump(mode="json"),
        "evaluation": {"minutes": 1.0, "samples": 56, "scores": scores},
    }
    write_checkpoint(folder, learner.identity, state, {AVERAGED: learner.network.state_dict()})
    learner.network.eval()
    return learner
