"""Small real model folders for tests: ONNX graphs whose outputs are known in closed form.

The graph undoes the normalisation and then computes, from pixel values r, g, b in [0, 1] and pixel positions:

| output | value |
|---|---|
| `depth` | `depth="row"`: (row + 0.5) / height; `"brightness"`: mean of r, g, b; `"holes"`: that, NaN where black |
| `depth` | `"broken"`: it fails; `"nan white"`, `"broken white"`, `"huge white"`, `"hanging white"`: see `_spoiled` |
| `depth_confidence` | g |
| `normals` | the constant vector `normal`, in the card's `axes` |
| `semantic` | at half resolution, highest for the label of `LABELS` whose colour is nearest |
| `instances` | at half resolution, offset to the centre of the cell of a `CELL` x `CELL` grid over the graph's input |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from diffusion_perception_ros.inference.card import CARD_NAME, SCHEMA_VERSION, Label, sha256_of


LABELS: tuple[Label, ...] = (
    Label(id=0, name="ground", color=(0, 0, 0)),
    Label(id=1, name="box", color=(255, 0, 0), is_thing=True),
    Label(id=2, name="ball", color=(0, 255, 0), is_thing=True),
    Label(id=7, name="sky", color=(0, 0, 255), group="sky"),
)
"""Ids are not channel numbers on purpose: the fourth channel is id 7."""
CELL = 64
TASKS = ("depth", "normals", "semantic", "instances")
MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)


def write_model(
    folder: Path,
    tasks: Sequence[str] = TASKS,
    *,
    depth: str = "row",
    depth_card: dict[str, Any] | None = None,
    normal: Sequence[float] = (0.0, 0.0, 2.0),
    axes: Sequence[str] = ("right", "up", "backward"),
    size: dict[str, Any] | None = None,
    labels: Sequence[Label] = LABELS,
    noise: dict[str, Any] | None = None,
    card: dict[str, Any] | None = None,
) -> Path:
    """Writes a model folder and returns it.

    Args:
        folder: Where; its name is the model's name. Made if it does not exist.
        tasks: Outputs of the graph and the card.
        depth: See the module's table; `"broken"` makes a graph that fails when it runs.
        depth_card: Changes to the card's depth output, e.g. `{"quantity": "metric_depth", "unit": "m"}`.
        normal: The vector that the graph gives everywhere, of any length.
        axes: What its three components mean, for the card. The default vector faces the camera: n_z = -1 in ours.
        size: The card's size rule; by default the longest side becomes 128, sides are multiples of 32.
        labels: Semantic classes in the order of the channels.
        noise: The card's `noise` field; the graph then adds its mean over everything, times zero, to depth.
        card: Changes to the top level of the card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(_graph(tasks, depth, normal, labels, noise), folder / "model.onnx")
    size = size or {"rule": "longest_side", "longest_side": 128, "multiple_of": 32}
    outputs = {
        "depth": {
            "quantity": "relative_depth",
            "tensor": "depth",
            "range": [0.0, 1.0],
            "confidence_tensor": "depth_confidence",
            **(depth_card or {}),
        },
        "normals": {"tensor": "normals", "axes": list(axes)},
        "semantic": {"tensor": "semantic", "labels": [label.model_dump(mode="json") for label in labels]},
        "instances": {"tensor": "instances", "offset_scale": float(CELL)},
    }
    fields = {
        "graph": "model.onnx",
        "input": {"tensor": "image", "size": size, "mean": list(MEAN), "std": list(STD)},
        "noise": noise,
        "outputs": [{"task": task, **outputs[task]} for task in tasks],
    }
    return write_card(folder, fields, card)


def write_card(folder: Path, fields: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Path:
    """Writes the card of a folder whose graphs are there, and returns the folder.

    Args:
        fields: What the card says besides the fields that are the same for every model of the tests.
        changes: Further fields, which take the place of those.
    """
    card = {
        "schema_version": SCHEMA_VERSION,
        "name": folder.name,
        "family": "test",
        "description": "Closed-form outputs for tests.",
        "licence": "Apache-2.0",
        "source": {"checkpoint": "none", "training_data": "none"},
        "opset": 17,
        "precision": "fp32",
        **fields,
        "files": {path.name: sha256_of(path) for path in sorted(folder.glob("*.onnx"))},
        **(changes or {}),
    }
    plain = json.loads(json.dumps(card))  # values that appear twice are written out: cards have no aliases
    (folder / CARD_NAME).write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
    return folder


def edit_card(folder: Path, **changes: Any) -> None:
    """Sets top-level fields of a written card, or removes those that are set to `...`."""
    path = folder / CARD_NAME
    fields = yaml.safe_load(path.read_text(encoding="utf-8")) | changes
    fields = {name: value for name, value in fields.items() if value is not ...}
    plain = json.loads(json.dumps(fields))
    path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def free_the_batch(folder: Path) -> Path:
    """Gives the graph of a written model a batch dimension of any size; returns the folder."""
    path = folder / "model.onnx"
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, path)
    edit_card(folder, files={"model.onnx": sha256_of(path)})
    return folder


def _spoiled(op: Callable[..., str], kind: str, value: str, is_white: str) -> str:
    """The same tensor, but a white image becomes NaN, makes the graph fail, ask for 256 TiB, or loop for years."""

    def chosen(white: int, others: int) -> str:
        return op("Where", [is_white, np.array([white], np.int64), np.array([others], np.int64)])

    if kind == "nan":
        return op("Where", [is_white, np.array(np.nan, np.float32), value])
    if kind == "broken":
        return op("Gather", [value, chosen(1 << 20, 0)], axis=1)
    if kind == "huge":
        memory = op("ReduceSum", [op("ConstantOfShape", [chosen(1 << 46, 1)])], keepdims=0)
        return op("Add", [value, memory])
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["goes_on"], ["still"]), helper.make_node("Neg", ["before"], ["after"])],
        "body",
        [
            info("round", TensorProto.INT64, []),
            info("goes_on", TensorProto.BOOL, []),
            info("before", TensorProto.FLOAT, None),
        ],
        [info("still", TensorProto.BOOL, []), info("after", TensorProto.FLOAT, None)],
    )
    trips = op("Squeeze", [chosen(1 << 50, 2)])
    return op("Loop", [trips, "", value], body=body)


def _graph(
    tasks: Sequence[str], depth: str, normal: Sequence[float], labels: Sequence[Label], noise: dict[str, Any] | None
) -> onnx.ModelProto:
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {}

    def op(kind: str, inputs: Sequence[str | np.ndarray], output: str = "", **attributes: Any) -> str:
        names = []
        for value in inputs:
            if isinstance(value, np.ndarray):
                name = f"constant{len(constants)}"
                constants[name] = value
                names.append(name)
            else:
                names.append(value)
        output = output or f"{kind.lower()}{len(nodes)}"
        nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def floats(values: Sequence[float]) -> np.ndarray:
        return np.array(values, np.float32).reshape(1, -1, 1, 1)

    rgb = op("Add", [op("Mul", ["image", floats(STD)]), floats(MEAN)])
    axis = np.array([1], np.int64)
    brightness = op("ReduceMean", [rgb], axes=[1])
    ones = op("Add", [op("Mul", [brightness, floats([0.0])]), floats([1.0])])
    outputs: dict[str, int | str] = {}
    if "depth" in tasks:
        outputs |= {"depth": 1, "depth_confidence": 1}
        if depth == "row":
            rows = op("CumSum", [ones, np.array(2, np.int64)])
            value = op("Div", [op("Sub", [rows, floats([0.5])]), op("ReduceMax", [rows])])
        elif depth == "holes":
            rounded = op("Div", [op("Round", [op("Mul", [brightness, floats([1e4])])]), floats([1e4])])
            value = op("Div", [op("Mul", [rounded, rounded]), rounded])
        elif depth.endswith(" white"):
            is_white = op("Greater", [op("ReduceMean", [rgb], keepdims=0), np.array(0.99, np.float32)])
            value = _spoiled(op, depth.removesuffix(" white"), brightness, is_white)
        elif depth == "broken":
            value = op("Reshape", [brightness, np.array([1, 1, 7, 7], np.int64)])
        else:
            value = brightness
        if noise:
            value = op("Add", [value, op("Mul", [op("ReduceMean", [noise["tensor"]]), floats([0.0])])])
        op("Identity", [value], "depth")
        op("Slice", [rgb, np.array([1], np.int64), np.array([2], np.int64), axis], "depth_confidence")
    if "normals" in tasks:
        outputs["normals"] = 3
        op("Mul", [ones, floats(normal)], "normals")
    half = {"kernel_shape": [2, 2], "strides": [2, 2]}
    if "semantic" in tasks:
        outputs["semantic"] = len(labels)
        colors = np.array([label.color for label in labels], np.float32) / 255
        weights = 40 * colors[:, :, None, None]
        bias = -20 * (colors**2).sum(axis=1)
        op("Conv", [op("AveragePool", [rgb], **half), weights, bias], "semantic")
    if "instances" in tasks:
        outputs["instances"] = 2
        offsets = []
        for dimension in (3, 2):
            steps = op("CumSum", [ones, np.array(dimension, np.int64)])
            position = op("AveragePool", [op("Sub", [steps, floats([1.0])])], **half)
            cell = op("Floor", [op("Div", [position, floats([CELL])])])
            centre = op("Mul", [op("Add", [cell, floats([0.5])]), floats([CELL])])
            offsets.append(op("Div", [op("Sub", [centre, position]), floats([CELL])]))
        op("Concat", offsets, "instances", axis=1)
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "height", "width"])]
    if noise:
        shape = [1, noise["channels"], "noise_height", "noise_width"]
        inputs.append(helper.make_tensor_value_info(noise["tensor"], TensorProto.FLOAT, shape))
    graph = helper.make_graph(
        nodes,
        "closed_form",
        inputs,
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, f"{name}_height", f"{name}_width"])
            for name, channels in outputs.items()
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model
