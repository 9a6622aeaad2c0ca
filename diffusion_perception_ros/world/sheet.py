"""Pictures of samples for eyes: every modality side by side."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from diffusion_perception_ros.sample import UNLABELLED, FloatImage, Sample, UInt8Image, UInt16Image
from diffusion_perception_ros.world.labels import LABELS


GAP = 4
"""Pixels between pictures."""
GOLDEN_RATIO = 0.618034


def contact_sheet(samples: Sequence[Sample], columns: int = 1) -> UInt8Image:
    """One row of pictures per sample (colour, depth, normals, classes, instances), `columns` samples side by side.

    Samples must have all five modalities and one size. Returns (rows, columns, 3) sRGB.
    """
    strips = [_pad(np.concatenate([_pad(picture) for picture in _pictures(sample)], axis=1)) for sample in samples]
    while len(strips) % columns:
        strips.append(np.full_like(strips[0], 255))
    rows = [np.concatenate(strips[start : start + columns], axis=1) for start in range(0, len(strips), columns)]
    return np.concatenate(rows)


def color_depth(depth: FloatImage) -> UInt8Image:
    """Near red to far blue over the depths' 2nd to 98th percentile, logarithmic; black = unknown, white = sky."""
    known = np.isfinite(depth)
    picture = np.zeros((*depth.shape, 3), np.uint8)
    if known.any():
        log_depth = np.log(np.maximum(depth[known], 1e-3))
        low, high = np.percentile(log_depth, (2, 98))
        level = (255 * np.clip(1 - (log_depth - low) / max(high - low, 1e-6), 0, 1)).astype(np.uint8)
        picture[known] = cv2.applyColorMap(level[None], cv2.COLORMAP_TURBO)[0, :, ::-1]
    picture[np.isposinf(depth)] = 255
    return picture


def color_normals(normals: FloatImage) -> UInt8Image:
    """Right = red, up = green, towards the camera = blue; black = unknown."""
    picture = (np.nan_to_num(normals) * (1, -1, -1) + 1) * 127.5
    picture[np.isnan(normals).any(axis=-1)] = 0
    return np.round(picture).astype(np.uint8)


def color_semantic(semantic: UInt8Image) -> UInt8Image:
    """The colours of `world.labels`; black = unlabelled."""
    palette = np.zeros((UNLABELLED + 1, 3), np.uint8)
    palette[: len(LABELS)] = [label.color for label in LABELS]
    return palette[semantic]


def color_instances(instances: UInt16Image) -> UInt8Image:
    """Neighbouring ids in different colours; dark grey = none."""
    ids = np.arange(int(instances.max()) + 1)
    hsv = np.stack([ids * GOLDEN_RATIO % 1 * 179, np.full(len(ids), 200), 255 - ids * 37 % 100], axis=-1)
    palette = cv2.cvtColor(hsv.astype(np.uint8)[None], cv2.COLOR_HSV2RGB)[0]
    palette[0] = 40
    return np.asarray(palette[instances])


def _pictures(sample: Sample) -> list[UInt8Image]:
    if sample.depth is None or sample.normals is None or sample.semantic is None or sample.instances is None:
        raise ValueError(f"{sample.name} lacks a modality")
    return [
        sample.rgb,
        color_depth(sample.depth),
        color_normals(sample.normals),
        color_semantic(sample.semantic),
        color_instances(sample.instances),
    ]


def _pad(picture: UInt8Image) -> UInt8Image:
    return np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
