"""Models that give colours: classes, entities and keypoints as colours of an image, and how they become numbers.

A decoder smears flat colours, most of all where two of them meet, so that no pixel can be trusted by itself.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.inference.card import ColorClustering, KeypointsOutput, Label
from diffusion_perception_ros.inference.tensor import FloatTensor
from diffusion_perception_ros.sample import FloatImage, UInt16Image


LABEL_SPREAD = 0.1
"""Standard deviation, in RGB of [0, 1], of a class's pixels around the colour of its label."""
LARGEST_ENCODED = 200_000
"""Pixels. Classes of larger colour encodings are found at half their size: a latent cell is 8 pixels wide, and
comparing with every label is what costs time."""
_BINS = 32
"""Per channel, of the colour histogram."""
_REFINEMENTS = 2

_Mask = npt.NDArray[np.uint8]


def label_scores(encoded: FloatTensor, labels: tuple[Label, ...]) -> FloatTensor:
    """Scores of every class, as if a classifier had given them: minus half the squared distance to its colour.

    Args:
        encoded: (3, h, w) RGB in [0, 1].
        labels: C classes.

    Returns:
        (C, h, w), or half of h and w if that is above `LARGEST_ENCODED`; the softmax is the probability under normal
        distributions of width `LABEL_SPREAD`.
    """
    height, width = encoded.shape[1:]
    if height * width > LARGEST_ENCODED:
        size = (width // 2, height // 2)
        encoded = np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in encoded])
    colors = np.array([label.color for label in labels], np.float32) / 255
    # |x - c|^2 without |x|^2, which all classes share.
    products = np.tensordot(colors, np.clip(encoded, 0.0, 1.0), axes=1)
    halves = (colors**2).sum(axis=1)[:, None, None] / 2
    scores: FloatTensor = (products - halves) / np.float32(LABEL_SPREAD**2)
    return scores


def entities(encoded: FloatTensor, clustering: ColorClustering, size: tuple[int, int]) -> UInt16Image:
    """Instances out of a colour encoding with one colour per entity.

    The most frequent colours are found one after the other in a histogram; pixels belong to the nearest of them.
    Connected pieces of one colour are the instances: colours are drawn at random, so that two entities can share one.

    Args:
        encoded: (3, h, w) RGB in [0, 1].
        clustering: The card's constants.
        size: Width and height of the image.

    Returns:
        (H, W) uint16, 0 = no instance, the largest is 1.
    """
    pixels = np.clip(np.nan_to_num(encoded), 0.0, 1.0).transpose(1, 2, 0)  # (h, w, 3)
    background = np.array(clustering.background, np.float32)
    is_foreground = np.linalg.norm(pixels - background, axis=2) >= clustering.background_distance
    cluster = _color_clusters(pixels, is_foreground, clustering)
    pieces: list[tuple[int, _Mask]] = []
    least = clustering.least_area * is_foreground.size
    for number in range(1, int(cluster.max(initial=0)) + 1):
        # Opening removes the slivers of mixed colours along outlines.
        mask = cv2.morphologyEx((cluster == number).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        _, components, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        for piece in range(1, len(stats)):
            area = int(stats[piece, cv2.CC_STAT_AREA])
            if area >= least:
                pieces.append((area, cast(_Mask, (components == piece).astype(np.uint8))))
    ids = np.zeros(is_foreground.shape, np.uint16)
    for number, (_, mask) in enumerate(sorted(pieces, key=lambda piece: -piece[0]), start=1):
        ids[mask > 0] = number
    grown = cv2.dilate(ids, np.ones((3, 3), np.uint8))  # the outlines that the opening took
    ids = np.where((ids == 0) & is_foreground, grown, ids)
    return cast(UInt16Image, cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT))


def keypoints(encoded: FloatTensor, output: KeypointsOutput, size: tuple[int, int]) -> FloatImage:
    """Centres of the spots that have the keypoints' colours.

    Args:
        encoded: (3, h, w) RGB in [0, 1].
        output: The card's colours and constants.
        size: Width and height of the image.

    Returns:
        (N, 3): u, v in pixels of the image and confidence in [0, 1], 1 = exactly that colour; the surest first. With
        `joints` (N, 4): the number of the joint, too.
    """
    if output.joints is None:
        points = _spots(encoded, output.color, output, size)
    else:
        found = [_spots(encoded, joint.color, output, size) for joint in output.joints]
        numbers = np.repeat(np.arange(len(found)), [len(spots) for spots in found])
        points = np.concatenate([np.concatenate(found), numbers[:, None].astype(np.float32)], axis=1)
    return points[np.argsort(-points[:, 2], kind="stable")].astype(np.float32)


def _spots(
    encoded: FloatTensor, color: tuple[float, float, float], output: KeypointsOutput, size: tuple[int, int]
) -> FloatImage:
    """(N, 3): u, v and confidence of the spots of one colour."""
    height, width = encoded.shape[1:]
    target = np.array(color, np.float32)[:, None, None]
    distance = np.linalg.norm(np.clip(np.nan_to_num(encoded), 0.0, 1.0) - target, axis=0)
    closeness = np.clip(1 - distance / np.float32(output.color_distance), 0.0, 1.0)
    count, components = cv2.connectedComponents((closeness > 0).astype(np.uint8), connectivity=8)
    area = np.bincount(components.ravel(), minlength=count)
    share = area / closeness.size
    is_spot = (share >= output.least_area) & (share <= output.most_area)
    is_spot[0] = False  # everything that has another colour
    rows, columns = np.nonzero(is_spot[components])
    spot, weight = components[rows, columns], closeness[rows, columns]
    total = np.bincount(spot, weight, count)[is_spot]
    u = np.bincount(spot, weight * columns, count)[is_spot] / total
    v = np.bincount(spot, weight * rows, count)[is_spot] / total
    best = np.zeros(count, np.float32)
    np.maximum.at(best, spot, weight)
    scale_u, scale_v = size[0] / width, size[1] / height
    return np.stack([(u + 0.5) * scale_u - 0.5, (v + 0.5) * scale_v - 0.5, best[is_spot]], axis=1)


def _color_clusters(
    pixels: FloatImage, is_foreground: npt.NDArray[np.bool_], clustering: ColorClustering
) -> npt.NDArray[np.intp]:
    """(h, w), number of each pixel's colour from 1, most frequent first; 0 for background and rare colours."""
    bins = np.minimum((pixels * _BINS).astype(np.intp), _BINS - 1)
    flat = (bins[..., 0] * _BINS + bins[..., 1]) * _BINS + bins[..., 2]
    counts = np.bincount(flat[is_foreground], minlength=_BINS**3)
    occupied = np.flatnonzero(counts)
    weights = counts[occupied].astype(np.float32)
    cells = np.stack(np.unravel_index(occupied, (_BINS,) * 3), axis=1)
    centres = ((cells + 0.5) / _BINS).astype(np.float32)  # (N, 3)
    colors = _frequent_colors(centres, weights, clustering, clustering.least_area * is_foreground.size)
    table = np.zeros(_BINS**3, np.intp)
    if len(colors):
        distance = np.abs(centres[:, None] - colors[None]).max(axis=2)  # (N, colours)
        near = distance.min(axis=1) <= clustering.color_distance
        table[occupied[near]] = distance[near].argmin(axis=1) + 1
    return np.where(is_foreground, table[flat], 0)


def _frequent_colors(
    centres: FloatImage, weights: npt.NDArray[np.float32], clustering: ColorClustering, least: float
) -> FloatImage:
    """(K, 3), the colours around which most pixels are, each at least `color_distance` from the others."""
    weights = weights.copy()
    colors: list[npt.NDArray[np.float32]] = []
    while len(colors) < clustering.most and weights.sum() >= least:
        seed = weights.argmax()
        color = centres[seed]
        for _ in range(_REFINEMENTS):  # towards the mean of what is near, as mean shift does
            near = np.abs(centres - color).max(axis=1) <= clustering.color_distance
            color = np.average(centres[near], axis=0, weights=weights[near]).astype(np.float32)
        near = np.abs(centres - color).max(axis=1) <= clustering.color_distance
        near[seed] = True
        if weights[near].sum() >= least:
            colors.append(color)
        weights[near] = 0
    return np.array(colors, np.float32).reshape(-1, 3)
