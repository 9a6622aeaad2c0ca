"""The library of `src/` computes what NumPy and OpenCV compute, for any image and any output of a network."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from model_factory import write_model

from diffusion_perception_ros.inference import native
from diffusion_perception_ros.inference.card import Label, ModelCard, read_card
from diffusion_perception_ros.inference.decoder import Decoder
from diffusion_perception_ros.inference.models import find_model
from diffusion_perception_ros.inference.native import Native
from diffusion_perception_ros.inference.output_memory import OutputMemory
from diffusion_perception_ros.inference.preprocess import Preprocessor
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
    expected = Decoder(card)(tensors, tasks, size, (256, 192), None)
    actual = Decoder(card, library)(tensors, tasks, size, (256, 192), None)
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
    expected = Decoder(card)(tensors, tasks, size, (128, 96), camera)
    actual = Decoder(card, library)(tensors, tasks, size, (128, 96), camera)
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
        prediction = decoder(tensors_of(card, seed, False), tasks, (640, 480), (256, 192), None, memory=memory)
        fields = {"depth": prediction.depth_relative, "normals": prediction.normals, "semantic": prediction.semantic}
        for field, values in fields.items():
            assert values is memory.arrays[field]
    expected = decoder(tensors_of(card, 2, False), tasks, (640, 480), (256, 192), None)
    np.testing.assert_array_equal(memory.arrays["normals"], expected.normals)
