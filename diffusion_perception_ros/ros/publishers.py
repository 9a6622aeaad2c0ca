"""The output topics of `perception_node`, and which of them are worth computing: those with subscribers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from diffusion_perception_ros.inference.card import DepthOutput, ModelCard
from diffusion_perception_ros.inference.visualization import colorize_depth, colorize_labels, colorize_normals
from diffusion_perception_ros.msg import PerceptionStatus, SegmentationLabels
from diffusion_perception_ros.ros.camera_info import scaled_camera_info
from diffusion_perception_ros.ros.camera_topics import topic_of
from diffusion_perception_ros.ros.messages import image_message, label_info_message, label_info_type, labels_message
from diffusion_perception_ros.ros.parameters import CameraParameters
from diffusion_perception_ros.ros.point_cloud import PointCloudBuilder
from diffusion_perception_ros.ros.qos import LATCHED_QOS, OUTPUT_QOS, QosReport, publisher_events
from diffusion_perception_ros.sample import FloatImage, Intrinsics, Prediction, UInt8Image


@dataclass
class Frame:
    """One predicted image and all that its messages are made of."""

    header: Header
    rgb: UInt8Image
    prediction: Prediction
    info: CameraInfo | None
    """The camera_info that goes with the image."""
    intrinsics: Intrinsics | None
    """Of the image, None while there is no usable camera_info."""
    parameters: CameraParameters

    @cached_property
    def depth(self) -> FloatImage | None:
        """Metres within the limits of the parameters: NaN below and where the model is unsure, +Inf above."""
        return None if self.prediction.depth is None else self._sure(self._limited(self.prediction.depth))

    @cached_property
    def relative_depth(self) -> FloatImage | None:
        """[0, 1], NaN where the model is unsure."""
        relative = self.prediction.depth_relative
        return None if relative is None else self._sure(relative)

    def _limited(self, depth: FloatImage) -> FloatImage:
        limits = self.parameters
        limited = np.where(depth > limits.max_depth, np.float32(np.inf), depth)
        limited[depth < limits.min_depth] = np.nan
        return limited

    def _sure(self, depth: FloatImage) -> FloatImage:
        least, confidence = self.parameters.min_confidence, self.prediction.confidence
        if least == 0 or confidence is None:
            return depth
        return np.where(confidence < least, np.float32(np.nan), depth)


class Output(NamedTuple):
    """One topic that is published per frame."""

    topic: str
    type: Any
    tasks: tuple[str, ...]
    """What the network must compute for it; the model must have the first, the others are taken if it has them."""
    toggle: str
    """Parameter that offers it."""
    build: Callable[[Outputs, Frame], Any]
    """Its message, None if this frame has none."""
    metric: bool = False
    """It needs depth in metres."""


class Outputs:
    """Publishers for what a model can give of one camera."""

    def __init__(self, node: Node, camera: str, card: ModelCard, on_incompatible_qos: QosReport) -> None:
        self._node, self._camera, self.card = node, camera, card
        self._on_incompatible_qos = on_incompatible_qos
        depth = card.output("depth")
        self.is_metric = isinstance(depth, DepthOutput) and depth.quantity == "metric_depth"
        self.has_scale_source = False
        """Sparse depth comes in, so that a relative model may give metres, too."""
        has_confidence = isinstance(depth, DepthOutput) and depth.confidence_tensor is not None
        self.cloud = PointCloudBuilder("semantic" in card.tasks, has_confidence)
        self._outputs = [output for output in OUTPUTS if output.tasks[0] in card.tasks]
        self._publishers = {item.topic: self._advertise(item.type, item.topic, OUTPUT_QOS) for item in self._outputs}
        self._status = self._advertise(PerceptionStatus, "status", OUTPUT_QOS)
        self._latched = self._publish_labels() if card.labels else []

    @property
    def may_be_metric(self) -> bool:
        """A frame can have depth in metres."""
        return self.is_metric or self.has_scale_source

    def name_of(self, output: Output) -> str:
        """Its topic, relative to the node's namespace."""
        return topic_of(self._camera, output.topic)

    @property
    def topics(self) -> list[str]:
        """Names that are published per frame, relative to the node's namespace."""
        return [self.name_of(output) for output in self._outputs]

    def subscribed(self, parameters: CameraParameters) -> list[Output]:
        """Outputs that are offered and have subscribers."""
        return [
            output
            for output in self._outputs
            if getattr(parameters, output.toggle) and self._publishers[output.topic].get_subscription_count()
        ]

    def tasks(self, parameters: CameraParameters) -> set[str]:
        """What the network must compute for the subscribers there are now."""
        outputs = [item for item in self.subscribed(parameters) if self.may_be_metric or not item.metric]
        return {task for output in outputs for task in output.tasks if task in self.card.tasks}

    def publish(self, frame: Frame) -> None:
        """Converts and publishes what has subscribers."""
        for output in self.subscribed(frame.parameters):
            message = output.build(self, frame)
            if message is not None:
                self._publishers[output.topic].publish(message)

    def publish_status(self, status: PerceptionStatus) -> None:
        """Publishes the status of a frame if somebody listens."""
        if self._status.get_subscription_count():
            self._status.publish(status)

    def destroy(self) -> None:
        """Takes all topics back."""
        for publisher in [*self._publishers.values(), self._status, *self._latched]:
            self._node.destroy_publisher(publisher)

    def _advertise(self, kind: Any, topic: str, qos: QoSProfile) -> Publisher[Any]:
        name = topic_of(self._camera, topic)
        return self._node.create_publisher(
            kind,
            name,
            qos,
            event_callbacks=publisher_events(name, self._on_incompatible_qos),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _publish_labels(self) -> list[Publisher[Any]]:
        header = Header(stamp=self._node.get_clock().now().to_msg())
        labels = self._advertise(SegmentationLabels, "segmentation/labels", LATCHED_QOS)
        labels.publish(labels_message(header, self.card))
        info_type = label_info_type()
        if info_type is None:
            return [labels]
        info = self._advertise(info_type, "segmentation/label_info", LATCHED_QOS)
        info.publish(label_info_message(header, self.card))
        return [labels, info]


def _image(header: Header, image: Any) -> Image | None:
    return None if image is None else image_message(header, image)


def _depth_color(outputs: Outputs, frame: Frame) -> Image | None:
    if frame.depth is not None:
        return image_message(frame.header, colorize_depth(frame.depth))
    if frame.relative_depth is None:
        return None
    disparity = frame.prediction.depth_quantity == "relative_disparity"
    return image_message(frame.header, colorize_depth(frame.relative_depth, near_is_high=disparity))


def _depth_info(outputs: Outputs, frame: Frame) -> CameraInfo | None:
    if frame.info is None or frame.intrinsics is None:
        return None
    return scaled_camera_info(frame.info, frame.header, frame.rgb.shape[1], frame.rgb.shape[0])


def _normals_color(outputs: Outputs, frame: Frame) -> Image | None:
    normals = frame.prediction.normals
    return None if normals is None else image_message(frame.header, colorize_normals(normals))


def _mask_color(outputs: Outputs, frame: Frame) -> Image | None:
    ids = frame.prediction.semantic
    return None if ids is None else image_message(frame.header, colorize_labels(ids, outputs.card.labels))


def _mask_confidence(outputs: Outputs, frame: Frame) -> Image | None:
    confidence = frame.prediction.semantic_confidence
    if confidence is None:
        return None
    return image_message(frame.header, np.rint(np.clip(confidence, 0, 1) * 255).astype(np.uint8))


def _points(outputs: Outputs, frame: Frame) -> PointCloud2 | None:
    if frame.depth is None or frame.intrinsics is None:
        return None
    settings = frame.parameters
    info = None if settings.rectified else frame.info
    return outputs.cloud.build(
        frame.header, frame.depth, frame.rgb, frame.prediction, frame.intrinsics, info, settings.points_decimation
    )


OUTPUTS = (
    Output("depth/image", Image, ("depth",), "publish_depth", lambda _, f: _image(f.header, f.depth), metric=True),
    Output("depth/camera_info", CameraInfo, ("depth",), "publish_depth", _depth_info),
    Output(
        "depth_relative/image", Image, ("depth",), "publish_depth", lambda _, f: _image(f.header, f.relative_depth)
    ),
    Output(
        "depth/confidence", Image, ("depth",), "publish_depth", lambda _, f: _image(f.header, f.prediction.confidence)
    ),
    Output("depth/image_color", Image, ("depth",), "publish_depth", _depth_color),
    Output(
        "normals/image", Image, ("normals",), "publish_normals", lambda _, f: _image(f.header, f.prediction.normals)
    ),
    Output("normals/image_color", Image, ("normals",), "publish_normals", _normals_color),
    Output(
        "segmentation/mask",
        Image,
        ("semantic",),
        "publish_segmentation",
        lambda _, f: _image(f.header, f.prediction.semantic),
    ),
    Output("segmentation/confidence", Image, ("semantic",), "publish_segmentation", _mask_confidence),
    Output("segmentation/image_color", Image, ("semantic",), "publish_segmentation", _mask_color),
    Output(
        "instances/image",
        Image,
        ("instances",),
        "publish_instances",
        lambda _, f: _image(f.header, f.prediction.instances),
    ),
    Output("points", PointCloud2, ("depth", "semantic"), "publish_points", _points, metric=True),
)
"""Topics are relative to the camera's namespace, for a node of one camera the node's."""
