"""Several predictions of one image from different noise become one, and their spread becomes its confidence.

What is done depends on the quantity, as in Marigold (Ke et al., CVPR 2024; diffusers `ensemble_depth` and
`ensemble_normals`): relative depth and disparity are first aligned with each other in scale and shift.

| output | merged | confidence |
|---|---|---|
| relative depth, disparity | aligned, then the median | exp(-MAD / 0.05), median absolute deviation of [0, 1] |
| metric depth | median | exp(-MAD / (0.05 * median)) |
| normals | the sample nearest to the mean direction | exp(-a / 0.2), a = mean angle to the mean direction in radians |
| classes (scores) | logarithm of the mean probability | the probability |
| flow | mean | - |
| instances | the first sample: colours and votes of different samples do not belong together | - |
| everything else | median | - |

Depth can be merged in other ways (`Merging`). A mean goes with the standard deviation in place of the MAD. Two samples
are always averaged: their median would be the lower one, and its MAD 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.inference.card import DepthOutput, ModelCard, NormalsOutput, SemanticOutput
from diffusion_perception_ros.inference.tensor import FloatTensor
from diffusion_perception_ros.sample import FloatImage


DEPTH_SPREAD = 0.05
"""Median absolute deviation, as a share of the range (relative) or of the depth (metric), of confidence 1/e."""
NORMALS_SPREAD = 0.2
"""Mean angle to the mean direction, in radians, of confidence 1/e."""
ALIGNMENT_SIDE = 256
"""Samples are aligned on at most so many pixels per side: two numbers per sample need no more."""
_REGULARIZER = 0.02
_MOST_ITERATIONS = 2
_TOLERANCE = 1e-3

Merging = Literal["aligned_median", "aligned_mean", "median"]
"""How depth is merged: aligned or as it is (metric depth always is as it is), and which of its values is taken."""
MERGINGS: tuple[str, ...] = get_args(Merging)
_Reduction = Literal["median", "mean"]

Tensors = Mapping[str, FloatTensor]
"""(C, h, w) by name."""


def merge_samples(
    card: ModelCard, samples: Sequence[Tensors], merging: Merging = "aligned_median"
) -> tuple[dict[str, FloatTensor], dict[str, FloatImage]]:
    """Merges what the graphs gave for several noises.

    Args:
        card: Says what the tensors are.
        samples: Tensors by name, the same names in all.
        merging: Of depth.

    Returns:
        tensors: The merged ones, in the card's units.
        confidence: (h, w) in [0, 1] for the tasks `depth` and `normals`, if they are there.
    """
    outputs = {output.tensor: output for output in card.outputs}
    tensors: dict[str, FloatTensor] = {}
    confidence: dict[str, FloatImage] = {}
    for name in samples[0]:
        stack = np.stack([sample[name] for sample in samples])  # (E, C, h, w)
        output = outputs.get(name)
        if isinstance(output, DepthOutput):
            depth, confidence["depth"] = _merge_depth(output, stack[:, 0], merging)
            tensors[name] = depth[None]
        elif isinstance(output, NormalsOutput):
            tensors[name], angle = ensemble_normals(stack)
            confidence["normals"] = np.exp(-angle / np.float32(NORMALS_SPREAD))
        elif isinstance(output, SemanticOutput) and output.encoding == "logits":
            tensors[name] = _mean_probability(stack)
        elif output is not None and output.task == "instances":
            tensors[name] = stack[0]
        elif output is not None and output.task == "flow":
            tensors[name] = stack.mean(axis=0)
        else:
            tensors[name] = _median(stack)
    return tensors, confidence


def ensemble_depth(
    depth: FloatTensor, largest_side: int = ALIGNMENT_SIDE, reduction: _Reduction = "median"
) -> tuple[FloatImage, FloatImage]:
    """Aligns relative depth (or disparity) maps in scale and shift, and merges them.

    The scales and shifts minimise the mean distance of all pairs (diffusers' `ensemble_depth`, same start, same two
    steps of BFGS). They are computed in float64: in float32, as in diffusers, the derivative by differences of 1.5e-8
    is below the resolution of the numbers and the steps follow rounding.

    Args:
        depth: (E, h, w), at least two, finite.
        largest_side: See `ALIGNMENT_SIDE`.
        reduction: What is taken of the aligned samples.

    Returns:
        merged: (h, w), stretched to [0, 1].
        spread: (h, w), median absolute deviation of the aligned samples on the same scale; with the mean their
            standard deviation.
    """
    scale, shift = _align(_shrunk(depth, largest_side).astype(np.float64), reduction)
    aligned = (depth * scale[:, None, None] + shift[:, None, None]).astype(np.float32)
    merged, spread = _reduce(aligned, reduction)
    low, extent = merged.min(), max(merged.max() - merged.min(), np.float32(1e-6))
    return (merged - low) / extent, spread / extent


def ensemble_normals(normals: FloatTensor) -> tuple[FloatTensor, FloatImage]:
    """The sample that is nearest to the mean direction, pixel by pixel (diffusers' `ensemble_normals`).

    Args:
        normals: (E, 3, h, w), any length.

    Returns:
        merged: (3, h, w), unit vectors.
        angle: (h, w), mean angle between the samples and their mean direction in radians.
    """
    units = _unit(normals, axis=1)
    mean = _unit(units.mean(axis=0), axis=0)
    cosines = np.clip(np.einsum("echw,chw->ehw", units, mean), -1.0, 1.0)
    nearest = cosines.argmax(axis=0)[None, None]
    merged = np.take_along_axis(units, nearest, axis=0)[0]
    return merged, np.arccos(cosines).mean(axis=0)


def _merge_depth(output: DepthOutput, depth: FloatTensor, merging: Merging) -> tuple[FloatImage, FloatImage]:
    """(E, h, w) in the card's units → the merged map in the same units, and its confidence."""
    reduction: _Reduction = "mean" if merging == "aligned_mean" or len(depth) == 2 else "median"
    if output.quantity == "metric_depth":
        merged, spread = _reduce(depth, reduction)
        return merged, np.exp(-spread / np.maximum(merged, np.float32(1e-6)) / np.float32(DEPTH_SPREAD))
    low, high = (np.float32(limit) for limit in output.range)
    relative = np.clip((np.nan_to_num(depth, nan=float(low)) - low) / (high - low), 0.0, 1.0)
    merged, spread = (
        _reduce(relative, reduction) if merging == "median" else ensemble_depth(relative, ALIGNMENT_SIDE, reduction)
    )
    return low + (high - low) * merged, np.exp(-spread / np.float32(DEPTH_SPREAD))


def _reduce(samples: FloatTensor, reduction: _Reduction) -> tuple[FloatImage, FloatImage]:
    """(E, h, w) → the median and its median absolute deviation, or the mean and the standard deviation."""
    if reduction == "mean":
        return samples.mean(axis=0), samples.std(axis=0, ddof=1)
    merged = _median(samples)
    return merged, _median(np.abs(samples - merged))


def _align(
    depth: npt.NDArray[np.float64], reduction: _Reduction
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scale and shift of every map of (E, h, w)."""
    # Imported here: only models with ensembles need it, and it takes a second to load.
    from scipy.optimize import minimize

    count = len(depth)
    pairs = list(combinations(range(count), 2))

    def cost(parameters: npt.NDArray[np.float64]) -> float:
        scale, shift = np.split(parameters, 2)
        aligned = depth * scale[:, None, None] + shift[:, None, None]
        distance = sum(float(np.sqrt(np.mean((aligned[i] - aligned[j]) ** 2))) for i, j in pairs)
        merged = _median(aligned) if reduction == "median" else aligned.mean(axis=0)
        return distance + _REGULARIZER * float(abs(merged.min()) + abs(1 - merged.max()))

    low, high = depth.min(axis=(1, 2)), depth.max(axis=(1, 2))
    scale = 1 / np.maximum(high - low, 1e-6)
    start = np.concatenate([scale, -scale * low])
    result = minimize(cost, start, method="BFGS", tol=_TOLERANCE, options={"maxiter": _MOST_ITERATIONS})
    scale, shift = np.split(result.x, 2)
    return scale, shift


def _shrunk(depth: FloatTensor, largest_side: int) -> FloatTensor:
    """(E, h, w) with no side above `largest_side`; single pixels, so that no values are made up at edges."""
    height, width = depth.shape[1:]
    if max(height, width) <= largest_side:
        return depth
    factor = largest_side / max(height, width)
    size = max(1, int(width * factor)), max(1, int(height * factor))
    return np.stack([cv2.resize(sample, size, interpolation=cv2.INTER_NEAREST_EXACT) for sample in depth])


def _median(stack: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Over the first axis; of an even number the lower of the two in the middle, as torch takes it."""
    middle = (len(stack) - 1) // 2
    result: npt.NDArray[np.floating] = np.partition(stack, middle, axis=0)[middle]
    return result


def _mean_probability(logits: FloatTensor) -> FloatTensor:
    """(E, C, h, w) scores → (C, h, w) scores whose softmax is the mean of the samples' softmax."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    mean = (exponentials / exponentials.sum(axis=1, keepdims=True)).mean(axis=0)
    result: FloatTensor = np.log(np.maximum(mean, np.float32(1e-12)))
    return result


def _unit(vectors: FloatTensor, axis: int) -> FloatTensor:
    length = np.linalg.norm(vectors, axis=axis, keepdims=True)
    result: FloatTensor = vectors / np.maximum(length, np.float32(1e-6))
    return result
