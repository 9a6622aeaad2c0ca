"""Names of message types."""

from __future__ import annotations

from rosbags.convert.converter import STATIC_MSGTYPE_RENAMES


def ros2_name(name: str) -> str:
    """The ROS 2 name of a ROS 1 type: `sensor_msgs/Image` becomes `sensor_msgs/msg/Image`."""
    package, _, kind = name.partition("/")
    full = name if "/msg/" in name else f"{package}/msg/{kind}"
    return STATIC_MSGTYPE_RENAMES.get(full, full)
