"""Whether a model knows where it is wrong: its error after the least sure pixels are taken away."""

from __future__ import annotations

import numpy as np

from diffusion_perception_ros.datasets import EvaluationSample
from diffusion_perception_ros.evaluation.scoring import aligned_depth, ground_truth_normals
from diffusion_perception_ros.metrics.confidence import sparsification_scores
from diffusion_perception_ros.metrics.dense import Scores, angles_between
from diffusion_perception_ros.sample import Prediction


def confidence_scores(sample: EvaluationSample, prediction: Prediction) -> dict[str, Scores]:
    """Task → `sparsification_scores` of the confidences that the prediction has; errors as in `scoring`.

    Depth: relative error after affine alignment. Normals: angle.
    """
    scores = {}
    aligned = aligned_depth(sample.depth, prediction) if sample.depth is not None else None
    if sample.depth is not None and aligned is not None and prediction.confidence is not None:
        error = np.abs(aligned - sample.depth) / sample.depth
        scores["depth"] = sparsification_scores(error, prediction.confidence)
    if prediction.normals is not None and prediction.normals_confidence is not None:
        truth = ground_truth_normals(sample)
        if truth is not None:
            scores["normals"] = sparsification_scores(
                angles_between(prediction.normals, truth), prediction.normals_confidence
            )
    return scores
