"""The part of `diffusion-perception bench` without ROS: stages of a prediction, its tasks, models side by side."""

from __future__ import annotations

import time

import numpy as np

from diffusion_perception_ros.cli.benchmarks.comparison import (
    HEIGHT,
    WIDTH,
    Comparison,
    bench_camera,
    bench_picture,
    comparison_of,
    prediction,
    take_turns,
)
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.models import list_models


def estimator(model: str, backend: str, seconds: float) -> list[Comparison]:
    """Stages of one prediction, and predictions per second by how many tasks are asked for."""
    loaded = Estimator.load(model, backend)
    picture, camera = bench_picture(), bench_camera()
    stages: dict[str, list[float]] = {}
    loaded.warm_up(WIDTH, HEIGHT)
    deadline = time.perf_counter() + 2 * seconds
    while time.perf_counter() < deadline:
        timings = loaded.predict(picture, camera).timings
        for stage, value in [*timings.items(), ("whole prediction", sum(timings.values()))]:
            stages.setdefault(stage, []).append(1000 * value)
    medians = {stage: float(np.median(values)) for stage, values in stages.items()}
    asked = {f"{task} only": {task} for task in loaded.card.tasks} | {"all tasks": set(loaded.card.tasks)}
    times = take_turns({name: prediction(loaded, picture, camera, tasks) for name, tasks in asked.items()}, seconds)
    return [
        Comparison(f"stages of {loaded.card.name} on {loaded.backend_name}", "ms", medians),
        Comparison("what is asked for", "ms", times),
    ]


def models(backend: str, seconds: float) -> list[Comparison]:
    """All models of this machine side by side, such as int8 and fp32 of one network."""
    loaded = {}
    for entry in list_models():
        if entry.card is not None:
            loaded[f"{entry.name} ({entry.card.precision})"] = Estimator.load(entry.folder, backend)
    if len(loaded) < 2:
        raise InputError("there is only one model on this machine")
    picture, camera = bench_picture(), bench_camera()
    runs = {name: prediction(model, picture, camera, None) for name, model in loaded.items()}
    return [comparison_of(seconds, "models", runs)]
