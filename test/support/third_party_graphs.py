"""Graphs of random weights with the inputs and outputs of published ONNX exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


F, H, INT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64


class _Graph:
    """A graph being built: convolutions of random weights and what shapes their outputs."""

    def __init__(self, opset: int = 17, kind: int = F) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.random = np.random.default_rng(0)
        self.opset, self.kind = opset, kind

    def number(self, name: str, value: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.array(value), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def conv(self, source: str, output: str, channels: int, stride: int = 1) -> str:
        dtype = np.float16 if self.kind == H else np.float32
        weight = self.random.normal(0, 0.2, (channels, 3, 3, 3)).astype(dtype)
        return self.add(
            "Conv", [source, self.number(f"{output}_w", weight)], output, pads=[1] * 4, strides=[stride, stride]
        )

    def positive(self, source: str, output: str, scale: float = 1.0) -> str:
        dtype = np.float16 if self.kind == H else np.float32
        self.add("Sigmoid", [source], f"{output}_s")
        return self.add("Mul", [f"{output}_s", self.number(f"{output}_k", np.array(scale, dtype))], output)

    def save(self, path: Path, inputs: list[Any], outputs: list[Any]) -> Path:
        graph = helper.make_graph(self.nodes, "third_party", inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)
        onnx.save(model, path)
        return path


def value(name: str, shape: list[Any], kind: int = F) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def depth_anything_v2(path: Path, opset: int = 17, kind: int = F, image: str = "pixel_values") -> Path:
    g = _Graph(opset, kind)
    g.positive(g.conv(image, "c", 1), "d", 20.0)
    g.add("Squeeze", ["d", g.number("axis", np.array([1]))], "predicted_depth")
    return g.save(
        path,
        [value(image, ["batch_size", 3, "height", "width"], kind)],
        [value("predicted_depth", ["batch_size", "out_height", "out_width"], kind)],
    )


def depth_anything_3(path: Path) -> Path:
    g = _Graph()
    g.add("Squeeze", ["image", g.number("axis", np.array([1]))], "one")
    for name in ("depth", "depth_conf"):
        g.positive(g.conv("one", f"{name}_c", 1), name, 5.0)
    return g.save(
        path,
        [value("image", [1, 1, 3, 280, 504])],
        [value(name, [1, 1, 280, 504]) for name in ("depth", "depth_conf")],
    )


def moge(path: Path) -> Path:
    g = _Graph()
    g.add("Cast", ["num_tokens"], "tokens", to=F)
    g.add("Mul", ["tokens", g.number("nothing", np.array(0, np.float32))], "zero")
    g.add("Add", ["image", "zero"], "seen")
    for name in ("points", "normal"):
        g.conv("seen", f"{name}_c", 3)
        g.add("Transpose", [f"{name}_c"], name, perm=[0, 2, 3, 1])
    g.add("Squeeze", [g.positive(g.conv("seen", "m", 1), "ms"), g.number("axis", np.array([1]))], "mask")
    g.add("ReduceMean", ["mask"], "metric_scale", axes=[1, 2], keepdims=0)
    size = [1, "height", "width"]
    return g.save(
        path,
        [value("image", [1, 3, "height", "width"]), value("num_tokens", [], INT)],
        [value("points", [*size, 3]), value("normal", [*size, 3]), value("mask", size), value("metric_scale", [1])],
    )


def metric3d(path: Path) -> Path:
    g = _Graph()
    g.positive(g.conv("pixel_values", "d", 1), "predicted_depth", 30.0)
    g.conv("pixel_values", "predicted_normal", 4)
    g.positive(g.conv("pixel_values", "n", 1), "normal_confidence")
    size = [308, 532]
    return g.save(
        path,
        [value("pixel_values", [1, 3, *size])],
        [
            value("predicted_depth", [1, 1, *size]),
            value("predicted_normal", [1, 4, *size]),
            value("normal_confidence", [1, 1, *size]),
        ],
    )


def unidepth(path: Path) -> Path:
    g = _Graph(18)
    g.positive(g.conv("rgbs", "p", 3), "pts_3d", 10.0)
    g.positive(g.conv("rgbs", "c", 1), "confidence")
    size = [1, 3, 294, 392]
    return g.save(path, [value("rgbs", size)], [value("pts_3d", size), value("confidence", [1, 1, 294, 392])])


def midas(path: Path) -> Path:
    g = _Graph(11)
    g.positive(g.conv("0", "d", 1), "e", 900.0)
    g.add("Squeeze", ["e"], "797", axes=[1])
    return g.save(path, [value("0", [1, 3, 384, 384])], [value("797", [1, 384, 384])])


def segformer(path: Path, classes: int = 7) -> Path:
    g = _Graph()
    g.conv("pixel_values", "logits", classes, stride=4)
    return g.save(
        path,
        [value("pixel_values", ["batch_size", 3, "height", "width"])],
        [value("logits", ["batch_size", classes, "h", "w"])],
    )


def channels_last(path: Path) -> Path:
    """As converted from TensorFlow."""
    g = _Graph(13)
    g.add("Transpose", ["input_image"], "first", perm=[0, 3, 1, 2])
    g.positive(g.conv("first", "d", 1), "e", 3.0)
    g.add("Transpose", ["e"], "depth_out", perm=[0, 2, 3, 1])
    return g.save(path, [value("input_image", [1, 224, 224, 3])], [value("depth_out", [1, 224, 224, 1])])


GRAPHS: dict[str, tuple[Callable[[Path], Path], list[str], set[str]]] = {
    "depth_anything_2": (depth_anything_v2, ["--quantity", "relative_disparity"], {"depth"}),
    "depth_anything_3": (depth_anything_3, ["--quantity", "relative_depth"], {"depth"}),
    "moge": (moge, [], {"depth", "normals"}),
    "metric3d": (metric3d, [], {"depth", "normals"}),
    "unidepth": (unidepth, [], {"depth"}),
    "midas": (midas, [], {"depth"}),
    "segmentation": (segformer, ["--labels", "names.txt"], {"semantic"}),
}
"""Family → writer, options of `models wrap` that it needs, and the tasks that come of it."""
CLASSES = ["road", "wall", "sky", "person", "car", "tree", "road"]
