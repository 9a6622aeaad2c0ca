"""The topics that are published per image: which task of the model each needs, and how its message is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from diffusion_perception_ros.inference.visualization import (
    colorize_depth,
    colorize_flow,
    colorize_labels,
    colorize_normals,
    draw_keypoints,
    unit_bytes,
)
from diffusion_perception_ros.ros.camera_info import scaled_camera_info
from diffusion_perception_ros.ros.frame import Frame
from diffusion_perception_ros.ros.messages import image_message, keypoints_message


class Output(NamedTuple):
    """One topic that is published per image."""

    topic: str
    type: Any
    tasks: tuple[str, ...]
    """What the network must compute for it; the model must have the first, the others are taken if it has them."""
    toggle: str
    """Parameter that offers it."""
    build: Callable[[Frame], Any]
    """Its message, None if this frame has none."""
    metric: bool = False
    """It needs depth in metres."""


Values = Callable[[Frame], npt.NDArray[Any] | None]
"""Gives (H, W) or (H, W, C), None if this frame has none."""


def _image(topic: str, task: str, toggle: str, values: Values, metric: bool = False) -> Output:
    """A topic of images, whose `values` decide about its encoding."""

    def build(frame: Frame) -> Image | None:
        array = values(frame)
        return None if array is None else image_message(frame.header, array, topic, frame.memory)

    return Output(topic, Image, (task,), toggle, build, metric)


def _depth_color(frame: Frame) -> npt.NDArray[Any] | None:
    depth = frame.relative_depth if frame.depth is None else frame.depth
    if depth is None:
        return None
    is_disparity = frame.depth is None and frame.prediction.depth_quantity == "relative_disparity"
    return colorize_depth(depth, near_is_high=is_disparity, allocate=frame.memory.allocator("depth/image_color"))


def _depth_info(frame: Frame) -> CameraInfo | None:
    job = frame.job
    if job.info is None or job.intrinsics is None:
        return None
    return scaled_camera_info(job.info, job.header, job.rgb.shape[1], job.rgb.shape[0])


def _normals_color(frame: Frame) -> npt.NDArray[Any] | None:
    normals = frame.prediction.normals
    return None if normals is None else colorize_normals(normals, frame.memory.allocator("normals/image_color"))


def _classes_color(frame: Frame) -> npt.NDArray[Any] | None:
    ids = frame.prediction.semantic
    if ids is None:
        return None
    return colorize_labels(ids, frame.card.labels, frame.memory.allocator("segmentation/image_color"))


def _mask(frame: Frame) -> npt.NDArray[np.uint8] | None:
    inside = frame.prediction.mask
    return None if inside is None else np.where(inside >= 0.5, np.uint8(255), np.uint8(0))


def _flow_color(frame: Frame) -> npt.NDArray[Any] | None:
    flow = frame.prediction.flow
    return None if flow is None else colorize_flow(flow)


def _keypoints(frame: Frame) -> PointCloud2 | None:
    keypoints = frame.prediction.keypoints
    return None if keypoints is None else keypoints_message(frame.header, keypoints)


def _keypoints_color(frame: Frame) -> npt.NDArray[Any] | None:
    keypoints = frame.prediction.keypoints
    return None if keypoints is None else draw_keypoints(frame.job.rgb, keypoints)


def _points(frame: Frame) -> PointCloud2 | None:
    job, settings = frame.job, frame.job.parameters
    if frame.depth is None or job.intrinsics is None:
        return None
    return frame.cloud.build(
        job.header,
        frame.depth,
        job.rgb,
        frame.prediction,
        job.intrinsics,
        None if settings.rectified else job.info,
        settings.points_decimation,
        settings.points_edge_filter,
        frame.memory,
    )


OUTPUTS = (
    _image("depth/image", "depth", "publish_depth", lambda frame: frame.depth, metric=True),
    Output("depth/camera_info", CameraInfo, ("depth",), "publish_depth", _depth_info),
    _image("depth_relative/image", "depth", "publish_depth", lambda frame: frame.relative_depth),
    _image("depth/confidence", "depth", "publish_depth", lambda frame: frame.prediction.confidence),
    _image("depth/image_color", "depth", "publish_depth", _depth_color),
    _image("normals/image", "normals", "publish_normals", lambda frame: frame.prediction.normals),
    _image("normals/confidence", "normals", "publish_normals", lambda frame: frame.prediction.normals_confidence),
    _image("normals/image_color", "normals", "publish_normals", _normals_color),
    _image("segmentation/mask", "semantic", "publish_segmentation", lambda frame: frame.prediction.semantic),
    _image(
        "segmentation/confidence",
        "semantic",
        "publish_segmentation",
        lambda frame: unit_bytes(
            frame.prediction.semantic_confidence, frame.memory.allocator("segmentation/confidence")
        ),
    ),
    _image("segmentation/image_color", "semantic", "publish_segmentation", _classes_color),
    _image("instances/image", "instances", "publish_instances", lambda frame: frame.prediction.instances),
    _image("alpha/image", "alpha", "publish_alpha", lambda frame: frame.prediction.alpha),
    _image("mask/image", "mask", "publish_mask", _mask),
    _image("flow/image", "flow", "publish_flow", lambda frame: frame.prediction.flow),
    _image("flow/image_color", "flow", "publish_flow", _flow_color),
    Output("keypoints", PointCloud2, ("keypoints",), "publish_keypoints", _keypoints),
    _image("keypoints/image_color", "keypoints", "publish_keypoints", _keypoints_color),
    _image("albedo/image", "albedo", "publish_materials", lambda frame: unit_bytes(frame.prediction.albedo)),
    _image("shading/image", "shading", "publish_materials", lambda frame: unit_bytes(frame.prediction.shading)),
    _image("residual/image", "residual", "publish_materials", lambda frame: unit_bytes(frame.prediction.residual)),
    _image("material/image", "material", "publish_materials", lambda frame: unit_bytes(frame.prediction.material)),
    Output("points", PointCloud2, ("depth", "semantic"), "publish_points", _points, metric=True),
)
"""Topics are relative to the camera's namespace, for a node of one camera the node's."""
