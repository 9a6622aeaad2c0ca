"""Tries engines of one graph from the fastest to the safest, and remembers those that were wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusion_perception_ros.inference.backends.backend import Backend, BackendUnavailable, Check
from diffusion_perception_ros.inference.backends.engine_cache import EngineCache, EngineKey


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineCandidate:
    """One way to build an engine."""

    key: EngineKey
    build: Callable[[], bytes]
    """Raises BackendUnavailable if it cannot be built."""
    load: Callable[[bytes], Backend]
    """Raises BackendUnavailable if it cannot be loaded."""


def first_working_engine(
    candidates: Sequence[EngineCandidate], cache: EngineCache, graph: str, check: Check
) -> tuple[Path, Backend]:
    """The first engine that can be had and computes the right thing; from the cache where it is there.

    Args:
        candidates: Fastest first.
        cache: Gets what is built, and what turned out to be wrong.
        graph: Stem of the ONNX file's name.
        check: Compares an engine with the CPU. One from the cache is checked as well: the driver's or the library's
            files may have changed under the same version.

    Returns:
        The engine's file, and the engine loaded.

    Raises:
        BackendUnavailable: none of them; the message has the reason of each.
    """
    reasons = []
    for candidate in candidates:
        problem = cache.rejection(graph, candidate.key)
        if problem is None:
            try:
                backend = candidate.load(_engine(candidate, cache, graph))
                problem = check(backend)
                if problem is None:
                    return cache.path(graph, candidate.key), backend
            except (BackendUnavailable, RuntimeError) as error:
                problem = str(error)
            _remember(cache, graph, candidate.key, problem)
        else:
            problem += f" (known from {cache.path(graph, candidate.key).with_suffix('.json')}: delete it to try again)"
        reasons.append(f"{candidate.key.precision}: {problem}")
        _log.warning("no TensorRT engine of %s in %s", graph, reasons[-1])
    raise BackendUnavailable("TensorRT: " + "; ".join(reasons))


def _engine(candidate: EngineCandidate, cache: EngineCache, graph: str) -> bytes:
    engine = cache.load(graph, candidate.key)
    if engine is not None:
        return engine
    _log.warning(
        "building a TensorRT engine of %s in %s for %s: this takes minutes, and happens once",
        graph,
        candidate.key.precision,
        candidate.key.gpu,
    )
    engine = candidate.build()
    try:
        path = cache.store(graph, candidate.key, engine)
        _log.warning("the engine is built and kept in %s", path)
    except OSError as error:
        _log.warning("the engine cannot be kept in %s (%s): it will be built at every start", cache.folder, error)
    return engine


def _remember(cache: EngineCache, graph: str, key: EngineKey, problem: str) -> None:
    try:
        cache.reject(graph, key, problem)
    except OSError as error:
        _log.warning("cannot write to %s: %s", cache.folder, error)
