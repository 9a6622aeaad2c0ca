"""The little of CUDA that running an engine needs, on NVIDIA's own `cuda.bindings`: memory, one stream, one graph."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


DRIVER_FILES = (Path("/proc/driver/nvidia/version"), Path("/etc/nv_tegra_release"))
"""Where the driver, or on a Jetson the board's system software, says its version."""


class CudaError(RuntimeError):
    """CUDA is not here, or a call of it failed."""


@dataclass(frozen=True)
class Gpu:
    """What identifies the GPU that engines are built for."""

    name: str
    compute_capability: str
    driver: str


def import_runtime() -> Any:
    """`cuda.bindings.runtime`.

    Raises:
        CudaError: it is not installed or does not load.
    """
    try:
        from cuda.bindings import runtime
    except (ImportError, OSError, RuntimeError) as error:
        raise CudaError(f"the Python package cuda-bindings cannot be used ({error})") from error
    return runtime


def find_gpu() -> Gpu:
    """The GPU that this process uses, the first that CUDA shows.

    Raises:
        CudaError: there is none, or no driver for it.
    """
    runtime = import_runtime()
    if _call(runtime, "cudaGetDeviceCount") == 0:
        raise CudaError("CUDA finds no GPU")
    properties = _call(runtime, "cudaGetDeviceProperties", 0)
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    supported = _call(runtime, "cudaDriverGetVersion")
    return Gpu(name.rstrip("\0"), f"{properties.major}.{properties.minor}", f"CUDA {supported}, {driver_version()}")


def driver_version(files: tuple[Path, ...] = DRIVER_FILES) -> str:
    """First line of the file that states the driver's version, empty if there is none."""
    for file in files:
        try:
            return file.read_text(encoding="utf-8", errors="replace").strip().splitlines()[0]
        except (OSError, IndexError):
            continue
    return ""


class Stream:
    """A CUDA stream; what is queued on it runs in order."""

    def __init__(self) -> None:
        self.runtime = import_runtime()
        self._handle = _call(self.runtime, "cudaStreamCreate")

    @property
    def handle(self) -> int:
        """For TensorRT."""
        return int(self._handle)

    def synchronize(self) -> None:
        """Waits until everything that was queued has run."""
        _call(self.runtime, "cudaStreamSynchronize", self._handle)

    def begin_capture(self) -> None:
        """From here on, what is queued is recorded and not run."""
        mode = self.runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _call(self.runtime, "cudaStreamBeginCapture", self._handle, mode)

    def end_capture(self) -> CudaGraph:
        """What was recorded, to be launched again and again."""
        return CudaGraph(self, _call(self.runtime, "cudaStreamEndCapture", self._handle))

    def launch(self, graph: CudaGraph) -> None:
        """Queues a recorded graph."""
        _call(self.runtime, "cudaGraphLaunch", graph.executable, self._handle)

    def copy(self, destination: int, source: int, size: int, to_device: bool) -> None:
        """Queues a copy of `size` bytes between pinned host memory and the device."""
        kinds = self.runtime.cudaMemcpyKind
        kind = kinds.cudaMemcpyHostToDevice if to_device else kinds.cudaMemcpyDeviceToHost
        _call(self.runtime, "cudaMemcpyAsync", destination, source, size, kind, self._handle)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.runtime.cudaStreamDestroy(self._handle)


class CudaGraph:
    """Recorded work: one launch instead of one per kernel, which is what small networks spend their time on."""

    def __init__(self, stream: Stream, graph: Any) -> None:
        self._runtime = stream.runtime
        try:
            self.executable = _call(self._runtime, "cudaGraphInstantiate", graph, 0)
        finally:
            self._runtime.cudaGraphDestroy(graph)

    def __del__(self) -> None:
        if getattr(self, "executable", None) is not None:
            self._runtime.cudaGraphExecDestroy(self.executable)


class Buffer:
    """A tensor on the device with its pinned twin on the host, of one size."""

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._runtime = import_runtime()
        self.size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        size = max(self.size, 1)  # CUDA has no memory of no bytes
        self.device = int(_call(self._runtime, "cudaMalloc", size))
        self._pinned = int(_call(self._runtime, "cudaHostAlloc", size, self._runtime.cudaHostAllocDefault))
        memory = (ctypes.c_byte * size).from_address(self._pinned)
        self.host = np.frombuffer(memoryview(memory).cast("B")[: self.size], dtype).reshape(shape)

    def upload(self, stream: Stream) -> None:
        """Queues the copy of `host` to the device."""
        stream.copy(self.device, self._pinned, self.size, to_device=True)

    def download(self, stream: Stream) -> None:
        """Queues the copy from the device to `host`."""
        stream.copy(self._pinned, self.device, self.size, to_device=False)

    def __del__(self) -> None:
        if getattr(self, "device", None) is not None:
            self._runtime.cudaFree(self.device)
        if getattr(self, "_pinned", None) is not None:
            self._runtime.cudaFreeHost(self._pinned)


def _call(runtime: Any, function: str, *arguments: Any) -> Any:
    """Calls a function of the runtime; its result without the error code.

    Raises:
        CudaError: the error code is not success.
    """
    error, *results = getattr(runtime, function)(*arguments)
    if error != runtime.cudaError_t.cudaSuccess:
        _, text = runtime.cudaGetErrorString(error)
        raise CudaError(f"{function}: {text.decode() if isinstance(text, bytes) else text}")
    return results[0] if results else None
