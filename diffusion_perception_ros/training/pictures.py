"""A sheet of predictions beside the truth, for TensorBoard and for eyes."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from diffusion_perception_ros.sample import FloatImage, UInt8Image
from diffusion_perception_ros.training.batches import Batch
from diffusion_perception_ros.training.estimates import Estimates
from diffusion_perception_ros.world.labels import LABELS


_PALETTE = np.zeros((256, 3), np.uint8)  # black: unlabelled
_PALETTE[: len(LABELS)] = [label.color for label in LABELS]


def prediction_sheet(estimates: Estimates, batch: Batch) -> UInt8Image:
    """One row per picture: the picture, then prediction and truth of every task that is predicted.

    Returns:
        (N * H, (1 + 2 tasks) * W, 3) uint8 RGB.
    """
    return np.concatenate([_row(estimates, batch, index) for index in range(len(batch.image))])


def _row(estimates: Estimates, batch: Batch, index: int) -> UInt8Image:
    tiles = [_channels_last((batch.image[index] * 0.5 + 0.5) * 255.0)]
    if estimates.depth is not None:
        tiles += _depth_pair(*_comparable_depth(estimates.depth[index], estimates.depth_quantity, batch, index))
    if estimates.normals is not None:
        predicted = torch.nn.functional.normalize(estimates.normals[index], dim=0)
        tiles += [_channels_last((n * 0.5 + 0.5) * 255.0) for n in (predicted, batch.normals[index])]
    if estimates.semantic is not None:
        pair = estimates.semantic[index], batch.semantic[index]
        tiles += [_classes(labels.cpu().numpy().astype(np.uint8)) for labels in pair]
    for pair in estimates.drawings.values():
        tiles += [_channels_last((drawing[index].float() * 0.5 + 0.5) * 255.0) for drawing in pair]
    return np.concatenate(tiles, 1)


def _comparable_depth(said: Tensor, quantity: str, batch: Batch, index: int) -> tuple[FloatImage, FloatImage]:
    """Prediction and truth in one unit: relative values take the truth's median and spread, in their own quantity."""
    true = batch.depth[index]
    known = torch.isfinite(true) & (true > 0)
    if quantity == "metric_depth":
        nominal = batch.focal[index].nan_to_num(1.0)
        said = said if torch.isfinite(batch.focal[index]) else torch.ones_like(said)
        return (said / nominal).cpu().numpy(), (true / nominal).cpu().numpy()
    if known.any():
        goal = 1 / true[known] if quantity == "relative_disparity" else true[known]
        scale = goal.std() / said[known].std().clamp(min=1e-6)
        said = (said - said[known].mean()) * scale + goal.mean()
    depth = 1 / said.clamp(min=1e-3) if quantity == "relative_disparity" else said.clamp(min=1e-3)
    return depth.cpu().numpy(), true.cpu().numpy()


def _channels_last(values: Tensor) -> UInt8Image:
    return values.clamp(0, 255).permute(1, 2, 0).cpu().numpy().astype(np.uint8)


def _depth_pair(predicted: FloatImage, true: FloatImage) -> tuple[UInt8Image, UInt8Image]:
    """Both in the colours of the truth's range, near is bright; black where there is no truth."""
    with np.errstate(divide="ignore", invalid="ignore"):
        known = np.isfinite(true) & (true > 0)
        low, high = np.percentile(np.log(true[known]), (2, 98)) if known.any() else (-6.0, -2.0)
        tiles = []
        for depth in (predicted, true):
            level = 1.0 - (np.log(depth) - low) / max(high - low, 1e-3)
            level = np.clip(np.nan_to_num(level, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
            coloured = cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
            tiles.append(coloured[..., ::-1].astype(np.uint8))
    unknown = ~(known | np.isinf(true))
    return tiles[0], np.where(unknown[..., None], 0, tiles[1]).astype(np.uint8)


def _classes(labels: UInt8Image) -> UInt8Image:
    colours: UInt8Image = _PALETTE[labels].repeat(2, axis=0).repeat(2, axis=1)
    return colours
