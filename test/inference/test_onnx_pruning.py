"""Heads that nobody asked for are cut off the graph; what is left says the same."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from tiny_estimator import BLUE, load_tiny, picture

from diffusion_perception_ros.inference.backends.onnx_pruning import keep_outputs
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.models import DEFAULT_MODEL, find_model


def test_heads_that_nobody_asked_for_are_not_computed(tmp_path: Path) -> None:
    """This graph's depth head fails when it runs. The first calls still run the whole graph, while it is pruned."""
    estimator = load_tiny(tmp_path, depth="broken")
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
