"""One predicted image and all that its messages are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from std_msgs.msg import Header

from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.inference.metric_scale.scale import MetricScale
from diffusion_perception_ros.ros.job import Job
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

    @property
    def header(self) -> Header:
        """Of all messages."""
        return self.job.header

    @cached_property
    def depth(self) -> FloatImage | None:
        """(H, W) metres within the limits of the parameters: NaN below and where the model is unsure, +Inf above."""
        return None if self.prediction.depth is None else self._sure(self._limited(self.prediction.depth))

    @cached_property
    def relative_depth(self) -> FloatImage | None:
        """(H, W) in [0, 1], NaN where the model is unsure."""
        relative = self.prediction.depth_relative
        return None if relative is None else self._sure(relative)

    def _limited(self, depth: FloatImage) -> FloatImage:
        limits = self.job.parameters
        limited = np.where(depth > limits.max_depth, np.float32(np.inf), depth)
        limited[depth < limits.min_depth] = np.nan
        return limited

    def _sure(self, depth: FloatImage) -> FloatImage:
        least, confidence = self.job.parameters.min_confidence, self.prediction.confidence
        if least == 0 or confidence is None:
            return depth
        return np.where(confidence < least, np.float32(np.nan), depth)
