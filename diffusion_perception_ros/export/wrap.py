"""Any ONNX model of depth, normals or classes to a model folder: the graph is looked at, completed and given a card.

Third-party exports differ in the shape of their inputs and outputs (no channel axis, channels last, several images,
point maps, constants as inputs). What the runtime expects is put around the graph with a few operators; its weights
and its own operators stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.compose
from onnx import TensorProto, helper, numpy_helper

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.export.layouts import GraphFacts, Layout, TensorFacts
from diffusion_perception_ros.inference.card import (
    SCHEMA_VERSION,
    DepthOutput,
    ImageInput,
    InputSize,
    Label,
    ModelCard,
    NormalsOutput,
    SemanticOutput,
    Source,
    sha256_of,
)


GRAPH = "model.onnx"
_LARGEST_FILE = 1_500_000_000
"""Bytes of weights that are kept inside of the graph's file."""
_EPSILON = 1e-6
_INNER = "inner/"
"""Before every name of the graph that is wrapped."""


@dataclass
class WrapOptions:
    """What the graph cannot say."""

    name: str
    licence: str
    source: str
    command: str
    quantity: str
    range: tuple[float, float] | None = None
    focal_scale: float | None = None
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    axes: tuple[str, str, str] = ("right", "down", "forward")
    labels: Sequence[Label] = ()
    size: tuple[int, int] | None = None
    multiple_of: int = 14
    constants: Mapping[str, float] = field(default_factory=dict)


def read_graph(path: Path) -> onnx.ModelProto:
    """Raises InputError if a file is no ONNX graph."""
    try:
        return onnx.load(str(path))
    except Exception as error:  # damaged bytes make the library raise anything
        raise InputError(f"{path} cannot be read as an ONNX graph: {error}") from error


def facts_of(model: onnx.ModelProto) -> GraphFacts:
    """Inputs and outputs of a graph, and which operators it has."""
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [_facts(value) for value in model.graph.input if value.name not in weights]
    operators = frozenset(node.op_type for node in model.graph.node)
    return GraphFacts(tuple(inputs), tuple(_facts(value) for value in model.graph.output), operators)


def wrap(model: onnx.ModelProto, layout: Layout, options: WrapOptions, folder: Path) -> ModelCard:
    """Writes graph and card into a folder.

    Args:
        model: as `read_graph` gives it.
        layout: what its inputs and outputs are.
        options: the rest.

    Raises:
        InputError: the graph cannot be completed.
    """
    facts = facts_of(model)
    editor = _Editor(model)
    editor.image(layout.image, facts)
    for value in facts.inputs:
        if value.name != layout.image:
            editor.constant(value, options.constants)
    outputs: list[Any] = []
    if layout.depth is not None:
        outputs.append(_depth(editor, facts, layout, options))
    if layout.normals is not None:
        editor.planes(layout.normals, "normals", facts.output(layout.normals), 3)
        outputs.append(NormalsOutput(tensor="normals", axes=options.axes))  # type: ignore[arg-type]
    if layout.semantic is not None:
        editor.planes(layout.semantic, "semantic", facts.output(layout.semantic), len(options.labels))
        outputs.append(SemanticOutput(tensor="semantic", labels=tuple(options.labels)))
    editor.keep_only([output.tensor for output in outputs])
    is_half = any(weight.data_type == TensorProto.FLOAT16 for weight in editor.graph.initializer)
    files = _save(editor.model, folder)
    return ModelCard(
        schema_version=SCHEMA_VERSION,
        name=options.name,
        family=layout.family,
        description=f"{layout.title}, wrapped from {options.source}",
        licence=options.licence,
        source=Source(checkpoint=options.source, training_data="see its publisher", command=options.command),
        graph=GRAPH,
        opset=max(11, editor.opset),
        precision="fp16" if is_half else "fp32",
        input=ImageInput(tensor="image", size=_size(facts, layout, options), mean=options.mean, std=options.std),
        outputs=tuple(outputs),
        files={file.name: sha256_of(file) for file in files},
    )


def _depth(editor: _Editor, facts: GraphFacts, layout: Layout, options: WrapOptions) -> DepthOutput:
    assert layout.depth is not None
    if layout.depth_channel is not None:
        editor.channel(layout.depth, "depth_raw", facts.output(layout.depth), layout.depth_channel)
    else:
        editor.planes(layout.depth, "depth_raw", facts.output(layout.depth), 1)
    is_metric = options.quantity == "metric_depth"
    if is_metric or options.range is not None:
        editor.add("Identity", ["depth_raw"], "depth")
    else:
        editor.normalised("depth_raw", "depth")
    limits = options.range or ((0.0, 1000.0) if is_metric else (0.0, 1.0))
    return DepthOutput(
        quantity=options.quantity,  # type: ignore[arg-type]
        tensor="depth",
        range=limits,
        unit="m" if is_metric else None,
        focal_scale=options.focal_scale if is_metric else None,
    )


class _Editor:
    """Adds operators at both ends of a graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.compose.add_prefix(model, _INNER)  # no name of ours is one of the graph's
        self.graph = self.model.graph
        self.opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 11)
        self._count = 0

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """An operator at the end of the graph."""
        self.graph.node.append(helper.make_node(kind, inputs, [output], name=f"wrap_{output}", **attributes))
        return output

    def image(self, name: str, facts: GraphFacts) -> None:
        """The camera image becomes the input `image`, float32 NCHW."""
        value = facts.input(name)
        sides = zip(value.sides, ("height", "width"), strict=True)
        height, width = (side if isinstance(side, int) and side > 0 else axis for side, axis in sides)
        steps, current = [], "image"
        if value.is_half:
            steps.append(helper.make_node("Cast", [current], ["wrap_image_half"], to=TensorProto.FLOAT16))
            current = "wrap_image_half"
        if value.channels_last:
            steps.append(helper.make_node("Transpose", [current], ["wrap_image_last"], perm=[0, 2, 3, 1]))
            current = "wrap_image_last"
        if len(value.shape) == 5:
            steps.append(self._unsqueeze(current, "wrap_image_views", 1))
            current = "wrap_image_views"
        kept = [entry for entry in self.graph.input if entry.name != _INNER + name]
        steps.append(helper.make_node("Identity", [current], [_INNER + name]))
        nodes = [*steps, *self.graph.node]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        del self.graph.input[:]
        self.graph.input.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height, width]))
        self.graph.input.extend(kept)

    def constant(self, value: TensorFacts, given: Mapping[str, float]) -> None:
        """An input that is the same for every image becomes a number of the graph."""
        if value.name not in given:
            raise InputError(
                f"the graph also needs the input '{value.name}' of shape {list(value.shape)}: give "
                f"--constant {value.name}=NUMBER if it is the same for every image"
            )
        shape = [side if isinstance(side, int) and side > 0 else 1 for side in value.shape]
        number = np.full(shape, given[value.name], helper.tensor_dtype_to_np_dtype(value.kind))
        kept = [entry for entry in self.graph.input if entry.name != _INNER + value.name]
        del self.graph.input[:]
        self.graph.input.extend(kept)
        self.graph.initializer.append(numpy_helper.from_array(number, _INNER + value.name))

    def planes(self, source: str, target: str, value: TensorFacts, channels: int) -> None:
        """An output becomes float32 (1, channels, h, w): of several images the first, channels last moved first."""
        current = self._float(source, value, target)
        shape = list(value.shape)
        if len(shape) == 5 or (len(shape) == 4 and channels == 1 and not _is_one(shape[1]) and not _is_one(shape[3])):
            current = self._first(current, f"wrap_{target}_first", 1)
            del shape[1]
        if len(shape) == 2:
            current = self._append(self._unsqueeze(current, f"wrap_{target}_batch", 0))
            shape.insert(0, 1)
        if len(shape) == 3:
            current = self._append(self._unsqueeze(current, f"wrap_{target}_channel", 1))
            shape.insert(1, 1)
        if len(shape) != 4:
            raise InputError(f"the output '{source}' has {len(value.shape)} axes, from 2 to 5 can be a map")
        if shape[3] == channels and shape[1] != channels:
            current = self.add("Transpose", [current], f"wrap_{target}_moved", perm=[0, 3, 1, 2])
            shape = [shape[0], shape[3], shape[1], shape[2]]
        if isinstance(shape[1], int) and shape[1] > channels:
            current = self._slice(current, f"wrap_{target}_part", channels)  # such as Metric3D's fourth channel
            shape[1] = channels
        if isinstance(shape[1], int) and shape[1] != channels:
            raise InputError(f"the output '{source}' has {shape[1]} channels, {channels} are needed")
        self.add("Identity", [current], target)

    def channel(self, source: str, target: str, value: TensorFacts, number: int) -> None:
        """One channel of a point map, such as z."""
        current = self._float(source, value, target)
        if value.shape[-1] == 3 and value.shape[1] != 3:
            current = self.add("Transpose", [current], f"wrap_{target}_moved", perm=[0, 3, 1, 2])
        index = self._number(f"wrap_{target}_index", [number])
        self.add("Gather", [current, index], target, axis=1)

    def normalised(self, source: str, target: str) -> None:
        """(value - smallest) / (largest - smallest) of every image."""
        limits = [self._reduced(kind, source, f"wrap_{target}_{kind}") for kind in ("ReduceMin", "ReduceMax")]
        offset = self.add("Sub", [source, limits[0]], f"wrap_{target}_offset")
        span = self.add("Sub", [limits[1], limits[0]], f"wrap_{target}_span")
        self.graph.initializer.append(
            numpy_helper.from_array(np.array(_EPSILON, np.float32), f"wrap_{target}_epsilon")
        )
        safe = self.add("Max", [span, f"wrap_{target}_epsilon"], f"wrap_{target}_safe")
        self.add("Div", [offset, safe], target)

    def keep_only(self, names: Sequence[str]) -> None:
        """These are the graph's outputs."""
        channels = {"depth": 1, "normals": 3}
        del self.graph.output[:]
        for name in names:
            shape = [1, channels.get(name, f"{name}_channels"), f"{name}_height", f"{name}_width"]
            self.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def _append(self, node: onnx.NodeProto) -> str:
        self.graph.node.append(node)
        return str(node.output[0])

    def _float(self, source: str, value: TensorFacts, target: str) -> str:
        if value.kind == TensorProto.FLOAT:
            return _INNER + source
        return self.add("Cast", [_INNER + source], f"wrap_{target}_float", to=TensorProto.FLOAT)

    def _number(self, name: str, values: Sequence[int]) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def _unsqueeze(self, source: str, target: str, axis: int) -> onnx.NodeProto:
        if self.opset < 13:
            return helper.make_node("Unsqueeze", [source], [target], axes=[axis])
        return helper.make_node("Unsqueeze", [source, self._number(f"{target}_axis", [axis])], [target])

    def _first(self, source: str, target: str, axis: int) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), f"{target}_index"))
        return self.add("Gather", [source, f"{target}_index"], target, axis=axis)

    def _slice(self, source: str, target: str, end: int) -> str:
        numbers = [
            self._number(f"{target}_{name}", [value]) for name, value in (("from", 0), ("to", end), ("axis", 1))
        ]
        return self.add("Slice", [source, *numbers], target)

    def _reduced(self, kind: str, source: str, target: str) -> str:
        if self.opset < 18:
            return self.add(kind, [source], target, axes=[2, 3], keepdims=1)
        return self.add(kind, [source, self._number(f"{target}_axes", [2, 3])], target, keepdims=1)


def _is_one(side: object) -> bool:
    return side == 1


def _size(facts: GraphFacts, layout: Layout, options: WrapOptions) -> InputSize:
    height, width = facts.input(layout.image).sides
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return InputSize(rule="fixed", width=width, height=height, interpolation="cubic")
    multiple = options.multiple_of
    if options.size is not None:
        return InputSize(rule="fixed", width=options.size[0], height=options.size[1], interpolation="cubic")
    side = max(multiple, layout.side // multiple * multiple)
    return InputSize(rule="area", area=side * side, multiple_of=multiple, interpolation="cubic")


def _facts(value: onnx.ValueInfoProto) -> TensorFacts:
    tensor = value.type.tensor_type
    shape = tuple(side.dim_value if side.dim_value > 0 else side.dim_param or None for side in tensor.shape.dim)
    return TensorFacts(value.name, shape, tensor.elem_type)


def _save(model: onnx.ModelProto, folder: Path) -> list[Path]:
    path = folder / GRAPH
    try:
        if model.ByteSize() > _LARGEST_FILE:
            onnx.save(model, str(path), save_as_external_data=True, location=f"{GRAPH}.data")
        else:
            onnx.save(model, str(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be written: {error}") from error
    return sorted(folder.glob(f"{GRAPH}*"))
