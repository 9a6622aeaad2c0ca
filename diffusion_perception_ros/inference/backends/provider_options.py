"""Options of ONNX Runtime's GPU providers. Names and meanings: its documentation of execution providers."""

from __future__ import annotations

import ctypes
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import onnxruntime

from diffusion_perception_ros.inference.backends.cuda import driver_version
from diffusion_perception_ros.inference.backends.engine_cache import user_cache
from diffusion_perception_ros.inference.backends.input_shapes import Shape, ShapeRange
from diffusion_perception_ros.inference.backends.model_graph import ModelGraph


_log = logging.getLogger(__name__)
_LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10")


def cuda_options() -> dict[str, str]:
    """Memory grows by what is needed and not in powers of two: a Jetson's GPU and CPU share theirs."""
    return {"arena_extend_strategy": "kSameAsRequested"}


def tensorrt_options(graph: ModelGraph, precision: str) -> dict[str, str]:
    """Engines and timings are kept in a folder of their own for each version of everything, so that none is stale.

    It is in this user's cache and not beside the model: ONNX Runtime loads what it finds there without a check.
    """
    ranges = graph.shape_ranges()
    versions = (graph.digest, precision, onnxruntime.__version__, library_version(), driver_version(), str(ranges))
    folder = user_cache(graph.folder) / f"onnxruntime-{hashlib.sha256(repr(versions).encode()).hexdigest()[:16]}"
    options = {**_cache_options(folder), **profile_options(ranges)}
    if graph.card.precision == "fp32" and precision != "fp32":
        options[f"trt_{precision}_enable"] = "True"
    return options


def _cache_options(folder: Path) -> dict[str, str]:
    """Makes the folder, which ONNX Runtime does not; nothing where it cannot be made: engines are then built anew."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _log.warning("TensorRT engines cannot be kept in %s: %s", folder, error)
        return {}
    caches = {"trt_engine_cache_path": str(folder), "trt_timing_cache_path": str(folder)}
    return {"trt_engine_cache_enable": "True", "trt_timing_cache_enable": "True", **caches}


def profile_options(ranges: Mapping[str, ShapeRange]) -> dict[str, str]:
    """Optimisation profiles as `name:1x3x480x640,name:...`; none where every shape is fixed."""
    if all(shapes.is_fixed for shapes in ranges.values()):
        return {}

    def listed(pick: str) -> str:
        return ",".join(f"{name}:{_text(getattr(shapes, pick))}" for name, shapes in ranges.items())

    return {
        "trt_profile_min_shapes": listed("smallest"),
        "trt_profile_opt_shapes": listed("usual"),
        "trt_profile_max_shapes": listed("largest"),
    }


def library_version() -> int | None:
    """Version of TensorRT's library, as one number, None if there is none. The Python bindings are not needed."""
    for name in _LIBRARIES:
        try:
            return int(ctypes.CDLL(name).getInferLibVersion())
        except (OSError, AttributeError):
            continue
    return None


def _text(shape: Shape) -> str:
    return "x".join(str(side) for side in shape)
