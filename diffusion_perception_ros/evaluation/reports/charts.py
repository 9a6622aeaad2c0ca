"""Charts as inline SVG. Colours and fonts come from the page's style sheet, so they follow light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from diffusion_perception_ros.evaluation.summary import percentiles


WIDTH, HEIGHT = 640, 220
LEFT, BOTTOM, TOP = 8, 30, 26
LINE = 17
"""Distance of lines of text; the style sheet's letters are as high on small screens."""


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
            f'<text class="mark" x="{place + shift:.1f}" y="{TOP - 5 + LINE * index}" text-anchor="{anchor}">'
            f"{name} {value:.0f} {escape(unit)}</text>"
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


def timeline(times: Sequence[float], values: Sequence[float], states: Sequence[str], unit: str) -> str:
    """Values over time as a line, above a band that names the state of each time.

    Args:
        times: Seconds, ascending.
        values: Not negative; the line breaks where they are NaN.
        states: Neighbours that are equal share a stretch of the band.
        unit: Of the values.
    """
    left, band = 74, 18
    top, bottom = TOP - 12, HEIGHT - BOTTOM - band - 6
    step, high = _rounded_axis(max([value for value in values if np.isfinite(value)], default=0.0))
    span = max(times[-1] - times[0], 1e-3)

    def x(time: float) -> float:
        return left + (WIDTH - LEFT - left) * (time - times[0]) / span

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / high

    parts = []
    for tick in np.arange(0.0, high + step / 2, step).tolist():
        parts.append(f'<line class="axis" x1="{left}" y1="{y(tick):.1f}" x2="{WIDTH - LEFT}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{_measure(tick, unit)}</text>')
    known = [(time, value) for time, value in zip(times, values, strict=True) if np.isfinite(value)]
    for stretch in _stretches(np.isfinite(values).tolist()):
        if np.isfinite(values[stretch.start]):
            line = " ".join(f"{x(times[index]):.1f},{y(values[index]):.1f}" for index in stretch)
            parts.append(f'<polyline class="line" points="{line}"/>')
    parts += [f'<circle class="bar" cx="{x(time):.1f}" cy="{y(value):.1f}" r="1.8"/>' for time, value in known]
    for stretch in _stretches(states):
        begin = x(times[stretch.start])
        end = x(times[min(stretch.stop, len(times) - 1)])
        parts.append(
            f'<rect class="band" x="{begin:.1f}" y="{bottom + 6}" width="{max(end - begin, 1):.1f}" height="{band}"/>'
        )
        if end - begin > 7 * len(states[stretch.start]):
            parts.append(f'<text x="{begin + 6:.1f}" y="{bottom + band + 1}">{escape(states[stretch.start])}</text>')
    for tick in _ticks(0.0, span):
        place = x(times[0] + tick)
        parts.append(f'<text x="{place:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{tick:g} s</text>')
    return _svg(parts, HEIGHT, f"{len(known)} values over {span:.1f} s")


def _measure(value: float, unit: str) -> str:
    return escape(f"{value:g}{unit}" if unit == "%" else f"{value:g} {unit}")


def _stretches(states: Sequence[object]) -> list[range]:
    """Indices of neighbours that are equal."""
    changes = [index for index in range(1, len(states)) if states[index] != states[index - 1]]
    return [range(begin, end) for begin, end in zip([0, *changes], [*changes, len(states)], strict=True)]


def _rounded_axis(highest: float) -> tuple[float, float]:
    """Step and end of an axis from zero, both round, with two to five steps up to what is to be shown."""
    highest = highest or 1.0
    magnitude = 10 ** np.floor(np.log10(highest))
    step = magnitude * max(factor for factor in (0.2, 0.5, 1, 2, 5) if highest >= 2 * factor * magnitude)
    return float(step), float(step * np.ceil(highest / step))


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
