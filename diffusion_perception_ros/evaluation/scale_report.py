"""How a live run got its metres: the scale over time, and what sparse depth is completed to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from diffusion_perception_ros.evaluation.charts import timeline
from diffusion_perception_ros.evaluation.completion_comparison import METHODS, Comparison
from diffusion_perception_ros.evaluation.report import Chart, Fact, TableView


COMPLETION_NOTE = (
    "AbsRel ↓ / δ1 ↑ in metres of the pixels that are not given, on every 4th row and column of {frames} frames. The "
    "interpolations see the same points, and joint bilateral also the picture. Rows are a lidar's 32 scan lines."
)


@dataclass(frozen=True)
class ScaleState:
    """What the status message of a frame says about its scale."""

    stamp: float
    """Seconds, of the image."""
    source: str
    """`none`, `model`, `sparse_depth` or `ground_plane`."""
    inliers: float
    """Share of the points that agree with the fit; NaN unless fitted, as the next two."""
    residual: float
    """Their median relative error."""
    age: float
    """Seconds since the measurement."""

    @staticmethod
    def of(stamp: int, status: Any) -> ScaleState:
        """From nanoseconds and a PerceptionStatus."""
        values = (float(getattr(status, f"scale_{name}")) for name in ("inliers", "residual", "age"))
        return ScaleState(1e-9 * stamp, str(status.scale_source), *values)


def scale_summary(states: Sequence[ScaleState]) -> dict[str, Any]:
    """For JSON: frames per source, and the medians of what was fitted."""
    sources = [state.source for state in states]
    fitted = [state for state in states if math.isfinite(state.inliers)]
    medians = {
        name: float(np.median([getattr(state, name) for state in fitted])) if fitted else None
        for name in ("inliers", "residual", "age")
    }
    return {"frames": {source: sources.count(source) for source in dict.fromkeys(sources)}} | medians


def scale_charts(states: Sequence[ScaleState]) -> list[Chart]:
    """Source, inliers, residual and age over time; none where nothing was fitted."""
    if not any(math.isfinite(state.inliers) for state in states):
        return []
    start = states[0].stamp
    times = [state.stamp - start for state in states]
    sources = [state.source.replace("_", " ") for state in states]
    notes = {
        "inliers": ("Inliers", 100.0, "%", "share of the points that agree with one scale and shift for the picture"),
        "residual": ("Residual", 100.0, "%", "median relative error of those, before the completion"),
        "age": ("Age", 1000.0, "ms", "of the measurement behind the scale, at each image"),
    }
    return [
        Chart(
            f"{title} of the scale",
            Markup(timeline(times, [factor * getattr(state, name) for state in states], sources, unit)),
            note,
        )
        for name, (title, factor, unit, note) in notes.items()
    ]


def completion_view(result: Comparison) -> TableView:
    """One row per share and pattern, one column per method."""
    first = next(iter(result.scores.values()))
    rows = []
    for setting in result.scores:
        means = result.means(setting)
        best = min(scores["absrel"] for scores in means.values())
        cells = [
            (f"{scores['absrel']:.4f} / {scores['delta1']:.3f}", scores["absrel"] == best) for scores in means.values()
        ]
        rows.append((f"{setting.share:.1%} given, {setting.pattern}", cells, False, False))
    header = [METHODS[method] for method in first[0][1]]
    return TableView("Depth completed from sparse points", COMPLETION_NOTE.format(frames=len(first)), header, rows)


def completion_facts(result: Comparison) -> list[Fact]:
    """The model against the best interpolation of the same points, for the share in the middle."""
    settings = list(result.scores)
    setting = settings[(len(settings) - 1) // 2]
    means = {method: scores["absrel"] for method, scores in result.means(setting).items()}
    ours = means.pop("model")
    other = min(means, key=lambda method: means[method])
    given = f"{setting.share:.0%} of the pixels given ({setting.pattern})"
    note = f"AbsRel with {given}; {METHODS[other]}: {means[other]:.3f}"
    return [Fact(f"{ours:.3f}", "depth completed from sparse points", note)]
