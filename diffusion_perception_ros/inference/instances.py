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
_SMOOTHING = 0.014
"""Standard deviation of the blur over the votes: about the scatter of a good model's offsets."""
_PEAK_DISTANCE = 0.035
"""Two peaks of one class are at least this far apart."""
_SMALLEST = 0.0008
"""Objects with fewer pixels are not reported."""


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
    # Centres outside the picture (objects cut off by its border) collect at the border.
    with np.errstate(invalid="ignore"):
        target_x = np.clip(np.nan_to_num(columns + offsets[0, rows, columns]).round(), 0, width - 1).astype(np.intp)
        target_y = np.clip(np.nan_to_num(rows + offsets[1, rows, columns]).round(), 0, height - 1).astype(np.intp)
    classes = winner[rows, columns]
    for channel in np.unique(classes):
        mine = classes == channel
        x, y = target_x[mine], target_y[mine]
        objects = _nearest_peak(_peaks(_votes(x, y, width, height)))[y, x]
        sizes = np.bincount(objects)
        final = np.zeros(len(sizes), np.uint16)
        for number in np.flatnonzero(sizes[1:] >= _SMALLEST * winner.size) + 1:
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
    """Instance ids in the picture's size, with the outlines of the semantic map.

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


def _votes(x: npt.NDArray[np.intp], y: npt.NDArray[np.intp], width: int, height: int) -> npt.NDArray[np.float32]:
    """(height, width): smoothed number of votes for each cell."""
    counts = np.bincount(y * width + x, minlength=width * height).reshape(height, width).astype(np.float32)
    sigma = max(0.7, _SMOOTHING * (width * height) ** 0.5)
    return cv2.GaussianBlur(counts, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)  # type: ignore[return-value]


def _peaks(votes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """(h, w), true at the one cell of each local maximum that has the votes of a smallest object behind it."""
    scale = (votes.size) ** 0.5
    radius = max(1, round(_PEAK_DISTANCE * scale))
    window = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    # The smallest object's votes, scattered by three times the smoothing, still have this density at their centre.
    threshold = _SMALLEST * votes.size / (2 * np.pi * 10 * max(0.7, _SMOOTHING * scale) ** 2)
    top = (votes >= cv2.dilate(votes, window)) & (votes >= threshold)
    _, _, _, centres = cv2.connectedComponentsWithStats(top.astype(np.uint8), connectivity=8)
    peaks = np.zeros(votes.shape, np.bool_)
    x, y = centres[1:].round().astype(np.intp).T
    peaks[y, x] = True
    return peaks


def _nearest_peak(peaks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """(h, w), number (from 1, top to bottom) of the peak nearest to each cell; 0 everywhere if there is none."""
    if not peaks.any():
        return np.zeros(peaks.shape, np.int32)
    _, nearest = cv2.distanceTransformWithLabels(
        (~peaks).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    numbers = np.zeros(int(nearest.max()) + 1, np.int32)
    numbers[nearest[peaks]] = np.arange(1, np.count_nonzero(peaks) + 1)
    return cast("npt.NDArray[np.int32]", numbers[nearest])
