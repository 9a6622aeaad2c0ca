"""What the model is asked for: points and masks that came on the prompt topics, for one camera."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import PointStamped
from sensor_msgs.msg import Image

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.inference.image_encodings import ImageLimits
from diffusion_perception_ros.inference.image_messages import color_of
from diffusion_perception_ros.ros.problems import Kind, Problems


class PromptTopics:
    """The last prompts, which hold for every image until others replace them.

    Written by the executor's thread, read by the worker's.
    """

    def __init__(self, card: ModelCard, problems: Problems) -> None:
        self._most = card.points.most if card.points else 0
        self._problems = problems
        self._points: deque[PointStamped] = deque(maxlen=self._most)
        self._mask: Image | None = None

    @property
    def any_yet(self) -> bool:
        """A prompt has come since the activation."""
        return bool(self._points) or self._mask is not None

    def add_point(self, message: PointStamped) -> None:
        """Takes a point in; the oldest of more than the model takes is forgotten."""
        self._points.append(message)

    def set_mask(self, message: Image) -> None:
        """Takes a mask in."""
        self._mask = message

    def points(self, frame_id: str, width: int, height: int, most: int) -> npt.NDArray[np.float64] | None:
        """(N, 3): u, v in pixels and 1 = inside the object, 0 = outside; None without one that can be used.

        Args:
            frame_id: Of the image, which a point must share if it names a frame.
            width: Of the image.
            height: Of the image.
            most: Points to use, the newest, 0 = as many as the model takes.
        """
        rows = []
        for message in tuple(self._points)[-(most or self._most) :]:
            u, v = message.point.x, message.point.y
            frame = message.header.frame_id
            if frame and frame != frame_id:
                reason = f"prompt frame '{frame}' does not match image frame '{frame_id}'"
            elif not (-0.5 <= u <= width - 0.5 and -0.5 <= v <= height - 0.5):
                reason = f"the prompt ({u:g}, {v:g}) lies outside of the image of {width}x{height} pixels"
            else:
                rows.append((u, v, 0.0 if message.point.z < 0 else 1.0))
                continue
            self._problems.report(Kind.PROMPT, reason)
        return np.array(rows) if rows else None

    def mask(self, width: int, height: int, limits: ImageLimits) -> npt.NDArray[np.bool_] | None:
        """(H, W), where the object can be seen; None without one that can be used.

        Args:
            width: Of the image.
            height: Of the image.
            limits: Of what is decoded.
        """
        if self._mask is None:
            return None
        try:
            seen = color_of(self._mask, limits)[..., 0] > 0
        except InputError as error:
            self._problems.report(Kind.PROMPT, f"prompt_mask: {error}")
            return None
        if seen.shape != (height, width):
            size = f"{seen.shape[1]}x{seen.shape[0]}"
            self._problems.report(Kind.PROMPT, f"prompt_mask has {size} pixels, the image has {width}x{height}")
            return None
        return seen
