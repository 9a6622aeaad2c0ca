"""Several pictures in one run of the network give what each of them gives alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from model_factory import free_the_batch, write_model

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.estimator import Estimator, Query
from diffusion_perception_ros.inference.models import DEFAULT_MODEL
from diffusion_perception_ros.sample import Intrinsics, Prediction, UInt8Image


MAPS = ("depth", "depth_relative", "confidence", "normals", "semantic", "semantic_confidence", "instances")


def pictures(*shapes: tuple[int, int]) -> list[UInt8Image]:
    rng = np.random.default_rng(0)
    return [
        np.kron(rng.integers(0, 256, (height // 16, width // 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        for height, width in shapes
    ]


def assert_same(actual: Prediction, expected: Prediction, tolerance: float = 1e-5) -> None:
    for name in MAPS:
        values, wanted = getattr(actual, name), getattr(expected, name)
        assert (values is None) == (wanted is None), name
        if wanted is not None:
            np.testing.assert_allclose(values, wanted, atol=tolerance, err_msg=name)


def test_a_batch_gives_what_each_picture_gives_alone(tmp_path: Path) -> None:
    metric = {"quantity": "metric_depth", "unit": "m", "range": [0.0, 10.0], "focal_scale": 0.01}
    model = free_the_batch(write_model(tmp_path / "free", depth="brightness", depth_card=metric))
    estimator = Estimator.load(model, threads=1)
    assert estimator.takes_batches
    rgb = pictures((96, 128), (192, 256), (96, 128))
    camera = Intrinsics(128, 96, 100.0, 100.0, 63.5, 47.5)
    queries = [
        Query(rgb[0], camera, {"depth", "instances"}, stream="front"),
        Query(rgb[1], camera.resized(256, 192), {"depth", "normals"}, stream="left"),
        Query(rgb[2], None, {"semantic"}, stream="rear"),
    ]
    predictions = estimator.predict_batch(queries)
    for query, prediction in zip(queries, predictions, strict=True):
        assert_same(prediction, estimator.predict(query.rgb, query.intrinsics, query.tasks))
        assert prediction.timings["inference"] == predictions[0].timings["inference"] > 0
    assert predictions[0].depth is not None
    assert predictions[2].depth is None


def test_what_cannot_run_together_runs_one_by_one(tmp_path: Path) -> None:
    fixed = Estimator.load(write_model(tmp_path / "fixed"), threads=1)
    assert not fixed.takes_batches
    rgb = pictures((96, 128), (128, 96))
    for estimator in (fixed, Estimator.load(free_the_batch(write_model(tmp_path / "free")), threads=1)):
        predictions = estimator.predict_batch([Query(picture) for picture in rgb])
        for picture, prediction in zip(rgb, predictions, strict=True):
            assert_same(prediction, estimator.predict(picture))
    noise = {"tensor": "noise", "channels": 4, "downscale": 8}
    noisy = Estimator.load(free_the_batch(write_model(tmp_path / "noisy", ["depth"], noise=noise)), threads=1)
    assert not noisy.takes_batches


def test_a_wrong_query_fails_the_batch(tmp_path: Path) -> None:
    estimator = Estimator.load(free_the_batch(write_model(tmp_path / "free")), threads=1)
    (rgb,) = pictures((96, 128))
    with pytest.raises(InputError, match="no task flow"):
        estimator.predict_batch([Query(rgb), Query(rgb, tasks={"flow"})])
    assert estimator.predict_batch([]) == []


def test_the_bundled_model_takes_batches() -> None:
    estimator = Estimator.load(DEFAULT_MODEL)
    assert estimator.takes_batches
    rgb = pictures((480, 640), (480, 640))
    for picture, prediction in zip(rgb, estimator.predict_batch([Query(picture) for picture in rgb]), strict=True):
        alone = estimator.predict(picture)
        assert np.abs(prediction.depth_relative - alone.depth_relative).max() < 0.02  # int8 kernels round differently
        assert (prediction.semantic == alone.semantic).mean() > 0.99
