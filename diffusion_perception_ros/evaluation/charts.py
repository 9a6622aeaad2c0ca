"""Charts as inline SVG. Colours and fonts come from the page's style sheet, so they follow light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from diffusion_perception_ros.evaluation.summary import percentiles


WIDTH, HEIGHT = 640, 220
LEFT, BOTTOM, TOP = 8, 30, 26


def histogram(values: Sequence[float], unit: str, bins: int = 40) -> str:
    """Distribution of some values with their 50th, 95th and 99th percentile marked."""
    high = max(float(np.percentile(values, 99.5)) * 1.08, 1e-3)
    low = min(values)
    low = 0.0 if low < 0.35 * high else low * 0.95
    counts, edges = np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))
    bottom, span = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP

    def x(value: float) -> float:
        return LEFT + (WIDTH - 2 * LEFT) * (min(value, high) - low) / (high - low)

    parts = []
    for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        height = span * count / counts.max()
        parts.append(
            f'<rect class="bar" x="{x(left) + 0.5:.1f}" y="{bottom - height:.1f}" '
            f'width="{max(x(right) - x(left) - 1, 0.5):.1f}" height="{height:.1f}"/>'
        )
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{WIDTH - LEFT}" y2="{bottom}"/>')
    for tick in _ticks(low, high):
        anchor = "middle" if LEFT + 20 < x(tick) < WIDTH - LEFT - 30 else ("start" if x(tick) <= LEFT + 20 else "end")
        parts.append(
            f'<text x="{x(tick):.1f}" y="{bottom + 19}" text-anchor="{anchor}">{tick:g} {escape(unit)}</text>'
        )
    for index, (name, value) in enumerate(percentiles(values).items()):
        place = x(value)
        anchor = "start" if place < WIDTH * 0.8 else "end"
        shift = 4 if anchor == "start" else -4
        parts.append(f'<line class="mark" x1="{place:.1f}" y1="{TOP - 14}" x2="{place:.1f}" y2="{bottom}"/>')
        parts.append(
            f'<text class="mark" x="{place + shift:.1f}" y="{TOP - 5 + 14 * index}" text-anchor="{anchor}">'
            f"{name} {value:.0f}</text>"
        )
    return _svg(parts, HEIGHT, f"Histogram, {percentiles(values)['p50']:.0f} {unit} in the middle")


def stage_bars(stages: Mapping[str, float], unit: str) -> str:
    """One horizontal bar per stage."""
    row, left = 28, 150
    largest = max([*stages.values(), 1e-9])
    parts = []
    for index, (name, value) in enumerate(stages.items()):
        y = index * row
        width = (WIDTH - left - 90) * value / largest
        parts.append(f'<text x="{left - 10}" y="{y + 18}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="bar" x="{left}" y="{y + 6}" width="{max(width, 1):.1f}" height="16" rx="2"/>')
        parts.append(
            f'<text class="value" x="{left + max(width, 1) + 8:.1f}" y="{y + 18}">{value:.1f} {escape(unit)}</text>'
        )
    return _svg(parts, len(stages) * row, "Time per stage")


def _ticks(low: float, high: float) -> list[float]:
    """Round values, about six."""
    step = (high - low) / 6
    magnitude = 10 ** np.floor(np.log10(step))
    step = magnitude * min((factor for factor in (1, 2, 5, 10) if factor * magnitude >= step), default=10)
    return [float(value) for value in np.arange(np.ceil(low / step) * step, high, step)]


def _svg(parts: Sequence[str], height: int, label: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )
