"""The estimator on real ONNX graphs with outputs known in closed form (`model_factory`), and on the bundled model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from model_factory import TASKS, write_model
from rendered_room import PLANES, render_room
from tiny_estimator import BLACK, GREEN, load_tiny, picture

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.metrics.alignment import align_affine
from diffusion_perception_ros.metrics.dense import angles_between
from diffusion_perception_ros.sample import Intrinsics


BUNDLED = sorted(path.name for path in (Path(__file__).parents[2] / "models").iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Estimator:
    return load_tiny(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (480, 640), (129, 37), (1, 1), (2000, 3), (3, 500), (64, 64), (1920, 1440)]
)
def test_every_map_has_the_pictures_size(tiny: Estimator, width: int, height: int) -> None:
    prediction = tiny.predict(picture(width, height, (90, 120, 40)))
    for name, channels, dtype in [
        ("depth_relative", (), np.float32),
        ("confidence", (), np.float32),
        ("normals", (3,), np.float32),
        ("semantic", (), np.uint8),
        ("semantic_confidence", (), np.float32),
        ("instances", (), np.uint16),
    ]:
        values = getattr(prediction, name)
        assert values.shape == (height, width, *channels), name
        assert values.dtype == dtype, name
        assert np.isfinite(values).all(), name
    assert prediction.depth is None
    assert prediction.depth_quantity == "relative_depth"
    assert prediction.timings.keys() == {"preprocess", "inference", "postprocess"}
    assert min(prediction.timings.values()) > 0


def test_values_land_where_they_belong(tiny: Estimator) -> None:
    """The graph's depth is the row: half-pixel errors in resizing would show as an offset."""
    prediction = tiny.predict(picture(640, 480))
    assert prediction.depth_relative is not None
    rows = (np.arange(480) + 0.5) / 480
    inner = slice(8, -8)  # the outermost half cell of the graph has no neighbour to interpolate with
    np.testing.assert_allclose(prediction.depth_relative[inner, 300], rows[inner], atol=1e-5)


def test_normalisation_and_channel_order(tmp_path: Path) -> None:
    """The graph undoes mean and std, which differ per channel; confidence is the green channel."""
    estimator = load_tiny(tmp_path, depth="brightness")
    prediction = estimator.predict(picture(200, 100, (30, 180, 60)))
    assert prediction.depth_relative is not None
    assert prediction.confidence is not None
    np.testing.assert_allclose(prediction.depth_relative, 90 / 255, atol=1e-5)
    np.testing.assert_allclose(prediction.confidence, 180 / 255, atol=1e-5)


def test_a_picture_may_be_a_view(tiny: Estimator) -> None:
    large = np.random.default_rng(0).integers(0, 255, (100, 300, 3), dtype=np.uint8)
    view = large[10:90:2, 20:280, ::-1]
    expected = tiny.predict(np.ascontiguousarray(view))
    np.testing.assert_array_equal(tiny.predict(view).confidence, expected.confidence)


def test_results_outlive_the_next_call(tiny: Estimator) -> None:
    first = tiny.predict(picture(64, 48, GREEN))
    tiny.predict(picture(64, 48, BLACK))
    assert first.confidence is not None
    assert first.confidence.min() > 0.99


@pytest.mark.parametrize("task", TASKS)
def test_tasks_alone_equal_all_together(tiny: Estimator, task: str) -> None:
    rgb = np.random.default_rng(1).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    everything, alone = tiny.predict(rgb), tiny.predict(rgb, tasks=[task])
    fields = {
        "depth": {"depth_relative", "depth_quantity", "confidence"},
        "normals": {"normals"},
        "semantic": {"semantic", "semantic_confidence"},
        "instances": {"instances"},
    }[task]
    for name in vars(alone).keys() - {"timings"}:
        if name in fields:
            np.testing.assert_array_equal(getattr(alone, name), getattr(everything, name))
        else:
            assert getattr(alone, name) is None


def test_no_task_is_no_work(tiny: Estimator) -> None:
    prediction = tiny.predict(picture(64, 64), tasks=[])
    assert all(value is None for name, value in vars(prediction).items() if name != "timings")


def test_a_graph_that_fails_says_on_what(tmp_path: Path) -> None:
    estimator = load_tiny(tmp_path, depth="broken")
    with pytest.raises(RuntimeError, match=r"onnxruntime-cpu failed on inputs image \(1, 3, 96, 128\)"):
        estimator.predict(picture(64, 48), tasks=["depth"])


def test_noise_input_is_fed_and_steady(tmp_path: Path) -> None:
    noise = {"tensor": "noise", "channels": 4, "downscale": 8, "seed": 3}
    estimator = load_tiny(tmp_path, noise=noise)
    rgb = np.random.default_rng(2).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    first, second = estimator.predict(rgb), estimator.predict(rgb)
    np.testing.assert_array_equal(first.depth_relative, second.depth_relative)


@pytest.mark.parametrize(
    ("rgb", "words"),
    [
        (np.zeros((0, 10, 3), np.uint8), "empty: 10x0"),
        (np.zeros((10, 0, 3), np.uint8), "empty: 0x10"),
        (np.zeros((10, 10), np.uint8), r"shape \(height, width, 3\), got \(10, 10\)"),
        (np.zeros((10, 10, 4), np.uint8), r"got \(10, 10, 4\)"),
        (np.zeros((10, 10, 3), np.float32), "uint8 array, got float32"),
        (np.broadcast_to(np.uint8(0), (10_000, 10_000, 3)), "10000x10000 pixels"),
        ([[0, 0, 0]], "uint8 array, got list"),
    ],
)
def test_what_is_no_picture(tiny: Estimator, rgb: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        tiny.predict(rgb)


def test_intrinsics_of_another_picture(tiny: Estimator) -> None:
    with pytest.raises(InputError, match="belong to 320x240 pixels, the image has 640x480"):
        tiny.predict(picture(640, 480), Intrinsics(320, 240, 300.0, 300.0, 160.0, 120.0))


def test_unknown_task(tiny: Estimator) -> None:
    with pytest.raises(InputError, match=r"no task flow; it has depth, normals, semantic, instances"):
        tiny.predict(picture(64, 64), tasks=["depth", "flow"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "gpu"}, "unknown backend 'gpu': choose one of auto, cpu, cuda, tensorrt"),
        ({"threads": -1}, "threads must be 0"),
        ({"optimization": "full"}, "unknown graph optimization 'full'"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Estimator.load(write_model(tmp_path / "tiny"), **options)


@pytest.mark.parametrize("backend", ["auto", "cpu", "cuda", "tensorrt"])
@pytest.mark.parametrize("optimization", ["none", "all"])
def test_every_backend_ends_in_a_prediction(tmp_path: Path, backend: str, optimization: str) -> None:
    """Where the provider is missing the CPU runs, and the reason says so."""
    folder = write_model(tmp_path / "tiny")
    estimator = Estimator.load(folder, backend, threads=2, optimization=optimization)
    estimator.warm_up()
    provider = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}.get(backend)
    if provider and provider not in onnxruntime.get_available_providers():
        assert estimator.backend_name != f"onnxruntime-{backend}"
        assert provider in (estimator.fallback_reason or "")
    elif backend in ("auto", "cpu"):
        assert estimator.fallback_reason is None
    assert estimator.backend_name.startswith("onnxruntime-")


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_model_sees_a_room(name: str) -> None:
    """A room in closed form: what a shipped model says about it is right, not only of the right shape."""
    estimator = Estimator.load(name, threads=2)
    rgb, plane, normals, depth = render_room(640, 480)
    noise = np.random.default_rng(0).integers(-6, 6, rgb.shape)
    rgb = (rgb.astype(np.int64) + noise).clip(0, 255).astype(np.uint8)
    prediction = estimator.predict(rgb, Intrinsics(640, 480, 320.0, 320.0, 319.5, 239.5))
    assert prediction.depth_relative is not None
    aligned = align_affine(prediction.depth_relative, depth)
    assert np.mean(np.abs(aligned - depth) / depth) < 0.12  # a constant: 0.3
    assert prediction.normals is not None
    np.testing.assert_allclose(np.linalg.norm(prediction.normals, axis=2), 1.0, atol=1e-4)
    assert np.mean(angles_between(prediction.normals, normals)) < 18.0  # degrees; facing the camera everywhere: 80
    assert prediction.semantic is not None
    names = {label.id: label.name for label in estimator.card.labels}
    floor = plane == list(PLANES).index("floor")
    assert names[np.bincount(prediction.semantic[floor]).argmax()] == "floor"
