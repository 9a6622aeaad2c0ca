"""Losses of diffusion networks: on the latent, and on the decoded annotation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_perception_ros.training.diffusion.annotations import emphasis as emphasis_of


_COSINE_LIMIT = 1.0 - 1e-4
"""Where the derivative of arccos is still finite (GenPercept clamps there, too)."""


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
    """GenPercept's losses on the decoded annotation, with its weights (Sec. 4; its trainer's configs).

    Args:
        said, annotation: (N, 3, H, W) in [-1, 1].
        known: (N, 1, H, W) bool.
    """
    weight = known.float() * emphasis_of(task, annotation)
    said = said.float()
    if task == "normals":
        cosine = F.cosine_similarity(said, annotation, dim=1)[:, None].clamp(-_COSINE_LIMIT, _COSINE_LIMIT)
        return {"angular": _mean(cosine.arccos(), weight)}
    terms = {"pixel": _mean((said - annotation).square().mean(1, keepdim=True), weight)}
    if task in ("depth", "disparity"):
        depth, truth = said.mean(1, keepdim=True), annotation[:, :1]
        terms["affine_invariant"] = 0.5 * affine_invariant_loss(depth, truth, weight)
        terms["gradient"] = 2.0 * gradient_loss(depth - truth, weight)
    return terms


def affine_invariant_loss(said: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """L1 after the least squares scale and shift of every picture; (N, 1, H, W)."""
    total = weight.sum((1, 2, 3), keepdim=True).clamp(min=1.0)

    def mean(values: Tensor) -> Tensor:
        return (values * weight).sum((1, 2, 3), keepdim=True) / total

    centred, wanted = said - mean(said), truth - mean(truth)
    scale = mean(centred * wanted) / mean(centred.square()).clamp(min=1e-6)
    return _mean((scale * centred - wanted).abs(), weight)


def gradient_loss(error: Tensor, weight: Tensor, scales: int = 4) -> Tensor:
    """L1 of the differences of neighbouring errors, at halved resolutions, summed (MiDaS, arXiv:1907.01341)."""
    terms = []
    for scale in range(scales):
        e, w = error[..., :: 2**scale, :: 2**scale], weight[..., :: 2**scale, :: 2**scale]
        terms.append(_mean((e[..., 1:] - e[..., :-1]).abs(), w[..., 1:] * w[..., :-1]))
        terms.append(_mean((e[..., 1:, :] - e[..., :-1, :]).abs(), w[..., 1:, :] * w[..., :-1, :]))
    return torch.stack(terms).sum()


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1.0)
