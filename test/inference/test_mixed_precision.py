"""Graphs of half precision: which nodes stay in fp32, and what conversion does to types, weights and values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from graph_factory import overflowing_graph, save_graph
from model_factory import write_model
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from diffusion_perception_ros.inference.backends.mixed_precision import (
    convert_precision,
    overflowing_nodes,
    sensitive_nodes,
)
from diffusion_perception_ros.inference.backends.model_graph import ModelGraph
from diffusion_perception_ros.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from diffusion_perception_ros.inference.backends.tensorrt_backend import engine_precisions, strongly_typed
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.models import find_model
from diffusion_perception_ros.inference.parity import compare_outputs


def run(path: Path, image: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"image": image})[0]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (1, 3, 24, 32)).astype(np.float32)


def test_nodes_that_overflow_stay_in_fp32(tmp_path: Path, image: np.ndarray) -> None:
    """ONNX's reference computes fp16 in fp16; ONNX Runtime's CPU kernels compute it in fp32 where they can."""
    source = overflowing_graph(tmp_path / "model.onnx")
    keep = overflowing_nodes(source, {"image": image})
    assert keep == {"Mul_2", "shrink"}
    expected = run(source, image)
    assert convert_precision(source, tmp_path / "naive.onnx", "fp16") == 5
    with np.errstate(over="ignore", invalid="ignore"):
        (naive,) = ReferenceEvaluator(onnx.load(tmp_path / "naive.onnx")).run(None, {"image": image})
    assert not np.isfinite(naive).all()
    assert convert_precision(source, tmp_path / "mixed.onnx", "fp16", keep) == 3
    np.testing.assert_allclose(run(tmp_path / "mixed.onnx", image), expected, rtol=5e-3, atol=1e-3)


def test_weights_that_fp16_cannot_hold_count_as_overflow(tmp_path: Path, image: np.ndarray) -> None:
    node = helper.make_node("Mul", ["image", "huge"], ["depth"], name="scale")
    source = save_graph(tmp_path / "model.onnx", [node], {"huge": np.array(1e6, np.float32)})
    assert overflowing_nodes(source, {"image": 1e-6 * image}) == {"scale"}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_converted_graph_is_strongly_typed_and_keeps_its_inputs_and_outputs(tmp_path: Path, precision: str) -> None:
    """The full check infers every type and compares it with what the operators allow."""
    folder = write_model(tmp_path / "tiny")
    convert_precision(folder / "model.onnx", tmp_path / "low.onnx", precision)
    model = onnx.load(tmp_path / "low.onnx")
    onnx.checker.check_model(model, full_check=True)
    before = onnx.load(folder / "model.onnx").graph
    for values, expected in ((model.graph.input, before.input), (model.graph.output, before.output)):
        assert [value.type.tensor_type.elem_type for value in values] == [TensorProto.FLOAT] * len(expected)
    low = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    assert low in {weight.data_type for weight in model.graph.initializer}


def test_bf16_weights_are_rounded_to_nearest(tmp_path: Path) -> None:
    node = helper.make_node("Mul", ["image", "factor"], ["depth"])
    factor = np.array([1.0, -3.14159274, 1.00390625], np.float32).reshape(1, 3, 1, 1)
    convert_precision(save_graph(tmp_path / "m.onnx", [node], {"factor": factor}), tmp_path / "low.onnx", "bf16")
    (weight,) = onnx.load(tmp_path / "low.onnx").graph.initializer
    assert numpy_helper.to_array(weight).astype(np.float32).ravel().tolist() == [1.0, -3.140625, 1.0]


def test_scales_and_branches_keep_their_types(tmp_path: Path, image: np.ndarray) -> None:
    """Resize wants its scales in fp32; a branch reads a tensor of the graph around it by its old name."""
    branches = {
        name: helper.make_graph(
            [helper.make_node(kind, ["bigger"], [f"{name}_result"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_result", TensorProto.FLOAT, None)],
        )
        for name, kind in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    nodes = [
        helper.make_node("Sigmoid", ["image"], ["soft"]),
        helper.make_node("Resize", ["soft", "", "scales"], ["bigger"], mode="linear"),
        helper.make_node("If", ["yes"], ["chosen"], **branches),
        helper.make_node("Tanh", ["chosen"], ["depth"]),
    ]
    weights = {"scales": np.array([1, 1, 2, 2], np.float32), "yes": np.array(True)}
    source = save_graph(tmp_path / "model.onnx", nodes, weights)
    assert convert_precision(source, tmp_path / "low.onnx", "fp16") == 3
    onnx.checker.check_model(onnx.load(tmp_path / "low.onnx"), full_check=True)
    np.testing.assert_allclose(run(tmp_path / "low.onnx", image), run(source, image), atol=2e-3)


def test_external_weights_are_found(tmp_path: Path, image: np.ndarray) -> None:
    source = overflowing_graph(tmp_path / "model.onnx")
    expected = run(source, image)
    onnx.save(onnx.load(source), source, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    keep = overflowing_nodes(source, {"image": image})
    convert_precision(source, tmp_path / "mixed.onnx", "fp16", keep)
    np.testing.assert_allclose(run(tmp_path / "mixed.onnx", image), expected, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("stored", "wanted", "tried"),
    [
        ("fp32", "fp16", ["fp16", "fp32"]),
        ("fp32", "bf16", ["bf16", "fp32"]),
        ("fp32", "fp32", ["fp32"]),
        ("fp16", "fp32", ["fp16", "fp32"]),
        ("bf16", "fp16", ["bf16", "fp32"]),
        ("int8", "fp16", ["int8"]),
    ],
)
def test_the_precision_of_engines(tmp_path: Path, stored: str, wanted: str, tried: list[str]) -> None:
    folder = write_model(tmp_path / "tiny", card={"precision": stored})
    graph = ModelGraph(folder, read_card(folder))
    assert engine_precisions(graph, wanted) == tried
    converted = strongly_typed(graph, tried[0], tmp_path)
    types = {weight.data_type for weight in onnx.load(converted).graph.initializer}
    low = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}.get(tried[0])
    assert (converted == graph.path) == (stored == tried[0] == "int8" or tried[0] == "fp32")
    assert converted == graph.path or low in types


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_graph_of_half_precision_falls_back_to_fp32(tmp_path: Path, image: np.ndarray, precision: str) -> None:
    """As bf16 cannot run on a CPU, what comes back from it is compared with weights rounded by hand."""
    folder = write_model(tmp_path / "tiny", card={"precision": precision})
    source = overflowing_graph(tmp_path / "full.onnx")
    convert_precision(source, folder / "model.onnx", precision, overflowing_nodes(source, {"image": image}))
    graph = ModelGraph(folder, read_card(folder, verify_files=False))
    raised = strongly_typed(graph, "fp32", tmp_path)
    onnx.checker.check_model(onnx.load(raised), full_check=True)
    types = {weight.data_type for weight in onnx.load(raised).graph.initializer}
    assert not types & {TensorProto.FLOAT16, TensorProto.BFLOAT16}
    np.testing.assert_allclose(run(raised, image), run(source, image), rtol=2e-2, atol=2e-3)


def test_norms_and_softmax_stay_in_fp32(tmp_path: Path, image: np.ndarray) -> None:
    nodes = [
        helper.make_node("Mul", ["image", "gain"], ["scaled"], name="scale"),
        helper.make_node("InstanceNormalization", ["scaled", "ones", "zeros"], ["normed"], name="norm"),
        helper.make_node("Softmax", ["normed"], ["depth"], axis=3, name="softmax"),
    ]
    ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    source = save_graph(
        tmp_path / "model.onnx", nodes, {"gain": np.array(3.0, np.float32), "ones": ones, "zeros": zeros}
    )
    keep = sensitive_nodes(source, "fp16")
    assert keep == {"norm", "softmax"}
    assert convert_precision(source, tmp_path / "mixed.onnx", "fp16", keep) == 1
    onnx.checker.check_model(onnx.load(tmp_path / "mixed.onnx"), full_check=True)
    np.testing.assert_allclose(run(tmp_path / "mixed.onnx", image), run(source, image), atol=1e-4)


def test_the_decoder_stays_in_fp32_in_bf16_only(tmp_path: Path) -> None:
    decoder = "model.autoencoder.vae.decoder.conv_out.weight"
    nodes = [
        helper.make_node("Mul", ["image", "model.unet.gain"], ["latent"], name="unet"),
        helper.make_node("Mul", ["latent", decoder], ["decoded"], name="decoder"),
        helper.make_node("Add", ["decoded", "half"], ["depth"], name="scale_to_unit"),
    ]
    weights = {name: np.array(0.5, np.float32) for name in ("model.unet.gain", decoder, "half")}
    source = save_graph(tmp_path / "model.onnx", nodes, weights)
    assert sensitive_nodes(source, "bf16") == {"decoder", "scale_to_unit"}
    assert sensitive_nodes(source, "fp16") == set()


def test_unsigned_quantisation_is_taken_out(tmp_path: Path) -> None:
    """TensorRT computes with signed 8-bit numbers only; the bundled model's are unsigned."""
    folder = find_model("onestep-s")
    graph = ModelGraph(folder, read_card(folder))
    assert engine_precisions(graph, "fp16") == ["fp16", "fp32"]
    inputs, names = graph.example_inputs(), [node.name for node in graph.nodes[1]]

    def outputs(path: Path) -> dict[str, np.ndarray]:
        onnx.checker.check_model(onnx.load(path), full_check=True)
        return dict(zip(names, OnnxRuntimeBackend(path).run(inputs, names), strict=True))

    full, half = (strongly_typed(graph, precision, tmp_path) for precision in ("fp32", "fp16"))
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in onnx.load(full).graph.node}
    reference = outputs(full)
    assert all(difference.mean < 0.002 for difference in compare_outputs(list(outputs(half).values()), reference))
    # What the quantisation had changed: a few percent of the outputs' spread.
    assert all(difference.mean < 0.05 for difference in compare_outputs(list(outputs(graph.path).values()), reference))
