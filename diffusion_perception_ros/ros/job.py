"""One camera image on its way through the node, from the callback to the messages about it."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from diffusion_perception_ros.inference.video import header_of
from diffusion_perception_ros.ros.messages import stamp_nanoseconds
from diffusion_perception_ros.ros.parameters import CameraParameters
from diffusion_perception_ros.sample import Intrinsics, UInt8Image


@dataclass
class Job:
    """An image as it came, and what `Stages.prepare` makes of it."""

    message: Image | CompressedImage
    arrival: float
    """time.perf_counter() when it came."""
    rgb: UInt8Image = field(init=False)
    """(H, W, 3), sRGB."""
    info: CameraInfo | None = field(init=False)
    """The camera_info that goes with the image, None while there is none that can be used."""
    intrinsics: Intrinsics | None = field(init=False)
    """Of the image, None while there is no usable camera_info."""
    tasks: set[str] = field(init=False)
    """What the topics with subscribers need."""
    parameters: CameraParameters = field(init=False)
    """As they were when the work on the image began."""
    output_size: tuple[int, int] | None = field(init=False)
    """Width and height of the maps, None = the image's."""
    decode_time: float = field(init=False)
    """Seconds."""

    def shrink(self) -> None:
        """Brings image and intrinsics to the size of the maps, which all that follows goes by."""
        if self.output_size is not None:
            self.rgb = np.asarray(cv2.resize(self.rgb, self.output_size, interpolation=cv2.INTER_AREA), np.uint8)
            self.intrinsics = self.intrinsics and self.intrinsics.resized(*self.output_size)

    @property
    def header(self) -> Header:
        """Of the image, and of all that is published about it."""
        header = header_of(self.message)
        return header if isinstance(header, Header) else Header(stamp=header.stamp, frame_id=header.frame_id)

    @property
    def stamp(self) -> float:
        """Of the image, in seconds."""
        return stamp_nanoseconds(self.header) / 1e9

    @property
    def where(self) -> str:
        """Names the image in sentences."""
        stamp = self.header.stamp
        return f"image {stamp.sec}.{stamp.nanosec:09d} of '{self.header.frame_id}'"
