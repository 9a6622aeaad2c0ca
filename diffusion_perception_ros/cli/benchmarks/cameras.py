"""The cameras part of `diffusion-perception bench`: several cameras on one node, over DDS."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusion_perception_ros.cli.benchmarks.camera_bag import write_camera_bag
from diffusion_perception_ros.cli.benchmarks.comparison import HEIGHT, WIDTH, Comparison, bench_picture, take_turns
from diffusion_perception_ros.cli.live import NAMESPACE, play_cameras
from diffusion_perception_ros.datasets.bag_topics import stamp_of
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.recording import STATUS
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.estimator import Estimator, Query
from diffusion_perception_ros.inference.models import find_model
from diffusion_perception_ros.recordings.recording import read_messages


TOTAL_RATE = 40.0
"""Images per second of all cameras together: more than two cores predict, so that cameras compete."""
SECONDS = 6.0
FAST, SLOW = 30.0, 5.0


@dataclass
class CameraRun:
    """What one camera got."""

    offered: float
    """Images per second."""
    predicted: float
    """Predictions per second, over the time of the recording that all cameras share."""
    latency_ms: float
    """Median, arrival of an image to its last output published."""


def cameras(model: str, backend: str, seconds: float) -> list[Comparison]:
    """Throughput and fairness with one, two and four equal cameras, and with a fast one beside a slow one."""
    return [_batch(model, backend, seconds), *_live(model, backend)]


def _batch(model: str, backend: str, seconds: float) -> Comparison:
    """What running the images of four cameras together saves."""
    loaded = Estimator.load(model, backend)
    picture, names = bench_picture(), _names(4)
    queries = [Query(np.roll(picture, 40 * index, axis=1), stream=name) for index, name in enumerate(names)]

    def together() -> object:
        return loaded.predict_batch(queries)

    def one_by_one() -> object:
        return [loaded.predict(**vars(query)) for query in queries]

    times = take_turns({"in one batch": together, "one by one": one_by_one}, seconds)
    notes = [] if loaded.takes_batches else ["the graph takes no batches: both are the same"]
    return Comparison(f"images of four cameras, {loaded.backend_name}", "ms", times, notes=notes)


def _live(model: str, backend: str) -> list[Comparison]:
    equal = {
        f"{count} camera{'s' if count > 1 else ''}": _run(
            model, backend, dict.fromkeys(_names(count), TOTAL_RATE / count)
        )
        for count in (4, 2, 1)
    }
    slow, fast = _run(model, backend, {"slow": SLOW, "fast": FAST}).values()
    notes = [
        f"{title}: "
        + ", ".join(f"{name} {run.predicted:.1f} Hz {run.latency_ms:.0f} ms" for name, run in runs.items())
        for title, runs in equal.items()
    ]
    return [
        Comparison(
            f"predictions of all cameras, {TOTAL_RATE:g} images/s offered",
            "Hz",
            {title: sum(run.predicted for run in runs.values()) for title, runs in equal.items()},
            True,
            notes,
        ),
        Comparison(
            "slowest camera against the fastest",
            "",
            {title: _fairness(runs) for title, runs in equal.items()},
            True,
        ),
        Comparison(
            f"a camera of {SLOW:g} Hz beside one of {FAST:g} Hz",
            "Hz",
            {"slow camera, predicted": slow.predicted, "slow camera, offered": slow.offered},
            True,
            [f"the fast camera is predicted at {fast.predicted:.1f} Hz"],
        ),
    ]


def _names(count: int) -> list[str]:
    return ["front", "left", "rear", "right"][:count]


def _fairness(runs: Mapping[str, CameraRun]) -> float:
    rates = [run.predicted for run in runs.values()]
    return min(rates) / max(rates)


def _run(model: str, backend: str, rates: Mapping[str, float]) -> dict[str, CameraRun]:
    """Plays cameras of these rates to a node that serves them all."""
    folder = find_model(model).resolve()
    with tempfile.TemporaryDirectory() as temporary:
        panorama = bench_picture(2 * WIDTH, HEIGHT)
        bag = write_camera_bag(
            Path(temporary) / "bag", {f"/{name}": rate for name, rate in rates.items()}, SECONDS, panorama
        )
        recording = Path(temporary) / "recording"
        play_cameras(
            bag, list(rates), SECONDS, folder, read_card(folder), recording, Path(temporary) / "logs", backend
        )
        return _analyse(recording, rates)


def _analyse(recording: Path, rates: Mapping[str, float]) -> dict[str, CameraRun]:
    topics = {f"{NAMESPACE}/{name}/status": name for name in rates}
    times: dict[str, list[float]] = {name: [] for name in rates}
    latencies: dict[str, list[float]] = {name: [] for name in rates}
    for message in read_messages(recording, topics, {STATUS}, []):
        name = topics[message.topic]
        times[name].append(stamp_of(message.content.header) * 1e-9)
        latencies[name].append(1000 * float(message.content.latency))
    missing = [name for name in rates if len(times[name]) < 2]
    if missing:
        raise InputError(f"{recording} holds no predictions of {', '.join(missing)}: see the node's log")
    start, end = min(values[0] for values in times.values()), max(values[-1] for values in times.values())
    return {
        name: CameraRun(rate, len(times[name]) / (end - start + 1 / rate), float(np.median(latencies[name])))
        for name, rate in rates.items()
    }
