"""A camera drive through a procedural room, written as a rosbag2 bag like that of a real RGB-D camera."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import FloatImage, Intrinsics, Sample
from diffusion_perception_ros.world.config import SensorConfig, WorldConfig
from diffusion_perception_ros.world.rendering.renderer import Renderer, create_renderer
from diffusion_perception_ros.world.rendering.sensor import capture
from diffusion_perception_ros.world.sampling import sample_clip
from diffusion_perception_ros.world.scene import Camera


CLIP_SEED = 8
CLIP_SIZE = (640, 480)
CLIP_FRAMES = 60
CLIP_RATE = 15.0
"""Frames per second."""
CLIP_START = 1_700_000_000
"""Stamp of the first frame, seconds."""
JPEG_QUALITY = 90
DEPTH_RESOLUTION = 0.001
"""Depth is stored in steps of this times the square of the distance in metres, never finer than 1 mm: as depth cameras
measure it, and several times smaller once compressed."""
SENSOR = SensorConfig(
    exposure=(0.2, 0.2),
    low_light_share=0.0,
    white_balance=(1.0, 1.0),
    vignetting=(0.15, 0.15),
    bloom=(0.04, 0.04),
    blur_px=(0.2, 0.2),
    motion_blur_share=0.0,
    noise=(0.005, 0.005),
    gamma=(2.2, 2.2),
    filmic_share=1.0,
    filmic_white=(1.6, 1.6),
    contrast=(1.05, 1.05),
    saturation=(1.0, 1.0),
    grey_share=0.0,
    jpeg_share=0.0,
)
"""One camera throughout: nothing but the noise changes from frame to frame."""
LINK_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""REP 103: the link's x is the optical z, its y the optical -x, its z the optical -y."""
OPTICAL_FRAME = "camera_color_optical_frame"
FOREVER = QosTime(9223372036, 854775807)

_types = get_typestore(Stores.ROS2_KILTED)


def render_clip(seed: int = CLIP_SEED, frames: int = CLIP_FRAMES) -> Iterator[tuple[Sample, npt.NDArray[np.float64]]]:
    """Samples in order with the pose (4, 4) of their optical frame in the world."""
    width, height = CLIP_SIZE
    scene, poses = sample_clip(seed, WorldConfig(), width, height, frames, CLIP_RATE)
    renderer: Renderer = create_renderer(width, height, supersample=2)
    try:
        for number, pose in enumerate(poses):
            scene.camera = Camera(scene.camera.intrinsics, pose)
            sample = capture(
                renderer.render(scene),
                scene.camera.intrinsics,
                np.random.default_rng([seed, number]),
                SENSOR,
                stamp=CLIP_START + number / CLIP_RATE,
                frame_id=OPTICAL_FRAME,
                name=f"frame {number}",
            )
            yield sample, pose
    finally:
        renderer.release()


def write_clip(
    folder: str | os.PathLike[str],
    seed: int = CLIP_SEED,
    frames: int = CLIP_FRAMES,
    on_frame: Callable[[], None] = lambda: None,
) -> int:
    """Renders the clip into a bag (mcap, zstd) and returns its size in bytes. The folder appears once it is complete.

    Topics: /camera/color/image_raw/compressed (JPEG) and /camera/color/camera_info, /camera/depth/image_raw (16UC1,
    millimetres, 0 = nothing measured) and /camera/depth/camera_info, /tf (map to camera_link) and /tf_static.

    Raises:
        InputError: the folder exists or cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists: choose a new folder for the clip or delete it.")
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _write_bag(
            partial / folder.name, render_clip(seed, frames), on_frame
        )  # the bag's file is named after its folder
        os.replace(partial / folder.name, folder)
    except OSError as error:
        raise InputError(f"Cannot write the clip {folder}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sum(file.stat().st_size for file in folder.iterdir())


def _write_bag(
    folder: Path, frames: Iterator[tuple[Sample, npt.NDArray[np.float64]]], on_frame: Callable[[], None]
) -> None:
    bag = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
    bag.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with bag:
        topics = {
            "/camera/color/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
            "/camera/color/camera_info": "sensor_msgs/msg/CameraInfo",
            "/camera/depth/image_raw": "sensor_msgs/msg/Image",
            "/camera/depth/camera_info": "sensor_msgs/msg/CameraInfo",
            "/tf_static": "tf2_msgs/msg/TFMessage",
            "/tf": "tf2_msgs/msg/TFMessage",
        }
        connections = {
            topic: bag.add_connection(
                topic, kind, typestore=_types, offered_qos_profiles=[_qos(topic == "/tf_static")]
            )
            for topic, kind in topics.items()
        }

        def write(topic: str, stamp: int, message: Any) -> None:
            data = _types.serialize_cdr(message, topics[topic])
            bag.write(connections[topic], stamp, data)

        for sample, pose in frames:
            assert sample.stamp is not None
            stamp = round(sample.stamp * 1e9)
            header = _header(stamp, OPTICAL_FRAME)
            if stamp == CLIP_START * 10**9:
                write("/tf_static", stamp, _static_transforms(stamp))
            link = pose.copy()
            link[:3, :3] = pose[:3, :3] @ LINK_FROM_OPTICAL.T
            write("/tf", stamp, _new("tf2_msgs/msg/TFMessage", [_transform(stamp, "map", "camera_link", link)]))
            info = _camera_info(header, sample.intrinsics)
            write("/camera/color/camera_info", stamp, info)
            write("/camera/color/image_raw/compressed", stamp, _color(header, sample))
            write("/camera/depth/camera_info", stamp, info)
            write("/camera/depth/image_raw", stamp, _depth(header, sample.depth))
            on_frame()


def to_millimetres(depth: FloatImage | None) -> npt.NDArray[np.uint16]:
    """(H, W) depth in metres to what a depth camera would store: 16UC1 millimetres in its resolution, 0 = nothing."""
    assert depth is not None
    millimetres = 1000.0 * np.where(np.isfinite(depth) & (depth < 65.0), depth, 0.0)
    step = np.maximum(1.0, np.round(DEPTH_RESOLUTION * 1e-3 * millimetres**2))
    return np.asarray(np.round(millimetres / step) * step, np.uint16)


def _new(kind: str, *fields: Any) -> Any:
    return _types.types[kind](*fields)


def _header(stamp: int, frame: str) -> Any:
    time = _new("builtin_interfaces/msg/Time", stamp // 10**9, stamp % 10**9)
    return _new("std_msgs/msg/Header", time, frame)


def _color(header: Any, sample: Sample) -> Any:
    _, data = cv2.imencode(".jpg", sample.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return _new("sensor_msgs/msg/CompressedImage", header, "rgb8; jpeg compressed bgr8", np.asarray(data).ravel())


def _depth(header: Any, depth: FloatImage | None) -> Any:
    pixels = to_millimetres(depth)
    height, width = pixels.shape
    data = pixels.astype("<u2").view(np.uint8).ravel()
    return _new("sensor_msgs/msg/Image", header, height, width, "16UC1", 0, 2 * width, data)


def _camera_info(header: Any, camera: Intrinsics | None) -> Any:
    assert camera is not None
    projection = np.hstack([camera.matrix, np.zeros((3, 1))])
    return _new(
        "sensor_msgs/msg/CameraInfo",
        header,
        camera.height,
        camera.width,
        "plumb_bob",
        np.zeros(5),
        camera.matrix.ravel(),
        np.eye(3).ravel(),
        projection.ravel(),
        0,
        0,
        _new("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False),
    )


def _static_transforms(stamp: int) -> Any:
    optical = np.eye(4)
    optical[:3, :3] = LINK_FROM_OPTICAL
    transforms = [
        _transform(stamp, "camera_link", "camera_color_frame", np.eye(4)),
        _transform(stamp, "camera_color_frame", OPTICAL_FRAME, optical),
    ]
    return _new("tf2_msgs/msg/TFMessage", transforms)


def _transform(stamp: int, parent: str, child: str, pose: npt.NDArray[np.float64]) -> Any:
    turn = cv2.Rodrigues(np.ascontiguousarray(pose[:3, :3]))[0].ravel()
    angle = float(np.linalg.norm(turn))
    axis = turn / angle if angle > 0 else turn
    quaternion = _new("geometry_msgs/msg/Quaternion", *(float(v) for v in axis * np.sin(angle / 2)), np.cos(angle / 2))
    translation = _new("geometry_msgs/msg/Vector3", *(float(value) for value in pose[:3, 3]))
    transform = _new("geometry_msgs/msg/Transform", translation, quaternion)
    return _new("geometry_msgs/msg/TransformStamped", _header(stamp, parent), child, transform)


def _qos(is_latched: bool) -> Qos:
    return Qos(
        QosHistory.KEEP_LAST,
        1 if is_latched else 10,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if is_latched else QosDurability.VOLATILE,
        FOREVER,
        FOREVER,
        QosLiveliness.AUTOMATIC,
        FOREVER,
        False,
    )
