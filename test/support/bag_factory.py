"""Small bags of a camera with registered depth, in every storage that bags come in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore


START = 100.0
PERIOD = 0.1


@dataclass
class BagSpec:
    """What is in a bag: frame i is shown at `START + PERIOD * i`, has red = 20 i and is 1 + i / 4 metres away."""

    frames: int = 5
    storage: str = "mcap"
    """`mcap`, `mcap-zstd`, `sqlite3` or `ros1`."""
    compressed: bool = False
    width: int = 64
    height: int = 48
    focal: float = 50.0
    depth_frame_id: str = "camera_optical"
    depth_delay: float = 0.0
    broken_image: int | None = None
    """The frame whose image is cut off."""
    noise: bool = False
    """Pictures that do not compress, so that a truncated file loses some."""
    depth: bool = True
    ramp: bool = False
    """Brightness and depth grow from row to row: 3 cm and 3 steps of grey each."""


def write_bag(folder: Path, spec: BagSpec) -> Path:
    """Writes a bag below `folder` and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    if spec.storage == "ros1":
        path = folder / "camera.bag"
        types = get_typestore(Stores.ROS1_NOETIC)
        with Writer1(path) as bag:
            _fill(bag, types, types.serialize_ros1, spec, {"seq": 0})
        return path
    path = folder / "camera"
    plugin = StoragePlugin.SQLITE3 if spec.storage == "sqlite3" else StoragePlugin.MCAP
    types = get_typestore(Stores.ROS2_JAZZY)
    writer = Writer2(path, version=9, storage_plugin=plugin)
    if spec.storage == "mcap-zstd":
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer as bag:
        _fill(bag, types, types.serialize_cdr, spec, {})
    return path


def _fill(bag: Any, types: Any, serialize: Any, spec: BagSpec, header_extra: dict[str, int]) -> None:
    kinds = {name: types.types[f"sensor_msgs/msg/{name}"] for name in ("Image", "CompressedImage", "CameraInfo")}
    image_kind = "CompressedImage" if spec.compressed else "Image"
    topics = {
        "image": ("/camera/image_raw" + ("/compressed" if spec.compressed else ""), image_kind),
        "info": ("/camera/camera_info", "CameraInfo"),
    }
    if spec.depth:
        topics["depth"] = ("/camera/depth/image_raw", "Image")
    connections = {
        key: bag.add_connection(topic, f"sensor_msgs/msg/{kind}", typestore=types)
        for key, (topic, kind) in topics.items()
    }

    def header(seconds: float, frame_id: str) -> Any:
        stamp = types.types["builtin_interfaces/msg/Time"](*_split(seconds))
        return types.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id, **header_extra)

    def write(key: str, seconds: float, message: Any) -> None:
        sec, nanosec = _split(seconds)
        bag.write(connections[key], sec * 10**9 + nanosec, serialize(message, f"sensor_msgs/msg/{topics[key][1]}"))

    for index in range(spec.frames):
        seconds = START + PERIOD * index
        write("info", seconds, _camera_info(types, header(seconds, "camera_optical"), spec))
        write("image", seconds, _image(kinds, header(seconds, "camera_optical"), spec, index))
        if spec.depth:
            seconds += spec.depth_delay
            depth = np.full((spec.height, spec.width), 1000 + 250 * index, np.uint16)
            if spec.ramp:
                depth += (30 * np.arange(spec.height, dtype=np.uint16))[:, None]
            depth[:2] = 0
            message = _raw(kinds["Image"], header(seconds, spec.depth_frame_id), depth, "16UC1")
            write("depth", seconds, message)


def _split(seconds: float) -> tuple[int, int]:
    return divmod(round(seconds * 1e9), 10**9)


def _image(kinds: dict[str, Any], header: Any, spec: BagSpec, index: int) -> Any:
    rgb = np.empty((spec.height, spec.width, 3), np.uint8)
    rgb[...] = (20 * index % 256, 60, 90)
    if spec.ramp:
        rgb[...] = 50 + 3 * np.arange(spec.height, dtype=np.uint8)[:, None, None]
    if spec.noise:
        rgb[4:] = np.random.default_rng(index).integers(0, 256, rgb[4:].shape)
    broken = index == spec.broken_image
    if not spec.compressed:
        return _raw(kinds["Image"], header, rgb, "rgb8", shorten=broken)
    data = cv2.imencode(".jpg", rgb[:, :, ::-1])[1].ravel()
    return kinds["CompressedImage"](
        header=header, format="rgb8; jpeg compressed bgr8", data=data[: len(data) // 2] if broken else data
    )


def _raw(kind: Any, header: Any, image: np.ndarray, encoding: str, shorten: bool = False) -> Any:
    data = np.ascontiguousarray(image).view(np.uint8).reshape(-1)
    height, width = image.shape[:2]
    return kind(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=data.size // height,
        data=data[: data.size // 2] if shorten else data,
    )


def _camera_info(types: Any, header: Any, spec: BagSpec) -> Any:
    focal, cx, cy = spec.focal, (spec.width - 1) / 2, (spec.height - 1) / 2
    matrices = {
        "d": np.zeros(5),
        "k": np.array([focal, 0, cx, 0, focal, cy, 0, 0, 1.0]),
        "r": np.eye(3).ravel(),
        "p": np.array([focal, 0, cx, 0, 0, focal, cy, 0, 0, 0, 1.0, 0]),
    }
    if hasattr(header, "seq"):
        matrices = {name.upper(): values for name, values in matrices.items()}
    roi = types.types["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return types.types["sensor_msgs/msg/CameraInfo"](
        header=header,
        height=spec.height,
        width=spec.width,
        distortion_model="plumb_bob",
        binning_x=0,
        binning_y=0,
        roi=roi,
        **matrices,
    )
