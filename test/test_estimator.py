"""The estimator on real ONNX graphs with outputs known in closed form (`model_factory`), and on the bundled model."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from model_factory import CELL, LABELS, TASKS, edit_card, write_model
from onnx import TensorProto, helper

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.backends.onnx_pruning import keep_outputs
from diffusion_perception_ros.inference.card import CardError, Label, read_card, sha256_of
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.instances import find_instances
from diffusion_perception_ros.inference.models import DEFAULT_MODEL, find_model
from diffusion_perception_ros.sample import UNLABELLED, Intrinsics


BLACK, RED, GREEN, BLUE = (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)
METRIC = {"quantity": "metric_depth", "unit": "m"}


def load(folder: Path, **options: Any) -> Estimator:
    return Estimator.load(write_model(folder / "tiny", **options), backend="cpu", threads=1)


def picture(width: int, height: int, color: tuple[int, int, int] = BLACK) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Estimator:
    return load(tmp_path_factory.mktemp("models"))


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
    estimator = load(tmp_path, depth="brightness")
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
    estimator = load(tmp_path, tasks=["normals"], normal=(1.0, 2.0, 3.0), axes=axes)
    normals = estimator.predict(picture(50, 70)).normals
    assert normals is not None
    np.testing.assert_allclose(normals, np.broadcast_to(np.array(expected) / 14**0.5, normals.shape), atol=1e-6)


def test_normals_without_direction_are_invalid(tmp_path: Path) -> None:
    normals = load(tmp_path, tasks=["normals"], normal=(0.0, 0.0, 0.0)).predict(picture(50, 70)).normals
    assert np.isnan(normals).all()


def test_relative_depth_is_mapped_by_the_cards_range(tmp_path: Path) -> None:
    card = {"quantity": "relative_disparity", "range": [0.25, 0.75]}
    prediction = load(tmp_path, depth="brightness", depth_card=card).predict(picture(64, 64, (102, 102, 102)))
    assert prediction.depth_quantity == "relative_disparity"
    np.testing.assert_allclose(prediction.depth_relative, (0.4 - 0.25) / 0.5, atol=1e-5)
    prediction = load(tmp_path, depth="brightness", depth_card=card).predict(picture(64, 64, (255, 255, 255)))
    np.testing.assert_array_equal(prediction.depth_relative, 1.0)


def test_metric_depth_is_in_metres(tmp_path: Path) -> None:
    prediction = load(tmp_path, depth="brightness", depth_card=METRIC).predict(picture(64, 64, (102, 102, 102)))
    assert prediction.depth_quantity == "metric_depth"
    assert prediction.depth_relative is None
    np.testing.assert_allclose(prediction.depth, 0.4, atol=1e-5)


def test_canonical_depth_scales_with_the_focal_length_at_the_graph(tmp_path: Path) -> None:
    estimator = load(tmp_path, depth="brightness", depth_card=METRIC | {"focal_scale": 0.05})
    grey = picture(640, 480, (102, 102, 102))  # resized to 128 x 96, a fifth of it
    prediction = estimator.predict(grey, Intrinsics(640, 480, 500.0, 520.0, 320.0, 240.0))
    assert prediction.depth_quantity == "metric_depth"
    np.testing.assert_allclose(prediction.depth, 0.4 * 0.05 * (100.0 + 104.0) / 2, rtol=1e-4)


def test_canonical_depth_without_intrinsics_is_only_relative(tmp_path: Path) -> None:
    estimator = load(tmp_path, depth="brightness", depth_card=METRIC | {"focal_scale": 0.05})
    prediction = estimator.predict(picture(640, 480, (102, 102, 102)))
    assert prediction.depth is None
    assert prediction.depth_quantity == "relative_depth"
    np.testing.assert_allclose(prediction.depth_relative, 0.4, atol=1e-5)


def test_metric_depth_has_no_zero_no_end_of_range_and_no_sky(tmp_path: Path) -> None:
    """REP 117: NaN is invalid, +Inf is beyond the range."""
    card = METRIC | {"range": [0.0, 0.9]}
    estimator = load(tmp_path, depth="brightness", depth_card=card)
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
    estimator = load(tmp_path, depth="holes", labels=LABELS[:1])
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


def test_classes_have_the_cards_ids_and_smooth_outlines(tiny: Estimator) -> None:
    rgb = picture(640, 480)
    cv2.circle(rgb, (320, 240), 150, BLUE, cv2.FILLED)
    prediction = tiny.predict(rgb, tasks=["semantic"])
    expected = np.where(rgb[..., 2] > 127, 7, 0)
    assert set(np.unique(prediction.semantic)) == {0, 7}
    assert np.mean(prediction.semantic == expected) > 0.995  # cells of the head are 10 pixels wide
    assert prediction.semantic_confidence is not None
    assert prediction.semantic_confidence[240, 320] > 0.99
    assert 0.4 < prediction.semantic_confidence.min() < 0.9  # on the outline


def test_many_labels_need_16_bits(tmp_path: Path) -> None:
    labels = [*LABELS[:3], Label(id=300, name="sky", color=BLUE)]
    semantic = load(tmp_path, labels=labels).predict(picture(64, 64, BLUE)).semantic
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
    estimator = load(tmp_path, size=size)
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


def test_a_picture_without_things_has_no_instances(tiny: Estimator) -> None:
    assert not tiny.predict(picture(320, 240, BLUE)).instances.any()


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


def test_heads_that_nobody_asked_for_are_not_computed(tmp_path: Path) -> None:
    """This graph's depth head fails when it runs. The first calls still run the whole graph, while it is pruned."""
    estimator = load(tmp_path, depth="broken")
    deadline = time.monotonic() + 60
    prediction = None
    while prediction is None and time.monotonic() < deadline:
        with contextlib.suppress(RuntimeError):
            prediction = estimator.predict(picture(64, 48, BLUE), tasks=["normals", "semantic"])
        time.sleep(0.01)
    assert prediction is not None
    assert prediction.normals is not None
    assert (prediction.semantic == 7).all()


def test_the_bundled_model_says_the_same_when_it_is_pruned() -> None:
    folder = find_model(DEFAULT_MODEL)
    card = read_card(folder)
    whole = onnxruntime.InferenceSession(str(folder / card.graph), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((1, 3, 64, 96), dtype=np.float32)
    expected = {
        node.name: value for node, value in zip(whole.get_outputs(), whole.run(None, {"image": image}), strict=True)
    }
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    for names in (["depth"], ["semantic", "instances"], list(expected)):
        model = keep_outputs((folder / card.graph).read_bytes(), names)
        pruned = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        assert [node.name for node in pruned.get_outputs()] == [name for name in expected if name in names]
        for name, value in zip(names, pruned.run(names, {"image": image}), strict=True):
            np.testing.assert_allclose(value, expected[name], atol=1e-4)


def test_pruning_keeps_what_branches_use(tmp_path: Path) -> None:
    """A tensor that is only read inside an `If` is needed all the same."""
    half = helper.make_node("Mul", ["x", "half"], ["halved"])
    waste = helper.make_node("Exp", ["x"], ["wasted"])
    branches = {
        f"{side}_branch": helper.make_graph(
            [helper.make_node(op, ["halved"], [f"{side}_value"])],
            side,
            [],
            [helper.make_empty_tensor_value_info(f"{side}_value")],
        )
        for side, op in (("then", "Neg"), ("else", "Identity"))
    }
    choice = helper.make_node("If", ["condition"], ["y"], **branches)
    floats = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    graph = helper.make_graph(
        [half, waste, choice],
        "branches",
        [
            helper.make_value_info("x", floats),
            helper.make_value_info("condition", helper.make_tensor_type_proto(TensorProto.BOOL, [])),
        ],
        [helper.make_value_info(name, floats) for name in ("wasted", "y")],
        [helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    pruned = keep_outputs(model, ["y"])
    assert [node.op_type for node in onnx.load_from_string(pruned).graph.node] == ["Mul", "If"]
    session = onnxruntime.InferenceSession(pruned, providers=["CPUExecutionProvider"])
    (y,) = session.run(["y"], {"x": np.array([2, 4], np.float32), "condition": np.array(True)})
    assert y.tolist() == [-1.0, -2.0]
    with pytest.raises(ValueError, match="not an ONNX model"):
        keep_outputs(model[: len(model) // 2], ["y"])


def test_a_graph_that_fails_says_on_what(tmp_path: Path) -> None:
    estimator = load(tmp_path, depth="broken")
    with pytest.raises(RuntimeError, match=r"onnxruntime-cpu failed on inputs image \(1, 3, 96, 128\)"):
        estimator.predict(picture(64, 48), tasks=["depth"])


def test_noise_input_is_fed_and_steady(tmp_path: Path) -> None:
    noise = {"tensor": "noise", "channels": 4, "downscale": 8, "seed": 3}
    estimator = load(tmp_path, noise=noise)
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
    with pytest.raises(InputError, match="belong to 320x240 pixels, the picture has 640x480"):
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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"graph": "absent.onnx", "files": {"absent.onnx": "0"}}, r"absent\.onnx .*cannot be read"),
        ({"noise": {"tensor": "noise", "channels": 4, "downscale": 8}}, "names the input 'noise', .* has image"),
        ({"input": {"tensor": "pixels"}}, "names the input 'pixels', .* has image"),
        (
            {"outputs": {"depth": {"tensor": "distance"}}},
            "names the output 'distance', .* has depth, depth_confidence",
        ),
        ({"outputs": {"depth": {"tensor": "normals"}}}, r"'normals' of .* has the shape .*implies 1 x 1 x any x any"),
        ({"outputs": {"depth": {"confidence_tensor": "semantic"}}}, "'semantic' of .* has the shape"),
        ({"outputs": {"semantic": {"labels": [LABELS[0].model_dump(mode="json")]}}}, "'semantic' .* implies 1 x 1"),
    ],
)
def test_card_and_graph_must_agree(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    folder = write_model(tmp_path / "tiny")
    fields = yaml.safe_load((folder / "model.yaml").read_text())
    if "outputs" in changes:
        changes = {"outputs": [entry | changes["outputs"].get(entry["task"], {}) for entry in fields["outputs"]]}
    if "input" in changes:
        changes = {"input": fields["input"] | changes["input"]}
    edit_card(folder, **changes)
    with pytest.raises(CardError, match=words):
        Estimator.load(folder, "cpu")


def test_graph_input_that_the_card_does_not_mention(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny", noise={"tensor": "noise", "channels": 4, "downscale": 8})
    edit_card(folder, noise=...)
    with pytest.raises(CardError, match="needs the input 'noise', which its card does not mention"):
        Estimator.load(folder, "cpu")


def test_graph_that_is_no_graph(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    (folder / "model.onnx").write_bytes(b"not a graph")
    edit_card(folder, files={"model.onnx": sha256_of(folder / "model.onnx")})
    with pytest.raises(CardError, match=r"model\.onnx cannot be loaded by ONNX Runtime"):
        Estimator.load(folder, "cpu")


def test_the_bundled_model_sees_a_room() -> None:
    """A floor that runs away from the camera, drawn by hand: what the shipped model says about it makes sense."""
    estimator = Estimator.load(DEFAULT_MODEL, threads=2)
    rgb = picture(640, 480, (205, 200, 190))
    for row in range(200, 480):
        rgb[row] = np.array((140, 110, 80)) * (0.75 + 0.25 * (row - 200) / 280)
    rgb += np.random.default_rng(0).integers(0, 12, rgb.shape, dtype=np.uint8)
    prediction = estimator.predict(rgb, Intrinsics(640, 480, 525.0, 525.0, 319.5, 239.5))
    depth = prediction.depth if prediction.depth is not None else prediction.depth_relative
    assert depth is not None
    assert np.nanmedian(depth[460:]) < np.nanmedian(depth[220:240])
    assert prediction.normals is not None
    np.testing.assert_allclose(np.linalg.norm(prediction.normals, axis=2), 1.0, atol=1e-4)
    assert np.median(prediction.normals[440:, :, 1]) < -0.3  # the floor's normal points up
    assert set(np.unique(prediction.semantic)) <= {label.id for label in estimator.card.labels}
