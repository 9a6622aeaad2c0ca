"""Every call of TensorRT and CUDA that the backend makes exists in the bindings that it is meant for.

`gpu_api.json` was read from the real bindings by scripts/record_gpu_api.py; the calls are read from the source.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest


TEST = Path(__file__).parent
BACKENDS = Path(__file__).resolve().parents[2] / "diffusion_perception_ros" / "inference" / "backends"
RECORD: dict[str, dict[str, list[str]]] = json.loads((TEST / "gpu_api.json").read_text(encoding="utf-8"))
TENSORRT = [name for name in RECORD if name.startswith("tensorrt")]
CUDA = [name for name in RECORD if name.startswith("cuda")]

VARIABLES = {
    "trt": "",
    "self._trt": "",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "network.get_input(index)": "ITensor",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "self._runtime": "Runtime",
    "self._engine": "ICudaEngine",
    "self._context": "IExecutionContext",
}
"""Expression in tensorrt_engine.py → class of the bindings; '' is the module."""


def attributes(path: Path) -> Iterator[tuple[str, str, ast.Call | None]]:
    """Owner, name and, if it is called, the call of every attribute that a file uses."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node.value), node.attr, calls.get(id(node))


def members(version: str, kind: str) -> dict[str, tuple[int, int] | None]:
    """Members of a class with the least and most number of their parameters, None where that is not documented."""
    found: dict[str, tuple[int, int] | None] = {}
    for entry in RECORD[version][kind]:
        name, bracket, rest = entry.partition("(")
        parameters = [word for word in rest.rstrip(")").split(", ") if word]
        least = sum(not word.endswith("=") for word in parameters)
        found[name] = (least, len(parameters)) if bracket else None
    return found


@pytest.mark.parametrize("version", TENSORRT)
def test_tensorrt_has_what_is_called(version: str) -> None:
    used = 0
    for owner, name, call in attributes(BACKENDS / "tensorrt_engine.py"):
        kind = VARIABLES.get(owner)
        if kind is None and owner.startswith(("trt.", "self._trt.")):
            kind = owner.rpartition("trt.")[2]
        if kind is None or name.startswith("__"):
            continue
        known = members(version, kind)
        assert name in known, f"{version} has no {kind}.{name}"
        if call is not None and (numbers := known[name]):
            given = len(call.args) + len(call.keywords)
            assert numbers[0] <= given <= numbers[1], f"{kind}.{name} takes {numbers} arguments, gets {given}"
        used += 1
    assert used > 30


@pytest.mark.parametrize("version", TENSORRT)
def test_the_progress_monitor_overrides_what_tensorrt_calls(version: str) -> None:
    tree = ast.parse((BACKENDS / "tensorrt_engine.py").read_text(encoding="utf-8"))
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for name, kind in (("Monitor", "IProgressMonitor"), ("Logger", "ILogger")):
        functions = {node.name: node.args for node in classes[name].body if isinstance(node, ast.FunctionDef)}
        expected = members(version, kind)
        for function, arguments in functions.items():
            if not function.startswith("_"):
                assert expected[function] == (len(arguments.args) - 1,) * 2


@pytest.mark.parametrize("version", CUDA)
def test_cuda_has_what_is_called(version: str) -> None:
    source = (BACKENDS / "cuda.py").read_text(encoding="utf-8")
    names = set(re.findall(r"\bcuda[A-Z]\w+", source))
    enums = {"cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost", "cudaStreamCaptureModeThreadLocal", "cudaSuccess"}
    known = members(version, "")
    assert names - enums <= known.keys()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "_call" and isinstance(node.args[1], ast.Constant):
            numbers = known[str(node.args[1].value)]
            assert numbers is not None
            assert numbers[1] == len(node.args) - 2, f"{node.args[1].value} takes {numbers}"
