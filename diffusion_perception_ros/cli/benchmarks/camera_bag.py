"""A bag of cameras that pan over a picture, for live benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from diffusion_perception_ros.sample import UInt8Image


PAN = 4
"""Columns per image."""


def write_camera_bag(path: Path, rates: Mapping[str, float], seconds: float, panorama: UInt8Image) -> Path:
    """Writes calibrated rgb8 images, as many columns of the panorama as it has rows in 4:3, and returns `path`.

    Args:
        path: Of the bag; it must not exist yet.
        rates: Namespace of every camera, such as `/camera`, to its images per second; topics are `image_raw` and
            `camera_info`. Cameras take turns evenly.
        seconds: Length.
        panorama: (H, W, 3) uint8, wider than an image.
    """
    types = get_typestore(Stores.ROS2_JAZZY)
    image_type, info_type = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"
    message, header_type = types.types, types.types["std_msgs/msg/Header"]
    height = panorama.shape[0]
    width = height * 4 // 3
    focal, cx, cy = 0.82 * width, (width - 1) / 2, (height - 1) / 2
    k = np.array([focal, 0, cx, 0, focal, cy, 0, 0, 1])
    p = np.array([focal, 0, cx, 0, 0, focal, cy, 0, 0, 0, 1, 0])
    roi = message["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    shots = sorted(
        (1 + (index + number / len(rates)) / rate, camera, index)
        for number, (camera, rate) in enumerate(rates.items())
        for index in range(round(seconds * rate))
    )
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        images = {name: bag.add_connection(f"{name}/image_raw", image_type, typestore=types) for name in rates}
        infos = {name: bag.add_connection(f"{name}/camera_info", info_type, typestore=types) for name in rates}
        for time, camera, index in shots:
            time_ns = round(time * 1e9)
            stamp = message["builtin_interfaces/msg/Time"](*divmod(time_ns, 10**9))
            header = header_type(stamp, f"{camera.strip('/')}_optical")
            info = message[info_type](
                header, height, width, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), p, 0, 0, roi
            )
            left = PAN * index % (panorama.shape[1] - width + 1)
            pixels = np.ascontiguousarray(panorama[:, left : left + width])
            image = message[image_type](header, height, width, "rgb8", 0, 3 * width, pixels.reshape(-1))
            bag.write(infos[camera], time_ns, types.serialize_cdr(info, info_type))
            bag.write(images[camera], time_ns, types.serialize_cdr(image, image_type))
    return path
