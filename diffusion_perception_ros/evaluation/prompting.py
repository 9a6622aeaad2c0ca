"""What a model is asked about a sample: points on an object, or the part of it that is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.datasets import EvaluationSample
from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.sample import UNKNOWN_INSTANCE


BoolImage = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Question:
    """Prompts for one image, and what answers them."""

    points: tuple[tuple[float, float, int], ...] = ()
    """u, v in pixels, 1 = inside the object, 0 = outside."""
    mask: BoolImage | None = None
    """(H, W), where the object is seen."""
    answer: BoolImage | None = None
    """(H, W), the object that is meant."""

    @property
    def arguments(self) -> dict[str, Any]:
        """For `Estimator.predict`."""
        prompts: dict[str, Any] = {"points": self.points} if self.points else {}
        return prompts if self.mask is None else prompts | {"prompt_mask": self.mask}


NO_QUESTION = Question()


def question(card: ModelCard, sample: EvaluationSample) -> Question:
    """The prompts that the model's card asks for and the sample's truth answers; none where either lacks them.

    The sample's own prompts come first. Without them: one point, in the middle of its largest object; or, for a model
    that is prompted with a mask, the part of its amodal object that is seen.
    """
    if card.points is not None:
        return _point_question(sample, card.points.most)
    if card.prompt_mask is not None:
        return _mask_question(sample)
    return NO_QUESTION


def _point_question(sample: EvaluationSample, most: int) -> Question:
    answer = sample.prompt_answer
    if answer is None and sample.instances is not None:
        answer = _largest(sample.instances)
    if answer is None:
        return NO_QUESTION
    return Question(points=sample.prompt_points[:most] or ((*_middle(answer), 1),), answer=answer)


def _mask_question(sample: EvaluationSample) -> Question:
    if sample.prompt_mask is not None and sample.prompt_answer is not None:
        return Question(mask=sample.prompt_mask, answer=sample.prompt_answer)
    if sample.amodal is None or sample.instances is None:
        return NO_QUESTION
    seen = (sample.amodal > 0) & (sample.instances == sample.amodal)
    return Question(mask=seen, answer=sample.amodal > 0) if seen.any() else NO_QUESTION


def _largest(instances: npt.NDArray[np.uint16]) -> BoolImage | None:
    area = np.bincount(instances.reshape(-1), minlength=UNKNOWN_INSTANCE + 1)
    area[[0, UNKNOWN_INSTANCE]] = 0
    return instances == area.argmax() if area.any() else None


def _middle(mask: BoolImage) -> tuple[int, int]:
    """u and v of the pixel that is farthest from the outline, which a centroid need not be inside of."""
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    v, u = np.unravel_index(int(inside.argmax()), mask.shape)
    return int(u), int(v)
