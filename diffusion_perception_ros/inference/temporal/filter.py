"""Steady video: each prediction blended with those before it, carried along by the motion of the camera's image.

Per frame: optical flow at reduced resolution, the steadied maps of the frame before moved along it, what does not
belong together left out (hidden and revealed surfaces, moving edges, changed depth), and an exponential blend of the
rest with a time constant in seconds. Flow-guided blending with a forward-backward test is that of blind video
consistency (Lai et al., ECCV 2018), here without a network and causal, so that it runs on a robot beside the model.
"""

from __future__ import annotations

import math
from dataclasses import replace

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.temporal.maps import SteadyClasses, SteadyDepth, SteadyNormals
from diffusion_perception_ros.inference.temporal.motion import Motion, MotionTracker
from diffusion_perception_ros.sample import Prediction, UInt8Image


TIME_CONSTANT = 0.3
"""Seconds; the default."""
DRIFT_RATIO = 4.0
"""The scale and shift of depth are let in this many times more slowly than the depth of a pixel."""
WORKING_WIDTH = 320
"""Pixels. Maps are compared and corrections computed at this width, or their own if that is smaller."""
MAX_GAP = 1.0
"""Seconds without a frame after which the past is forgotten."""


class TemporalFilter:
    """Steadies the depth, normals and classes of one camera's predictions.

    It starts anew when time jumps (back, or by more than `MAX_GAP`), when the image's size or the quantity of its
    depth changes, and when an image has nothing to do with the one before. Instances, confidence, flow, alpha and
    keypoints are passed on as they are.
    """

    def __init__(self, time_constant: float = TIME_CONSTANT, working_width: int = WORKING_WIDTH) -> None:
        """
        Args:
            time_constant: Seconds after which a lasting change counts for 63 %; 0 = nothing is filtered.
            working_width: Pixels, see `WORKING_WIDTH`.

        Raises:
            InputError: a negative time constant, or a width below 16 pixels.
        """
        if not 0 <= time_constant < math.inf:
            raise InputError(f"the time constant must be 0 or more seconds, got {time_constant}")
        if working_width < 16:
            raise InputError(f"the working width must be at least 16 pixels, got {working_width}")
        self.time_constant = time_constant
        self._working_width = working_width
        self._tracker = MotionTracker()
        self.reset()

    def reset(self) -> None:
        """Forgets the past: the next frame is passed on as it is."""
        self._tracker.reset()
        self._stamp = -math.inf
        self._key: tuple[object, ...] = ()
        self._forget_maps()

    def _forget_maps(self) -> None:
        self._depth, self._normals, self._classes = SteadyDepth(), SteadyNormals(), SteadyClasses()

    def filter(self, prediction: Prediction, rgb: UInt8Image, stamp: float) -> Prediction:
        """The prediction, steadied by those before it.

        Args:
            prediction: Of this image, before a scale source makes its depth metric. Its arrays are not changed.
            rgb: (H, W, 3) uint8.
            stamp: Seconds, of the image.

        Raises:
            InputError: the maps have another size than the image.
        """
        height, width = rgb.shape[:2]
        _check_sizes(prediction, (height, width))
        if self.time_constant == 0:
            return prediction
        reduced = min(self._working_width, width)
        size = reduced, max(1, round(height * reduced / width))
        motion = self._motion(rgb, (width, height, prediction.depth_quantity), stamp)
        if motion is not None:
            motion = motion.resized(size)
        elapsed, self._stamp = stamp - self._stamp, stamp
        keep = math.exp(-elapsed / self.time_constant)
        keep_drift = math.exp(-elapsed / (DRIFT_RATIO * self.time_constant))
        # A map that is not asked for now has no past in the next frame.
        if prediction.depth is None and prediction.depth_relative is None:
            self._depth = SteadyDepth()
        if prediction.normals is None:
            self._normals = SteadyNormals()
        if prediction.semantic is None:
            self._classes = SteadyClasses()
        steady = replace(prediction)
        if prediction.depth is not None:
            steady.depth = self._depth.filter(prediction.depth, size, motion, keep, keep_drift, is_metric=True)
        elif prediction.depth_relative is not None:
            steady.depth_relative = self._depth.filter(prediction.depth_relative, size, motion, keep, keep_drift)
        if prediction.normals is not None:
            steady.normals = self._normals.filter(prediction.normals, size, motion, keep)
        if prediction.semantic is not None:
            steady.semantic, steady.semantic_confidence = self._classes.filter(
                prediction.semantic, prediction.semantic_confidence, size, motion, keep
            )
        return steady

    def _motion(self, rgb: UInt8Image, key: tuple[object, ...], stamp: float) -> Motion | None:
        """The motion since the last frame; None, with everything forgotten, where there is no past to carry on."""
        if key != self._key or not 0 < stamp - self._stamp <= MAX_GAP:
            self.reset()
            self._key = key
        motion = self._tracker.track(rgb)
        if motion is None:
            self._forget_maps()
        return motion


def _check_sizes(prediction: Prediction, shape: tuple[int, ...]) -> None:
    for name in ("depth", "depth_relative", "normals", "semantic"):
        image = getattr(prediction, name)
        if image is not None and image.shape[:2] != shape:
            raise InputError(
                f"{name} has {image.shape[1]}x{image.shape[0]} pixels, the image has {shape[1]}x{shape[0]}"
            )
