"""Names of the input topics, and the camera_info that goes with an image."""

from __future__ import annotations

from collections import OrderedDict

from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from diffusion_perception_ros.ros.messages import belongs_to, stamp_nanoseconds


def topic_of(camera: str, topic: str) -> str:
    """A topic in the namespace of a camera; as it is for the only camera of a node, which has no name."""
    return f"{camera}/{topic}" if camera else topic


def image_topic(node: Node, camera: str, image_transport: str) -> str:
    """The resolved topic of the images; a transport's name follows the remapped `image`, as in image_transport."""
    base = node.resolve_topic_name(topic_of(camera, "image"))
    return base if image_transport == "raw" else f"{base}/{image_transport}"


def camera_info_topic(node: Node, camera: str) -> str:
    """The topic that `camera_info` was remapped to, else the sibling of the image topic, as image_transport has it."""
    name = topic_of(camera, "camera_info")
    plain = expand_topic_name(name, node.get_name(), node.get_namespace())
    remapped: str = node.resolve_topic_name(name)
    if remapped != plain:
        return remapped
    return node.resolve_topic_name(topic_of(camera, "image")).rpartition("/")[0] + "/camera_info"


class CameraInfos:
    """The last few camera_info messages. Written by the executor's thread, read by the worker's."""

    KEPT = 8

    def __init__(self) -> None:
        self._by_stamp: OrderedDict[int, CameraInfo] = OrderedDict()
        self._latest: CameraInfo | None = None
        self.any_yet = False
        """One has come, though it may have been forgotten since."""

    def add(self, info: CameraInfo) -> None:
        """Takes a message in."""
        infos, stamp = OrderedDict(self._by_stamp), stamp_nanoseconds(info.header)
        infos[stamp] = info
        infos.move_to_end(stamp)
        while len(infos) > self.KEPT:
            infos.popitem(last=False)
        # Assigned as a whole: the other thread sees the old or the new one.
        self._by_stamp, self._latest, self.any_yet = infos, info, True

    def restart(self, stamp: float) -> None:
        """Time starts anew at a stamp in seconds: forgets those of the old time, not those that came ahead of it."""
        kept = OrderedDict((key, info) for key, info in self._by_stamp.items() if belongs_to(stamp, info.header))
        self._by_stamp, self._latest = kept, next(reversed(kept.values()), None)

    def matching(self, stamp: int) -> CameraInfo | None:
        """The message with the image's stamp, else the latest, None if there was none."""
        return self._by_stamp.get(stamp, self._latest)
