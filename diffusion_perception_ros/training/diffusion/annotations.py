"""Ground truth as pictures, the way the papers' networks see it, and back.

Every annotation is a picture (N, 3, H, W) in [-1, 1]:
- `depth` and `disparity`: three equal channels, the 2nd to the 98th percentile of the picture mapped to [-1, 1]
  (Marigold, Sec. 3.3; Lotus and GenPercept do the same). Affine-invariant: the range is lost.
- `normals`: minus the optical frame's vector, that is x left, y up, z to the viewer (Lotus's convention).
- `semantic`: the colours of the labels.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_perception_ros.sample import UNLABELLED
from diffusion_perception_ros.training.batches import Batch
from diffusion_perception_ros.training.estimates import Estimates
from diffusion_perception_ros.world.labels import LABELS


Task = Literal["depth", "disparity", "normals", "semantic"]
TASKS: tuple[str, ...] = get_args(Task)
_PERCENTILES = (0.02, 0.98)


class Annotation(NamedTuple):
    """Ground truth of one task as pictures."""

    picture: Tensor
    """(N, 3, H, W) in [-1, 1], 0 where unknown."""
    known: Tensor
    """(N, 1, H, W) bool."""


def annotate(task: str, batch: Batch) -> Annotation:
    """The annotation of one task."""
    if task == "normals":
        known = batch.normals.square().sum(1, keepdim=True) > 0.5
        return Annotation(-batch.normals, known)
    if task == "semantic":
        return _semantic(batch)
    return _depth(task, batch.depth)


def _depth(task: str, depth: Tensor) -> Annotation:
    sky = torch.isposinf(depth)
    known = torch.isfinite(depth) & (depth > 0)
    values = torch.where(known, depth, 1.0)
    values = values if task == "depth" else 1.0 / values
    pictures = torch.zeros_like(values)
    for index in range(len(values)):
        if known[index].any():
            limits = torch.tensor(_PERCENTILES, device=values.device)
            low, high = torch.quantile(_thinned(values[index][known[index]]), limits)
            pictures[index] = ((values[index] - low) / (high - low).clamp(min=1e-6) * 2 - 1).clamp(-1, 1)
    farthest = 1.0 if task == "depth" else -1.0
    pictures = torch.where(sky, farthest, torch.where(known, pictures, 0.0))
    return Annotation(pictures[:, None].expand(-1, 3, -1, -1), (known | sky)[:, None])


def _thinned(values: Tensor, most: int = 100_000) -> Tensor:
    """`torch.quantile` refuses large inputs."""
    return values[:: max(1, len(values) // most)].float()


def _semantic(batch: Batch) -> Annotation:
    known = batch.semantic != UNLABELLED
    colours = _palette(batch.semantic.device)[torch.where(known, batch.semantic, 0)].permute(0, 3, 1, 2)
    pictures = F.interpolate(torch.where(known[:, None], colours, 0.0), scale_factor=2.0, mode="nearest")
    return Annotation(pictures, F.interpolate(known[:, None].float(), scale_factor=2.0, mode="nearest") > 0.5)


def _palette(device: torch.device) -> Tensor:
    """(classes, 3) in [-1, 1]."""
    return torch.tensor([label.color for label in LABELS], device=device).float() / 127.5 - 1.0


def estimates_of(task: str, pictures: Tensor) -> Estimates:
    """What a predicted annotation (N, 3, H, W) says; semantics by the nearest colour."""
    pictures = pictures.float()
    if task == "normals":
        return Estimates(normals=-pictures)
    if task == "semantic":
        pixels = pictures[:, :, 1::2, 1::2].permute(0, 2, 3, 1)
        distances = torch.cdist(pixels.reshape(len(pixels), -1, 3), _palette(pixels.device)[None])
        return Estimates(semantic=distances.argmin(-1).reshape(pixels.shape[:3]))
    values = (pictures.mean(1) + 1.0) / 2.0
    return Estimates(depth=values, depth_quantity="relative_depth" if task == "depth" else "relative_disparity")
