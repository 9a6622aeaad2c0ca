"""A sheet of predictions beside the truth, for TensorBoard and for eyes."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from diffusion_perception_ros.sample import FloatImage, UInt8Image
from diffusion_perception_ros.training.batches import Batch
from diffusion_perception_ros.training.network import Outputs
from diffusion_perception_ros.world.labels import LABELS


_PALETTE = np.zeros((256, 3), np.uint8)  # black: unlabelled
_PALETTE[: len(LABELS)] = [label.color for label in LABELS]


def prediction_sheet(outputs: Outputs, batch: Batch) -> UInt8Image:
    """One row per picture: picture, depth, true depth, normals, true normals, classes, true classes.

    Returns:
        (N * H, 7 * W, 3) uint8 RGB.
    """
    return np.concatenate([_row(outputs, batch, index) for index in range(len(batch.image))])


def _row(outputs: Outputs, batch: Batch, index: int) -> UInt8Image:
    picture = _channels_last((batch.image[index] * 0.5 + 0.5) * 255.0)
    depth = torch.exp(outputs.log_depth[index, 0].float()).cpu().numpy()
    truth = (batch.depth[index] / batch.focal[index].nan_to_num(1.0)).cpu().numpy()
    normals = torch.nn.functional.normalize(outputs.normals[index].float(), dim=0)
    classes = outputs.semantic[index].argmax(0).cpu().numpy().astype(np.uint8)
    tiles = [picture, *_depth_pair(depth, truth)]
    tiles += [_channels_last((n * 0.5 + 0.5) * 255.0) for n in (normals, batch.normals[index])]
    tiles += [_classes(labels) for labels in (classes, batch.semantic[index].cpu().numpy().astype(np.uint8))]
    return np.concatenate(tiles, 1)


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
