"""What the estimator makes of a graph's outputs, which are known in closed form (`model_factory`)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from model_factory import CELL, LABELS, edit_card, write_model
from tiny_estimator import BLACK, BLUE, GREEN, RED, load_tiny, picture

from diffusion_perception_ros.inference.card import Label
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.instances import find_instances
from diffusion_perception_ros.sample import UNLABELLED, Intrinsics


METRIC = {"quantity": "metric_depth", "unit": "m"}


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        (("right", "down", "forward"), (1, 2, 3)),
        (("right", "up", "backward"), (1, -2, -3)),
        (("left", "up", "forward"), (-1, -2, 3)),
        (("forward", "left", "up"), (-2, -3, 1)),
        (("down", "backward", "right"), (3, 1, -2)),
    ],
)
def test_normals_turn_into_the_optical_frame(
    tmp_path: Path, axes: tuple[str, ...], expected: tuple[float, ...]
) -> None:
    estimator = load_tiny(tmp_path, tasks=["normals"], normal=(1.0, 2.0, 3.0), axes=axes)
    normals = estimator.predict(picture(50, 70)).normals
    assert normals is not None
    np.testing.assert_allclose(normals, np.broadcast_to(np.array(expected) / 14**0.5, normals.shape), atol=1e-6)


def test_normals_without_direction_are_invalid(tmp_path: Path) -> None:
    normals = load_tiny(tmp_path, tasks=["normals"], normal=(0.0, 0.0, 0.0)).predict(picture(50, 70)).normals
    assert np.isnan(normals).all()


def test_relative_depth_is_mapped_by_the_cards_range(tmp_path: Path) -> None:
    card = {"quantity": "relative_disparity", "range": [0.25, 0.75]}
    prediction = load_tiny(tmp_path, depth="brightness", depth_card=card).predict(picture(64, 64, (102, 102, 102)))
    assert prediction.depth_quantity == "relative_disparity"
    np.testing.assert_allclose(prediction.depth_relative, (0.4 - 0.25) / 0.5, atol=1e-5)
    prediction = load_tiny(tmp_path, depth="brightness", depth_card=card).predict(picture(64, 64, (255, 255, 255)))
    np.testing.assert_array_equal(prediction.depth_relative, 1.0)


def test_metric_depth_is_in_metres(tmp_path: Path) -> None:
    prediction = load_tiny(tmp_path, depth="brightness", depth_card=METRIC).predict(picture(64, 64, (102, 102, 102)))
    assert prediction.depth_quantity == "metric_depth"
    assert prediction.depth_relative is None
    np.testing.assert_allclose(prediction.depth, 0.4, atol=1e-5)


def test_canonical_depth_scales_with_the_focal_length_at_the_graph(tmp_path: Path) -> None:
    estimator = load_tiny(tmp_path, depth="brightness", depth_card=METRIC | {"focal_scale": 0.05})
    grey = picture(640, 480, (102, 102, 102))  # resized to 128 x 96, a fifth of it
    prediction = estimator.predict(grey, Intrinsics(640, 480, 500.0, 520.0, 320.0, 240.0))
    assert prediction.depth_quantity == "metric_depth"
    np.testing.assert_allclose(prediction.depth, 0.4 * 0.05 * (100.0 + 104.0) / 2, rtol=1e-4)


def test_canonical_depth_without_intrinsics_is_only_relative(tmp_path: Path) -> None:
    estimator = load_tiny(tmp_path, depth="brightness", depth_card=METRIC | {"focal_scale": 0.05})
    prediction = estimator.predict(picture(640, 480, (102, 102, 102)))
    assert prediction.depth is None
    assert prediction.depth_quantity == "relative_depth"
    np.testing.assert_allclose(prediction.depth_relative, 0.4, atol=1e-5)


def test_metric_depth_has_no_zero_no_end_of_range_and_no_sky(tmp_path: Path) -> None:
    """REP 117: NaN is invalid, +Inf is beyond the range."""
    card = METRIC | {"range": [0.0, 0.9]}
    estimator = load_tiny(tmp_path, depth="brightness", depth_card=card)
    rgb = picture(640, 480, (120, 60, 0))
    rgb[:, :160] = BLACK
    rgb[:, 160:320] = BLUE
    rgb[:, 320:480] = (255, 255, 255)
    depth = estimator.predict(rgb, tasks=["depth"]).depth
    assert depth is not None
    columns = depth[240, [80, 240, 400, 560]]
    assert np.isnan(columns[0])
    assert np.isposinf(columns[1:3]).all()
    assert columns[3] == pytest.approx(60 / 255, abs=1e-5)


def test_holes_do_not_spread(tmp_path: Path) -> None:
    estimator = load_tiny(tmp_path, depth="holes", labels=LABELS[:1])
    rgb = picture(640, 480, (102, 102, 102))
    rgb[160:320, 160:320] = BLACK  # the graph divides zero by zero here
    depth = estimator.predict(rgb, tasks=["depth"]).depth_relative
    assert depth is not None
    hole = np.isnan(depth)
    inside = np.zeros_like(hole)
    inside[160:320, 160:320] = True
    assert hole[170:310, 170:310].all()
    assert np.count_nonzero(hole & ~inside) == 0
    np.testing.assert_allclose(depth[:150], 0.4, atol=1e-4)
    assert np.isfinite(depth[~hole]).all()


def test_classes_have_the_cards_ids_and_smooth_outlines(tmp_path: Path) -> None:
    rgb = picture(640, 480)
    cv2.circle(rgb, (320, 240), 150, BLUE, cv2.FILLED)
    prediction = load_tiny(tmp_path).predict(rgb, tasks=["semantic"])
    expected = np.where(rgb[..., 2] > 127, 7, 0)
    assert set(np.unique(prediction.semantic)) == {0, 7}
    assert np.mean(prediction.semantic == expected) > 0.995  # cells of the head are 10 pixels wide
    assert prediction.semantic_confidence is not None
    assert prediction.semantic_confidence[240, 320] > 0.99
    assert 0.4 < prediction.semantic_confidence.min() < 0.9  # on the outline


def test_many_labels_need_16_bits(tmp_path: Path) -> None:
    labels = [*LABELS[:3], Label(id=300, name="sky", color=BLUE)]
    semantic = load_tiny(tmp_path, labels=labels).predict(picture(64, 64, BLUE)).semantic
    assert semantic is not None
    assert semantic.dtype == np.uint16
    assert np.unique(semantic) == [300]


def test_scores_that_are_no_numbers_are_unlabelled(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny", depth="holes", depth_card={"tensor": "depth"})
    # The holes of the depth graph stand in for a broken head: one class, whose score is NaN where black.
    edit_card(
        folder,
        outputs=[{"task": "semantic", "tensor": "depth", "labels": [LABELS[0].model_dump(mode="json")]}],
    )
    rgb = picture(640, 480, (102, 102, 102))
    rgb[160:320, 160:320] = BLACK
    prediction = Estimator.load(folder, threads=1).predict(rgb)
    assert prediction.semantic is not None
    assert prediction.semantic_confidence is not None
    assert (prediction.semantic[170:310, 170:310] == UNLABELLED).all()
    assert (prediction.semantic_confidence[170:310, 170:310] == 0).all()
    assert (prediction.semantic[:150] == 0).all()


def test_instances_are_counted_exactly(tmp_path: Path) -> None:
    """One thing per grid cell of the graph, two of them touching across a cell's border, and two classes."""
    size = {"rule": "fixed", "width": 320, "height": 256}
    estimator = load_tiny(tmp_path, size=size)
    scale = 2 * CELL  # pixels of the picture per cell: it has twice the graph's size
    rgb = picture(640, 512)
    cv2.rectangle(rgb, (20, 20), (110, 110), RED, cv2.FILLED)
    cv2.rectangle(rgb, (scale, 2 * scale + 30), (3 * scale - 1, 2 * scale + 90), RED, cv2.FILLED)  # spans two cells
    cv2.circle(rgb, (3 * scale + 64, 64), 50, GREEN, cv2.FILLED)
    cv2.circle(rgb, (4 * scale + 64, 3 * scale + 64), 30, GREEN, cv2.FILLED)
    cv2.rectangle(rgb, (500, 250), (503, 253), RED, cv2.FILLED)  # too small to be an object
    instances = estimator.predict(rgb, tasks=["instances"]).instances
    assert instances is not None
    assert set(np.unique(instances)) == {0, 1, 2, 3, 4, 5}
    left, right = instances[2 * scale + 60, scale + 64], instances[2 * scale + 60, 2 * scale + 64]
    assert 0 < left != right > 0
    border = np.flatnonzero(np.diff(instances[2 * scale + 60, scale : 3 * scale].astype(int)))
    assert border == pytest.approx([scale - 1], abs=4)
    red = (rgb == RED).all(axis=2)
    red[250:254, 500:504] = False
    things = red | (rgb == GREEN).all(axis=2)
    assert np.mean((instances > 0) == things) > 0.99


def test_scattered_votes_still_make_whole_objects() -> None:
    """Offsets of a trained network miss the centre, the more the further away it is. One object leaves the picture."""
    height, width = 128, 160
    truth = np.zeros((height, width), np.uint8)
    for number, (centre, radius) in enumerate([((30, 40), 12), ((60, 40), 12), ((100, 80), 30), ((158, 20), 20)], 1):
        cv2.circle(truth, centre, radius, number, cv2.FILLED)
    rows, columns = np.indices(truth.shape)
    generator = np.random.default_rng(0)
    offsets = np.zeros((2, height, width), np.float32)
    for number in range(1, 5):
        mask = truth == number
        for axis, positions in enumerate((columns, rows)):
            offsets[axis][mask] = positions[mask].mean() - positions[mask]
    offsets *= 1 + 0.3 * generator.standard_normal(offsets.shape)
    offsets += generator.standard_normal(offsets.shape)
    ids, channels = find_instances((truth > 0).astype(np.int32), offsets, {1})
    assert channels == {1: 1, 2: 1, 3: 1, 4: 1}
    for number in range(1, 5):
        mask = truth == number
        found = np.bincount(ids[mask]).argmax()
        assert np.count_nonzero(mask & (ids == found)) / np.count_nonzero(mask | (ids == found)) > 0.9


def test_a_picture_without_things_has_no_instances(tmp_path: Path) -> None:
    assert not load_tiny(tmp_path).predict(picture(320, 240, BLUE)).instances.any()
