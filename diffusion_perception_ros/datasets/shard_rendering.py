"""Many samples from many seeds: worker processes that render the world into shards, and can be cut at any time."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
from pydantic import ValidationError

from diffusion_perception_ros.datasets.shards import MANIFEST, ShardWriter, read_manifest
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.world.config import WorldConfig
from diffusion_perception_ros.world.generate import render_seeds, shared_renderer


SHARD_SIZE = 500
MAX_RESTARTS = 3
"""Times that dead worker processes are replaced before giving up."""
POLL_SECONDS = 0.5

_logger = logging.getLogger(__name__)


@dataclass
class GenerationReport:
    """What `generate` did."""

    written: int = 0
    """Samples rendered now."""
    kept: int = 0
    """Samples of finished shards found there."""
    rejected: list[str] = field(default_factory=list)
    restarts: int = 0


def render_shards(
    config: WorldConfig,
    seeds: Sequence[int],
    size: tuple[int, int],
    folder: str | os.PathLike[str],
    workers: int = 1,
    shard_size: int = SHARD_SIZE,
    supersample: int = 1,
    on_progress: Callable[[int], None] = lambda done: None,
) -> GenerationReport:
    """Renders one sample per seed into shards below a folder; finished shards found there are kept.

    Args:
        size: width and height in pixels.
        on_progress: called now and then with the number of samples rendered so far in this call.

    Raises:
        InputError: the folder holds shards made with other settings or cannot be written, or worker processes died
            again and again.
    """
    jobs = _plan(config, seeds, size, Path(folder), shard_size, supersample)
    report = GenerationReport(kept=sum(len(job.seeds) for job in jobs if job.is_finished))
    pending = [job for job in jobs if not job.is_finished]
    while pending:
        try:
            _run_jobs(pending, workers, report, on_progress)
        except BrokenProcessPool as error:
            report.restarts += 1
            names = ", ".join(str(job.folder) for job in pending if not job.is_finished)
            if report.restarts > MAX_RESTARTS:
                raise InputError(
                    f"Worker processes keep dying (out of memory?): use fewer of them. Unfinished: {names}."
                ) from error
            _logger.warning("A worker process died; started again: %s", names)
        pending = [job for job in pending if not job.is_finished]
    report.written = len(seeds) - report.kept
    on_progress(report.written)
    return report


def _run_jobs(
    jobs: Sequence[_ShardJob], workers: int, report: GenerationReport, on_progress: Callable[[int], None]
) -> None:
    """Hands the jobs to fresh worker processes.

    Raises:
        BrokenProcessPool: one of them died.
    """
    context = multiprocessing.get_context("spawn")
    progress = context.RawArray("q", len(jobs))  # one slot per shard, written by its worker alone
    stop = context.RawValue("b", 0)
    done_before = report.written
    with (
        _single_threaded(),
        ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (progress, stop)) as pool,
    ):
        try:
            futures = {pool.submit(_write_shard, job, slot) for slot, job in enumerate(jobs)}
            for future in _completed(futures, lambda: on_progress(done_before + sum(progress))):
                report.rejected += future.result()
        finally:
            stop.value = 1  # leaving early: workers give up after the sample at hand
            report.written += sum(len(job.seeds) for job in jobs if job.is_finished)


@dataclass(frozen=True)
class _ShardJob:
    """One shard to be written; travels to a worker process."""

    folder: Path
    seeds: list[int]
    size: tuple[int, int]
    supersample: int
    config: WorldConfig

    @property
    def is_finished(self) -> bool:
        return (self.folder / MANIFEST).exists()

    def settings(self) -> dict[str, Any]:
        """What decides the pixels, besides the seeds; kept in the shard."""
        return {"world": self.config.model_dump(mode="json"), "supersample": self.supersample}

    def made_like(self, manifest: dict[str, Any]) -> bool:
        """Whether a finished shard has the same seeds, size and settings; fields that it is too old for count as
        their defaults."""
        stored = manifest["config"]
        try:
            world = WorldConfig.model_validate(stored.get("world"))
        except ValidationError:
            return False
        found = (manifest["seeds"], manifest["width"], manifest["height"], stored.get("supersample"), world)
        return found == (self.seeds, *self.size, self.supersample, self.config)


def _plan(
    config: WorldConfig, seeds: Sequence[int], size: tuple[int, int], folder: Path, shard_size: int, supersample: int
) -> list[_ShardJob]:
    jobs = []
    for start in range(0, len(seeds), shard_size):
        chunk = list(seeds[start : start + shard_size])
        job = _ShardJob(folder / f"seed-{chunk[0]:09d}", chunk, size, supersample, config)
        if job.is_finished and not job.made_like(read_manifest(job.folder)):
            raise InputError(
                f"{job.folder} was rendered with other seeds, size or config: choose another folder or delete it."
            )
        jobs.append(job)
    return jobs


def _completed(pending: set[Future[list[str]]], on_wait: Callable[[], None]) -> Iterator[Future[list[str]]]:
    while pending:
        done, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
        on_wait()
        yield from done


@contextmanager
def _single_threaded() -> Iterator[None]:
    """One thread per worker process: llvmpipe and BLAS gain nothing from more, and processes compete for them.

    Libraries read these variables when they are loaded, so the parent sets them for its children.
    """
    names = ("LP_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_worker_progress: Any = None
_worker_stop: Any = None


def _start_worker(progress: Any, stop: Any) -> None:
    global _worker_progress, _worker_stop
    _worker_progress, _worker_stop = progress, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and sets the stop flag
    cv2.setNumThreads(1)


def _should_stop() -> bool:
    """The parent asks for it, or is gone (killed before it could ask): nobody waits for the shard any more."""
    parent = multiprocessing.parent_process()
    return bool(_worker_stop.value) or (parent is not None and not parent.is_alive())


def _write_shard(job: _ShardJob, slot: int) -> list[str]:
    """Runs in a worker; returns the rejected scenes."""
    if _should_stop():
        return []
    width, height = job.size
    renderer = shared_renderer(width, height, job.supersample)
    writer = ShardWriter(job.folder, len(job.seeds), height, width, job.config.targets)
    rejected: list[str] = []
    for seed, seeded in zip(job.seeds, render_seeds(job.seeds, job.config, renderer), strict=True):
        writer.append(seeded.sample, seed, seeded.tags)
        rejected += seeded.rejected
        _worker_progress[slot] = len(writer)
        if _should_stop():
            return rejected
    writer.finish(job.settings())
    _worker_progress[slot] = len(job.seeds)
    return rejected
