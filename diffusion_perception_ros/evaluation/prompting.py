"""What a model is asked about a sample: a point on an object, or the part of it that is seen."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.datasets import UNKNOWN_INSTANCE, EvaluationSample
from diffusion_perception_ros.inference.card import ModelCard


BoolImage = npt.NDArray[np.bool_]


def question(card: ModelCard, sample: EvaluationSample) -> tuple[dict[str, Any], BoolImage | None]:
    """Arguments of `Estimator.predict` that the model's card asks for, and the mask (H, W) that answers them.

    One point, in the middle of the sample's largest object; or, for a model that is prompted with a mask, the part of
    the sample's amodal object that is seen. Nothing where the model takes no prompts or the sample has no such truth.
    """
    if card.points is not None and sample.instances is not None:
        truth = _largest(sample.instances)
        if truth is not None:
            return {"points": [(*_middle(truth), 1)]}, truth
    if card.prompt_mask is not None and sample.amodal is not None and sample.instances is not None:
        seen = (sample.amodal > 0) & (sample.instances == sample.amodal)
        if seen.any():
            return {"prompt_mask": seen}, sample.amodal > 0
    return {}, None


def _largest(instances: npt.NDArray[np.uint16]) -> BoolImage | None:
    area = np.bincount(instances.reshape(-1), minlength=UNKNOWN_INSTANCE + 1)
    area[[0, UNKNOWN_INSTANCE]] = 0
    return instances == area.argmax() if area.any() else None


def _middle(mask: BoolImage) -> tuple[int, int]:
    """u and v of the pixel that is farthest from the outline, which a centroid need not be inside of."""
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    v, u = np.unravel_index(int(inside.argmax()), mask.shape)
    return int(u), int(v)
