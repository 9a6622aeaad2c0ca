"""What holds for every input: decoders, YAML, cards, ONNX files, cameras, tiles, alignment."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from model_factory import write_model

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.camera_model import image_intrinsics
from diffusion_perception_ros.inference.card import CARD_NAME, ModelCard, read_card, write_card
from diffusion_perception_ros.inference.card.external_data import GraphFileError, external_locations
from diffusion_perception_ros.inference.card.inputs import InputSize
from diffusion_perception_ros.inference.image_encodings import COLOR_ENCODINGS, decode_image
from diffusion_perception_ros.inference.tiling import Tile, align_depth, windows
from diffusion_perception_ros.safe_files import parse_yaml


# Fixed examples, without a database and without a limit on time: the machine may be busy.
settings.register_profile("tests", max_examples=60, deadline=None, derandomize=True, database=None)
settings.load_profile("tests")

SIDES = st.integers(1, 40)
SEEDS = st.integers(0, 2**32 - 1)
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=20) | st.floats(allow_nan=False)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(SIDES, SIDES, st.integers(0, 9), SEEDS, st.sampled_from(["rgb8", "bgr8", "rgba8", "bgra8", "mono8"]))
def test_packed_images_come_back_whatever_the_padding(w: int, h: int, padding: int, seed: int, encoding: str) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)
    if encoding == "mono8":
        rgb = np.repeat(rgb[..., :1], 3, axis=2)
    alpha = np.full((h, w, 1), 7, np.uint8)
    order = rgb[..., ::-1] if encoding.startswith("bgr") else rgb
    pixels = {"mono8": rgb[..., :1], "rgba8": np.dstack([order, alpha]), "bgra8": np.dstack([order, alpha])}
    rows = pixels.get(encoding, order).reshape(h, -1)
    data = np.pad(rows, ((0, 0), (0, padding)))
    assert np.array_equal(decode_image(data.tobytes(), encoding, w, h, data.shape[1]), rgb)


@given(
    st.binary(max_size=300),
    st.sampled_from(COLOR_ENCODINGS),
    *[st.integers(0, 40) | st.sampled_from([2**16, 2**31, 2**32 - 1])] * 3,
)
def test_any_fields_of_an_image_are_an_image_or_refused(data: bytes, encoding: str, w: int, h: int, step: int) -> None:
    with contextlib.suppress(InputError):
        assert decode_image(data, encoding, w, h, step).shape == (h, w, 3)


@settings(max_examples=30)
@given(VALUES)
def test_yaml_of_plain_values_comes_back(value: Any) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    if "*" not in text and "&" not in text and "!!" not in text and len(text) < 300:
        assert parse_yaml(text, "text") == yaml.safe_load(text)


@given(st.text(alphabet="ab01.:-[]{},\"'&*!<>|#?% \n\t\\~=\x85\u2028", max_size=60))
def test_any_text_is_yaml_or_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        parse_yaml(text, "text")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@given(data=st.data())
def test_any_change_of_a_card_is_a_card_or_refused(model: Path, data: st.DataObject) -> None:
    fields = read_card(model, verify_files=False).model_dump(mode="json", exclude_none=True)
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = fields
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], (dict, list)) and data.draw(st.booleans()):
                place = place[key]
                continue
            place[key] = data.draw(VALUES)
            break
    with contextlib.suppress(ValueError):  # pydantic's ValidationError is one
        card = ModelCard.model_validate(fields)
        text = yaml.safe_dump(card.model_dump(mode="json", exclude_none=True), sort_keys=False)
        assert ModelCard.model_validate(parse_yaml(text, CARD_NAME)) == card


def test_a_written_card_is_the_one_that_is_read(model: Path) -> None:
    card = read_card(model)
    write_card(card, model)
    assert read_card(model) == card


@given(st.binary(max_size=200), st.integers(0, 2000))
def test_locations_of_a_graph_are_those_that_onnx_sees(model: Path, change: bytes, place: int) -> None:
    content = (model / "model.onnx").read_bytes()
    place %= len(content)
    changed = content[:place] + change + content[place + len(change) :]
    try:
        proto = onnx.ModelProto.FromString(changed)
    except Exception:  # of protobuf, in its own class
        proto = None
    try:
        found = external_locations(changed)
    except GraphFileError:
        return  # stricter than protobuf is fine
    if proto is not None:
        weights = (entry for weight in proto.graph.initializer for entry in weight.external_data)
        assert {entry.value for entry in weights if entry.key == "location"} <= found


@given(
    st.integers(1, 10**6),
    st.integers(1, 10**6),
    st.sampled_from(["area", "longest_side"]),
    st.integers(32 * 32, 10**6),
    st.sampled_from([1, 14, 16, 32]),
)
def test_the_graphs_input_is_bounded_and_a_multiple(w: int, h: int, rule: str, amount: int, multiple: int) -> None:
    value = amount if rule == "area" else max(multiple, int(amount**0.5))
    width, height = InputSize.model_validate({"rule": rule, rule: value, "multiple_of": multiple}).size_for(w, h)
    assert width % multiple == height % multiple == 0
    assert width > 0
    assert height > 0
    if rule == "longest_side":
        assert max(width, height) <= value + multiple
    else:  # each side is rounded by at most half a multiple, or cut down to what fits
        scale = (value / (w * h)) ** 0.5
        assert width * height <= max((w * scale + multiple / 2) * (h * scale + multiple / 2), value)


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.lists(NUMBERS, min_size=21, max_size=21), *[st.integers(0, 2**32 - 1) | st.integers(0, 2000)] * 6, st.booleans()
)
def test_any_camera_info_is_a_camera_or_refused(
    numbers: list[float], width: int, height: int, left: int, top: int, binning: int, side: int, rectified: bool
) -> None:
    roi = SimpleNamespace(x_offset=left, y_offset=top, width=width // 2, height=height // 2)
    info = SimpleNamespace(k=numbers[:9], p=numbers[9:], d=[], distortion_model="", roi=roi)
    info.width, info.height, info.binning_x, info.binning_y = width, height, binning, binning
    info.header = SimpleNamespace(frame_id="camera")
    with contextlib.suppress(InputError):
        camera = image_intrinsics(info, max(1, side), max(1, side), rectified)
        assert np.isfinite([camera.fx, camera.fy, camera.cx, camera.cy]).all()
        assert min(camera.fx, camera.fy) > 0


@given(st.integers(64, 300), st.integers(1, 150), st.integers(1, 900), st.integers(1, 900))
def test_tiles_cover_the_image_with_their_overlap(size: int, overlap: int, width: int, height: int) -> None:
    if overlap > size // 2:
        return
    covered = np.zeros((height, width), bool)
    for window in windows(Tile(size, overlap), width, height):
        assert window.left >= 0
        assert window.top >= 0
        assert window.left + window.width <= width
        assert window.top + window.height <= height
        covered[window.slices] = True
    assert covered.all()


@given(SEEDS, st.floats(0.01, 100), st.floats(-100, 100), st.floats(0, 0.9))
def test_alignment_undoes_scale_and_shift_whatever_is_missing(
    seed: int, scale: float, shift: float, gaps: float
) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.uniform(0, 1, (12, 12)).astype(np.float32)
    depth = ((reference - shift) / scale).astype(np.float32)
    depth[rng.random(depth.shape) < gaps] = np.nan
    aligned = align_depth(depth, reference)
    seen = np.isfinite(depth)
    assert np.array_equal(np.isfinite(aligned), seen)
    if seen.sum() > 10 and depth[seen].astype(np.float64).var() > 1e-6:
        tolerance = 1e-3 * max(1.0, abs(shift) / 10)
        assert np.abs(aligned[seen] - reference[seen]).max() < tolerance
