#!/usr/bin/env python3
"""Records the signatures of the GPU libraries' Python bindings that the TensorRT backend calls, for its tests.

    scripts/record_gpu_api.py VERSION... > test/gpu_api.json

VERSION is one of PyPI's `tensorrt-cu12-bindings` or `cuda-bindings`, e.g. `tensorrt-cu12-bindings==10.3.0`. The
bindings are installed into a temporary folder. Neither a GPU nor TensorRT's libraries are needed: for the latter a
library with the few functions that the bindings link to, all returning null, is compiled.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path


CLASSES = (
    *("Builder", "INetworkDefinition", "OnnxParser", "IBuilderConfig", "IOptimizationProfile", "ITensor", "Runtime"),
    *("ICudaEngine", "IExecutionContext", "ILogger", "IProgressMonitor", "TensorIOMode"),
    *("NetworkDefinitionCreationFlag",),
)
LIBRARIES = ("libnvinfer", "libnvonnxparser", "libnvinfer_plugin")
FUNCTIONS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry"),
    *("getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins"),
)
MODULE = ("IProgressMonitor", "nptype", *CLASSES)
READ = """
import importlib, json
module = importlib.import_module(%r)
def read(owner, names):
    return {name: (getattr(getattr(owner, name), "__doc__", None) or "") for name in names if hasattr(owner, name)}
classes = {kind: getattr(module, kind) for kind in %r}
members = {kind: [name for name in dir(owner) if not name.startswith("_")] for kind, owner in classes.items()}
print(json.dumps({"": read(module, %r), **{kind: read(owner, members[kind]) for kind, owner in classes.items()}}))
"""
CUDA_NAMES = (
    *("cudaDriverGetVersion", "cudaError_t", "cudaFree", "cudaFreeHost", "cudaGetDeviceCount", "cudaGetErrorString"),
    *("cudaGetDeviceProperties", "cudaGraphDestroy", "cudaGraphExecDestroy", "cudaGraphInstantiate"),
    *("cudaGraphLaunch", "cudaHostAlloc", "cudaHostAllocDefault", "cudaMalloc", "cudaMemcpyAsync", "cudaMemcpyKind"),
    *("cudaStreamBeginCapture", "cudaStreamCaptureMode", "cudaStreamCreate", "cudaStreamDestroy"),
    *("cudaStreamEndCapture", "cudaStreamSynchronize"),
)


def main() -> None:
    """Prints the record of all versions as JSON."""
    record = {}
    for requirement in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            record[requirement] = read(requirement, Path(folder))
    print(json.dumps(record, indent=1, sort_keys=True))


def read(requirement: str, folder: Path) -> dict[str, list[str]]:
    """Classes ('' is the module) → members, with their parameters where the documentation tells them."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder)]
    is_tensorrt = requirement.startswith("tensorrt")
    subprocess.run([*pip, *(["--no-deps"] if is_tensorrt else []), requirement], check=True, stdout=sys.stderr)
    if is_tensorrt:
        (folder / "tensorrt").symlink_to("tensorrt_bindings")
        compile_libraries(folder, requirement.partition("==")[2].partition(".")[0])
    code = READ % (("tensorrt", CLASSES, MODULE) if is_tensorrt else ("cuda.bindings.runtime", (), CUDA_NAMES))
    environment = {**os.environ, "PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder)}
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    documentation = json.loads(answer.stdout)
    return {
        kind: [signature(*member) for member in sorted(members.items())] for kind, members in documentation.items()
    }


def signature(name: str, documentation: str) -> str:
    """`name(first, second=)` from pybind11's or Cython's first line, `name` where it has several or none."""
    line = documentation.strip().partition("\n")[0]
    match = re.match(rf"{name}\((.*)\)", line)
    if match is None or "*args" in line:
        return name
    depth, parameters = 0, [""]
    for letter in match[1]:
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and depth == 0:
            parameters.append("")
        else:
            parameters[-1] += letter
    names = [(text.partition(":")[0].split() or [""])[-1] + ("=" if "=" in text else "") for text in parameters]
    return f"{name}({', '.join(word for word in names if word not in ('', 'self'))})"


def compile_libraries(folder: Path, major: str) -> None:
    """TensorRT's libraries, as far as the bindings link to them."""
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
    for library in LIBRARIES:
        name = f"{library}.so.{major}"
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
