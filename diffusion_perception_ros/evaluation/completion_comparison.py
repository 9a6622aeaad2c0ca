"""Depth completion by a model with sparse depth, against interpolation of the same points without one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from rich.table import Table

from diffusion_perception_ros.datasets import EvaluationDataset, EvaluationSample, Skipped
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.run import spread
from diffusion_perception_ros.inference.metric_scale.scale import fit_scale, relative_depth, scale_by_sparse_depth
from diffusion_perception_ros.inference.metric_scale.sparse_points import sparse_points
from diffusion_perception_ros.metrics import interpolation as completion
from diffusion_perception_ros.metrics.dense import Scores, depth_scores
from diffusion_perception_ros.metrics.sparse_patterns import sparse_pattern
from diffusion_perception_ros.sample import FloatImage, Intrinsics, Prediction, UInt8Image


METHODS = {
    "model": "model, completed",
    "model_global": "model, one scale and shift",
    "nearest": "nearest neighbour",
    "joint_bilateral": "joint bilateral",
    "linear": "linear (Delaunay)",
}
INTERPOLATIONS = ("nearest", "joint_bilateral")
"""Those that a short comparison looks at."""
ALL = "all"


class DepthPredictor(Protocol):
    """What is asked of a model."""

    def predict(
        self, rgb: UInt8Image, intrinsics: Intrinsics | None = None, tasks: Collection[str] | None = None
    ) -> Prediction: ...


@dataclass(frozen=True)
class SparseSetting:
    """How much of the sensor is given away."""

    share: float
    pattern: str


@dataclass(frozen=True)
class CompletionExample:
    """An image kept for a report, under one setting."""

    setting: SparseSetting
    sample: EvaluationSample
    given: FloatImage
    """(H, W) metres, NaN where nothing was given."""
    answers: dict[str, FloatImage]
    """Method to (H, W) metres."""


@dataclass
class CompletionComparison:
    """Scores of every image under every setting."""

    scores: dict[SparseSetting, list[tuple[str, dict[str, Scores]]]] = field(default_factory=dict)
    """Setting to (group, method to scores) of the images."""
    failed: list[Skipped] = field(default_factory=list)
    """Images that were refused under a setting; no method is scored on them."""
    skipped: list[Skipped] = field(default_factory=list)
    """Images whose files could not be used."""
    shown: list[CompletionExample] = field(default_factory=list)
    """Under the setting in the middle of those asked for."""

    @property
    def headline(self) -> SparseSetting:
        """The setting that stands for all: the one in the middle."""
        return middle(list(self.scores))

    def means(self, setting: SparseSetting, group: str = ALL) -> dict[str, Scores]:
        """Method to mean scores over the images of a group."""
        rows = [scores for name, scores in self.scores[setting] if group in (ALL, name)]
        return {
            method: {metric: float(np.nanmean([row[method][metric] for row in rows])) for metric in rows[0][method]}
            for method in rows[0]
        }

    def as_dict(self) -> list[dict[str, Any]]:
        """For JSON: per setting the number of images and the means, over all and per group."""
        return [
            {
                "share": setting.share,
                "pattern": setting.pattern,
                "images": len(rows),
                "methods": self.means(setting),
                "groups": {group: self.means(setting, group) for group in dict.fromkeys(name for name, _ in rows)},
            }
            for setting, rows in self.scores.items()
        ]

    def table(self) -> Table:
        """AbsRel / delta1 of every method, one line per setting; the best of a line in bold."""
        table = Table(
            title="Depth of the remaining pixels from sparse depth: AbsRel ↓ / δ1 ↑, mean over the images",
            title_justify="left",
            title_style="bold",
        )
        for column in ("given", "pattern", "images"):
            table.add_column(column, justify="right")
        methods = next(iter(self.scores.values()))[0][1]
        for method in methods:
            table.add_column(METHODS[method], justify="right", style=None if method.startswith("model") else "dim")
        for setting, rows in self.scores.items():
            means = self.means(setting)
            best = min(scores["absrel"] for scores in means.values()), max(s["delta1"] for s in means.values())
            cells = [
                f"{_bold(scores['absrel'], best[0])} / {_bold(scores['delta1'], best[1])}" for scores in means.values()
            ]
            table.add_row(f"{setting.share:.4g}", setting.pattern, str(len(rows)), *cells)
        return table


def middle(settings: Sequence[SparseSetting]) -> SparseSetting:
    """The setting that is shown of several."""
    return settings[(len(settings) - 1) // 2]


def _bold(value: float, best: float) -> str:
    return f"[bold]{value:.4f}[/bold]" if value == best else f"{value:.4f}"


def compare(
    dataset: EvaluationDataset,
    predictor: DepthPredictor,
    settings: Sequence[SparseSetting],
    on_image: Callable[[int], None] | None = None,
    show: int = 0,
) -> CompletionComparison:
    """Gives away depth pixels of every image under every setting and scores the others.

    Args:
        on_image: Called with the index of every image that is done (progress bars).
        show: Number of images to keep for a report, spread over the groups.

    Raises:
        InputError: not one image could be scored, or an unknown pattern.
    """
    kept = spread([dataset.group_of(index) for index in range(len(dataset))], show)
    result = compare_samples(dataset.usable(), predictor, settings, METHODS, on_image=on_image, kept=kept)
    result.skipped = list(dataset.skipped)
    if not result.scores:
        reason = result.failed[0].reason if result.failed else "no image has depth"
        raise InputError(f"not one image of {dataset.name} could be scored ({reason})")
    return result


def compare_samples(
    samples: Iterable[tuple[int, EvaluationSample]],
    predictor: DepthPredictor,
    settings: Sequence[SparseSetting],
    methods: Collection[str],
    step: int = 1,
    on_image: Callable[[int], None] | None = None,
    kept: Collection[int] = (),
) -> CompletionComparison:
    """The same for some samples and methods, scored on every `step`-th row and column.

    Args:
        samples: With their index, which seeds the choice of what is given away. Those without depth are passed over.
        methods: Of `METHODS`.
        kept: Indices of samples to keep for a report, with `step` 1.

    Raises:
        InputError: an unknown pattern.
    """
    result = CompletionComparison()
    for index, sample in samples:
        if sample.depth is None:
            continue
        prediction = predictor.predict(sample.rgb, sample.intrinsics, {"depth"})
        for setting in settings:
            try:
                given = sparse_pattern(sample.depth, setting.share, setting.pattern, index)
                answers = _answers(sample, sample.depth, prediction, given, methods, step)
            except InputError as error:
                name = f"{sample.name} with {setting.share:.4g} {setting.pattern}"
                result.failed.append(Skipped(name, str(error)))
                continue
            scores = _scores(sample.depth, given, answers, step)
            result.scores.setdefault(setting, []).append((sample.group, scores))
            if index in kept and setting == middle(settings):
                result.shown.append(CompletionExample(setting, sample, _only(sample.depth, given), answers))
        if on_image:
            on_image(index)
    return result


def _answers(
    sample: EvaluationSample,
    depth: FloatImage,
    prediction: Prediction,
    given: npt.NDArray[np.bool_],
    methods: Collection[str],
    step: int,
) -> dict[str, FloatImage]:
    """Method to metres, for every `step`-th row and column."""
    sparse = _only(depth, given)
    scored = np.s_[::step, ::step]
    answers: dict[str, Callable[[], FloatImage]] = {
        "model": lambda: _completed(prediction, sparse, sample.rgb)[scored],
        "model_global": lambda: _one_line(prediction, sparse)[scored],
        "nearest": lambda: completion.nearest(depth, given, step),
        "joint_bilateral": lambda: completion.joint_bilateral(depth, given, sample.rgb, step),
        "linear": lambda: completion.linear(depth, given)[scored],
    }
    return {method: answers[method]() for method in methods}


def _scores(
    depth: FloatImage, given: npt.NDArray[np.bool_], answers: dict[str, FloatImage], step: int
) -> dict[str, Scores]:
    scored = np.s_[::step, ::step]
    rest = (np.isfinite(depth) & ~given)[scored]
    truth = depth[scored][rest].astype(np.float64)
    return {method: depth_scores(answer[rest].astype(np.float64), truth) for method, answer in answers.items()}


def _only(depth: FloatImage, given: npt.NDArray[np.bool_]) -> FloatImage:
    return np.where(given, depth, np.float32(np.nan))


def _completed(prediction: Prediction, sparse: FloatImage, rgb: UInt8Image) -> FloatImage:
    completed = scale_by_sparse_depth(prediction, sparse, rgb).depth
    assert completed is not None
    return completed


def _one_line(prediction: Prediction, sparse: FloatImage) -> FloatImage:
    if prediction.depth is not None:
        return prediction.depth
    return fit_scale(prediction, sparse_points(relative_depth(prediction), sparse)).metres(relative_depth(prediction))
