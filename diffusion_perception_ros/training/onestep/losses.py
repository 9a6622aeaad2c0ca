"""Losses of the multi-task network, in float32, each masked to the pixels that have ground truth.

All depth losses work on e = log predicted - log true canonical depth: a constant e is a wrong scale, and on a plane
seen correctly e is constant.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_perception_ros.sample import UNLABELLED
from diffusion_perception_ros.training.batches import Batch
from diffusion_perception_ros.training.onestep.network import NetworkOutputs
from diffusion_perception_ros.training.settings.parts import LossWeights


MAX_DEPTH = 80.0
"""Metres; whatever is farther, and the sky, should be predicted this far."""
_MIN_DEPTH = 0.1
_SKY_WEIGHT = 0.15
"""The sky has no depth: just enough weight to keep it behind everything, too little to bend what is in front."""
_COPLANAR = 0.01
"""Distance of a neighbour from the tangent plane, relative to depth, up to which it is on the same surface."""
_MAX_STEP = 3.0
"""Log depth ratio of neighbours beyond which an untrained network's surface is cut off, against overflow."""
_GRADIENT_STRIDES = (1, 2, 4, 8, 16)


def multi_task_losses(
    outputs: NetworkOutputs, batch: Batch, weights: LossWeights, class_weights: Tensor | None = None
) -> dict[str, Tensor]:
    """Unweighted terms by the names of `LossWeights`; only those with a positive weight are computed."""
    terms = depth_losses(outputs, batch)
    if weights.surface:
        terms["surface"] = surface_loss(outputs.log_depth[:, 0].float(), batch)
    if weights.normals:
        terms["normals"] = normals_loss(outputs.normals.float(), batch.normals)
    if weights.semantic:
        terms["semantic"] = F.cross_entropy(
            outputs.semantic.float(), batch.semantic, weight=class_weights, ignore_index=UNLABELLED
        ).nan_to_num()  # a batch without labels
    if weights.instances:
        terms["instances"] = offsets_loss(outputs.offsets.float(), batch.offsets)
    return terms


def log_depth_target(batch: Batch) -> tuple[Tensor, Tensor]:
    """(N, H, W) log canonical depth and weights: 1 where depth is known, little for sky, 0 for the rest.

    Without a focal length the scale is arbitrary; `depth_losses` then leaves out the metric term.
    """
    known = torch.isfinite(batch.depth) & (batch.depth > 0)
    sky = torch.isposinf(batch.depth)
    metres = torch.where(known, batch.depth, MAX_DEPTH).clamp(_MIN_DEPTH, MAX_DEPTH)
    focal = torch.where(torch.isfinite(batch.focal), batch.focal, 1.0)
    return metres.log() - focal.log()[:, None, None], known.float() + _SKY_WEIGHT * sky.float()


def depth_losses(outputs: NetworkOutputs, batch: Batch) -> dict[str, Tensor]:
    """`scale_invariant`, `metric`, `gradient` and `confidence`."""
    target, weight = log_depth_target(batch)
    error = outputs.log_depth[:, 0].float() - target
    known = (weight >= 1.0).float()
    per_image = weight.sum((1, 2)).clamp(min=1.0)
    shift = (error * weight).sum((1, 2)) / per_image
    aligned = (error - shift[:, None, None]).abs()
    calibrated = torch.isfinite(batch.focal).float()[:, None, None]
    log_scale = outputs.log_scale[:, 0].float()
    # Detached: must not soften the depth losses. Aligned: a scale error of the whole picture would drown what tells
    # its pixels apart.
    likelihood = log_scale + aligned.detach() * torch.exp(-log_scale)
    return {
        "scale_invariant": ((aligned * weight).sum((1, 2)) / per_image).mean(),
        "metric": _mean(error.abs(), weight * calibrated),
        "gradient": _gradient(error, known),
        "confidence": _mean(likelihood, known),
    }


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1.0)


def _gradient(error: Tensor, known: Tensor) -> Tensor:
    """Differences of the error to neighbours at several distances, summed over distances and both directions."""
    terms = []
    for stride in _GRADIENT_STRIDES:
        e, k = error[:, ::stride, ::stride], known[:, ::stride, ::stride]
        terms.append(_mean((e[:, :, 1:] - e[:, :, :-1]).abs(), k[:, :, 1:] * k[:, :, :-1]))
        terms.append(_mean((e[:, 1:] - e[:, :-1]).abs(), k[:, 1:] * k[:, :-1]))
    return torch.stack(terms).sum()


def surface_loss(log_depth: Tensor, batch: Batch, stride: int = 2) -> Tensor:
    """1 - cos between the true normals and those of the predicted depth, on every `stride`-th pixel.

    Only where the true surface continues over the four neighbours that the normal is made of.

    Args:
        log_depth: (N, H, W), any constant may be added.
    """

    def thinned(values: Tensor) -> Tensor:
        return values[..., stride // 2 :: stride, stride // 2 :: stride]

    rays = thinned(_rays(batch))  # (3, N, h, w)
    normals = thinned(batch.normals).permute(1, 0, 2, 3)[..., 1:-1, 1:-1]
    with torch.no_grad():
        known = torch.isfinite(batch.depth) & (batch.depth > 0)
        true_log = thinned(torch.where(known, batch.depth, torch.nan).log())
        on_plane = (normals.square().sum(0) > 0.5) & torch.isfinite(batch.focal)[:, None, None]
        for step in _steps(rays, true_log):
            on_plane &= (step * normals).sum(0).abs() < _COPLANAR  # false for NaN
    left, right, up, down = _steps(rays, thinned(log_depth))
    derived = torch.linalg.cross(down - up, right - left, dim=0)
    cosine = (derived * normals).sum(0) / (derived.square().sum(0) + 1e-12).sqrt()
    return _mean(1.0 - cosine, on_plane.float())


def _rays(batch: Batch) -> Tensor:
    """(3, N, H, W) viewing rays with z = 1; those of a nominal camera for pictures without intrinsics."""
    height, width = batch.depth.shape[1:]
    nominal = torch.tensor([width, width, (width - 1) / 2, (height - 1) / 2], device=batch.depth.device)
    intrinsics = torch.where(torch.isfinite(batch.intrinsics), batch.intrinsics, nominal)
    fx, fy, cx, cy = intrinsics[:, :, None, None].unbind(1)
    u = torch.arange(width, device=batch.depth.device)
    v = torch.arange(height, device=batch.depth.device)[:, None]
    x, y = ((u - cx) / fx).expand(-1, height, width), ((v - cy) / fy).expand(-1, height, width)
    return torch.stack([x, y, torch.ones_like(x)])


def _steps(rays: Tensor, log_depth: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Vectors (3, N, h - 2, w - 2) from each inner point to its left, right, upper and lower neighbour, in units of
    the point's depth."""
    centre, middle = log_depth[:, 1:-1, 1:-1], rays[..., 1:-1, 1:-1]

    def step(rows: slice, columns: slice) -> Tensor:
        ratio = (log_depth[:, rows, columns] - centre).clamp(-_MAX_STEP, _MAX_STEP).exp()
        return rays[:, :, rows, columns] * ratio - middle

    before, inner, after = slice(None, -2), slice(1, -1), slice(2, None)
    return step(inner, before), step(inner, after), step(before, inner), step(after, inner)


def normals_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """1 - cos plus half the L1 distance, (N, 3, H, W); true normals are zero where unknown."""
    known = (true.square().sum(1) > 0.5).float()
    cosine = (predicted * true).sum(1) / (predicted.square().sum(1) + 1e-6).sqrt()
    return _mean(1.0 - cosine + 0.5 * (predicted - true).abs().mean(1), known)


def offsets_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """L1, (N, 2, h, w); true offsets are NaN where there is no object."""
    known = torch.isfinite(true[:, 0])
    error = (predicted - torch.where(known[:, None], true, 0.0)).abs().mean(1)
    return _mean(error, known.float())


def inverse_frequency_weights(counts: Tensor, limits: tuple[float, float] = (0.4, 3.0)) -> Tensor:
    """Class weights proportional to 1 / sqrt(frequency), mean 1 over the pixels, clipped; `counts` is (classes,)."""
    frequency = counts.double() / counts.sum().clamp(min=1)
    weights = frequency.clamp(min=1e-5).rsqrt()
    weights /= (weights * frequency).sum().clamp(min=1e-9)
    return weights.clamp(*limits).float()
