"""Means over images: per task, group and method, and over all images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from diffusion_perception_ros.evaluation.label_maps import read_label_map
from diffusion_perception_ros.evaluation.scoring import ImageScores
from diffusion_perception_ros.metrics.dense import Scores, intersection_over_union, segmentation_scores


ALL = "all"
TASKS = ("depth", "confidence", "normals", "semantic", "instances", "flow", "mask", "alpha", "keypoints")

MethodScores = dict[str, dict[str, float]]
"""Method to metric to mean."""
Summary = dict[str, dict[str, MethodScores]]
"""Task to group (the last is `all`) to method to metric."""


def summarise(images: Sequence[ImageScores]) -> Summary:
    """Mean scores. A group's row is the mean over its images, the row `all` the mean over all images.

    Each method carries `images`, the number of images it was scored on. For semantics, groups of one label set get
    `set_miou`, the mean IoU of the summed confusion matrix, as data sets report it.
    """
    summary: Summary = {}
    for task in TASKS:
        scored = [image for image in images if task in image.scores]
        if not scored:
            continue
        groups = list(dict.fromkeys(image.group for image in scored))
        rows = {group: _means(task, [image for image in scored if image.group == group]) for group in groups}
        summary[task] = rows | {ALL: _means(task, scored)}
    return summary


def class_iou(images: Sequence[ImageScores]) -> dict[str, dict[str, dict[str, float]]]:
    """Group to method to class name to IoU over the group; classes that never occur are left out."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for group in dict.fromkeys(image.group for image in images if image.confusion):
        members = [image for image in images if image.group == group and image.confusion]
        if len({image.label_set for image in members}) != 1:
            continue
        names = read_label_map(str(members[0].label_set)).names
        table[group] = {}
        for method in members[0].confusion:
            total = np.sum([image.confusion[method] for image in members], axis=0)
            present = total.sum(axis=1) > 0
            iou = intersection_over_union(total)
            table[group][method] = {names[i]: float(iou[i]) for i in np.flatnonzero(present)}
    return table


def _means(task: str, images: Sequence[ImageScores]) -> MethodScores:
    methods = dict.fromkeys(method for image in images for method in image.scores[task])
    rows: MethodScores = {}
    for method in methods:
        scores = [image.scores[task][method] for image in images if method in image.scores[task]]
        rows[method] = {metric: mean_of_known(score[metric] for score in scores) for metric in scores[0]}
        rows[method]["images"] = len(scores)
    if task == "semantic" and len({image.label_set for image in images}) == 1:
        for method in methods:
            total = np.sum([image.confusion[method] for image in images], axis=0)
            rows[method]["set_miou"] = segmentation_scores(total)["miou"]
    return rows


def mean_of_known(values: Iterable[float]) -> float:
    """Mean of the values that are defined; NaN if none is."""
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def percentiles(values: Sequence[float]) -> Scores:
    """`p50`, `p95`, `p99` of some values; NaN without any."""
    if not values:
        return {"p50": math.nan, "p95": math.nan, "p99": math.nan}
    return {f"p{share}": float(np.percentile(values, share)) for share in (50, 95, 99)}
