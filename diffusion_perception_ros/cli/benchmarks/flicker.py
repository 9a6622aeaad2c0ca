"""The flicker part of `diffusion-perception bench`: what the temporal filter takes away, what it costs and harms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.cli.benchmarks.comparison import Comparison, bench_picture, take_turns
from diffusion_perception_ros.cli.resources import find_resource
from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.evaluation.reports.temporal_report import METHOD_TITLES, SCORE_TITLES
from diffusion_perception_ros.evaluation.temporal import METHODS, VideoEvaluation, evaluate_video
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.temporal.filter import TemporalFilter
from diffusion_perception_ros.sample import Prediction, Sample


CLIP = "demo/clip"
CROSSING_SEED = 3
CROSSING_FRAMES = 24
SIZE = 640, 480


def flicker(model: str, backend: str, seconds: float) -> list[Comparison]:
    """A drive through a static room, a camera at rest with somebody walking by, filter on and off; and its time."""
    loaded = Estimator.load(model, backend)
    drive = evaluate_video(BagDataset(find_resource(CLIP)), loaded, "bundled clip, moving camera")
    walkers: dict[str, npt.NDArray[np.bool_]] = {}
    crossing = evaluate_video(
        _crossing(walkers), loaded, "rendered clip, person walking by", moving=lambda sample: walkers[sample.name]
    )
    return [*_comparisons(drive), *_comparisons(crossing), _time(loaded, seconds)]


def _crossing(walkers: dict[str, npt.NDArray[np.bool_]]) -> Iterator[Sample]:
    """The samples; where the person is goes into `walkers`, by the name of the sample."""
    from diffusion_perception_ros.world.crossing import render_crossing

    for sample, walker in render_crossing(CROSSING_SEED, CROSSING_FRAMES):
        assert sample.instances is not None
        walkers[sample.name] = sample.instances == walker
        yield sample


def _comparisons(result: VideoEvaluation) -> list[Comparison]:
    """One per score, in percent."""
    scores = [name for name in SCORE_TITLES if name in result.scores["off"]]
    values = {
        score: {METHOD_TITLES[method]: 100 * result.scores[method][score] for method in reversed(METHODS)}
        for score in scores
    }
    comparisons = [Comparison(f"{result.data}: {SCORE_TITLES[score]}", "%", values[score]) for score in scores]
    comparisons[0].notes = result.notes
    return comparisons


def _time(loaded: Estimator, seconds: float) -> Comparison:
    """Milliseconds of the filter by what it is given, against those of a prediction with all tasks."""
    width, height = SIZE
    rng, picture = np.random.default_rng(0), bench_picture(2 * width, height)
    depth = np.tile(np.linspace(0.2, 0.8, height, dtype=np.float32)[:, None], (1, width))
    normals = np.broadcast_to(np.array([0.0, 0.0, -1.0], np.float32), (height, width, 3)).copy()
    depth_only = Prediction(depth_relative=depth, depth_quantity="relative_depth")
    classes = rng.integers(0, 30, (height // 40, width // 40), np.uint8).repeat(40, 0).repeat(40, 1)
    sure = np.full((height, width), 0.8, np.float32)
    with_classes = replace(depth_only, semantic=classes, semantic_confidence=sure)
    given = {
        "depth": depth_only,
        "depth and classes": with_classes,
        "depth, classes and normals": replace(with_classes, normals=normals),
    }
    pan = [np.ascontiguousarray(picture[:, 2 * step : 2 * step + width]) for step in range(30)]

    def variant(prediction: Prediction) -> Callable[[], None]:
        steady, count = TemporalFilter(), 0

        def run() -> None:
            nonlocal count
            steady.filter(prediction, pan[count % len(pan)], count / 30)
            count += 1

        return run

    runs: dict[str, Callable[[], object]] = {name: variant(prediction) for name, prediction in given.items()}
    runs[f"a prediction by {loaded.card.name}"] = lambda: loaded.predict(pan[0])
    times = take_turns(runs, seconds)
    return Comparison(f"temporal filter, {width}x{height}", "ms", times)
