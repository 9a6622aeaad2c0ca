"""Validation on unseen scenes: accuracy of every task, next to predictions that never look at the picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from diffusion_perception_ros.sample import UNLABELLED
from diffusion_perception_ros.training.batches import Batch
from diffusion_perception_ros.training.estimates import Estimates
from diffusion_perception_ros.training.onestep.losses import MAX_DEPTH
from diffusion_perception_ros.training.task_validation import task_scores
from diffusion_perception_ros.world.labels import CLASS_ID, LABELS


_FEWEST_PIXELS = 100
"""Pictures with less depth than this are not scored."""
_ERRORS = {"abs_rel": 1.0, "normals_mean": 90.0, "flow_epe": 10.0, "alpha_mae": 1.0}
"""Scores of which less is better, and what counts as an error of one."""
_ACCURACIES = ("miou", "mask_iou", "amodal_iou", "entity_coverage", "pose_pck")
_GROUPS = {label.name: label.group for label in LABELS}


@dataclass
class _Sums:
    """Per-image scores and pooled counts."""

    confusion: Tensor
    per_image: dict[str, list[float]] = field(default_factory=dict)
    angles: list[Tensor] = field(default_factory=list)
    constant_angles: list[Tensor] = field(default_factory=list)

    def add(self, name: str, value: float) -> None:
        self.per_image.setdefault(name, []).append(value)


@torch.no_grad()
def validate(
    estimate: Callable[[Batch], Estimates], batches: Iterable[Batch], classes: Sequence[str] = tuple(CLASS_ID)
) -> dict[str, float]:
    """Scores a network.

    Args:
        classes: names of the class ids.

    Returns:
        `abs_rel`, `delta1` after least squares scale and shift per image, in depth or, for disparity, in 1 / depth;
        `metric_abs_rel` of metric depth without any alignment; `constant_*` and `row_plane_*`, the same for the best
        constant and the best plane over the rows; `normals_mean`, `normals_median` in degrees, `normals_30` (share
        below 30°), `constant_normals_mean` of the mean direction of every picture; `pixel_accuracy`, `miou`,
        `majority_miou` of the most frequent class everywhere, and, for classes of the world, `group_miou` over their
        coarse groups with `majority_group_miou`; and those of `task_validation.task_scores`. A task without
        prediction or without ground truth is left out.
    """
    sums = _Sums(torch.zeros(len(classes), len(classes), dtype=torch.int64))
    for batch in batches:
        said = estimate(batch)
        if said.depth is not None:
            for depth, true in zip(said.depth, batch.depth, strict=True):
                _score_depth(sums, depth, said.depth_quantity, true)
        if said.normals is not None:
            _score_normals(sums, said.normals, batch.normals)
        if said.semantic is not None:
            _count_labels(sums, said.semantic, batch.semantic)
        for name, value in task_scores(said, batch):
            if math.isfinite(value):
                sums.add(name, value)
    return _summary(sums, classes)


def mean_error(scores: Mapping[str, float]) -> float:
    """Mean over the tasks of an error that is about 1 where nothing was learnt; infinite without any score."""
    errors = [scores[name] / limit for name, limit in _ERRORS.items() if name in scores]
    errors += [1.0 - scores[name] for name in _ACCURACIES if name in scores]
    return float(np.mean(errors)) if errors else math.inf


def selection_error(scores: Mapping[str, float], name: str) -> float:
    """The score that decides which checkpoint is the best, as an error; `tasks`: `mean_error`. Infinite without it."""
    if name == "tasks":
        return mean_error(scores)
    value = scores.get(name, math.nan)
    return math.inf if math.isnan(value) else -value if name in _ACCURACIES else value


def _score_depth(sums: _Sums, predicted: Tensor, quantity: str, true: Tensor) -> None:
    mask = torch.isfinite(true) & (true > 0) & (true <= MAX_DEPTH)
    if int(mask.sum()) < _FEWEST_PIXELS:
        return
    g = true[mask].double()
    p = predicted[mask].double()
    rows = torch.nonzero(mask)[:, 0].double()
    aligned = 1 / _align(p, 1 / g).clamp(min=1 / MAX_DEPTH) if quantity == "relative_disparity" else _align(p, g)
    candidates = {"": aligned, "constant_": g.mean().expand_as(g), "row_plane_": _align(rows, g)}
    for prefix, estimate in candidates.items():
        if torch.isfinite(estimate).all():
            sums.add(f"{prefix}abs_rel", ((estimate - g).abs() / g).mean().item())
            ratio = torch.maximum(estimate / g, g / estimate.clamp(min=1e-9))
            sums.add(f"{prefix}delta1", ((ratio < 1.25) & (estimate > 0)).double().mean().item())
    if quantity == "metric_depth" and torch.isfinite(p).all():
        sums.add("metric_abs_rel", ((p - g).abs() / g).mean().item())


def _align(p: Tensor, g: Tensor) -> Tensor:
    """s p + t closest to g in the least squares sense."""
    if not torch.isfinite(p).all():
        p = torch.zeros_like(p)  # without a focal length: scores as the constant
    centred = p - p.mean()
    variance = centred.square().mean()
    slope = (centred * (g - g.mean())).mean() / variance if variance > 0 else torch.zeros_like(variance)
    return slope * centred + g.mean()


def _score_normals(sums: _Sums, predicted: Tensor, true: Tensor) -> None:
    known = true.square().sum(1) > 0.5
    mean = (true * known[:, None]).sum((2, 3), keepdim=True).expand_as(true)
    for angles, said in ((sums.angles, predicted), (sums.constant_angles, mean)):
        cosine = torch.nn.functional.cosine_similarity(said, true, dim=1)
        angles.append(torch.rad2deg(torch.arccos(cosine[known].clamp(-1.0, 1.0))))


def _count_labels(sums: _Sums, predicted: Tensor, true: Tensor) -> None:
    known = true != UNLABELLED
    classes = len(sums.confusion)
    pairs = true[known] * classes + predicted[known].clamp(max=classes - 1)
    sums.confusion += torch.bincount(pairs, minlength=classes**2).reshape(classes, classes).cpu()


def _summary(sums: _Sums, classes: Sequence[str]) -> dict[str, float]:
    scores = {name: float(np.mean(values)) for name, values in sums.per_image.items()}
    angles = torch.cat(sums.angles) if sums.angles else torch.empty(0)
    if len(angles):
        scores["normals_mean"] = angles.mean().item()
        scores["normals_median"] = angles.median().item()
        scores["normals_30"] = (angles < 30.0).float().mean().item()
        scores["constant_normals_mean"] = torch.cat(sums.constant_angles).mean().item()
    if sums.confusion.sum():
        scores["pixel_accuracy"] = (sums.confusion.diag().sum() / sums.confusion.sum()).item()
        scores["miou"] = mean_iou(sums.confusion)
        scores["majority_miou"] = _majority_iou(sums.confusion)
        if set(classes) <= _GROUPS.keys():
            groups = _by_group(sums.confusion, classes)
            scores["group_miou"], scores["majority_group_miou"] = mean_iou(groups), _majority_iou(groups)
    return {name: value for name, value in scores.items() if math.isfinite(value)}


def mean_iou(confusion: Tensor) -> float:
    """Mean intersection over union over the classes that occur in the truth (rows); (classes, classes) counts."""
    hit = confusion.diag().double()
    union = confusion.sum(0) + confusion.sum(1) - confusion.diag()
    return (hit / union.clamp(min=1))[confusion.sum(1) > 0].mean().item()


def _majority_iou(confusion: Tensor) -> float:
    """`mean_iou` of the most frequent class everywhere."""
    per_class = confusion.sum(1)
    return (per_class.max() / per_class.sum() / (per_class > 0).sum()).item()


def _by_group(confusion: Tensor, classes: Sequence[str]) -> Tensor:
    groups = sorted({_GROUPS[name] for name in classes})
    member = torch.tensor([groups.index(_GROUPS[name]) for name in classes])
    coarse = torch.zeros(len(groups), len(groups), dtype=confusion.dtype)
    coarse.index_put_((member[:, None].expand_as(confusion), member.expand_as(confusion)), confusion, accumulate=True)
    return coarse
