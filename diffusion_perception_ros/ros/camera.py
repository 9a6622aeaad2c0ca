"""One camera of `perception_node`: its topics, its stages, what it counts and what is wrong with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PointStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu, PointCloud2

from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.inference.video import header_of
from diffusion_perception_ros.ros.camera_topics import camera_info_topic, image_topic, topic_of
from diffusion_perception_ros.ros.job import Job
from diffusion_perception_ros.ros.log import Log
from diffusion_perception_ros.ros.messages import message_type, stamp_nanoseconds
from diffusion_perception_ros.ros.monitor import Monitor
from diffusion_perception_ros.ros.parameters import CameraParameters
from diffusion_perception_ros.ros.problems import Kind
from diffusion_perception_ros.ros.prompts import PromptTopics
from diffusion_perception_ros.ros.publishers import Outputs
from diffusion_perception_ros.ros.qos import (
    CAMERA_INFO_QOS,
    IMAGE_QOS,
    PROMPT_QOS,
    SPARSE_DEPTH_QOS,
    subscription_events,
)
from diffusion_perception_ros.ros.stages import Stages
from diffusion_perception_ros.ros.stamp_order import Order, StampOrder
from diffusion_perception_ros.ros.transforms import Transforms


_IMAGE_TYPES: dict[str, Any] = {"raw": Image, "compressed": CompressedImage}
_DEPTH_TYPES: dict[str, Any] = {"image": Image, "compressed": CompressedImage, "points": PointCloud2}
VIDEO_TYPES = {
    "ffmpeg": "ffmpeg_image_transport_msgs/msg/FFMPEGPacket",
    "foxglove": "foxglove_msgs/msg/CompressedVideo",
}
"""Transports of video, and the message that each needs; H.264 in CompressedImage is `compressed`."""


class CameraInput:
    """Output topics exist while it is configured, subscriptions while it is active. Lives in the executor's thread."""

    def __init__(
        self,
        node: Node,
        name: str,
        log: Log,
        parameters: Callable[[], CameraParameters],
        transforms: Callable[[], Transforms],
    ) -> None:
        """`name` is the namespace of its topics, empty for the only camera of a node; `log` is the node's."""
        self.name = name
        self.enabled = True
        self._node, self._parameters, self._transforms = node, parameters, transforms
        self._log = log.child(name)
        self.monitor = Monitor(self._log)
        self.inputs: dict[str, Subscription[Any]] = {}
        """`image`, `camera_info` and what else there is, while active."""
        self.outputs: Outputs | None = None
        self.stages: Stages | None = None
        self._offer: Callable[[Job], bool] = lambda job: False
        self._next_due = 0.0
        self._order = StampOrder()
        self._last_format = ""

    @property
    def parameters(self) -> CameraParameters:
        """As they are now for this camera."""
        return self._parameters()

    @property
    def gives_metres(self) -> bool:
        """An image can have depth in metres."""
        if self.stages is None:
            return self.outputs is not None and self.outputs.is_metric
        return self.stages.gives_metres(self.parameters)

    def configure(self, card: ModelCard) -> None:
        """Offers the topics of what the model gives."""
        self.outputs = Outputs(self._node, self.name, card, self.monitor.incompatible_qos)

    def prepare(self) -> Stages:
        """Starts counting anew; returns the stages that its images will go through."""
        assert self.outputs is not None
        self.monitor.restart()
        self._next_due, self._order, self._last_format = 0.0, StampOrder(), ""
        self.stages = Stages(
            self.name, self.outputs, self._parameters, self.monitor, self._node.get_clock(), self._transforms
        )
        return self.stages

    def activate(self, offer: Callable[[Job], bool]) -> None:
        """Subscribes; `offer` takes an image and returns whether it replaced an older one."""
        assert self.outputs is not None
        assert self.stages is not None
        self._offer = offer
        transport = self.parameters.image_transport
        kind = _IMAGE_TYPES.get(transport) or message_type(VIDEO_TYPES[transport])
        self._subscribe("image", kind, image_topic(self._node, self.name, transport), self._on_image, IMAGE_QOS)
        self._subscribe(
            "camera_info",
            CameraInfo,
            camera_info_topic(self._node, self.name),
            self.stages.infos.add,
            CAMERA_INFO_QOS,
        )
        if "depth" in self.outputs.card.tasks and not self.outputs.is_metric:
            sparse = _DEPTH_TYPES[self.parameters.sparse_depth_type]
            topic = self._node.resolve_topic_name(topic_of(self.name, "sparse_depth"))
            self._subscribe("sparse_depth", sparse, topic, self._on_sparse_depth, SPARSE_DEPTH_QOS)
            if self.parameters.gravity_source == "imu":
                topic = self._node.resolve_topic_name(topic_of(self.name, "imu"))
                self._subscribe("imu", Imu, topic, self.stages.ground.gravity.add, SPARSE_DEPTH_QOS)
        self._subscribe_to_prompts(self.outputs.card, self.stages.prompts)
        topics = {name: subscription.topic_name for name, subscription in self.inputs.items()}
        self._log.event(f"images from {topics['image']}, camera_info from {topics['camera_info']}")

    def deactivate(self) -> None:
        """Lets go of the inputs; what is still in work is not published."""
        for subscription in self.inputs.values():
            self._node.destroy_subscription(subscription)
        self.inputs = {}
        self._offer = lambda job: False
        if self.stages is not None:
            self.stages.close()

    def release(self) -> None:
        """Takes the output topics back."""
        if self.outputs is not None:
            self.outputs.destroy()
        self.outputs = self.stages = None

    def reset_rate_limit(self) -> None:
        """Forgets when the next image is due: parameters have changed."""
        self._next_due = 0.0

    def _subscribe(self, name: str, kind: Any, topic: str, callback: Any, qos: QoSProfile) -> None:
        self.inputs[name] = self._node.create_subscription(
            kind,
            topic,
            callback,
            qos,
            event_callbacks=subscription_events(topic, self.monitor.incompatible_qos),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _subscribe_to_prompts(self, card: ModelCard, prompts: PromptTopics) -> None:
        """For models that can be asked for something."""
        for name, kind, is_taken, callback in (
            ("prompt", PointStamped, card.points, prompts.add_point),
            ("prompt_mask", Image, card.prompt_mask, prompts.set_mask),
        ):
            if is_taken:
                topic = self._node.resolve_topic_name(topic_of(self.name, name))
                self._subscribe(name, kind, topic, callback, PROMPT_QOS)

    def _on_image(self, message: Image | CompressedImage) -> None:
        arrival = time.perf_counter()
        statistics = self.monitor.statistics
        statistics.arrived()
        self._notice_format(message)
        if self.stages is not None and not isinstance(message, Image):
            self.stages.video.add(message)
        if not self._is_in_order(message) or not self._is_wanted(arrival):
            statistics.skipped()
        elif self._offer(Job(message, arrival)):
            statistics.dropped()

    def _on_sparse_depth(self, message: Image | PointCloud2) -> None:
        if self.stages is not None:
            self.stages.sparse.add(message)

    def _is_wanted(self, now: float) -> bool:
        settings = self.parameters
        if not self.enabled or self.stages is None or now < self._next_due or not self.stages.tasks(settings):
            return False
        if settings.max_rate > 0:
            period = 1 / settings.max_rate
            # In step with the limit while images keep coming: their jitter must not lower the rate.
            self._next_due = period + (self._next_due if now - self._next_due < period else now)
        return True

    def _is_in_order(self, message: Image | CompressedImage) -> bool:
        """False for an image that is older than the last one, without time having started anew."""
        stamp = stamp_nanoseconds(header_of(message)) / 1e9
        order = self._order.next(stamp)
        if order is Order.RESTART and self.stages is not None:
            self._log.info(f"image stamps jumped back by {self._order.jump:.3f} s: starting anew, as when a bag loops")
            self.stages.restart(stamp)
        if order is Order.LATE:
            topic = self.inputs["image"].topic_name if "image" in self.inputs else "image"
            several = self._node.count_publishers(topic) > 1
            remedy = "several nodes publish them: give every camera a topic of its own" if several else "see who sends"
            reason = f"images on {topic} are out of order, by {self._order.jump:.3f} s: the older ones are skipped"
            self.monitor.problems.report(Kind.STAMPS, f"{reason}; {remedy}")
        return order is not Order.LATE

    def _notice_format(self, message: Image | CompressedImage) -> None:
        is_raw = isinstance(message, Image)
        said = str(getattr(message, "encoding", getattr(message, "format", "")))
        form = f"{message.width}x{message.height} {said[:40]}" if is_raw else said[:80]
        if self._last_format not in ("", form):
            self._log.info(f"images changed from {self._last_format} to {form}")
        self._last_format = form
