"""Scores one prediction, and the trivial baselines, against one sample's ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.datasets import EvaluationSample
from diffusion_perception_ros.evaluation.label_maps import read_label_map
from diffusion_perception_ros.inference.card import Label, ModelCard
from diffusion_perception_ros.metrics.alignment import align_affine, align_affine_inverse, align_scale
from diffusion_perception_ros.metrics.baselines import (
    depth_baselines,
    majority_class,
    majority_class_per_row,
    normal_baselines,
)
from diffusion_perception_ros.metrics.confidence import calibration_error, sparsification_scores
from diffusion_perception_ros.metrics.dense import (
    DELTA,
    Scores,
    angles_between,
    boundary_f1,
    confusion_matrix,
    depth_scores,
    flow_scores,
    instance_scores,
    normal_scores,
    segmentation_scores,
)
from diffusion_perception_ros.metrics.geometry import normals_from_depth
from diffusion_perception_ros.metrics.objects import alpha_scores, keypoint_scores, mask_scores
from diffusion_perception_ros.sample import FloatImage, Prediction


FloatArray = npt.NDArray[np.float64]

MASK_LEVEL = 0.5
NORMALS_MAX_DEPTH = 2.0
"""Metres. Beyond, the quantisation of a structured-light sensor is larger than the slopes that are measured."""
NORMALS_MIN_SHARE = 0.1
"""Share of the image that must have ground-truth normals for it to count: a strip at its edge says little."""
NORMALS_DEPTH_KINDS = frozenset({"dense_sensor", "stereo_ground_truth", "exact"})


@dataclass
class ImageScores:
    """All scores of one image."""

    name: str
    group: str
    scores: dict[str, dict[str, Scores]] = field(default_factory=dict)
    """Task to method (`model…` or a baseline) to metric."""
    confusion: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    """Method to confusion matrix, where there are semantics; summed over a group for its mIoU."""
    label_set: str | None = None
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds per stage, from the prediction."""


def score_image(
    sample: EvaluationSample,
    prediction: Prediction,
    labels: Sequence[Label] = (),
    mask: npt.NDArray[np.bool_] | None = None,
) -> ImageScores:
    """Scores every task that both the sample and the prediction have.

    Args:
        sample: Ground truth.
        prediction: In the sample's size.
        labels: The semantic classes of the model.
        mask: (H, W), what it was prompted for.
    """
    result = ImageScores(sample.name, sample.group, timings=dict(prediction.timings))
    if sample.depth is not None and (prediction.depth is not None or prediction.depth_relative is not None):
        result.scores["depth"] = _score_depth(sample.depth, prediction)
        if prediction.confidence is not None:
            result.scores["confidence"] = {"model": _score_confidence(sample.depth, prediction)}
    truth = ground_truth_normals(sample) if prediction.normals is not None else None
    if truth is not None and prediction.normals is not None:
        result.scores["normals"] = _score_normals(truth, prediction.normals)
    if sample.semantic is not None and sample.label_set is not None and prediction.semantic is not None:
        _score_semantic(sample, prediction, labels, result)
    if sample.instances is not None and prediction.instances is not None:
        whole = np.ones_like(sample.instances)
        result.scores["instances"] = {
            "model": instance_scores(prediction.instances, sample.instances),
            "one_instance": instance_scores(whole, sample.instances),
        }
    if sample.flow is not None and prediction.flow is not None and np.isfinite(sample.flow[..., 0]).any():
        result.scores["flow"] = _score_flow(sample.flow, prediction.flow)
    if mask is not None and prediction.mask is not None:
        result.scores["mask"] = {
            "model": mask_scores(prediction.mask >= MASK_LEVEL, mask),
            "whole_image": mask_scores(np.ones_like(mask), mask),
        }
    if sample.alpha is not None and prediction.alpha is not None:
        result.scores["alpha"] = {
            "model": alpha_scores(prediction.alpha, sample.alpha),
            "no_foreground": alpha_scores(np.zeros_like(sample.alpha), sample.alpha),
        }
    if sample.keypoints is not None and prediction.keypoints is not None and len(sample.keypoints):
        result.scores["keypoints"] = {"model": keypoint_scores(prediction.keypoints, sample.keypoints)}
    return result


def score_completed(
    sample: EvaluationSample,
    prediction: Prediction,
    card: ModelCard,
    mask: npt.NDArray[np.bool_] | None = None,
) -> ImageScores:
    """As `score_image`, but where another sensor gave the prediction its metres, what the model says alone is scored
    beside them: only `model_metric` then is of the completed depth.
    """
    depth = card.output("depth")
    if prediction.depth is None or prediction.depth_relative is None or depth is None:
        return score_image(sample, prediction, card.labels, mask)
    alone = replace(prediction, depth=None, depth_quantity=str(depth.quantity))
    result = score_image(sample, alone, card.labels, mask)
    metres = Prediction(depth=prediction.depth, depth_quantity="metric_depth")
    scores = score_image(sample, metres).scores
    if "depth" in scores:
        result.scores["depth"] = {"model_metric": scores["depth"]["model_metric"]} | result.scores["depth"]
    return result


def aligned_depth(depth: FloatImage, prediction: Prediction) -> FloatImage | None:
    """(H, W) metres: the predicted depth brought onto the ground truth by its affine alignment.

    None if the prediction has no depth, or fewer than two of its finite pixels have ground truth.
    """
    valid = np.isfinite(depth)
    source, inverse = _affine_source(prediction)
    if source is None:
        return None
    fitted = valid & np.isfinite(source)
    if np.count_nonzero(fitted) < 2:
        return None
    aligned = np.full(depth.shape, np.nan, np.float32)
    finite = np.isfinite(source)
    align = align_affine_inverse if inverse else align_affine
    aligned[finite] = align(source[fitted], depth[fitted].astype(np.float64), apply_to=source[finite])
    return aligned


def ground_truth_normals(sample: EvaluationSample) -> FloatImage | None:
    """The given normals, else those of the sensor's near depth; None where neither says enough."""
    if sample.normals is not None:
        return sample.normals
    if sample.depth is None or sample.intrinsics is None or sample.depth_kind not in NORMALS_DEPTH_KINDS:
        return None
    normals = normals_from_depth(sample.depth, sample.intrinsics, max_depth=NORMALS_MAX_DEPTH)
    return normals if np.isfinite(normals[..., 0]).mean() >= NORMALS_MIN_SHARE else None


def _affine_source(prediction: Prediction) -> tuple[FloatArray | None, bool]:
    """What is aligned, and whether it is an inverse depth."""
    if prediction.depth is not None:
        return prediction.depth.astype(np.float64), False
    if prediction.depth_relative is not None:
        return prediction.depth_relative.astype(np.float64), prediction.depth_quantity == "relative_disparity"
    return None, False


def _score_depth(depth: FloatImage, prediction: Prediction) -> dict[str, Scores]:
    valid = np.isfinite(depth)
    truth = depth[valid].astype(np.float64)
    methods: dict[str, FloatArray] = {}
    if prediction.depth is not None:
        methods["model_metric"] = prediction.depth[valid].astype(np.float64)
    source, inverse = _affine_source(prediction)
    assert source is not None
    values = source[valid]
    finite = np.isfinite(values)
    if np.count_nonzero(finite) >= 2:
        if not inverse:
            methods["model_scale"] = align_scale(values[finite], truth[finite], apply_to=values)
        align = align_affine_inverse if inverse else align_affine
        methods["model_affine"] = align(values[finite], truth[finite], apply_to=values)
    methods |= depth_baselines(np.nonzero(valid)[0], truth)
    return {method: depth_scores(values, truth) for method, values in methods.items()}


def _score_confidence(depth: FloatImage, prediction: Prediction) -> Scores:
    """`ause` of the relative error after affine alignment; `ece` of the probability that depth is within a factor of
    1.25, once the median of the image is right."""
    assert prediction.confidence is not None
    aligned = aligned_depth(depth, prediction)
    scores: Scores = {"ause": np.nan}
    if aligned is not None:
        scores = sparsification_scores(np.abs(aligned - depth) / depth, prediction.confidence)
    source, inverse = _affine_source(prediction)
    known = np.isfinite(depth) & (np.isfinite(source) if source is not None else False)
    if source is not None and not inverse and known.any():
        ratio = align_scale(source[known], depth[known].astype(np.float64)) / depth[known]
        scores["ece"] = calibration_error((ratio > 1 / DELTA) & (ratio < DELTA), prediction.confidence[known])
    return {name: scores[name] for name in ("ause", "ece") if name in scores}


def _score_normals(truth: FloatImage, normals: FloatImage) -> dict[str, Scores]:
    valid = np.isfinite(truth[..., 0])
    target = truth[valid].astype(np.float64)
    methods = {"model": normals[valid].astype(np.float64)} | normal_baselines(np.nonzero(valid)[0], target)
    return {method: normal_scores(angles_between(vectors, target)) for method, vectors in methods.items()}


def _score_flow(truth: FloatImage, flow: FloatImage) -> dict[str, Scores]:
    known = np.isfinite(truth[..., 0])
    target = truth[known].astype(np.float64)
    methods = {"model": flow[known].astype(np.float64), "no_motion": np.zeros_like(target)}
    return {method: flow_scores(vectors, target) for method, vectors in methods.items()}


def _score_semantic(
    sample: EvaluationSample, prediction: Prediction, labels: Sequence[Label], result: ImageScores
) -> None:
    assert sample.label_set is not None
    assert sample.semantic is not None
    assert prediction.semantic is not None
    mapping = read_label_map(sample.label_set)
    classes = len(mapping.names)
    truth = mapping.truth_ids(sample.semantic, sample.classes)
    if not (truth < classes).any():
        return
    maps = {
        "model": mapping.model_ids(prediction.semantic, labels),
        "majority_class": majority_class(truth, classes),
        "majority_class_per_row": majority_class_per_row(truth, classes),
    }
    result.label_set = sample.label_set
    result.confusion = {method: confusion_matrix(ids, truth, classes) for method, ids in maps.items()}
    result.scores["semantic"] = {
        method: segmentation_scores(result.confusion[method]) | {"boundary_f1": boundary_f1(ids, truth, classes)}
        for method, ids in maps.items()
    }
