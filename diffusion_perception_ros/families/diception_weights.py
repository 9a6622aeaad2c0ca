"""The parts of DICEPTION that its own file holds: the transformer's weights and the embedding of points."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families.checkpoint_files import CheckpointFiles
from diffusion_perception_ros.families.loading import load_network, load_tensors, load_weights


WEIGHTS_FILE = "DICEPTION_v1.pth"
_PARTS = (
    "transformer",
    "point_embedder",
    "not_seg_embeddings",
    "seg_embeddings",
    "positional_encoding_gaussian_matrix",
)

_log = logging.getLogger(__name__)


class PointEmbedder(nn.Module):
    """Points as text tokens: random Fourier features (as in Segment Anything), an MLP, and inside or outside."""

    def __init__(self, frequencies: int, width: int, hidden: int) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.zeros(2, frequencies))
        self.mlp = nn.Sequential(nn.Linear(2 * frequencies, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.inside = nn.Parameter(torch.zeros(1, width))
        self.outside = nn.Parameter(torch.zeros(1, width))

    def forward(self, points: Tensor) -> Tensor:
        """
        Args:
            points: (1, P, 3): two coordinates in [0, 1], then 1 = inside, 0 = outside.

        Returns:
            (1, P, width).
        """
        # The published code computes the phases in bfloat16. They reach 20, where that rounds them by 0.06: as the
        # network was trained with it, so do we. Each product is of two bfloat16 numbers, so exact in float32.
        first, second = (_bfloat16(2 * _bfloat16(points[..., axis : axis + 1]) - 1) for axis in (0, 1))
        turns = _bfloat16(first * self.frequencies[0] + second * self.frequencies[1])  # (1, P, frequencies)
        phases = _bfloat16(2 * math.pi * turns)
        tokens = self.mlp(torch.cat([phases.sin(), phases.cos()], dim=-1))
        label = points[..., 2:]
        return tokens + label * self.inside + (1 - label) * self.outside  # type: ignore[no-any-return]


def _bfloat16(value: Tensor) -> Tensor:
    return value.to(torch.bfloat16).to(value.dtype)


def load_diception(
    files: CheckpointFiles, base: CheckpointFiles, points: int
) -> tuple[SD3Transformer2DModel, PointEmbedder]:
    """The transformer, of Stable Diffusion 3's shape, and the embedding of points.

    Raises:
        InputError: the file is missing, incomplete, lacks parts, or does not fit the base.
    """
    path = files.file(WEIGHTS_FILE)
    state = load_tensors(path)
    lacking = [name for name in _PARTS if name not in state]
    if lacking:
        raise InputError(f"{path} lacks '{lacking[0]}': this is not DICEPTION's file of weights")
    return _load_transformer(state["transformer"], base, path), _load_points(state, path)


def _load_transformer(weights: dict[str, Any], base: CheckpointFiles, path: Path) -> SD3Transformer2DModel:
    """As the published code, takes what the file lacks from the base and ignores what it has too much."""
    config_path = base.file("transformer/config.json")
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
        with torch.device("meta"):
            transformer = SD3Transformer2DModel.from_config(config)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{config_path} does not describe an SD3Transformer2DModel: {error}") from error
    wanted = set(transformer.state_dict())
    unknown = sorted(set(weights) - wanted)
    if unknown:
        _log.warning(
            "%s has %d weights that no part of the transformer takes, e.g. %s", path, len(unknown), unknown[0]
        )
    known = {name: value for name, value in weights.items() if name in wanted}
    missing = sorted(wanted - set(weights))
    if missing:
        _log.warning("%s lacks %d weights, e.g. %s: they are the base's", path, len(missing), missing[0])
        known = load_network(SD3Transformer2DModel, base, "transformer").state_dict() | known
    return load_weights(transformer, known, path)


def _load_points(state: dict[str, Any], path: Path) -> PointEmbedder:
    try:
        mlp = state["point_embedder"]
        weights = {
            "frequencies": _bfloat16(state["positional_encoding_gaussian_matrix"].float()),
            "inside": state["seg_embeddings"]["weight"],
            "outside": state["not_seg_embeddings"]["weight"],
            **{f"mlp.{name}": value for name, value in mlp.items()},
        }
        embedder = PointEmbedder(weights["frequencies"].shape[1], mlp["2.weight"].shape[0], mlp["0.weight"].shape[0])
    except (KeyError, AttributeError, TypeError, IndexError) as error:
        raise InputError(f"{path} has no embedding of points ({error}): it is not DICEPTION's file") from error
    return load_weights(embedder, weights, path)
