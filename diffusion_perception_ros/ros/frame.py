"""One predicted image and all that its messages are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from std_msgs.msg import Header

from diffusion_perception_ros.inference import native
from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.inference.metric_scale.scale import MetricScale
from diffusion_perception_ros.ros.job import Job
from diffusion_perception_ros.ros.message_memory import MessageMemory
from diffusion_perception_ros.ros.point_cloud import PointCloudBuilder
from diffusion_perception_ros.sample import FloatImage, Prediction


@dataclass
class Frame:
    """In the worker's thread, for one camera."""

    job: Job
    """The image."""
    prediction: Prediction
    """In metres where a scale is known."""
    scale: tuple[MetricScale, float] | None
    """What made it metric, and the seconds since that was measured; None if nothing did, or the model gives metres."""
    card: ModelCard
    """Of the model."""
    cloud: PointCloudBuilder
    """Of the camera."""
    memory: MessageMemory = field(default_factory=MessageMemory)
    """Of the camera's messages."""

    @property
    def header(self) -> Header:
        """Of all messages."""
        return self.job.header

    @cached_property
    def depth(self) -> FloatImage | None:
        """(H, W) metres within the limits of the parameters: NaN below and where the model is unsure, +Inf above."""
        depth, limits = self.prediction.depth, self.job.parameters
        return None if depth is None else self._within(depth, limits.min_depth, limits.max_depth)

    @cached_property
    def relative_depth(self) -> FloatImage | None:
        """(H, W) in [0, 1], NaN where the model is unsure."""
        relative = self.prediction.depth_relative
        if relative is None or self._least_confidence is None:
            return relative
        return self._within(relative, -np.inf, np.inf)

    @property
    def _least_confidence(self) -> float | None:
        """None where every confidence will do."""
        least = self.job.parameters.min_confidence
        return None if least == 0 or self.prediction.confidence is None else least

    def _within(self, depth: FloatImage, low: float, high: float) -> FloatImage:
        """NaN below `low` and where the model is unsure, +Inf above `high`."""
        least = self._least_confidence
        confidence = None if least is None else self.prediction.confidence
        library = native.load()
        if library is not None and native.is_plain(depth, confidence):
            limited = self.memory.allocate("limited depth", depth.shape, np.float32)
            library.limit_depth(depth, confidence, low, high, least or 0.0, limited)
            return limited
        limited = np.where(depth > high, np.float32(np.inf), depth)
        limited[depth < low] = np.nan
        return limited if confidence is None else np.where(confidence < (least or 0.0), np.float32(np.nan), limited)
