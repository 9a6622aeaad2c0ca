"""Scores, alignments, baselines and normals against values worked out by hand and against brute force."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from diffusion_perception_ros.datasets import EvaluationSample
from diffusion_perception_ros.evaluation.label_maps import read_label_map
from diffusion_perception_ros.evaluation.scoring import ImageScores, score_image
from diffusion_perception_ros.evaluation.summary import ALL, class_iou, summarise
from diffusion_perception_ros.inference.card import Label
from diffusion_perception_ros.metrics.alignment import (
    INVERSE_DEPTH_FLOOR,
    align_affine,
    align_affine_inverse,
    align_scale,
)
from diffusion_perception_ros.metrics.baselines import (
    depth_baselines,
    majority_class,
    majority_class_per_row,
    normal_baselines,
)
from diffusion_perception_ros.metrics.dense import (
    angles_between,
    boundary_f1,
    confusion_matrix,
    depth_scores,
    instance_scores,
    intersection_over_union,
    normal_scores,
    segmentation_scores,
)
from diffusion_perception_ros.metrics.geometry import normals_from_depth, points_from_depth
from diffusion_perception_ros.sample import UNKNOWN_INSTANCE, Intrinsics, Prediction


CAMERA = Intrinsics(160, 120, 140.0, 150.0, 79.0, 61.0)


def random_depth(seed: int, count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Depths of 0.5 to 9 m and predictions that are loosely related to them."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.5, 9.0, count)
    return depth * rng.uniform(0.6, 1.5, count) + rng.normal(0, 0.2, count), depth


def test_depth_scores_by_hand() -> None:
    depth = np.array([1.0, 2.0, 4.0, 10.0])
    prediction = np.array([1.2, 1.0, 4.0, 18.0])
    scores = depth_scores(prediction, depth)
    assert scores["absrel"] == pytest.approx((0.2 + 0.5 + 0.0 + 0.8) / 4)
    assert scores["rmse"] == pytest.approx(math.sqrt((0.04 + 1.0 + 0.0 + 64.0) / 4))
    # Ratios 1.2, 2, 1, 1.8 against 1.25, 1.5625, 1.953125.
    assert (scores["delta1"], scores["delta2"], scores["delta3"]) == (0.5, 0.5, 0.75)
    assert scores["coverage"] == 1.0


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_prediction_that_is_not_positive_misses_every_delta(value: float) -> None:
    scores = depth_scores(np.array([value, 1.0]), np.array([1.0, 1.0]))
    assert scores["delta1"] == scores["delta3"] == 0.5
    assert scores["absrel"] == pytest.approx(abs(value - 1.0) / 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_missing_prediction_is_a_miss_and_lowers_coverage(value: float) -> None:
    scores = depth_scores(np.array([value, 2.0]), np.array([1.0, 1.0]))
    assert (scores["absrel"], scores["rmse"], scores["coverage"], scores["delta3"]) == (1.0, 1.0, 0.5, 0.0)


def test_nothing_predicted_has_no_error_but_misses() -> None:
    scores = depth_scores(np.array([np.nan]), np.array([1.0]))
    assert math.isnan(scores["absrel"])
    assert scores["delta1"] == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_affine_alignment_ignores_scale_and_shift(seed: int) -> None:
    prediction, depth = random_depth(seed)
    reference = align_affine(prediction, depth)
    np.testing.assert_allclose(align_affine(-3.7 * prediction + 20.0, depth), reference, rtol=1e-9)
    design = np.stack([prediction, np.ones_like(prediction)], axis=1)
    expected = design @ np.linalg.lstsq(design, depth, rcond=None)[0]
    np.testing.assert_allclose(reference, expected, rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_inverse_alignment_is_least_squares_in_inverse_depth(seed: int) -> None:
    prediction, depth = random_depth(seed)
    disparity = 1.0 / np.maximum(prediction, 0.3)
    design = np.stack([disparity, np.ones_like(disparity)], axis=1)
    fitted = design @ np.linalg.lstsq(design, 1.0 / depth, rcond=None)[0]
    aligned = align_affine_inverse(disparity, depth)
    np.testing.assert_allclose(aligned, 1.0 / np.maximum(fitted, INVERSE_DEPTH_FLOOR), rtol=1e-9)
    np.testing.assert_allclose(align_affine_inverse(100 * disparity - 4, depth), aligned, rtol=1e-7)


def test_inverse_alignment_never_exceeds_the_floor() -> None:
    depth = np.array([1.0, 1.1, 50.0, 60.0, 1.0])
    aligned = align_affine_inverse(np.array([5.0, 5.0, 0.0, 0.0, -30.0]), depth)
    assert aligned.max() <= 1 / INVERSE_DEPTH_FLOOR
    assert aligned.min() > 0


def test_perfect_relative_predictions_align_exactly() -> None:
    _, depth = random_depth(0)
    np.testing.assert_allclose(align_affine(0.1 * depth - 7, depth), depth, rtol=1e-9)
    np.testing.assert_allclose(align_affine_inverse(3 / depth + 0.5, depth), depth, rtol=1e-9)
    np.testing.assert_allclose(align_scale(0.02 * depth, depth), depth, rtol=1e-9)


def test_alignment_of_a_constant_is_the_mean_depth() -> None:
    depth = np.array([1.0, 2.0, 6.0])
    np.testing.assert_allclose(align_affine(np.full(3, 0.3), depth), 3.0)


def test_scale_alignment_needs_a_positive_median() -> None:
    assert np.isnan(align_scale(np.array([-1.0, -2.0, 3.0]), np.ones(3))).all()


@pytest.mark.parametrize("seed", range(3))
def test_depth_baselines_are_least_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, depth = rng.integers(0, 480, 400), rng.uniform(0.4, 8, 400)
    design = np.stack([rows, np.ones_like(rows)], axis=1).astype(float)
    plane = design @ np.linalg.lstsq(design, depth, rcond=None)[0]
    inverse = design @ np.linalg.lstsq(design, 1 / depth, rcond=None)[0]
    answers = depth_baselines(rows, depth)
    np.testing.assert_allclose(answers["constant"], depth.mean())
    np.testing.assert_allclose(answers["row_plane"], plane, rtol=1e-9)
    np.testing.assert_allclose(answers["row_plane_inverse_depth"], 1 / np.maximum(inverse, 0.01), rtol=1e-9)


def test_angles_are_exact_from_tiny_to_opposite() -> None:
    for degrees in (1e-7, 0.5, 90.0, 179.9999, 180.0):
        angle = np.radians(degrees)
        other = np.array([[np.cos(angle), np.sin(angle), 0.0]]) * 3.0
        assert angles_between(np.array([[1.0, 0.0, 0.0]]), other)[0] == pytest.approx(degrees, rel=1e-6)
    assert np.isnan(angles_between(np.array([[np.nan, 0, 0]]), np.array([[1.0, 0, 0]])))[0]


def test_normal_scores_by_hand() -> None:
    scores = normal_scores(np.array([0.0, 10.0, 20.0, 25.0, 45.0, np.nan]))
    assert scores["mean"] == pytest.approx(20.0)
    assert scores["median"] == pytest.approx(20.0)
    assert scores["below_11.25"] == pytest.approx(2 / 6)
    assert scores["below_22.5"] == pytest.approx(3 / 6)
    assert scores["below_30"] == pytest.approx(4 / 6)


def test_normal_baselines_are_unit_vectors_and_fit_a_bend() -> None:
    rows = np.arange(100)
    tilt = np.radians(np.linspace(-40, 0, 100))
    normals = np.stack([np.zeros(100), np.sin(tilt), -np.cos(tilt)], axis=1)
    answers = normal_baselines(rows, normals)
    for vectors in answers.values():
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0)
    errors = {name: angles_between(vectors, normals).mean() for name, vectors in answers.items()}
    assert errors["row_gradient"] < 2.0 < errors["constant"] < errors["facing_camera"]


def test_segmentation_scores_by_hand() -> None:
    truth = np.array([[0, 0, 0, 1], [1, 1, 9, 9]])
    prediction = np.array([[0, 0, 1, 1], [1, 7, 0, 0]])
    confusion = confusion_matrix(prediction, truth, 3)
    np.testing.assert_array_equal(confusion, [[2, 1, 0, 0], [0, 2, 0, 1], [0, 0, 0, 0]])
    iou = intersection_over_union(confusion)
    assert iou[0] == pytest.approx(2 / 3)
    assert iou[1] == pytest.approx(2 / 4)
    assert math.isnan(iou[2])
    scores = segmentation_scores(confusion)
    assert scores["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["accuracy"] == pytest.approx(4 / 6)


def two_halves(split: int) -> np.ndarray:
    """A 120 x 160 map: class 0 left of the column `split`, class 1 right of it."""
    return np.broadcast_to((np.arange(160) >= split).astype(np.int64), (120, 160))


def test_boundary_f1_allows_the_tolerance_and_no_more() -> None:
    truth = two_halves(80)
    assert boundary_f1(two_halves(80), truth, 2) == 1.0
    # The tolerance is 0.0075 of the diagonal of 200 pixels: 1.5, rounded to 2.
    assert boundary_f1(two_halves(82), truth, 2) == 1.0
    assert boundary_f1(two_halves(90), truth, 2) == 0.0
    assert boundary_f1(np.zeros_like(truth), truth, 2) == 0.0


def test_boundary_f1_counts_false_boundaries() -> None:
    truth = two_halves(80)
    extra = truth.copy()
    extra[:, :40] = 1
    # Class 0 and 1: both find all true boundaries, and half of what they report is false.
    assert boundary_f1(extra, truth, 2) == pytest.approx(2 * 0.5 / 1.5)


def test_boundary_f1_leaves_unknown_regions_out() -> None:
    truth = two_halves(80).copy()
    truth[:, 100:] = 5
    prediction = two_halves(80).copy()
    prediction[:, 120:] = 0
    assert boundary_f1(prediction, truth, 2) == 1.0
    assert math.isnan(boundary_f1(prediction, np.full_like(truth, 5), 2))


def test_majority_baselines() -> None:
    truth = np.array([[0, 0, 1], [2, 2, 1], [9, 9, 9], [1, 1, 1]])
    np.testing.assert_array_equal(majority_class(truth, 3), np.full((4, 3), 1))
    np.testing.assert_array_equal(majority_class_per_row(truth, 3)[:, 0], [0, 2, 1, 1])


def test_instance_scores_by_hand() -> None:
    truth = np.zeros((10, 10), np.uint16)
    truth[:4, :5], truth[6:, :5] = 1, 2
    truth[:, 9] = UNKNOWN_INSTANCE
    prediction = np.zeros_like(truth)
    prediction[:4, :5] = 7
    prediction[6:8, :5] = 8
    prediction[:, 9] = 8
    scores = instance_scores(prediction, truth)
    assert scores["coverage"] == pytest.approx((1.0 + 0.5) / 2)
    assert scores["found"] == 1.0
    assert instance_scores(np.zeros_like(truth), truth) == {"coverage": 0.0, "found": 0.0}
    assert math.isnan(instance_scores(prediction, np.zeros_like(truth))["coverage"])


def plane_depth(normal: np.ndarray, distance: float) -> np.ndarray:
    """(H, W) depth of the plane normal . P = -distance seen by `CAMERA`."""
    u, v = np.meshgrid(np.arange(CAMERA.width), np.arange(CAMERA.height))
    rays = np.stack([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(u.shape)], axis=-1)
    return (-distance / (rays @ normal)).astype(np.float32)


@pytest.mark.parametrize("normal", [(0, 0, -1), (0.3, -0.5, -0.8), (-0.7, 0.1, -0.6)])
def test_normals_of_a_plane(normal: tuple[float, float, float]) -> None:
    expected = np.array(normal) / np.linalg.norm(normal)
    normals = normals_from_depth(plane_depth(expected, 1.4), CAMERA)
    assert np.isfinite(normals).all()
    assert angles_between(normals, np.broadcast_to(expected, normals.shape)).max() < 0.05


def test_normals_stay_apart_at_a_crease_and_at_a_step() -> None:
    left, right = np.array([0.6, 0.0, -0.8]), np.array([-0.6, 0.0, -0.8])
    # The two planes meet in the column of the optical axis, an edge that points towards the camera.
    depth = np.where(np.arange(CAMERA.width) < CAMERA.cx, plane_depth(left, 1.0), plane_depth(right, 1.0))
    depth[:, 130:] = 3.0
    normals = normals_from_depth(depth, CAMERA)
    expected = np.empty_like(normals)
    expected[:, :79], expected[:, 79:130], expected[:, 130:] = left, right, (0, 0, -1)
    errors = angles_between(normals, expected)
    assert np.nanmax(np.delete(errors, [78, 79, 80, 129, 130], axis=1)) < 1.0
    assert np.isfinite(normals[..., 0]).mean() > 0.95


def test_normals_survive_sensor_noise_and_holes() -> None:
    rng = np.random.default_rng(1)
    expected = np.array([0.2, -0.6, -0.77]) / np.linalg.norm([0.2, -0.6, -0.77])
    depth = plane_depth(expected, 1.0)
    depth += (0.0015 * depth**2 * rng.normal(size=depth.shape)).astype(np.float32)
    depth[rng.uniform(size=depth.shape) < 0.15] = np.nan
    depth[40:70, 60:110] = 0.0
    normals = normals_from_depth(depth, CAMERA)
    valid = np.isfinite(normals[..., 0])
    assert np.median(angles_between(normals[valid], np.broadcast_to(expected, normals.shape)[valid])) < 6.0
    assert not valid[55, 85]
    assert not valid[np.isnan(depth)].any()


def test_normals_beyond_the_limit_are_unknown() -> None:
    depth = np.full((CAMERA.height, CAMERA.width), 3.0, np.float32)
    assert np.isnan(normals_from_depth(depth, CAMERA, max_depth=2.0)).all()


def test_points_project_back_onto_their_pixels() -> None:
    depth = plane_depth(np.array([0.1, -0.3, -0.95]), 2.0)
    depth[3, 4] = np.inf
    points = points_from_depth(depth, CAMERA)
    assert np.isnan(points[3, 4]).all()
    u = CAMERA.fx * points[..., 0] / points[..., 2] + CAMERA.cx
    np.testing.assert_allclose(u[50], np.arange(CAMERA.width), atol=1e-3)


def scored(prediction: Prediction, group: str = "a", **truth: object) -> ImageScores:
    sample = EvaluationSample(rgb=np.zeros((120, 160, 3), np.uint8), name="x", group=group, **truth)  # type: ignore[arg-type]
    return score_image(sample, prediction, LABELS)


LABELS = (
    Label(id=0, name="ground", color=(1, 1, 1), group="floor"),
    Label(id=3, name="cycle", color=(2, 2, 2), group="vehicle"),
    Label(id=4, name="car", color=(3, 3, 3), group="vehicle"),
    Label(id=9, name="lamp", color=(4, 4, 4)),
)


def test_relative_disparity_is_aligned_in_disparity_and_not_scored_in_metres() -> None:
    depth = plane_depth(np.array([0.0, -0.5, -0.86]), 1.0)
    relative = (1 / depth - 0.1).astype(np.float32)
    scores = scored(
        Prediction(depth_relative=relative / relative.max(), depth_quantity="relative_disparity"), depth=depth
    ).scores["depth"]
    assert scores["model_affine"]["absrel"] < 1e-5
    assert set(scores) == {"model_affine", "constant", "row_plane", "row_plane_inverse_depth"}
    wrong = scored(Prediction(depth_relative=relative, depth_quantity="relative_depth"), depth=depth).scores["depth"]
    assert wrong["model_affine"]["absrel"] > 0.01


def test_metric_depth_is_scored_as_it_is_too() -> None:
    depth = plane_depth(np.array([0.0, -0.5, -0.86]), 1.0)
    scores = scored(Prediction(depth=depth * np.float32(1.1), depth_quantity="metric_depth"), depth=depth).scores[
        "depth"
    ]
    assert scores["model_metric"]["absrel"] == pytest.approx(0.1, rel=1e-5)
    assert scores["model_scale"]["absrel"] == pytest.approx(0.0, abs=1e-6)


def test_labels_are_matched_by_name_before_group() -> None:
    mapping = read_label_map("camvid")
    ids = mapping.model_ids(np.array([[0, 3, 4, 9, 255]], np.uint8), LABELS)
    names = [mapping.names[index] if index < mapping.unknown else None for index in ids[0]]
    assert names == ["ground", "cycle", "vehicle", None, None]
    voc = read_label_map("voc")
    rest = voc.model_ids(np.array([[9]], np.uint8), LABELS)
    assert voc.names[rest[0, 0]] == "background"


def test_summary_averages_over_pictures_and_sums_confusions() -> None:
    classes = ("sky", "car", "unlabelled")
    truth = np.full((120, 160), 1, np.uint8)
    first = np.full((120, 160), 4, np.uint8)
    half = truth.copy()
    half[:, :80] = 0
    images = [
        scored(Prediction(semantic=first), semantic=truth, classes=classes, label_set="camvid"),
        scored(Prediction(semantic=first), semantic=half, classes=classes, label_set="camvid"),
    ]
    rows = summarise(images)["semantic"][ALL]
    # Image 1: IoU(vehicle) = 1. Image 2: IoU(sky) = 0, IoU(vehicle) = 1/2. Together: sky 0, vehicle 1.5 / 2.
    assert rows["model"]["miou"] == pytest.approx((1.0 + 0.25) / 2)
    assert rows["model"]["set_miou"] == pytest.approx((0.0 + 0.75) / 2)
    assert class_iou(images)["a"]["model"] == pytest.approx({"sky": 0.0, "vehicle": 0.75})


def test_groups_average_their_own_pictures() -> None:
    depth = plane_depth(np.array([0.0, -0.5, -0.86]), 1.0)
    images = [
        scored(Prediction(depth=depth * np.float32(factor), depth_quantity="metric_depth"), group, depth=depth)
        for group, factor in (("a", 1.1), ("a", 1.3), ("b", 1.5))
    ]
    groups = summarise(images)["depth"]
    assert groups["a"]["model_metric"]["absrel"] == pytest.approx(0.2, rel=1e-4)
    assert groups["b"]["model_metric"]["absrel"] == pytest.approx(0.5, rel=1e-4)
    assert groups[ALL]["model_metric"]["absrel"] == pytest.approx(0.3, rel=1e-4)
    assert list(groups) == ["a", "b", ALL]
    assert groups[ALL]["model_metric"]["images"] == 3


def test_json_of_scores_has_no_nan(tmp_path: Path) -> None:
    from diffusion_perception_ros.files import write_json

    write_json(tmp_path / "deep" / "x.json", {"a": [math.nan, math.inf, 1.0]})
    assert json.loads((tmp_path / "deep" / "x.json").read_text()) == {"a": [None, None, 1.0]}
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["x.json"]
