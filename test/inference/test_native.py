"""The library of `src/` computes what NumPy and OpenCV compute, for any image and any output of a network."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from model_factory import write_model

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference import native, visualization
from diffusion_perception_ros.inference.card import Label, ModelCard, read_card
from diffusion_perception_ros.inference.decoder import Decoder
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.models import find_model
from diffusion_perception_ros.inference.native import Native
from diffusion_perception_ros.inference.output_memory import OutputMemory
from diffusion_perception_ros.inference.preprocess import Preprocessor
from diffusion_perception_ros.inference.tiling import Tile
from diffusion_perception_ros.sample import Intrinsics


SIZES = [(640, 480), (1280, 720), (333, 1001), (300, 211), (256, 192), (128, 96), (1, 1), (5000, 3)]


@pytest.fixture(scope="module")
def library() -> Native:
    loaded = native.load()
    if loaded is None:
        pytest.skip("the library is not built: make setup")
    return loaded


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return read_card(find_model("onestep-m"))


def tensors_of(card: ModelCard, seed: int, holes: bool) -> dict[str, np.ndarray]:
    """Smooth outputs with a few values that are no numbers; scores are of few levels, as those of int8 graphs are."""
    rng = np.random.default_rng(seed)

    def smooth(channels: int, width: int, height: int) -> np.ndarray:
        coarse = rng.standard_normal((channels, 8, 10)).astype(np.float32)
        return np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC) for plane in coarse])

    tensors = {
        "depth": 0.5 + 0.4 * smooth(1, 256, 192),
        "depth_confidence": 0.5 + 0.4 * smooth(1, 256, 192),
        "normals": smooth(3, 256, 192) - np.float32([[[0]], [[0]], [[3]]]),
        "semantic": np.round(20 * smooth(len(card.labels), 128, 96)) / 5,
        "instances": 0.2 * smooth(2, 128, 96),
    }
    if holes:
        for name, value in (("depth", np.nan), ("depth", np.inf), ("semantic", np.nan), ("instances", np.nan)):
            tensors[name][:, rng.integers(0, 90), rng.integers(0, 120) :] = value
        tensors["normals"][:, 5, 9] = 0
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("holes", [False, True])
def test_maps_are_those_of_the_reference(library: Native, card: ModelCard, size: tuple[int, int], holes: bool) -> None:
    tensors, tasks = tensors_of(card, sum(size), holes), set(card.tasks)
    expected = Decoder(card)(tensors, tasks, size, None)
    actual = Decoder(card, library)(tensors, tasks, size, None)
    for name in ("depth_relative", "confidence", "normals", "semantic_confidence"):
        np.testing.assert_allclose(getattr(actual, name), getattr(expected, name), atol=1e-5, err_msg=name)
    for name in ("semantic", "instances"):
        values, reference = getattr(actual, name), getattr(expected, name)
        assert values.dtype == reference.dtype
        assert np.mean(values != reference) <= 0.002, name
    assert expected.instances.max() > 0 or size[0] * size[1] < 20_000


def test_metric_depth_with_sky_and_labels_above_255(library: Native, tmp_path: Path) -> None:
    labels = (
        Label(id=3, name="sky", color=(0, 0, 255), group="sky", is_thing=False),
        Label(id=700, name="box", color=(255, 0, 0), group="things", is_thing=True),
    )
    metric = {"quantity": "metric_depth", "unit": "m", "range": [0.1, 2.0]}
    card = read_card(write_model(tmp_path / "metric", labels=labels, depth_card=metric))
    rng = np.random.default_rng(3)
    channels = {"normals": 3, "semantic": 2, "instances": 2}
    tensors = {
        name: cv2.resize(rng.standard_normal((6, 8, 4)).astype(np.float32), (64, 48)).transpose(2, 0, 1)[:count]
        for name, count in {**dict.fromkeys(Decoder(card).tensors_for(set(card.tasks)), 1), **channels}.items()
    }
    size, camera = (320, 240), Intrinsics(320, 240, 300.0, 300.0, 160.0, 120.0)
    tasks = set(card.tasks) - {"normals"}  # these vectors nearly cancel each other
    expected = Decoder(card)(tensors, tasks, size, camera)
    actual = Decoder(card, library)(tensors, tasks, size, camera)
    assert np.isinf(expected.depth).any()
    assert np.isnan(expected.depth).any()
    np.testing.assert_allclose(actual.depth, expected.depth, atol=1e-5)
    assert actual.semantic.dtype == np.uint16
    assert np.mean(actual.semantic != expected.semantic) <= 0.002
    assert np.mean(actual.instances != expected.instances) <= 0.002


@pytest.mark.parametrize("size", [*SIZES, (1920, 1080), (512, 384), (2000, 700)])
def test_the_networks_input_is_that_of_opencv(library: Native, card: ModelCard, size: tuple[int, int]) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (size[1], size[0] + 7, 3), np.uint8)[:, 3:-4]
    expected = Preprocessor(card.input)(rgb)
    np.testing.assert_allclose(Preprocessor(card.input, library)(rgb), expected, atol=1e-6)


def test_maps_are_written_where_the_caller_wants_them(library: Native, card: ModelCard) -> None:
    class Kept(OutputMemory):
        def __init__(self) -> None:
            self.arrays: dict[str, np.ndarray] = {}

        def allocate(self, field: str, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
            return self.arrays.setdefault(field, np.empty(shape, dtype))

    memory, decoder, tasks = Kept(), Decoder(card, library), set(card.tasks)
    for seed in (1, 2):
        prediction = decoder(tensors_of(card, seed, False), tasks, (640, 480), None, memory=memory)
        fields = {"depth": prediction.depth_relative, "normals": prediction.normals, "semantic": prediction.semantic}
        for field, values in fields.items():
            assert values is memory.arrays[field]
    expected = decoder(tensors_of(card, 2, False), tasks, (640, 480), None)
    np.testing.assert_array_equal(memory.arrays["normals"], expected.normals)


def test_colours_and_bytes_are_those_of_the_reference(
    library: Native, card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(4)
    depth = 5 * rng.random((71, 93), np.float32)
    depth[3], depth[4, :9], depth[5] = np.nan, np.inf, -np.inf
    normals = rng.standard_normal((71, 93, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    normals[6] = np.nan
    ids = rng.integers(0, 256, (71, 93), np.uint8)

    def results() -> list[np.ndarray]:
        return [
            visualization.colorize_depth(depth),
            visualization.colorize_depth(depth, 0.5, 4.0, near_is_high=True),
            visualization.colorize_normals(normals),
            visualization.colorize_labels(ids, card.labels),
            visualization.colorize_labels(ids.astype(np.uint16) * 7, card.labels),
            visualization.unit_bytes(depth / 4),
        ]

    actual = results()
    monkeypatch.setattr(native, "load", lambda: None)
    for ours, reference in zip(actual, results(), strict=True):
        assert (ours.shape, ours.dtype) == (reference.shape, reference.dtype)
        difference = np.abs(ours.astype(int) - reference)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3


def test_maps_of_another_size_than_the_image(tmp_path: Path) -> None:
    estimator = Estimator.load(write_model(tmp_path / "tiny", depth="brightness"), "cpu", threads=1)
    rgb = np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)
    prediction = estimator.predict(rgb, Intrinsics(200, 120, 150.0, 150.0, 100.0, 60.0), output_size=(100, 60))
    for name in ("depth_relative", "confidence", "normals", "semantic", "semantic_confidence", "instances"):
        assert getattr(prediction, name).shape[:2] == (60, 100), name
    whole = estimator.predict(rgb).depth_relative
    assert np.abs(prediction.depth_relative - cv2.resize(whole, (100, 60), interpolation=cv2.INTER_AREA)).mean() < 0.01
    with pytest.raises(InputError, match="maps cannot have 0x60 pixels"):
        estimator.predict(rgb, output_size=(0, 60))
    with pytest.raises(InputError, match="predicted in tiles has maps of its own size"):
        estimator.predict(rgb, output_size=(100, 60), tile=Tile(128, 32))


def test_another_area_of_the_networks_input(tmp_path: Path) -> None:
    """Stripes of two pixels are below the resolution of a small input, not of a large one."""
    rgb = np.zeros((256, 256, 3), np.uint8)
    rgb[:, ::4], rgb[:, 1::4] = 255, 255
    size = {"rule": "area", "area": 64 * 64, "multiple_of": 32}
    estimator = Estimator.load(write_model(tmp_path / "tiny", depth="brightness", size=size), "cpu", threads=1)
    assert np.ptp(estimator.predict(rgb).confidence[100:150, 100:150]) < 0.1
    assert np.ptp(estimator.predict(rgb, input_area=256 * 256).confidence[100:150, 100:150]) > 0.9
    assert np.ptp(estimator.predict(rgb).confidence[100:150, 100:150]) < 0.1
    with pytest.raises(InputError, match="input_area must be 1024 to"):
        estimator.predict(rgb, input_area=5)
    with pytest.raises(InputError, match="has the rule 'longest_side': it has no input_area"):
        Estimator.load(write_model(tmp_path / "other"), "cpu", threads=1).predict(rgb, input_area=4096)
