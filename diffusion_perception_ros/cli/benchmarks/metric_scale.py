"""What metres from sparse depth cost beside the network, in `diffusion-perception bench`."""

from __future__ import annotations

import functools

import numpy as np

from diffusion_perception_ros.cli.benchmarks.comparison import HEIGHT, WIDTH, Comparison, bench_picture, take_turns
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.metric_scale.scale import fit_scale, relative_depth, scale_by_sparse_depth
from diffusion_perception_ros.inference.metric_scale.sparse_points import sparse_points
from diffusion_perception_ros.sample import FloatImage, Prediction


POINTS = (300, 3_000, 15_000)


def alignment(model: str, backend: str, seconds: float) -> list[Comparison]:
    """Fit, local field and metres of one picture, by the number of points, against the prediction of its depth."""
    loaded = Estimator.load(model, backend)
    picture = bench_picture()
    prediction = loaded.predict(picture, None, {"depth"})
    if prediction.depth_relative is None:
        raise InputError(f"the depth of model '{loaded.card.name}' is in metres already")
    runs = {
        f"completion with {count} points": functools.partial(
            scale_by_sparse_depth, prediction, _measured(prediction, count), picture
        )
        for count in POINTS
    }
    sparse = _measured(prediction, POINTS[1])
    runs[f"one scale and shift, {POINTS[1]} points"] = functools.partial(_one_line, prediction, sparse)
    runs["depth by the network"] = functools.partial(loaded.predict, picture, None, {"depth"})
    return [Comparison(f"metres from sparse depth, {WIDTH}x{HEIGHT}", "ms", take_turns(runs, seconds))]


def _one_line(prediction: Prediction, sparse: FloatImage) -> Prediction:
    return fit_scale(prediction, sparse_points(relative_depth(prediction), sparse)).apply(prediction)


def _measured(prediction: Prediction, count: int) -> FloatImage:
    """Metres at random pixels, of a scene that differs from the prediction by 20 % from place to place."""
    rows, columns = np.indices((HEIGHT, WIDTH), np.float32)
    depth = (1 + 4 * relative_depth(prediction)) * (1 + 0.2 * np.sin(columns / 70) * np.cos(rows / 60))
    sparse = np.full(depth.size, np.nan, np.float32)
    chosen = np.random.default_rng(0).permutation(depth.size)[:count]
    sparse[chosen] = depth.reshape(-1)[chosen]
    return sparse.reshape(depth.shape)
