"""Instances out of a semantic map and centre offsets: every pixel of a thing votes for the centre of its object.

Votes are gathered per class at the resolution of the graph's output, smoothed, and their peaks are the objects; a
pixel belongs to the peak next to its vote.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.sample import UInt8Image, UInt16Image


# Lengths are shares of sqrt(h * w) of the vote grid, areas shares of h * w.
_SMOOTHING = 0.018
"""Standard deviation of the blur over the votes: about the scatter of a good model's offsets."""
_PEAK_DISTANCE = 0.045
"""Two peaks of one class are at least this far apart."""
_SMALLEST = 0.0008
"""Objects with fewer pixels are not reported."""
_OVERLAP = 0.5
"""Centres of two objects of one class are further apart than this times the square root of the larger one's area."""

CONSTANTS = (_SMOOTHING, _PEAK_DISTANCE, _SMALLEST, _OVERLAP)

_Points = npt.NDArray[np.intp]
"""(N, 2), x and y."""


def find_instances(
    winner: npt.NDArray[np.int32], offsets: npt.NDArray[np.float32], things: set[int]
) -> tuple[UInt16Image, dict[int, int]]:
    """Groups the pixels of things.

    Args:
        winner: (h, w), class channel of every pixel.
        offsets: (2, h, w), pixels of this grid (right, down) from each pixel to the centre of its object.
        things: Channels of countable classes.

    Returns:
        ids: (h, w) uint16, 0 = no instance, else 1, 2, … ordered by class and then from top to bottom.
        channels: Class channel of every id.
    """
    ids = np.zeros(winner.shape, np.uint16)
    channels: dict[int, int] = {}
    height, width = winner.shape
    rows, columns = np.nonzero(np.isin(winner, list(things)))
    # Centres outside the image (objects cut off by its border) collect at the border.
    target_x = np.clip(np.nan_to_num(columns + offsets[0, rows, columns]).round(), 0, width - 1).astype(np.intp)
    target_y = np.clip(np.nan_to_num(rows + offsets[1, rows, columns]).round(), 0, height - 1).astype(np.intp)
    classes = winner[rows, columns]
    least = max(1.0, _SMALLEST * winner.size)
    for channel in np.unique(classes):
        mine = classes == channel
        votes = np.stack([target_x[mine], target_y[mine]], axis=1)
        objects = _group(votes, width, height, least)
        sizes = np.bincount(objects)
        final = np.zeros(len(sizes), np.uint16)
        for number in np.flatnonzero(sizes[1:] >= least) + 1:
            channels[len(channels) + 1] = int(channel)
            final[number] = len(channels)
        ids[rows[mine], columns[mine]] = final[objects]
    return ids, channels


def enlarge_instances(
    ids: UInt16Image,
    channels: dict[int, int],
    semantic: UInt8Image | UInt16Image,
    label_ids: list[int],
) -> UInt16Image:
    """Instance ids in the image's size, with the outlines of the semantic map.

    Args:
        ids: (h, w), from `find_instances`.
        channels: Class channel of every id.
        semantic: (H, W), label ids.
        label_ids: Label id of every channel.

    Returns:
        (H, W) uint16; an instance only covers pixels of its own class.
    """
    height, width = semantic.shape
    result = np.zeros((height, width), np.uint16)
    channel_of = np.array([-1, *(channels[number] for number in range(1, len(channels) + 1))])[ids]
    for channel in sorted(set(channels.values())):
        own = np.where(channel_of == channel, ids, 0).astype(np.uint16)
        # The smooth outline reaches up to one cell beyond the coarse one.
        grown = np.where(own > 0, own, cv2.dilate(own, np.ones((3, 3), np.uint8)))
        enlarged = cv2.resize(grown, (width, height), interpolation=cv2.INTER_NEAREST)
        cv2.copyTo(enlarged, (semantic == label_ids[channel]).astype(np.uint8), result)
    return result


def _group(votes: _Points, width: int, height: int, least: float) -> npt.NDArray[np.intp]:
    """(N,) number of the object that each vote belongs to, from 1, top to bottom; 0 everywhere if there is none."""
    peaks = _peaks(votes, width, height, least)
    if not len(peaks):
        return np.zeros(len(votes), np.intp)
    nearest = _nearest(votes, peaks)
    sizes = np.bincount(nearest, minlength=len(peaks))
    # The votes of a large object can scatter into several peaks; a smaller object would not be that near its centre.
    kept: list[int] = []
    for index in np.argsort(-sizes, kind="stable"):
        distances = np.linalg.norm(peaks[kept] - peaks[index], axis=1)
        if (distances > _OVERLAP * np.sqrt(sizes[kept])).all():
            kept.append(int(index))
    if len(kept) < len(peaks):
        nearest = _nearest(votes, peaks[sorted(kept)])
    return nearest + 1


def _peaks(votes: _Points, width: int, height: int, least: float) -> _Points:
    """(P, 2) cells (x, y), top to bottom, where the smoothed votes have a local maximum that an object could make."""
    scale = (width * height) ** 0.5
    sigma = max(0.7, _SMOOTHING * scale)
    flat = votes[:, 1] * width + votes[:, 0]
    counts = np.bincount(flat, minlength=width * height).reshape(height, width).astype(np.float32)
    density = cv2.GaussianBlur(counts, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    # The votes of the smallest object, scattered three times as far as they are blurred, have this density.
    threshold = least / (2 * np.pi * 10 * sigma**2)
    window = 2 * max(1, round(_PEAK_DISTANCE * scale)) + 1
    # A slope too faint to matter leaves one maximum on a plateau.
    density = density + np.linspace(1e-4 * threshold, 0, width * height, dtype=np.float32).reshape(height, width)
    highest = cv2.dilate(density, np.ones((window, window), np.uint8))
    y, x = np.nonzero((density >= highest) & (density >= threshold))
    return np.stack([x, y], axis=1)


def _nearest(points: _Points, peaks: _Points) -> npt.NDArray[np.intp]:
    """(N,) index of the peak that is nearest to each of the points (N, 2)."""
    targets = peaks.astype(np.float32)
    # |p - t|^2 without the term that all peaks share.
    closeness = points.astype(np.float32) @ targets.T - (targets**2).sum(axis=1) / 2
    return cast("npt.NDArray[np.intp]", closeness.argmax(axis=1))
