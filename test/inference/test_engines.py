"""Engines of GPUs: when a kept one is found again, which is tried, built and refused, and what building tells."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from graph_factory import overflowing_graph
from model_factory import edit_card, write_model

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.inference.backends import BackendUnavailable
from diffusion_perception_ros.inference.backends.build_progress import BuildProgress
from diffusion_perception_ros.inference.backends.cuda import Gpu
from diffusion_perception_ros.inference.backends.engine_cache import EngineCache, EngineKey, graph_hash
from diffusion_perception_ros.inference.backends.engine_candidates import EngineCandidate, first_working_engine
from diffusion_perception_ros.inference.backends.mixed_precision import convert_precision
from diffusion_perception_ros.inference.backends.model_graph import ModelGraph
from diffusion_perception_ros.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from diffusion_perception_ros.inference.backends.selection import CpuComparison
from diffusion_perception_ros.inference.backends.tensorrt_backend import engine_key, engine_precisions
from diffusion_perception_ros.inference.card import read_card


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


def test_an_engine_that_came_with_the_folder_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = EngineCache(tmp_path / "engines")
    cache.store("model", KEY, b"engine")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "of_another_user"))
    assert cache.load("model", KEY) is None
    cache.store("model", KEY, b"engine")
    assert cache.load("model", KEY) == b"engine"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    cache.store("model", KEY, b"engine")  # a log line, no error
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


def test_notes_of_an_engine_are_readable(tmp_path: Path) -> None:
    path = EngineCache(tmp_path).store("model", KEY, b"engine")
    notes = json.loads(path.with_suffix(".json").read_text())
    assert notes["key"]["gpu"] == "NVIDIA Orin"
    assert notes["key"]["shapes"]["image"]["usual"] == [1, 3, 96, 128]


class _GraphEngine(OnnxRuntimeBackend):
    """ONNX graphs serve as engines: they are built, kept, loaded and run in the same way."""

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

    def rung(precision: str) -> EngineCandidate:
        def build() -> bytes:
            built.append(precision)
            if precision == "fp16":  # without the search for the nodes that overflow
                convert_precision(graph.path, tmp_path / "naive.onnx", "fp16")
                return (tmp_path / "naive.onnx").read_bytes()
            return graph.path.read_bytes()

        key = engine_key(graph, GPU, "10.3.0", precision, graph.shape_ranges())
        return EngineCandidate(key, build, lambda engine: _GraphEngine(tmp_path / f"{precision}.onnx", engine))

    rungs = [rung(precision) for precision in engine_precisions(graph, "fp16")]
    path, _ = first_working_engine(rungs, cache, "model", comparison.problem)
    assert built == ["fp16", "fp32"]
    assert path.name.startswith("model-fp32-")
    assert "computes something else than the CPU: 'depth' differs" in (cache.rejection("model", rungs[0].key) or "")
    first_working_engine(rungs, cache, "model", comparison.problem)
    assert built == ["fp16", "fp32"]
    with pytest.raises(BackendUnavailable, match=r"^TensorRT: fp16: .*'depth' differs by .*delete it to try again"):
        first_working_engine(rungs[:1], cache, "model", comparison.problem)


def test_a_damaged_engine_is_built_again(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    graph = ModelGraph(folder, read_card(folder))
    cache = EngineCache(folder / "engines")
    built: list[int] = []

    def build() -> bytes:
        built.append(1)
        return graph.path.read_bytes()

    key = engine_key(graph, GPU, "10.3.0", "fp32", graph.shape_ranges())
    rungs = [EngineCandidate(key, build, lambda engine: _GraphEngine(tmp_path / "engine.onnx", engine))]
    check = CpuComparison(graph, cache, lambda: OnnxRuntimeBackend(graph.path)).problem
    path, _ = first_working_engine(rungs, cache, "model", check)
    path.write_bytes(path.read_bytes()[:-1])
    first_working_engine(rungs, cache, "model", check)
    first_working_engine(rungs, cache, "model", check)
    assert len(built) == 2


def test_what_cannot_be_kept_still_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_model(tmp_path / "tiny")
    graph = ModelGraph(folder, read_card(folder))
    (tmp_path / "file").write_text("not a folder")
    cache = EngineCache(tmp_path / "file" / "engines")
    key = engine_key(graph, GPU, "10.3.0", "fp32", graph.shape_ranges())
    rung = EngineCandidate(key, graph.path.read_bytes, lambda engine: _GraphEngine(tmp_path / "engine.onnx", engine))
    check = CpuComparison(graph, cache, lambda: OnnxRuntimeBackend(graph.path)).problem
    with caplog.at_level(logging.WARNING):
        _, backend = first_working_engine([rung], cache, "model", check)
    assert backend.name == "onnxruntime-cpu"
    assert "takes minutes, and happens once" in caplog.text
    assert "it will be built at every start" in caplog.text


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
