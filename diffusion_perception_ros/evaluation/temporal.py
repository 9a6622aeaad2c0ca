"""How steady a model's video is, as it comes and through the temporal filter: flicker, and errors at edges."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.run import Predictor
from diffusion_perception_ros.inference.temporal.filter import TIME_CONSTANT, TemporalFilter
from diffusion_perception_ros.metrics.flicker import (
    Correspondence,
    at_places,
    correspond,
    depth_change,
    edge_band,
    nearest_to_places,
)
from diffusion_perception_ros.sample import FloatImage, Prediction, Sample


BoolImage = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]

METHODS = ("off", "on")
SAMPLED = 6000
"""Pixels per frame, and per pair of frames, that are scored."""
SETTLING = 0.3
"""Seconds at the start of a clip that are not scored: the filter knows no past there."""
SPARSE_INTERVAL = 0.2
"""Seconds between frames from which a clip says little about flicker at a camera's rate."""
AROUND = 12
"""Pixels around a moving object in which it could leave a ghost."""
_INVERSE_FLOOR = 0.01
"""1/m below which an aligned inverse depth has no depth."""


@dataclass
class VideoExample:
    """A frame for the images of a report."""

    sample: Sample
    predictions: dict[str, Prediction]
    """Method to prediction."""
    link: Correspondence | None
    """To the frame before."""


@dataclass
class VideoEvaluation:
    """The outcome of a clip; all scores are means over pixels, per method (`off`, `on`)."""

    data: str
    model: str
    time_constant: float
    frames: int = 0
    """That are scored, each with the one before."""
    pairs: int = 0
    """Of those, the ones that a camera motion ties to the one before."""
    interval: float = math.nan
    """Median seconds between frames."""
    noise: float = math.nan
    """Flicker of the ground-truth depth itself."""
    filter_ms: float = math.nan
    """Median time of the filter per frame."""
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    gauge: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Method to the scale and shift that bring its relative depth (or disparity) to metres for the whole clip."""
    shown: list[VideoExample] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """What to know when reading the scores."""
        notes = [f"noise floor: the ground truth itself changes by {self.noise:.2%} from frame to frame"]
        if self.interval > SPARSE_INTERVAL:
            notes.append(f"frames are {self.interval:.2f} s apart: sparse, flicker at a camera's rate is not seen")
        if self.pairs < self.frames:
            notes.append(f"flicker leaves out {self.frames - self.pairs} frames that no camera motion explains")
        return notes

    def as_dict(self) -> dict[str, Any]:
        """Everything but the images, for JSON."""
        return {name: value for name, value in vars(self).items() if name != "shown"} | {"notes": self.notes}


def evaluate_video(
    samples: Iterable[Sample],
    predictor: Predictor,
    name: str,
    time_constant: float = TIME_CONSTANT,
    moving: Callable[[Sample], BoolImage | None] = lambda sample: None,
    show: int = 0,
    on_image: Callable[[int], None] = lambda index: None,
) -> VideoEvaluation:
    """Predicts on every frame of a clip, scores the predictions as they come and through the temporal filter.

    Relative depth is brought to metres by one scale and one shift for the whole clip: those of single frames would
    hide that they jump.

    Args:
        samples: In order, with stamp, intrinsics and ground-truth depth.
        moving: Mask (H, W) of what moves by itself, where that is known.
        show: Number of frames in a row to keep for a report.

    Raises:
        InputError: a model without depth and classes, frames without a stamp or depth, or fewer than two that a camera
            motion ties together.
    """
    if not {"depth", "semantic"} & set(predictor.card.tasks):
        raise InputError(f"model '{predictor.card.name}' gives neither depth nor classes, whose flicker is measured")
    result = VideoEvaluation(name, predictor.card.name, time_constant)
    steady, records = TemporalFilter(time_constant), {method: _Records() for method in METHODS}
    stamps: list[float] = []
    noises, times = [], []
    last: VideoExample | None = None
    for index, sample in enumerate(samples):
        if sample.depth is None or sample.stamp is None:
            raise InputError(
                f"{sample.name} has no {'depth' if sample.depth is None else 'stamp'}: flicker needs both"
            )
        raw = predictor.predict(sample.rgb, sample.intrinsics)
        start = time.perf_counter()
        filtered = steady.filter(raw, sample.rgb, sample.stamp)
        times.append(1000 * (time.perf_counter() - start))
        stamps.append(sample.stamp)
        frame = VideoExample(sample, dict(zip(METHODS, (raw, filtered), strict=True)), None)
        if last is not None and sample.stamp - stamps[0] >= SETTLING:
            result.frames += 1
            frame.link = correspond(last.sample, sample)
            regions = _regions(sample, moving(sample))
            for method, record in records.items():
                record.add_frame(sample, frame.predictions[method], regions)
                if frame.link is not None:
                    record.add_pair(last.predictions[method], frame.predictions[method], frame.link)
            if frame.link is not None:
                noises.append(frame.link.noise)
            if len(result.shown) < show:
                result.shown.append(frame)
        last = frame
        on_image(index)
    if not noises:
        raise InputError(f"{name}: no two frames can be tied together by the camera's motion")
    result.pairs, result.interval = len(noises), float(np.median(np.diff(stamps)))
    result.noise, result.filter_ms = float(np.mean(noises)), float(np.median(times[1:]))
    for method, record in records.items():
        result.scores[method], result.gauge[method] = record.scores()
    return result


def in_metres(values: npt.NDArray[Any], quantity: str | None, gauge: tuple[float, float]) -> npt.NDArray[Any]:
    """Depth values of any quantity with the clip's scale and shift applied; NaN where no positive depth comes out."""
    scale, shift = gauge
    with np.errstate(invalid="ignore", divide="ignore"):
        fitted = scale * values + shift
        if quantity == "relative_disparity":
            return np.where(fitted > _INVERSE_FLOOR, 1.0 / fitted, np.nan)
        return np.where(fitted > 0, fitted, np.nan)


def depth_of(prediction: Prediction) -> FloatImage | None:
    """What the model says about depth, in metres or not."""
    return prediction.depth if prediction.depth is not None else prediction.depth_relative


def _regions(sample: Sample, moving: BoolImage | None) -> dict[str, BoolImage]:
    """Where errors are averaged; `absrel` is the whole image."""
    assert sample.depth is not None
    regions = {"absrel": np.ones(sample.depth.shape, bool), "edge_absrel": edge_band(sample.depth)}
    if moving is not None:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * AROUND + 1, 2 * AROUND + 1))
        near = cv2.dilate(moving.astype(np.uint8), disc) > 0
        regions |= {"moving_absrel": moving, "around_absrel": np.asarray(near & ~moving)}
    return regions


class _Records:
    """Sampled pixels of all frames of one method: few enough to keep for clips of any length."""

    def __init__(self) -> None:
        self._quantity: str | None = None
        self._frames: dict[str, list[tuple[Vector, Vector]]] = {}
        """Region to values and true depth of its pixels, per frame."""
        self._pairs: list[tuple[Vector, Vector, Vector]] = []
        """Values before and now, and the true change, per pair."""
        self._class_changes: list[float] = []

    def add_frame(self, sample: Sample, prediction: Prediction, regions: dict[str, BoolImage]) -> None:
        """Keeps some pixels with ground truth of each region."""
        depth = depth_of(prediction)
        if depth is None or sample.depth is None:
            return
        self._quantity = prediction.depth_quantity
        known = np.isfinite(sample.depth) & (sample.depth > 0) & np.isfinite(depth)
        # Small regions are sampled on their own, or hardly any of their pixels would count.
        for region, mask in regions.items():
            pixels = _thinned(np.flatnonzero(known & mask))
            values = depth.ravel()[pixels].astype(np.float64), sample.depth.ravel()[pixels].astype(np.float64)
            self._frames.setdefault(region, []).append(values)

    def add_pair(self, before: Prediction, now: Prediction, link: Correspondence) -> None:
        """Keeps some surface points seen in both frames."""
        first, second = depth_of(before), depth_of(now)
        chosen = _thinned(np.arange(len(link.rows)))
        rows, columns, places = link.rows[chosen], link.columns[chosen], link.places[chosen]
        if first is not None and second is not None:
            values = at_places(first, places).astype(np.float64), second[rows, columns].astype(np.float64)
            self._pairs.append((*values, link.change[chosen].astype(np.float64)))
        if before.semantic is not None and now.semantic is not None:
            changed = nearest_to_places(before.semantic, places) != now.semantic[rows, columns]
            self._class_changes.append(float(changed.mean()))

    def scores(self) -> tuple[dict[str, float], tuple[float, float]]:
        """The scores of the clip, and the scale and shift that its relative depth was given."""
        gauge = (1.0, 0.0)
        scores = {}
        if self._frames.get("absrel"):
            gauge = self._fit(*(np.concatenate(column) for column in zip(*self._frames["absrel"], strict=True)))
            changes = [
                depth_change(
                    in_metres(before, self._quantity, gauge), in_metres(now, self._quantity, gauge), true_change
                )
                for before, now, true_change in self._pairs
            ]
            scores["flicker_depth"] = _mean(np.abs(change) for change in changes)
            for region, frames in self._frames.items():
                errors = (np.abs(in_metres(values, self._quantity, gauge) - depth) / depth for values, depth in frames)
                scores[region] = _mean(errors)
        if self._class_changes:
            scores["flicker_classes"] = float(np.mean(self._class_changes))
        return scores, gauge

    def _fit(self, values: Vector, depth: Vector) -> tuple[float, float]:
        """Least squares of the relative error, in depth or in inverse depth; metres are left alone."""
        if self._quantity == "metric_depth":
            return 1.0, 0.0
        weight = depth if self._quantity == "relative_disparity" else 1.0 / depth
        columns = np.stack([values * weight, weight], axis=1)
        (scale, shift), *_ = np.linalg.lstsq(columns, np.ones(len(values)), rcond=None)
        return float(scale), float(shift)


def _mean(frames: Iterable[Vector]) -> float:
    """Mean over frames of the mean over the pixels that have a value."""
    means = [float(np.nanmean(values)) for values in frames if np.isfinite(values).any()]
    return float(np.mean(means)) if means else math.nan


def _thinned(pixels: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """At most `SAMPLED` of the pixels, evenly spread."""
    return pixels[:: max(1, math.ceil(len(pixels) / SAMPLED))]
