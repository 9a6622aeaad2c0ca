"""The scale of a video: smoothed over time, and forgotten when its source goes silent."""

from __future__ import annotations

import math
from dataclasses import replace

from diffusion_perception_ros.inference.metric_scale.scale import MetricScale


class ScaleTracker:
    """Exponential smoothing of scale and shift.

    A field of a frame is kept as well, for frames between two measurements, and fades into the fit of the whole
    image with the same time constant: the farther the camera has moved on, the less it belongs to what is seen.
    """

    def __init__(self, time_constant: float, max_age: float) -> None:
        """
        Args:
            time_constant: Seconds after which a new scale counts for 63 %; 0 = every fit replaces the last.
            max_age: Seconds for which a fit stays usable without a new one.
        """
        self.time_constant, self.max_age = time_constant, max_age
        self._scale: MetricScale | None = None
        self._stamp = 0.0

    def update(self, scale: MetricScale, stamp: float) -> None:
        """Takes in the fit of a frame; stamps that jump back (a bag loops) start anew."""
        last = self._scale
        elapsed = stamp - self._stamp
        if last is not None and last.quantity == scale.quantity and 0 <= elapsed <= self.max_age:
            gain = 1.0 if self.time_constant <= 0 else 1.0 - math.exp(-elapsed / self.time_constant)
            scale = replace(
                scale,
                scale=last.scale + gain * (scale.scale - last.scale),
                shift=last.shift + gain * (scale.shift - last.shift),
            )
        self._scale, self._stamp = scale, stamp

    def at(self, stamp: float) -> MetricScale | None:
        """The scale for a frame, None if there was none within `max_age` before it."""
        scale, age = self._scale, self.age(stamp)
        if scale is None or not 0 <= age <= self.max_age:
            return None
        if scale.field is None or age == 0:
            return scale
        if age >= 3 * self.time_constant:
            return replace(scale, field=None, lowest=0.0)
        left = math.exp(-age / self.time_constant)
        return replace(scale, field=scale.field.faded(scale.scale, scale.shift, left))

    def localise(self, scale: MetricScale) -> None:
        """Keeps the field of the last frame, fitted around its smoothed scale."""
        self._scale = scale

    def age(self, stamp: float) -> float:
        """Seconds since the last fit; +Inf if there was none."""
        return stamp - self._stamp if self._scale is not None else math.inf
