"""Turns an fp32 ONNX graph into fp16 or bf16, but for the nodes that half precision would ruin.

TensorRT 11 has no flags that choose precisions any more: every network is strongly typed, the graph itself says what
is computed in what (10.x can do the same). So the graph is converted, for both, and can be checked without a GPU. In
fp16 a value above 65504 becomes infinity, and the image behind it NaN: `overflowing_nodes` runs the fp32 graph once
on the CPU and finds where that would happen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from diffusion_perception_ros.inference.backends.onnx_pruning import used_names
from diffusion_perception_ros.inference.tensor import FloatTensor


LowPrecision = Literal["fp16", "bf16"]

_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_TYPE_NAMES = {"fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}
_LOW_TYPES = frozenset(_TYPES.values())
_LARGEST_FP16 = 65504.0
_HEADROOM = 4.0
"""One image is not all images: values above the largest fp16 number divided by this stay in fp32."""
_FP32_OPERATORS = {
    *("Cast", "Constant", "ConstantOfShape", "Range", "CumSum"),  # types are attributes; long sums lose small terms
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
}
_SENSITIVE_OPERATORS = {
    *("Softmax", "LogSoftmax"),
    *("LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization", "LpNormalization"),
    *("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "Pow", "Sqrt", "Reciprocal"),  # norms, taken apart
}
"""Sums over many values and exponentials: half precision loses the small terms of the one and the range of the other.
All mixed-precision training leaves them in fp32 (`torch.autocast` has the same list)."""
_DECODER_WEIGHTS = (".decoder.", ".post_quant_conv.")
"""In the names of an autoencoder's weights."""
_LARGEST_INLINE = 1 << 30
"""Bytes of weights above which they are written beside the graph: a protobuf cannot exceed 2 GiB."""


def convert_precision(source: Path, target: Path, precision: LowPrecision, keep: Collection[str] = ()) -> int:
    """Writes a copy of a graph that computes in `precision`; its inputs and outputs stay float32.

    Args:
        source: An ONNX graph, with its external data beside it.
        target: The converted graph, in an existing folder; large weights go to `<target>.data`.
        precision: What most nodes compute in.
        keep: Names of nodes that stay as they are, from `overflowing_nodes` and `sensitive_nodes`.

    Returns:
        How many nodes were converted.
    """
    model = onnx.load(source)
    name_nodes(model.graph)
    converter = _Converter(model, tensor_types(source), precision, set(keep))
    converted = converter.convert()
    _save(model, target)
    return converted


def overflowing_nodes(source: Path, inputs: Mapping[str, FloatTensor]) -> set[str]:
    """Names of the nodes that would overflow in fp16, found by running the graph in fp32 on the CPU.

    A node is one if anything that it reads or writes, weights too, comes near the largest fp16 number.

    Args:
        source: An ONNX graph in fp32.
        inputs: One example of every input.
    """
    model = onnx.load(source, load_external_data=False)
    graph = model.graph
    name_nodes(graph)
    tensors = {node.name: [*node.input, *node.output] for node in graph.node}
    types = tensor_types(source)
    watched = [name for node in graph.node for name in node.output if name and types.get(name) == TensorProto.FLOAT]
    largest = dict(zip(watched, _largest_values(model, source.parent, watched, inputs), strict=True))
    for weight in onnx.load(source).graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(weight)
            largest[weight.name] = float(np.abs(values).max()) if values.size else 0.0
    limit = _LARGEST_FP16 / _HEADROOM
    over = {name for name, value in largest.items() if not value < limit}  # also NaN
    return {node for node, names in tensors.items() if not over.isdisjoint(names)}


def sensitive_nodes(source: Path, precision: LowPrecision) -> set[str]:
    """Names of the nodes that half precision makes visibly worse without an overflow: norms and softmax.

    In bf16, whose eight bits would show as bands in a depth map, the decoder of an autoencoder and all that follows it
    is among them, too.
    """
    graph = onnx.load(source, load_external_data=False).graph
    name_nodes(graph)
    sensitive = {node.name for node in graph.node if node.op_type in _SENSITIVE_OPERATORS}
    return sensitive | _decoder_nodes(graph) if precision == "bf16" else sensitive


def _decoder_nodes(graph: onnx.GraphProto) -> set[str]:
    """Nodes that read a weight of an autoencoder's decoder, or what such a node computes."""
    weights = {weight.name for weight in graph.initializer if any(part in weight.name for part in _DECODER_WEIGHTS)}
    if not any(".autoencoder." in name for name in weights):
        return set()
    decoded, nodes = set(weights), set()
    for node in graph.node:  # ONNX lists them in the order in which they can run
        if not decoded.isdisjoint(node.input):
            nodes.add(node.name)
            decoded.update(node.output)
    return nodes


def raise_precision(source: Path, target: Path) -> None:
    """Writes a copy of a graph of half precision in which all is float32: the same weights, computed exactly."""
    model = onnx.load(source)
    graph = model.graph
    for weight in graph.initializer:
        if weight.data_type in _LOW_TYPES:
            weight.CopyFrom(_full_weight(weight))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i in _LOW_TYPES:
                attribute.i = TensorProto.FLOAT
            elif attribute.HasField("t") and attribute.t.data_type in _LOW_TYPES:
                attribute.t.CopyFrom(_full_weight(attribute.t))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in _LOW_TYPES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    _drop_casts_of_weights(graph)
    del graph.value_info[:]
    _save(model, target)


def _drop_casts_of_weights(graph: onnx.GraphProto) -> None:
    """Reads fp32 weights directly where they were cast to fp32 before."""
    weights = {weight.name for weight in graph.initializer if weight.data_type == TensorProto.FLOAT}
    outputs = {output.name for output in graph.output}
    renamed: dict[str, str] = {}
    for node in list(graph.node):
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        is_cast = node.op_type == "Cast" and node.input[0] in weights and node.output[0] not in outputs
        if is_cast and node.attribute[0].i == TensorProto.FLOAT:
            renamed[node.output[0]] = node.input[0]
            graph.node.remove(node)


def _full_weight(weight: TensorProto) -> TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float32), weight.name)


def _save(model: onnx.ModelProto, target: Path) -> None:
    weights = sum(len(weight.raw_data) for weight in model.graph.initializer)
    onnx.save(model, target, save_as_external_data=weights > _LARGEST_INLINE, location=f"{target.name}.data")


def name_nodes(graph: onnx.GraphProto) -> None:
    """Gives every node a name that no other has; the same graph always gets the same names."""
    seen: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)


def tensor_types(path: Path) -> dict[str, int]:
    """Element type of every tensor of a graph by name, as far as it can be inferred."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False)).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {weight.name: weight.data_type for weight in graph.initializer}


def _largest_values(
    model: onnx.ModelProto, folder: Path, names: list[str], inputs: Mapping[str, FloatTensor]
) -> list[float]:
    """Largest magnitude of each of a graph's tensors. Only these numbers leave the graph, which is changed for it."""
    del model.graph.output[:]
    for index, name in enumerate(names):
        magnitude, largest = f"magnitude_{index}", f"largest_{index}"
        model.graph.node.append(helper.make_node("Abs", [name], [magnitude]))
        model.graph.node.append(helper.make_node("ReduceMax", [magnitude], [largest], keepdims=0))
        model.graph.output.append(helper.make_tensor_value_info(largest, TensorProto.FLOAT, []))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = {node.name for node in session.get_inputs()}
    values = session.run(None, {name: tensor for name, tensor in inputs.items() if name in wanted})
    return [float(value) for value in values]


class _Converter:
    """Rewrites a graph in place. Every fp32 tensor can have a twin in low precision; casts join the two worlds."""

    def __init__(self, model: onnx.ModelProto, types: Mapping[str, int], precision: LowPrecision, keep: set[str]):
        self._graph = model.graph
        self._types = types
        self._precision = precision
        self._keep = keep
        self._opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        self._weights = {weight.name: weight for weight in model.graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        self._low: dict[str, str] = {}
        """fp32 tensor → its twin."""
        self._only_low: set[str] = set()
        """fp32 tensors that nothing makes any more, unless somebody asks for them."""

    def convert(self) -> int:
        converted = 0
        for node in list(self._graph.node):
            inputs, outputs = self._convertible(node)
            if outputs and node.name not in self._keep:
                converted += 1
                self._append_low(node, inputs, outputs)
            else:
                for name in used_names(node):
                    self._need_full(name)
                self._nodes.append(node)
        for output in self._graph.output:
            self._need_full(output.name)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        self._drop_unused_weights()
        del self._graph.value_info[:]  # says fp32 of tensors that are not any more
        return converted

    def _convertible(self, node: onnx.NodeProto) -> tuple[list[int], list[int]]:
        """Positions of a node's fp32 inputs and outputs that may change their type together."""
        if node.domain not in ("", "ai.onnx") or node.op_type in _FP32_OPERATORS or _has_graphs(node):
            return [], []
        schema = onnx.defs.get_schema(node.op_type, self._opset)
        allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
        low = {name for name, types in allowed.items() if _TYPE_NAMES[self._precision] in types}
        outputs = [
            index
            for index, name in enumerate(node.output)
            if self._is_float(name) and _parameter(schema.outputs, index) in low
        ]
        variables = {_parameter(schema.outputs, index) for index in outputs}
        if node.op_type == "BatchNormalization":  # its statistics have types of their own, which TensorRT wants equal
            variables |= low
        inputs = [
            index
            for index, name in enumerate(node.input)
            if self._is_float(name) and _parameter(schema.inputs, index) in variables
        ]
        # An output whose type no input shares is set by an attribute.
        return (inputs, outputs) if inputs else ([], [])

    def _append_low(self, node: onnx.NodeProto, inputs: list[int], outputs: list[int]) -> None:
        for index, name in enumerate(node.input):
            if index in inputs:
                node.input[index] = self._twin(name)
            else:
                self._need_full(name)
        for index in outputs:
            name = node.output[index]
            self._low[name] = node.output[index] = f"{name}_{self._precision}"
            self._only_low.add(name)
        self._nodes.append(node)

    def _twin(self, name: str) -> str:
        """The low-precision twin of an fp32 tensor, made where it is asked for first."""
        if name not in self._low:
            twin = self._low[name] = f"{name}_{self._precision}"
            if name in self._weights:
                self._graph.initializer.append(_low_weight(self._weights[name], twin, self._precision))
            else:
                cast = helper.make_node("Cast", [name], [twin], f"cast_{twin}", to=_TYPES[self._precision])
                self._nodes.append(cast)
        return self._low[name]

    def _need_full(self, name: str) -> None:
        """Makes the fp32 version of a tensor that only exists in low precision so far."""
        if name in self._only_low:
            self._only_low.remove(name)
            cast = helper.make_node("Cast", [self._low[name]], [name], f"cast_{name}", to=TensorProto.FLOAT)
            self._nodes.append(cast)

    def _drop_unused_weights(self) -> None:
        used = {name for node in self._graph.node for name in used_names(node)}
        used |= {output.name for output in self._graph.output}
        kept = [weight for weight in self._graph.initializer if weight.name in used]
        copies = [TensorProto.FromString(weight.SerializeToString()) for weight in kept]
        del self._graph.initializer[:]
        self._graph.initializer.extend(copies)

    def _is_float(self, name: str) -> bool:
        return bool(name) and self._types.get(name) == TensorProto.FLOAT


def _parameter(parameters: Collection[onnx.defs.OpSchema.FormalParameter], index: int) -> str:
    """Type variable of a schema's input or output; the last one may stand for any number of them."""
    listed = list(parameters)
    return str(listed[min(index, len(listed) - 1)].type_str)


def _has_graphs(node: onnx.NodeProto) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def _low_weight(weight: TensorProto, name: str, precision: LowPrecision) -> TensorProto:
    values = np.ascontiguousarray(numpy_helper.to_array(weight), np.float32)
    if precision == "fp16":
        low: npt.NDArray[np.generic] = np.clip(values, -_LARGEST_FP16, _LARGEST_FP16).astype(np.float16)
    else:
        bits = values.view(np.uint32)
        # bf16 is the upper half of an fp32; this adds half a unit of it, ties to even.
        low = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return helper.make_tensor(name, _TYPES[precision], weight.dims, low.tobytes(), raw=True)
