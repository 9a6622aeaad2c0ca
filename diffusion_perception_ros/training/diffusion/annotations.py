"""Ground truth as pictures, the way the papers' networks see it, and back.

Every annotation is a picture (N, 3, H, W) in [-1, 1]:
- `depth` and `disparity`: three equal channels, the 2nd to the 98th percentile of the picture mapped to [-1, 1]
  (Marigold, Sec. 3.3; Lotus and GenPercept do the same). Affine-invariant: the range is lost.
- `normals`: minus the optical frame's vector, that is x left, y up, z to the viewer (Lotus's convention).
- `semantic`: the colours of the labels.
- `entity`, `pose`: see `drawings`.
- `mask`, `amodal`: white on black (DICEPTION); `alpha`: from black to white (GenPercept).
- `flow`: red and green hold the vector, right and down, `FLOW_LIMIT` of the picture's width being 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_perception_ros.sample import UNLABELLED, FloatImage
from diffusion_perception_ros.training.batches import Batch
from diffusion_perception_ros.training.diffusion.drawings import (
    Colouring,
    draw_people,
    entities_of,
    entity_colours,
    joints_of,
)
from diffusion_perception_ros.training.diffusion.prompts import PromptTensors, mask_picture
from diffusion_perception_ros.training.estimates import Estimates
from diffusion_perception_ros.world.labels import LABELS


DRAWN = frozenset({"entity", "mask", "alpha", "pose", "flow", "amodal"})
"""Tasks whose annotations are shown as they are."""
FLOW_LIMIT = 75 / 512
"""Share of the picture's width; longer vectors are cut. Scaling's constant (its FlyingChairs reader)."""
EMPHASIS = {"mask": 5.0, "amodal": 5.0, "pose": 20.0}
"""How much more an error counts where something is drawn, for tasks whose pictures are mostly black: about the root of
black to drawn pixels. Else black everywhere is what a network learns first, and for long."""
_DRAWN_FROM = -0.9
"""Brightest channel."""
_NEEDS = {"entity": "instances", "mask": "instances", "pose": "keypoints"}
"""Field of a batch that a task needs, where it has another name than the task."""
_PERCENTILES = (0.02, 0.98)


class Annotation(NamedTuple):
    """Ground truth of one task as pictures."""

    picture: Tensor
    """(N, 3, H, W) in [-1, 1], 0 where unknown."""
    known: Tensor
    """(N, 1, H, W) bool."""


def can_annotate(task: str, batch: Batch) -> bool:
    """Whether the batch has ground truth of a task, perhaps with unknown places."""
    return getattr(batch, _NEEDS.get(task, task), batch.depth) is not None


def annotate(
    task: str,
    batch: Batch,
    generator: torch.Generator | None = None,
    prompts: PromptTensors | None = None,
    colouring: Colouring = "position",
) -> Annotation:
    """The annotation of one task.

    Args:
        generator: for the random colours of `entity`.
        prompts: for `mask`.
    """
    match task:
        case "normals":
            return Annotation(-batch.normals, batch.normals.square().sum(1, keepdim=True) > 0.5)
        case "semantic":
            return _semantic(batch)
        case "entity":
            assert batch.instances is not None
            colours = entity_colours(batch.instances, colouring, generator or torch.Generator().manual_seed(0))
            return _everywhere(colours * 2.0 - 1.0)
        case "mask":
            assert batch.instances is not None
            assert prompts is not None
            objects = prompts.objects[:, None, None]
            return _everywhere(mask_picture((batch.instances == objects) & (objects > 0)))
        case "amodal":
            assert batch.amodal is not None
            return _everywhere(mask_picture(batch.amodal > 0))
        case "alpha":
            assert batch.alpha is not None
            known = torch.isfinite(batch.alpha)[:, None]
            return Annotation((torch.nan_to_num(batch.alpha) * 2.0 - 1.0)[:, None].expand(-1, 3, -1, -1), known)
        case "flow":
            assert batch.flow is not None
            return _flow(batch.flow)
        case "pose":
            assert batch.keypoints is not None
            return _pose(batch.keypoints, *batch.image.shape[2:])
    return _depth(task, batch.depth)


def emphasis(task: str, pictures: Tensor) -> Tensor:
    """(N, 1, H, W), what an error counts at each pixel of a task's annotation (N, 3, H, W)."""
    drawn = pictures.amax(1, keepdim=True) > _DRAWN_FROM
    return torch.where(drawn, EMPHASIS.get(task, 1.0), 1.0)


def _everywhere(pictures: Tensor) -> Annotation:
    return Annotation(pictures, torch.ones_like(pictures[:, :1], dtype=torch.bool))


def _flow(flow: Tensor) -> Annotation:
    known = torch.isfinite(flow).all(1, keepdim=True)
    share = (torch.nan_to_num(flow) / (FLOW_LIMIT * flow.shape[-1])).clamp(-1.0, 1.0)
    return Annotation(torch.cat([share, torch.zeros_like(share[:, :1])], 1), known)


def _pose(keypoints: Tensor, height: int, width: int) -> Annotation:
    drawings = [draw_people(torch.nan_to_num(people).cpu().numpy(), height, width) for people in keypoints]
    pictures = torch.from_numpy(np.stack(drawings)).to(keypoints.device) * 2.0 - 1.0
    known = torch.isfinite(keypoints).flatten(1).all(1)[:, None, None, None]
    return Annotation(pictures, known.expand(-1, 1, height, width))


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
            pictures[index] = ((values[index] - low) / (high - low + 1e-5) * 2 - 1).clamp(-1, 1)
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
    """What a predicted annotation (N, 3, H, W) says; classes by the nearest colour."""
    pictures = pictures.float()
    match task:
        case "normals":
            return Estimates(normals=-pictures)
        case "semantic":
            return Estimates(semantic=classes_of(pictures[:, :, 1::2, 1::2]))
        case "flow":
            return Estimates(flow=flow_vectors(pictures))
        case "entity":
            return Estimates(instances=[entities_of(drawing) for drawing in _drawings(pictures)])
        case "pose":
            return Estimates(keypoints=[joints_of(drawing) for drawing in _drawings(pictures)])
    values = (pictures.mean(1) + 1.0) / 2.0
    match task:
        case "mask":
            return Estimates(mask=values)
        case "amodal":
            return Estimates(amodal=values)
        case "alpha":
            return Estimates(alpha=values.clamp(0.0, 1.0))
    return Estimates(depth=values, depth_quantity="relative_depth" if task == "depth" else "relative_disparity")


def classes_of(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) → (N, H, W) int64, the class with the nearest colour."""
    pixels = pictures.permute(0, 2, 3, 1)
    distances = torch.cdist(pixels.reshape(len(pixels), -1, 3), _palette(pixels.device)[None])
    return distances.argmin(-1).reshape(pixels.shape[:3])


def flow_vectors(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) → (N, 2, H, W), right and down in pixels of the picture."""
    return pictures[:, :2] * pictures.shape[-1] * FLOW_LIMIT


def _drawings(pictures: Tensor) -> Iterator[FloatImage]:
    """RGB in [0, 1]."""
    return iter(((pictures + 1.0) / 2.0).clamp(0.0, 1.0).cpu().numpy())
