"""How a live run got its metres: the scale over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from diffusion_perception_ros.evaluation.reports.charts import timeline
from diffusion_perception_ros.evaluation.reports.report import Chart


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
        "inliers": ("Inliers", 100.0, "%", "share of the points that agree with one scale and shift for the image"),
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
