"""Charts of a ladder: a bar per rung with a dot per run, or the score over the operations of the training."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from diffusion_perception_ros.research.ladder import HIGHER_IS_BETTER, Ladder, Row, power_law, title_of


DPI = 110
_LINES = ("--", ":", "-.", (0, (1, 4)))


def draw(ladder: Ladder, rows: Sequence[Row], baselines: Mapping[str, Mapping[str, float]]) -> bytes:
    """PNG.

    Args:
        rows: of `ladder.summarise`.
        baselines: of `ladder.baselines`.
    """
    scores = [score for score in ladder.score if any(score in row["scores"] for row in rows)]
    most = max(len([row for row in rows if score in row["scores"]]) for score in scores)
    size = (5.2 * len(scores), 3.8) if ladder.over == "compute" else (5.6 * len(scores), 0.42 * most + 1.7)
    figure = Figure(figsize=(max(size[0], 6.8), size[1]), layout="constrained")
    for axes, score in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores, strict=True):
        shown = [row for row in rows if score in row["scores"]]
        if ladder.over == "compute":
            _curves(axes, score, shown, baselines[score])
        else:
            _bars(axes, score, shown, baselines[score])
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    if ladder.title:
        figure.suptitle(ladder.title, fontsize=10)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=DPI)
    return image.getvalue()


def _bars(axes: Axes, score: str, rows: Sequence[Row], lines: Mapping[str, float]) -> None:
    places = range(len(rows))
    axes.barh(places, [row["scores"][score]["mean"] for row in rows], color="#9ecae1", height=0.65)
    for place, row in zip(places, rows, strict=True):
        values = row["scores"][score]["values"]
        axes.plot(values, [place] * len(values), "o", color="#08519c", markersize=4)
    for (name, value), style in zip(lines.items(), _LINES, strict=False):
        axes.axvline(value, color="#636363", linestyle=style, linewidth=1.1, label=name)
    axes.set_yticks(places, [row["title"] for row in rows], fontsize=8.5)
    axes.invert_yaxis()
    axes.set_xlabel(f"{title_of(score)}, unseen scenes; a dot per seed", fontsize=8.5)
    if lines:
        axes.legend(fontsize=7.5, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(lines), frameon=False)


def _curves(axes: Axes, score: str, rows: Sequence[Row], lines: Mapping[str, float]) -> None:
    curves = list(dict.fromkeys(row["curve"] for row in rows))
    for number, curve in enumerate(curves):
        members = sorted((row for row in rows if row["curve"] == curve), key=lambda row: float(row["training_flops"]))
        color = colormaps["viridis"](0.85 * number / max(len(curves) - 1, 1))
        compute = [row["training_flops"] for row in members]
        axes.plot(compute, [row["scores"][score]["mean"] for row in members], "o-", color=color, label=curve)
        for row in members:
            values = row["scores"][score]["values"]
            axes.plot([row["training_flops"]] * len(values), values, ".", color=color, markersize=4, alpha=0.6)
    fit = power_law([(row["training_flops"], row["scores"][score]["mean"]) for row in rows])
    if fit is not None and score not in HIGHER_IS_BETTER:
        x = np.geomspace(fit["low"], fit["high"], 20)
        label = f"∝ compute$^{{{fit['exponent']:.2f}}}$ (R² {fit['r2']:.2f})"
        axes.plot(x, fit["factor"] * x ** fit["exponent"], color="#d62728", linewidth=1, label=label)
    means = [row["scores"][score]["mean"] for row in rows]
    low, high = 0.95 * min(means), 1.1 * max(means)
    near = {name: value for name, value in lines.items() if low < value < high}
    for (name, value), style in zip(near.items(), _LINES, strict=False):
        axes.axhline(value, color="#636363", linestyle=style, linewidth=1.1, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("floating point operations of the training", fontsize=8.5)
    axes.set_ylabel(f"{title_of(score)}, unseen scenes", fontsize=8.5)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
