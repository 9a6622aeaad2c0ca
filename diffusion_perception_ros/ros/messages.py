"""Arrays to messages and back, on the paths that rclpy runs fast."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import Joint, ModelCard
from diffusion_perception_ros.msg import SegmentationLabel, SegmentationLabels
from diffusion_perception_ros.ros.message_memory import MessageMemory


_ENCODING_OF = {
    ("uint8", 1): "mono8",
    ("uint16", 1): "mono16",
    ("uint8", 3): "rgb8",
    ("float32", 1): "32FC1",
    ("float32", 2): "32FC2",
    ("float32", 3): "32FC3",
}


def image_message(
    header: Header, image: npt.NDArray[Any], topic: str = "", memory: MessageMemory | None = None
) -> Image:
    """Image message of an array (H, W) or (H, W, C): mono8, mono16, rgb8, 32FC1, 32FC2 or 32FC3, as its dtype says.

    With a `memory` it is a message that is kept there: the one that the array lies in, else one for the topic.
    """
    channels = image.shape[2] if image.ndim == 3 else 1
    message = Image() if memory is None else memory.message_of(topic, image)
    message.header, message.height, message.width = header, image.shape[0], image.shape[1]
    message.encoding = _ENCODING_OF[image.dtype.name, channels]
    message.step = image.shape[1] * channels * image.dtype.itemsize
    message.is_bigendian = 0
    if memory is None:
        fill(message.data, image)
    return message


def fill(field: Any, values: npt.NDArray[Any]) -> None:
    """Appends an array's bytes to an empty uint8[] field; assigning it would check every byte, 100 times slower."""
    field.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8))


def keypoints_message(header: Header, keypoints: npt.NDArray[np.float32]) -> PointCloud2:
    """Keypoints (N, 3) as a cloud with the float32 fields u, v (pixels) and confidence; (N, 4) have joint, too.

    Of the standard messages it is the only one that holds any number of points with named values of each and a header.
    Without x, y and z nobody takes pixels for metres.
    """
    names = ("u", "v", "confidence", "joint")[: keypoints.shape[1]]
    cloud = PointCloud2(header=header, height=1, width=len(keypoints), is_bigendian=False, is_dense=True)
    cloud.fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate(names)
    ]
    cloud.point_step = 4 * len(names)
    cloud.row_step = cloud.point_step * len(keypoints)
    fill(cloud.data, keypoints.astype("<f4"))
    return cloud


def stamp_nanoseconds(header: Header) -> int:
    """Time stamp of a header."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def seconds_between(one: Header, other: Header) -> float:
    """Between two stamps, not negative."""
    return abs(stamp_nanoseconds(one) - stamp_nanoseconds(other)) / 1e9


def belongs_to(stamp: float, header: Header) -> bool:
    """A message that came before time jumped back to a stamp (seconds) is of the new time, not left from the old."""
    return stamp_nanoseconds(header) / 1e9 <= stamp + 1.0


def labels_message(header: Header, card: ModelCard) -> SegmentationLabels:
    """The classes of a model's mask."""
    labels = [
        SegmentationLabel(id=label.id, name=label.name, color=np.array(label.color, np.uint8)) for label in card.labels
    ]
    return SegmentationLabels(header=header, model=card.name, labels=labels)


def joints_message(header: Header, model: str, joints: Sequence[Joint]) -> SegmentationLabels:
    """Names of the numbers in the field `joint` of the keypoints, and the colours that the model draws them in."""
    labels = [
        SegmentationLabel(id=number, name=joint.name, color=np.rint(255 * np.array(joint.color)).astype(np.uint8))
        for number, joint in enumerate(joints)
    ]
    return SegmentationLabels(header=header, model=model, labels=labels)


def message_type(name: str) -> Any:
    """The class of a type name such as `sensor_msgs/msg/Image`.

    Raises:
        InputError: it is not installed here.
    """
    try:
        package, _, kind = name.split("/")
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"message type {name} is not installed here") from error


def label_info_type() -> Any | None:
    """vision_msgs/LabelInfo, None where vision_msgs is not installed (the PyPI wheels lack it)."""
    try:
        return message_type("vision_msgs/msg/LabelInfo")
    except InputError:
        return None


def label_info_message(header: Header, card: ModelCard) -> Any:
    """The same as vision_msgs/LabelInfo, which nav2's semantic segmentation layer reads."""
    vision_class = message_type("vision_msgs/msg/VisionClass")
    classes = [vision_class(class_id=label.id, class_name=label.name) for label in card.labels]
    return message_type("vision_msgs/msg/LabelInfo")(header=header, class_map=classes)
