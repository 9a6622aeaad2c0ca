"""Which backend runs, and all of the GPU backends that needs no GPU: precision, shapes, cache, order, parity."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from model_factory import edit_card, write_model
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.backends import Backend, BackendUnavailable
from diffusion_perception_ros.inference.backends.build_progress import BuildProgress
from diffusion_perception_ros.inference.backends.cuda import CudaError, Gpu, driver_version, find_gpu
from diffusion_perception_ros.inference.backends.engine_cache import EngineCache, EngineKey, graph_hash
from diffusion_perception_ros.inference.backends.engine_ladder import Rung, climb
from diffusion_perception_ros.inference.backends.input_shapes import ShapeRange, example_inputs, shape_ranges
from diffusion_perception_ros.inference.backends.mixed_precision import convert_precision, overflowing_nodes
from diffusion_perception_ros.inference.backends.model_graph import ModelGraph
from diffusion_perception_ros.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from diffusion_perception_ros.inference.backends.provider_options import profile_options, tensorrt_options
from diffusion_perception_ros.inference.backends.selection import CpuComparison, first_usable
from diffusion_perception_ros.inference.backends.tensorrt_backend import (
    engine_key,
    engine_precisions,
    strongly_typed,
)
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.licences import notice
from diffusion_perception_ros.inference.models import find_model
from diffusion_perception_ros.inference.parity import compare_outputs, parity_picture


KEY = EngineKey(
    gpu="NVIDIA Orin",
    compute_capability="8.7",
    driver="CUDA 12060, R36",
    tensorrt="10.3.0",
    graph="0" * 64,
    precision="fp16",
    shapes={"image": {"smallest": (1, 3, 96, 128), "usual": (1, 3, 96, 128), "largest": (1, 3, 96, 128)}},
)
GPU = Gpu("NVIDIA Orin", "8.7", "CUDA 12060, R36")


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


def run(path: Path, image: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"image": image})[0]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (1, 3, 24, 32)).astype(np.float32)


# Precision


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
        ("fp16", "fp32", ["fp16"]),
        ("int8", "fp16", ["int8"]),
    ],
)
def test_only_fp32_graphs_are_converted(tmp_path: Path, stored: str, wanted: str, tried: list[str]) -> None:
    folder = write_model(tmp_path / "tiny", card={"precision": stored})
    graph = ModelGraph(folder, read_card(folder))
    assert engine_precisions(graph, wanted) == tried
    converted = strongly_typed(graph, tried[0], tmp_path)
    types = {weight.data_type for weight in onnx.load(converted).graph.initializer}
    low = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}.get(tried[0])
    assert (converted == graph.path) == (stored == tried[0])
    assert converted == graph.path or low in types


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


# Shapes


def test_ranges_of_a_model_that_keeps_the_aspect(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny", noise={"tensor": "noise", "channels": 4, "downscale": 8})
    graph = ModelGraph(folder, read_card(folder))
    ranges = graph.shape_ranges()
    assert ranges["image"] == ShapeRange((1, 3, 32, 32), (1, 3, 96, 128), (1, 3, 128, 128))
    assert ranges["noise"] == ShapeRange((1, 4, 4, 4), (1, 4, 12, 16), (1, 4, 16, 16))
    assert ranges["image"].contains((1, 3, 64, 128))
    assert not ranges["image"].contains((1, 3, 160, 128))
    assert not ranges["image"].contains((1, 3, 64))


def test_a_fixed_model_has_one_shape(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny", size={"rule": "fixed", "width": 64, "height": 32})
    (shapes,) = ModelGraph(folder, read_card(folder)).shape_ranges().values()
    assert shapes.is_fixed
    assert shapes.usual == (1, 3, 32, 64)


class _Input:
    """As ONNX Runtime describes an input."""

    type = "tensor(float)"

    def __init__(self, name: str, *shape: int | str) -> None:
        self.name = name
        self.shape = list(shape)


def test_stages_and_prompts_have_shapes_too(tmp_path: Path) -> None:
    """Also with free batches: the members of an ensemble are one."""
    folder = write_model(tmp_path / "tiny", ["depth"], size={"rule": "fixed", "width": 64, "height": 32})
    fields = read_card(folder).model_dump()
    fields |= {
        "schema_version": 2,
        "graph": None,
        "graphs": dict.fromkeys(("encode", "denoise", "decode"), "model.onnx"),
        "sampler": {
            "scheduler": "ddim",
            "prediction_type": "v_prediction",
            "num_inference_steps": 4,
            "latent_channels": 4,
            "ensemble_size": 5,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "timestep_spacing": "trailing",
        },
    }
    card = type(read_card(folder)).model_validate(fields)
    inputs = [
        _Input("image_latent", 1, 4, "h", "w"),
        _Input("noisy_latent", "batch", 4, "h", "w"),
        _Input("timestep", 1),
        _Input("conditional", 1),
    ]
    ranges = shape_ranges(card, inputs)
    assert ranges["image_latent"].largest == (1, 4, 4, 8)
    assert (ranges["noisy_latent"].smallest, ranges["noisy_latent"].largest) == ((1, 4, 4, 8), (5, 4, 4, 8))
    examples = example_inputs(card, inputs, parity_picture())
    assert {name: tensor.shape for name, tensor in examples.items()} == {
        "image_latent": (1, 4, 4, 8),
        "noisy_latent": (1, 4, 4, 8),
        "timestep": (1,),
        "conditional": (1,),
    }
    assert (examples["timestep"], examples["conditional"]) == (500, 1)
    assert not np.array_equal(examples["image_latent"], examples["noisy_latent"])


# Cache


def test_an_engine_is_found_again_only_where_everything_is_the_same(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines")
    assert cache.load("model", KEY) is None
    path = cache.store("model", KEY, b"engine")
    assert cache.load("model", KEY) == b"engine"
    for change in (
        {"gpu": "NVIDIA Thor"},
        {"compute_capability": "11.0"},
        {"driver": "CUDA 13000, R38"},
        {"tensorrt": "10.13.3"},
        {"graph": "1" * 64},
        {"precision": "bf16"},
        {"shapes": {}},
        {"builder": 0},
    ):
        assert cache.load("model", replace(KEY, **change)) is None
    assert cache.load("encode", KEY) is None
    assert path.name.startswith("model-fp16-")


@pytest.mark.parametrize("content", [b"", b"engin", b"engineering"])
def test_a_cut_or_altered_engine_is_not_loaded(tmp_path: Path, content: bytes) -> None:
    cache = EngineCache(tmp_path / "engines")
    cache.store("model", KEY, b"engine").write_bytes(content)
    assert cache.load("model", KEY) is None


def test_broken_notes_are_as_good_as_none(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines")
    path = cache.store("model", KEY, b"engine")
    for text in ("", "[1]", '{"sha256": 3}'):
        path.with_suffix(".json").write_text(text)
        assert cache.load("model", KEY) is None
        assert cache.rejection("model", KEY) is None


def test_stale_engines_are_removed_those_of_other_gpus_and_shapes_stay(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines")
    stale = cache.store("model", KEY, b"before the update")
    kept = [
        cache.store("model", replace(KEY, gpu="NVIDIA Thor"), b"other"),
        cache.store("encode", KEY, b"other graph"),
    ]
    updated = replace(KEY, tensorrt="10.13.3")
    kept.append(cache.store("model", replace(updated, precision="fp32"), b"fp32"))
    kept.append(cache.store("model", updated, b"after the update"))
    assert not stale.exists()
    assert not stale.with_suffix(".json").exists()
    assert all(path.exists() for path in kept)


def test_the_cache_is_beside_the_model_or_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tiny").mkdir()
    assert EngineCache.beside(tmp_path / "tiny").folder == tmp_path / "tiny/engines"
    elsewhere = EngineCache.beside(tmp_path / "absent").folder  # a folder that cannot be written
    assert elsewhere.parent == tmp_path / "cache/diffusion_perception_ros/engines"
    assert elsewhere.name.startswith("absent-")


def test_the_hash_of_a_graph_covers_its_weights() -> None:
    files = {"encode.onnx": "1", "decode.onnx": "2", "encode.onnx.data": "3"}
    digest = graph_hash(Path("encode.onnx"), files)
    assert graph_hash(Path("encode.onnx"), files | {"decode.onnx": "0"}) == digest
    assert graph_hash(Path("encode.onnx"), files | {"encode.onnx.data": "0"}) != digest
    assert graph_hash(Path("encode.onnx"), files | {"encode.onnx": "0"}) != digest


def test_the_key_of_a_graph(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    graph = ModelGraph(folder, read_card(folder))
    key = engine_key(graph, GPU, "10.3.0", "fp16", graph.shape_ranges())
    assert (key.gpu, key.compute_capability, key.driver) == (GPU.name, GPU.compute_capability, GPU.driver)
    cache = EngineCache(tmp_path / "engines")
    cache.store("model", key, b"engine")
    assert cache.load("model", engine_key(graph, GPU, "10.3.0", "fp16", graph.shape_ranges())) == b"engine"
    edit_card(write_model(folder, depth="brightness"), name="tiny")
    changed = ModelGraph(folder, read_card(folder))
    assert cache.load("model", engine_key(changed, GPU, "10.3.0", "fp16", changed.shape_ranges())) is None


# Order of the engines. ONNX graphs serve as engines: they are built, kept, loaded and run in the same way.


class _GraphEngine(OnnxRuntimeBackend):
    def __init__(self, path: Path, serialized: bytes) -> None:
        path.write_bytes(serialized)
        super().__init__(path)


def replace_graph(folder: Path) -> Path:
    """Puts the overflowing graph into a model folder of depth only."""
    overflowing_graph(folder / "model.onnx")
    card = read_card(folder, verify_files=False).model_dump(mode="json", exclude_none=True)
    edit_card(folder, outputs=[card["outputs"][0] | {"confidence_tensor": None}], files={"model.onnx": "0"})
    return folder


def test_a_wrong_engine_gives_way_to_fp32_and_is_never_built_again(tmp_path: Path) -> None:
    folder = replace_graph(write_model(tmp_path / "tiny", ["depth"]))
    graph = ModelGraph(folder, read_card(folder, verify_files=False))
    built: list[str] = []
    cache = EngineCache(folder / "engines")
    comparison = CpuComparison(graph, cache, lambda: OnnxRuntimeBackend(graph.path))

    def rung(precision: str) -> Rung:
        def build() -> bytes:
            built.append(precision)
            if precision == "fp16":  # without the search for the nodes that overflow
                convert_precision(graph.path, tmp_path / "naive.onnx", "fp16")
                return (tmp_path / "naive.onnx").read_bytes()
            return graph.path.read_bytes()

        key = engine_key(graph, GPU, "10.3.0", precision, graph.shape_ranges())
        return Rung(key, build, lambda engine: _GraphEngine(tmp_path / f"{precision}.onnx", engine))

    rungs = [rung(precision) for precision in engine_precisions(graph, "fp16")]
    path, _ = climb(rungs, cache, "model", comparison.problem)
    assert built == ["fp16", "fp32"]
    assert path.name.startswith("model-fp32-")
    assert "computes something else than the CPU: 'depth' differs" in (cache.rejection("model", rungs[0].key) or "")
    climb(rungs, cache, "model", comparison.problem)
    assert built == ["fp16", "fp32"]
    with pytest.raises(BackendUnavailable, match=r"^TensorRT: fp16: .*'depth' differs by .*delete it to try again"):
        climb(rungs[:1], cache, "model", comparison.problem)


def test_a_damaged_engine_is_built_again(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    graph = ModelGraph(folder, read_card(folder))
    cache = EngineCache(folder / "engines")
    built: list[int] = []

    def build() -> bytes:
        built.append(1)
        return graph.path.read_bytes()

    key = engine_key(graph, GPU, "10.3.0", "fp32", graph.shape_ranges())
    rungs = [Rung(key, build, lambda engine: _GraphEngine(tmp_path / "engine.onnx", engine))]
    check = CpuComparison(graph, cache, lambda: OnnxRuntimeBackend(graph.path)).problem
    path, _ = climb(rungs, cache, "model", check)
    path.write_bytes(path.read_bytes()[:-1])
    climb(rungs, cache, "model", check)
    climb(rungs, cache, "model", check)
    assert len(built) == 2


def test_what_cannot_be_kept_still_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_model(tmp_path / "tiny")
    graph = ModelGraph(folder, read_card(folder))
    (tmp_path / "file").write_text("not a folder")
    cache = EngineCache(tmp_path / "file" / "engines")
    key = engine_key(graph, GPU, "10.3.0", "fp32", graph.shape_ranges())
    rung = Rung(key, graph.path.read_bytes, lambda engine: _GraphEngine(tmp_path / "engine.onnx", engine))
    check = CpuComparison(graph, cache, lambda: OnnxRuntimeBackend(graph.path)).problem
    with caplog.at_level(logging.WARNING):
        _, backend = climb([rung], cache, "model", check)
    assert backend.name == "onnxruntime-cpu"
    assert "takes minutes, and happens once" in caplog.text
    assert "it will be built at every start" in caplog.text


# Parity


def test_a_backend_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    right, wrong = write_model(tmp_path / "right"), write_model(tmp_path / "wrong", depth="brightness")
    graph = ModelGraph(right, read_card(right))
    opened: list[int] = []

    def on_cpu() -> OnnxRuntimeBackend:
        opened.append(1)
        return OnnxRuntimeBackend(graph.path)

    check = CpuComparison(graph, EngineCache(right / "engines"), on_cpu)
    assert check.problem(OnnxRuntimeBackend(graph.path)) is None
    problem = check.problem(OnnxRuntimeBackend(wrong / "model.onnx"))
    assert problem is not None
    assert "computes something else than the CPU: 'depth' differs by" in problem
    assert len(opened) == 1  # the second time, what the CPU computed was on the disk


def test_differences_are_judged_by_the_outputs_spread() -> None:
    reference = np.linspace(100, 200, 10000, dtype=np.float32).reshape(1, 1, 100, 100)

    def accepted(actual: np.ndarray) -> bool:
        (difference,) = compare_outputs([actual.astype(np.float32)], {"depth": reference})
        return difference.is_acceptable

    assert accepted(reference + 1)
    assert not accepted(reference + 5)
    assert not accepted(reference * 1.5)
    assert not accepted(reference[:, :, ::-1])
    assert not accepted(reference[:, :, :50])
    speckled = reference.copy()
    speckled[0, 0, 3:5, :] += 90  # two rows in a hundred
    assert not accepted(speckled)
    assert not accepted(np.where(reference > 199, np.nan, reference))
    (unknown,) = compare_outputs([np.zeros_like(reference)], {"depth": np.full_like(reference, np.nan)})
    assert unknown.is_acceptable
    (constant,) = compare_outputs([np.full_like(reference, 5.0001)], {"depth": np.full_like(reference, 5)})
    assert constant.is_acceptable


# What runs in the end


def test_the_first_that_works_runs_and_says_what_did_not(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny") / "model.onnx"

    def absent() -> Backend:
        raise BackendUnavailable("no GPU")

    def broken() -> Backend:
        raise RuntimeError("out of memory")

    def strange() -> Backend:
        raise TypeError("factory function returned nullptr")

    def works() -> Backend:
        return OnnxRuntimeBackend(path)

    assert first_usable([works], absent).fallback_reason is None
    assert (first_usable([strange], works).fallback_reason or "").startswith("TypeError: factory function")
    assert first_usable([absent, works, broken], broken).fallback_reason == "no GPU; onnxruntime-cpu runs instead"
    assert (
        first_usable([absent, broken], works).fallback_reason == "no GPU; out of memory; onnxruntime-cpu runs instead"
    )


def test_an_unknown_engine_precision(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    with pytest.raises(InputError, match="unknown engine precision 'fp8': choose one of fp32, fp16, bf16"):
        Estimator.load(folder, "tensorrt", engine_precision="fp8")


def test_providers_get_options_that_they_know(tmp_path: Path) -> None:
    """Names of the TensorRT provider's options, as its library in onnxruntime-gpu 1.31.1 has them."""
    folder = write_model(tmp_path / "tiny")
    graph = ModelGraph(folder, read_card(folder))
    options = tensorrt_options(graph, EngineCache(folder / "engines"), "fp16")
    assert options == {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": options["trt_engine_cache_path"],
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": options["trt_engine_cache_path"],
        "trt_profile_min_shapes": "image:1x3x32x32",
        "trt_profile_opt_shapes": "image:1x3x96x128",
        "trt_profile_max_shapes": "image:1x3x128x128",
        "trt_fp16_enable": "True",
    }
    bf16 = tensorrt_options(graph, EngineCache(folder / "engines"), "bf16")
    assert bf16["trt_bf16_enable"] == "True"
    assert bf16["trt_engine_cache_path"] != options["trt_engine_cache_path"]
    assert profile_options({"image": ShapeRange((1, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8))}) == {}


def test_without_a_gpu_cuda_says_so() -> None:
    """With or without `cuda.bindings`: this is CUDA's own answer, or that it is not installed."""
    with pytest.raises(CudaError, match=r"cuda-bindings cannot be used|cudaGetDeviceCount: |finds no GPU"):
        find_gpu()


def test_the_drivers_version_is_read_where_it_is_stated(tmp_path: Path) -> None:
    jetson = tmp_path / "nv_tegra_release"
    jetson.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081\n# more\n")
    assert driver_version((tmp_path / "absent", jetson)) == "# R36 (release), REVISION: 4.3, GCID: 38968081"
    (tmp_path / "empty").touch()
    assert driver_version((tmp_path / "empty",)) == ""


def test_progress_adds_nested_phases_up() -> None:
    shares: list[float] = []
    progress = BuildProgress(lambda share, phase: shares.append(share))
    progress.start("engine", None, 2)
    progress.step("engine", 0)
    progress.start("tactics", "engine", 4)
    for step in range(4):
        progress.step("tactics", step)
    progress.finish("tactics")
    progress.step("unknown", 0)
    progress.finish("unknown")
    progress.finish("engine")
    assert shares == sorted(shares)
    assert shares[1:6] == [0.5, 0.5, 0.625, 0.75, 0.875]
    assert shares[-1] == 1.0


def test_build_needs_tensorrt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_model(tmp_path / "tiny")
    assert main(["models", "build", str(folder), "--backend", "tensorrt"]) == 2
    assert "no TensorRT engine of 'tiny': TensorRT" in capsys.readouterr().err
    assert not (folder / "engines").exists()


# Licences


def test_a_non_commercial_model_says_so(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    assert notice(read_card(folder)) is None
    terms = {"spdx": "BSD-2-Clause", "non_commercial": True, "url": "https://example.org/terms"}
    edit_card(folder, schema_version=2, licence_terms=terms)
    assert notice(read_card(folder)) == (
        "the weights of model 'tiny' are for non-commercial use only (BSD-2-Clause, see https://example.org/terms)"
    )
    edit_card(folder, licence_terms=terms | {"non_commercial": False})
    assert notice(read_card(folder)) is None


def test_notes_of_an_engine_are_readable(tmp_path: Path) -> None:
    path = EngineCache(tmp_path).store("model", KEY, b"engine")
    notes = json.loads(path.with_suffix(".json").read_text())
    assert notes["key"]["gpu"] == "NVIDIA Orin"
    assert notes["key"]["shapes"]["image"]["usual"] == [1, 3, 96, 128]
