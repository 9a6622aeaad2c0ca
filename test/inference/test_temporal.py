"""Steady video: what the temporal filter removes, what it must leave alone, and when it starts anew."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.temporal.filter import MAX_GAP, TemporalFilter
from diffusion_perception_ros.sample import UNLABELLED, FloatImage, Prediction, UInt8Image


WIDTH, HEIGHT = 320, 240
RATE = 15.0


def textured(width: int, height: int, seed: int = 0) -> UInt8Image:
    """A picture in which every place can be told from its neighbours."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.uniform(0, 255, (height // cell, width // cell, 3)).astype(np.float32), (width, height))
        for cell in (6, 20)
    ]
    return np.clip(sum(layers) / 2, 0, 255).astype(np.uint8)


WIDE = textured(2 * WIDTH, HEIGHT)
SLOPE = np.broadcast_to(np.linspace(0.3, 0.7, HEIGHT, dtype=np.float32)[:, None], (HEIGHT, WIDTH))


def pan(frame: int, speed: int = 2) -> UInt8Image:
    """A camera that turns: the picture moves to the left by `speed` pixels per frame."""
    return np.ascontiguousarray(WIDE[:, speed * frame : speed * frame + WIDTH])


def bumps(rng: np.random.Generator, strength: float) -> FloatImage:
    """What a network that sees each picture for the first time adds to smooth depth: smooth relative errors."""
    coarse = rng.normal(0, strength, (8, 10)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))


def test_flicker_of_scale_and_of_places_goes_and_the_depth_stays() -> None:
    rng, steady = np.random.default_rng(0), TemporalFilter(0.3)
    raw, filtered = [], []
    for frame in range(40):
        depth = SLOPE * np.exp(bumps(rng, 0.03) + rng.normal(0, 0.04))
        raw.append(depth)
        prediction = Prediction(depth_relative=depth.astype(np.float32), depth_quantity="relative_depth")
        filtered.append(steady.filter(prediction, pan(frame), frame / RATE).depth_relative)
    settled = np.s_[:, 20:-20, 20:-20]
    change_before = np.abs(np.diff(np.log(raw), axis=0))[settled].mean()
    change_after = np.abs(np.diff(np.log(filtered), axis=0))[settled].mean()
    assert change_after < 0.2 * change_before
    errors = np.abs(np.log(filtered[10:] / SLOPE))
    assert errors.mean() < 0.6 * np.abs(np.log(raw[10:] / SLOPE)).mean()


@pytest.mark.parametrize("is_metric", [True, False])
def test_a_moving_edge_neither_blurs_nor_leaves_a_ghost(is_metric: bool) -> None:
    """A near box crosses a far wall; its depth is right in every frame, so the filter must not change a thing."""
    wall, box = textured(WIDTH, HEIGHT, 1), textured(60, 100, 2)
    steady = TemporalFilter(0.5)
    for frame in range(30):
        left = 20 + 6 * frame
        rgb, depth = wall.copy(), np.full((HEIGHT, WIDTH), 4.0, np.float32)
        rgb[80:180, left : left + 60] = box
        depth[80:180, left : left + 60] = 2.0
        classes = (depth == 2.0).astype(np.uint8)
        sure = np.full(depth.shape, 0.8, np.float32)
        given = Prediction(semantic=classes, semantic_confidence=sure)
        if is_metric:
            given = replace(given, depth=depth, depth_quantity="metric_depth")
        else:  # of a room, as seen by a model whose [0, 1] reaches to the horizon
            given = replace(given, depth_relative=depth / 200, depth_quantity="relative_depth")
        got = steady.filter(given, rgb, frame / RATE)
        values = got.depth if is_metric else 200 * got.depth_relative
        wrong = np.abs(values / depth - 1) > 0.02
        assert wrong.sum() < 2 * (60 + 100), f"frame {frame}: more than one pixel along the outline"
        # In a class that holds on, an outline may stay behind by a pixel or two.
        assert (got.semantic != classes).mean() < 0.02, f"frame {frame}"
    assert np.abs(values / depth - 1).mean() < 1e-3


def test_an_approaching_camera_is_followed() -> None:
    """Half a metre per second towards a wall: the depth that is published keeps up with it."""
    picture, steady = textured(WIDTH, HEIGHT), TemporalFilter(0.3)
    for frame in range(45):
        distance = 3.0 - 0.5 * frame / RATE
        zoom = cv2.getRotationMatrix2D(((WIDTH - 1) / 2, (HEIGHT - 1) / 2), 0, 3.0 / distance)
        rgb = np.asarray(cv2.warpAffine(picture, zoom, (WIDTH, HEIGHT)), np.uint8)
        depth = np.full((HEIGHT, WIDTH), distance, np.float32)
        got = steady.filter(Prediction(depth=depth, depth_quantity="metric_depth"), rgb, frame / RATE).depth
        assert got is not None
        assert abs(np.median(got) / distance - 1) < 0.03, f"frame {frame}"


def test_normals_stay_unit_vectors_and_turn_with_the_camera() -> None:
    rng, steady = np.random.default_rng(0), TemporalFilter(0.3)
    errors_before, errors_after = [], []
    for frame in range(30):
        turned = np.radians(1.5 * frame)  # 22 degrees per second
        true = np.array([np.sin(turned), 0.0, -np.cos(turned)], np.float32)
        normals = true + np.stack([bumps(rng, 0.05) for _ in range(3)], axis=-1)
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        normals[:10, :10] = np.nan
        got = steady.filter(Prediction(normals=normals.astype(np.float32)), pan(frame), frame / RATE).normals
        assert got is not None
        assert np.isnan(got[:10, :10]).all()
        np.testing.assert_allclose(np.linalg.norm(got[12:, 12:], axis=-1), 1.0, atol=1e-5)
        errors_before.append(np.nanmean(np.abs(normals - true)))
        errors_after.append(np.nanmean(np.abs(got - true)))
    assert np.mean(errors_after[10:]) < 0.6 * np.mean(errors_before[10:])


def test_classes_hold_on_until_another_is_likelier_for_long() -> None:
    steady, rgb = TemporalFilter(0.3), pan(0)
    chair, table = np.full((HEIGHT, WIDTH), 7, np.uint8), np.full((HEIGHT, WIDTH), 6, np.uint8)
    sure, unsure = np.full(chair.shape, 0.8, np.float32), np.full(chair.shape, 0.5, np.float32)

    def seen(frame: int, labels: UInt8Image, probability: FloatImage) -> tuple[UInt8Image, FloatImage]:
        given = Prediction(semantic=labels, semantic_confidence=probability)
        got = steady.filter(given, rgb, frame / RATE)
        assert got.semantic is not None
        assert got.semantic_confidence is not None
        assert got.semantic.dtype == np.uint8
        return got.semantic, got.semantic_confidence

    for frame in range(5):
        assert (seen(frame, chair, sure)[0] == 7).all()
    labels, probability = seen(5, table, unsure)  # one frame of something else
    assert (labels == 7).all()
    assert (probability < 0.8).all()
    assert (seen(6, chair, sure)[0] == 7).all()
    answers = [bool((seen(frame, table, sure)[0] == 6).all()) for frame in range(7, 22)]
    assert not answers[0]
    assert answers[-1]
    assert answers == sorted(answers)


def test_ids_above_255_and_unlabelled_pixels() -> None:
    steady = TemporalFilter(0.3)
    wide = np.full((HEIGHT, WIDTH), 1000, np.uint16)
    for frame in range(2):
        got = steady.filter(Prediction(semantic=wide), pan(0), frame / RATE)
        assert got.semantic is not None
        assert got.semantic.dtype == np.uint16
        assert (got.semantic == 1000).all()
        assert got.semantic_confidence is None
    steady.reset()
    ids = np.full((HEIGHT, WIDTH), UNLABELLED, np.uint8)
    steady.filter(Prediction(semantic=ids), pan(0), 0.0)
    assert np.array_equal(steady.filter(Prediction(semantic=ids), pan(0), 0.1).semantic, ids)


def constant(value: float, **more: object) -> Prediction:
    depth = np.full((HEIGHT, WIDTH), value, np.float32)
    return replace(Prediction(depth=depth, depth_quantity="metric_depth"), **more)


@pytest.mark.parametrize("after", [0.0, -1.0, MAX_GAP + 0.1])
def test_time_jumps_start_anew(after: float) -> None:
    steady = TemporalFilter(0.3)
    steady.filter(constant(2.0), pan(0), 10.0)
    got = steady.filter(constant(2.1), pan(0), 10.0 + after).depth
    assert np.array_equal(got, constant(2.1).depth)
    held = steady.filter(constant(2.2), pan(0), 10.0 + after + 0.05).depth
    assert held is not None
    assert np.median(held) < 2.15


def test_scene_cuts_sizes_quantities_and_pauses_start_anew() -> None:
    def second(prediction: Prediction, rgb: UInt8Image) -> Prediction:
        steady = TemporalFilter(0.3)
        steady.filter(constant(2.0), pan(0), 0.0)
        return steady.filter(prediction, rgb, 0.05)

    assert np.median(second(constant(2.1), pan(0)).depth) < 2.05
    assert np.array_equal(second(constant(2.1), textured(WIDTH, HEIGHT, 9)).depth, constant(2.1).depth)
    other = constant(2.1)
    assert other.depth is not None
    small = replace(other, depth=other.depth[::2, ::2].copy())
    assert np.array_equal(second(small, np.ascontiguousarray(pan(0)[::2, ::2])).depth, small.depth)
    relative = Prediction(depth_relative=SLOPE.copy(), depth_quantity="relative_disparity")
    assert np.array_equal(second(relative, pan(0)).depth_relative, SLOPE)
    # Depth that nobody asked for in between has no past to blend with.
    steady = TemporalFilter(0.3)
    for number, prediction in enumerate((constant(2.0), Prediction(depth_quantity="metric_depth"), constant(2.2))):
        got = steady.filter(prediction, pan(0), 0.05 * number)
    assert np.array_equal(got.depth, constant(2.2).depth)


def test_what_is_not_finite_stays_so_and_does_not_spread() -> None:
    steady = TemporalFilter(0.3)
    depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    depth[:40] = np.inf
    depth[100:110, 100:110] = np.nan
    for frame in range(10):
        got = steady.filter(Prediction(depth=depth, depth_quantity="metric_depth"), pan(0), frame / RATE).depth
        assert got is not None
        assert np.array_equal(np.isnan(got), np.isnan(depth))
        assert np.array_equal(np.isinf(got), np.isinf(depth))
    moved = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    got = steady.filter(Prediction(depth=moved, depth_quantity="metric_depth"), pan(0), 10 / RATE).depth
    np.testing.assert_allclose(got, 2.0, rtol=1e-5)
    empty = Prediction(depth=np.full_like(moved, np.nan), depth_quantity="metric_depth")
    assert np.isnan(steady.filter(empty, pan(0), 11 / RATE).depth).all()


@pytest.mark.parametrize("size", [(64, 48), (8, 6), (1, 1), (333, 77), (1280, 720)])
def test_any_size_and_untouched_inputs(size: tuple[int, int]) -> None:
    width, height = size
    steady = TemporalFilter(0.3)
    rgb = textured(max(width, 20), max(height, 20))[:height, :width].copy()
    depth = np.linspace(0.2, 0.8, width * height, dtype=np.float32).reshape(height, width)
    for frame in range(3):
        given = Prediction(
            depth_relative=(depth * (1 + 0.02 * frame)).astype(np.float32), depth_quantity="relative_depth"
        )
        before = given.depth_relative.copy()
        got = steady.filter(given, rgb, frame / RATE)
        assert np.array_equal(given.depth_relative, before)
        assert got.depth_relative.shape == (height, width)
        assert got.depth_relative.dtype == np.float32
        assert np.isfinite(got.depth_relative).all()
        assert 0 <= got.depth_relative.min() <= got.depth_relative.max() <= 1


def test_zero_passes_everything_on_and_nonsense_is_refused() -> None:
    prediction = constant(2.0)
    assert TemporalFilter(0.0).filter(prediction, pan(0), 0.0) is prediction
    with pytest.raises(InputError, match="time constant must be 0 or more seconds, got -1"):
        TemporalFilter(-1.0)
    with pytest.raises(InputError, match="at least 16 pixels"):
        TemporalFilter(working_width=3)
    with pytest.raises(InputError, match="depth has 320x240 pixels, the image has 160x240"):
        TemporalFilter().filter(prediction, np.ascontiguousarray(pan(0)[:, ::2]), 0.0)
