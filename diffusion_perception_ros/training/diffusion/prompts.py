"""What a task is shown besides the picture: the picture before, points on an object, or what can be seen of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_perception_ros.training.batches import Batch


CONDITIONED = frozenset({"flow", "mask", "amodal"})
"""Tasks that are shown something."""
MOST_POINTS = 5
"""As many as DICEPTION takes."""
POINT_SPREAD = 0.03
"""Standard deviation of a point's spot, as a share of the picture's width."""
_SMALLEST = 0.002
"""Share of the picture below which no object is pointed at."""


class PromptTensors(NamedTuple):
    """An object of every picture, and points on and beside it."""

    objects: Tensor
    """(N,) ids in `Batch.instances`, 0 = there is no object."""
    points: Tensor
    """(N, `MOST_POINTS`, 3): right and down as shares of the sides, 1 = on the object; unused slots are 0."""


def draw_prompts(batch: Batch, generator: torch.Generator, most: int = MOST_POINTS) -> PromptTensors:
    """An object at random and 1 to `most` points: the first on the object, the others anywhere in the picture."""
    assert batch.instances is not None
    instances = batch.instances.cpu()
    count, height, width = instances.shape
    objects, points = torch.zeros(count, dtype=torch.int64), torch.zeros(count, MOST_POINTS, 3)
    for index, ids in enumerate(instances):
        area = torch.bincount(ids.reshape(-1))
        area[0] = 0
        large = torch.nonzero(area >= _SMALLEST * ids.numel())[:, 0]
        if not len(large):
            continue
        objects[index] = large[_below(len(large), generator)]
        on_object = torch.nonzero(ids.reshape(-1) == objects[index])[:, 0]
        places = torch.randint(0, ids.numel(), (1 + _below(most, generator),), generator=generator)
        places[0] = on_object[_below(len(on_object), generator)]
        rows = points[index, : len(places)]
        rows[:, 0], rows[:, 1] = (places % width + 0.5) / width, (places // width + 0.5) / height
        rows[:, 2] = ids.reshape(-1)[places] == objects[index]
    return PromptTensors(objects.to(batch.image.device), points.to(batch.image.device))


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(0, limit, (1,), generator=generator))


def point_map(points: Tensor, height: int, width: int) -> Tensor:
    """Points as a picture (N, 3, H, W) in [-1, 1]: red spots on the object, green ones beside it.

    An unused slot is a green spot in the corner, which the network sees in every picture.

    Args:
        points: (N, P, 3), see `PromptTensors.points`.
    """
    right = (torch.arange(width, device=points.device) + 0.5) / width
    down = (torch.arange(height, device=points.device) + 0.5) / width
    u, v, label = points[..., 0], points[..., 1] * height / width, points[..., 2]
    across = (right - u[..., None]).square()  # (N, P, W)
    along = (down - v[..., None]).square()  # (N, P, H)
    spots = torch.exp(-(across[:, :, None, :] + along[..., None]) / (2 * POINT_SPREAD**2))
    inside = (spots * label[..., None, None]).amax(1)
    outside = (spots * (1 - label)[..., None, None]).amax(1)
    return torch.stack([inside, outside, torch.zeros_like(inside)], 1) * 2.0 - 1.0


def mask_picture(mask: Tensor) -> Tensor:
    """(N, H, W) bool → (N, 3, H, W), white on black, as DICEPTION draws masks."""
    return mask[:, None].float().mul(2.0).sub(1.0).expand(-1, 3, -1, -1)


def visible_part(batch: Batch) -> Tensor:
    """(N, H, W) bool, what is seen of the object of `Batch.amodal`."""
    assert batch.amodal is not None
    assert batch.instances is not None
    return (batch.amodal > 0) & (batch.instances == batch.amodal.amax((1, 2), keepdim=True))


def condition(task: str, batch: Batch, prompts: PromptTensors | None) -> Tensor | None:
    """(N, 3, H, W) in [-1, 1], what a task is shown besides the picture; None for tasks that need nothing."""
    if task == "flow":
        return batch.previous
    if task == "amodal":
        return mask_picture(visible_part(batch))
    if task == "mask":
        assert prompts is not None
        return point_map(prompts.points, *batch.image.shape[2:])
    return None
