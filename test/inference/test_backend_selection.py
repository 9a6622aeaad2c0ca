"""Which backend runs: parity with the CPU, fallbacks, options of the providers, and what the machine has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from model_factory import write_model

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.backends import Backend, BackendUnavailable
from diffusion_perception_ros.inference.backends.cuda import CudaError, driver_version, find_gpu
from diffusion_perception_ros.inference.backends.engine_cache import EngineCache
from diffusion_perception_ros.inference.backends.input_shapes import ShapeRange
from diffusion_perception_ros.inference.backends.model_graph import ModelGraph
from diffusion_perception_ros.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from diffusion_perception_ros.inference.backends.provider_options import profile_options, tensorrt_options
from diffusion_perception_ros.inference.backends.selection import CpuComparison, first_usable
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.parity import compare_outputs


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
    options = tensorrt_options(graph, "fp16")
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
    assert Path(options["trt_engine_cache_path"]).is_dir(), "ONNX Runtime does not make it"
    bf16 = tensorrt_options(graph, "bf16")
    assert bf16["trt_bf16_enable"] == "True"
    assert bf16["trt_engine_cache_path"] != options["trt_engine_cache_path"]
    assert profile_options({"image": ShapeRange((1, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8))}) == {}


def test_engines_are_built_anew_where_they_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_model(tmp_path / "tiny")
    options = tensorrt_options(ModelGraph(folder, read_card(folder)), "fp16")
    assert not [name for name in options if "cache" in name]
    assert options["trt_fp16_enable"] == "True"


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
