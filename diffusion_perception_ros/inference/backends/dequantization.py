"""Takes the 8-bit quantisation out of an ONNX graph again: weights and values become float32.

Graphs for CPUs are quantised to unsigned numbers with an offset, which TensorRT does not compute with. What is left
without the quantisation is at least as accurate, and half precision is fast enough on a GPU.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator


def is_unsigned(path: Path) -> bool:
    """Whether a graph quantises values to unsigned 8-bit numbers."""
    graph = onnx.load(path, load_external_data=False).graph
    types = {weight.name: weight.data_type for weight in graph.initializer}
    return any(
        node.op_type == "QuantizeLinear" and types.get("".join(node.input[2:3])) == TensorProto.UINT8
        for node in graph.node
    )


def remove_quantization(source: Path, target: Path) -> None:
    """Writes a copy of a graph in which nothing is quantised (QuantizeLinear and DequantizeLinear are gone)."""
    model = onnx.load(source)
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    quantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in quantized:
            renamed[node.output[0]] = quantized[node.input[0]]
        elif node.op_type == "DequantizeLinear" and node.input[0] in weights:
            graph.initializer.append(_dequantized(model, node, weights))
        elif node.op_type != "QuantizeLinear":
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    for node in kept:
        for index, name in enumerate(node.input):
            while name in renamed:  # values that are quantised twice
                name = renamed[name]
            node.input[index] = name
    _rename_outputs(graph, kept, renamed)
    used = {name for node in kept for name in node.input}
    copies = [
        TensorProto.FromString(weight.SerializeToString()) for weight in graph.initializer if weight.name in used
    ]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.initializer.extend(copies)
    onnx.save(model, target)


def _dequantized(model: onnx.ModelProto, node: onnx.NodeProto, weights: dict[str, TensorProto]) -> TensorProto:
    inputs = {name: numpy_helper.to_array(weights[name]) for name in node.input if name}
    (values,) = ReferenceEvaluator(node, opsets={entry.domain: entry.version for entry in model.opset_import}).run(
        None, inputs
    )
    return numpy_helper.from_array(np.asarray(values, np.float32), node.output[0])


def _rename_outputs(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], renamed: dict[str, str]) -> None:
    """A graph output that was dequantised keeps its name."""
    for output in graph.output:
        if output.name in renamed:
            nodes.append(onnx.helper.make_node("Identity", [renamed[output.name]], [output.name]))
