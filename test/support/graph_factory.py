"""Small ONNX graphs for tests of what is done to graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save_graph(path: Path, nodes: Sequence[onnx.NodeProto], weights: dict[str, np.ndarray], channels: int = 3) -> Path:
    """A graph from `image` (1, 3, h, w) to `depth` (1, channels, any, any)."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, channels, None, None])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def overflowing_graph(path: Path) -> Path:
    """(image * 1000 + 1) squared over a million: about image squared, but its middle leaves fp16's range."""
    return save_graph(
        path,
        [
            helper.make_node(
                "Conv", ["image", "weights"], ["features"], name="conv", kernel_shape=[3, 3], pads=[1] * 4
            ),
            helper.make_node("Mul", ["features", "thousand"], ["large"], name="enlarge"),
            helper.make_node("Mul", ["large", "large"], ["square"]),
            helper.make_node("Div", ["square", "million"], ["small"], name="shrink"),
            helper.make_node("Relu", ["small"], ["depth"], name="relu"),
        ],
        {
            "weights": np.random.default_rng(0).normal(0, 0.3, (3, 3, 3, 3)).astype(np.float32),
            "thousand": np.array(1e3, np.float32),
            "million": np.array(1e6, np.float32),
        },
    )
