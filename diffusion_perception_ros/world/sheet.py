"""Pictures of samples for eyes: every modality side by side."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from diffusion_perception_ros.sample import JOINTS, UNLABELLED, FloatImage, Sample, UInt8Image, UInt16Image
from diffusion_perception_ros.world.labels import LABELS


GAP = 4
"""Pixels between images."""
GOLDEN_RATIO = 0.618034


def contact_sheet(samples: Sequence[Sample], columns: int = 1) -> UInt8Image:
    """One row of images per sample (colour, depth, normals, classes, instances; then, where samples have them, the
    image before, flow, opacity, an object with its hidden part, joints), `columns` samples side by side.

    Samples must have the first five modalities, the same others, and one size. Returns (rows, columns, 3) sRGB.
    """
    strips = [_pad(np.concatenate([_pad(image) for image in _tiles(sample)], axis=1)) for sample in samples]
    return grid(strips, columns)


def grid(strips: Sequence[UInt8Image], columns: int) -> UInt8Image:
    """Pictures of one size, `columns` side by side, in as many rows as it takes; the last is filled with white."""
    cells = [*strips, *[np.full_like(strips[0], 255)] * (-len(strips) % columns)]
    rows = [np.concatenate(cells[start : start + columns], axis=1) for start in range(0, len(cells), columns)]
    return np.concatenate(rows)


def color_depth(depth: FloatImage) -> UInt8Image:
    """Near red to far blue over the depths' 2nd to 98th percentile, logarithmic; black = unknown, white = sky."""
    known = np.isfinite(depth)
    image = np.zeros((*depth.shape, 3), np.uint8)
    if known.any():
        log_depth = np.log(np.maximum(depth[known], 1e-3))
        low, high = np.percentile(log_depth, (2, 98))
        level = (255 * np.clip(1 - (log_depth - low) / max(high - low, 1e-6), 0, 1)).astype(np.uint8)
        image[known] = cv2.applyColorMap(level[None], cv2.COLORMAP_TURBO)[0, :, ::-1]
    image[np.isposinf(depth)] = 255
    return image


def color_normals(normals: FloatImage) -> UInt8Image:
    """Right = red, up = green, towards the camera = blue; black = unknown."""
    image = (np.nan_to_num(normals) * (1, -1, -1) + 1) * 127.5
    image[np.isnan(normals).any(axis=-1)] = 0
    return np.round(image).astype(np.uint8)


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


def color_flow(flow: FloatImage) -> UInt8Image:
    """Hue is the direction, white stands still, the 98th percentile of the lengths is full colour; black = unknown."""
    right, down = np.nan_to_num(flow).transpose(2, 0, 1)
    length, angle = np.hypot(right, down), np.arctan2(down, right) % (2 * np.pi)
    share = np.clip(length / max(float(np.percentile(length, 98)), 1e-3), 0, 1)
    hsv = np.stack([angle * (90 / np.pi), share * 255, np.full_like(share, 255)], axis=-1).astype(np.uint8)
    image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
    image[np.isnan(flow).any(axis=-1)] = 0
    return image


def cut_out(rgb: UInt8Image, alpha: FloatImage) -> UInt8Image:
    """The foreground before green."""
    opacity = alpha[..., None]
    return np.asarray(np.round(opacity * rgb + (1 - opacity) * np.array([0, 200, 80])), np.uint8)


def show_hidden(rgb: UInt8Image, instances: UInt16Image, amodal: UInt16Image) -> UInt8Image:
    """The rest of the image dimmed, what is seen of the object as it is, its hidden part red."""
    image = rgb // 3
    seen = (amodal > 0) & (instances == amodal)
    image[seen] = rgb[seen]
    image[(amodal > 0) & ~seen] = (230, 25, 75)
    return np.asarray(image, np.uint8)


def draw_joints(rgb: UInt8Image, keypoints: FloatImage) -> UInt8Image:
    """Left green, right red, the nose yellow; hidden joints are rings."""
    image = rgb // 2
    for person in keypoints:
        for name, (u, v, visibility) in zip(JOINTS, person, strict=True):
            color = {"left": (0, 255, 60), "right": (255, 50, 50)}.get(name.split("_")[0], (255, 230, 0))
            if visibility:
                thickness = cv2.FILLED if visibility == 2 else 1
                cv2.circle(image, (round(float(u)), round(float(v))), 3, color, thickness)
    return np.asarray(image, np.uint8)


def _targets(sample: Sample) -> list[UInt8Image]:
    images = []
    if sample.previous is not None and sample.flow is not None:
        images += [sample.previous, color_flow(sample.flow)]
    if sample.alpha is not None:
        images.append(cut_out(sample.rgb, sample.alpha))
    if sample.amodal is not None and sample.instances is not None:
        images.append(show_hidden(sample.rgb, sample.instances, sample.amodal))
    if sample.keypoints is not None:
        images.append(draw_joints(sample.rgb, sample.keypoints))
    return images


def _tiles(sample: Sample) -> list[UInt8Image]:
    if sample.depth is None or sample.normals is None or sample.semantic is None or sample.instances is None:
        raise ValueError(f"{sample.name} lacks a modality")
    return [
        sample.rgb,
        color_depth(sample.depth),
        color_normals(sample.normals),
        color_semantic(sample.semantic),
        color_instances(sample.instances),
        *_targets(sample),
    ]


def _pad(image: UInt8Image) -> UInt8Image:
    return np.pad(image, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
