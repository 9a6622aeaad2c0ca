"""Losses of diffusion networks: on the latent, and on the decoded annotation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_perception_ros.training.diffusion.annotations import emphasis as emphasis_of


_COSINE_LIMIT = 1.0 - 1e-4
"""Where the derivative of arccos is still finite (GenPercept clamps there, too)."""

_ACOS_LIMIT = 1.0 - 1e-6
"""E2E-FT clamps at 1, where the derivative is infinite."""
_ONE_CHANNEL = frozenset({"depth", "disparity", "alpha"})
"""Tasks whose annotation has three equal channels."""
_POSITIVE = 2.0


def latent_loss(said: Tensor, target: Tensor, known: Tensor, emphasis: Tensor | None = None) -> Tensor:
    """Mean squared error over the positions whose pixels are all known.

    Args:
        said, target: (N, C, h, w).
        known: (N, 1, H, W) bool, H and W multiples of h and w (Lotus, train_lotus_g.py, takes the same mask).
        emphasis: (N, 1, H, W) what an error counts, the most of a position's pixels; None = 1 everywhere.
    """
    factor = known.shape[-1] // said.shape[-1]
    weight = 1.0 - F.max_pool2d((~known).float(), factor)
    if emphasis is not None:
        weight = weight * F.max_pool2d(emphasis, factor)
    return _mean((said.float() - target.float()).square().mean(1, keepdim=True), weight)


def picture_losses(task: str, said: Tensor, annotation: Tensor, known: Tensor) -> dict[str, Tensor]:
    """GenPercept's losses on the decoded annotation, term by term as its trainer computes them.

    Every mean is over the known pixels of the whole batch (aim-uofa/GenPercept at 7cff083,
    src/trainer/genpercept_trainer.py:717-806 and genpercept/losses; the table is in docs/methods/genpercept.md).
    One-channel annotations are compared with the mean of the decoded channels. The emphasis of tasks that GenPercept
    does not have is ours.

    Args:
        said, annotation: (N, 3, H, W) in [-1, 1].
        known: (N, 1, H, W) bool.
    """
    weight = known.float() * emphasis_of(task, annotation)
    said = said.float()
    if task == "normals":
        cosine = F.cosine_similarity(said, annotation, dim=1)[:, None].clamp(-_COSINE_LIMIT, _COSINE_LIMIT)
        return {"angular": _mean(cosine.arccos(), weight)}
    if task in _ONE_CHANNEL:
        said, annotation = said.mean(1, keepdim=True), annotation[:, :1]
    terms = {"pixel": _mean((said - annotation).square().mean(1, keepdim=True), weight)}
    if task in ("depth", "disparity"):
        terms["affine_invariant"] = 0.5 * affine_invariant_loss(said, annotation, known)
        terms["gradient"] = 2.0 * gradient_loss(said - annotation, known)
    return terms


def end_to_end_losses(task: str, said: Tensor, truth: Tensor, known: Tensor) -> dict[str, Tensor]:
    """E2E-FT's only loss of a task: L1 in metres after the best scale and shift of every image, or the angle.

    (VisualComputingInstitute/diffusion-e2e-ft at 4ff5aad, training/train.py:500-556 and training/util/loss.py.)

    Args:
        said: (N, 3, H, W) the decoded annotation, about [-1, 1].
        truth: (N, 1, H, W) metres (`depth`) or one over metres (`disparity`), or (N, 3, H, W) encoded normals.
        known: (N, 1, H, W) bool.
    """
    weight, said = known.float(), said.float()
    if task == "normals":
        unit = (said / (said.norm(dim=1, keepdim=True) + 1e-5)).clamp(-1.0, 1.0)
        cosine = (unit * truth).sum(1, keepdim=True).clamp(-_ACOS_LIMIT, _ACOS_LIMIT)
        return {"angular": _mean(cosine.arccos(), weight)}
    depth, truth = said.mean(1, keepdim=True).clamp(-1.0, 1.0), torch.where(known, truth, 0.0)
    scale, shift = _least_squares(depth, truth, weight)
    return {"affine_invariant": _mean((scale * depth + shift - truth).abs(), weight)}


def _least_squares(said: Tensor, truth: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 1, 1, 1) scale and shift of every image; both 0 where `said` is the same everywhere."""
    total = weight.sum((1, 2, 3), keepdim=True).clamp(min=1.0)

    def mean(values: Tensor) -> Tensor:
        return (values * weight).sum((1, 2, 3), keepdim=True) / total

    middle, target = mean(said), mean(truth)
    variance = mean((said - middle).square())
    varies = variance > 0
    scale = mean((said - middle) * (truth - target)) / torch.where(varies, variance, 1.0)
    return torch.where(varies, scale, 0.0), torch.where(varies, target - scale * middle, 0.0)


def affine_invariant_loss(said: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """L1 after the scale and shift of every image that are best in the sense of least squares.

    Where the best scale is not positive the ratio of the medians takes its place, without a shift. The medians are of
    the values moved from [-1, 1] to [1, 3], as the authors do to keep them positive.

    Args:
        said, truth: (N, 1, H, W) in [-1, 1].
        known: (N, 1, H, W) bool.
    """
    weight, said, truth = known.float(), said + _POSITIVE, truth + _POSITIVE
    scale, shift = _least_squares(said, truth, weight)
    aligned = torch.where(scale > 0, scale * said + shift, said * _ratio_of_medians(said, truth, known))
    return _mean((aligned - truth).abs(), weight)


def _ratio_of_medians(said: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """(N, 1, 1, 1); 1 where nothing is known."""
    nothing = torch.full((), float("nan"), device=said.device)
    medians = [torch.where(known, values, nothing).flatten(1).nanmedian(1).values for values in (truth, said)]
    ratio = medians[0] / (medians[1] + 1e-8)
    return torch.where(known.flatten(1).any(1), ratio, 1.0)[:, None, None, None]


def gradient_loss(error: Tensor, known: Tensor) -> Tensor:
    """Sum of the differences of errors in neighbouring rows, over the number of known pixels.

    GenPercept's multi-scale gradient loss with its one scale. Its function is written for (N, H, W) and is given
    (N, 1, H, W): what it takes for columns are the rows, and what it takes for rows is the one channel, which has no
    neighbour. So the published weights were trained without differences of columns, and neither are ours.

    Args:
        error: (N, 1, H, W).
        known: (N, 1, H, W) bool.
    """
    weight = known.float()
    pairs = weight[..., 1:, :] * weight[..., :-1, :]
    return ((error[..., 1:, :] - error[..., :-1, :]).abs() * pairs).sum() / weight.sum().clamp(min=1.0)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1.0)
