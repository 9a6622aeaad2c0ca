"""The publishers of one camera's outputs, and which of them are worth computing: those with subscribers."""

from __future__ import annotations

import time
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import Header

from diffusion_perception_ros.inference.card import DepthOutput, KeypointsOutput, ModelCard
from diffusion_perception_ros.msg import PerceptionStatus
from diffusion_perception_ros.ros.camera_topics import topic_of
from diffusion_perception_ros.ros.frame import Frame
from diffusion_perception_ros.ros.messages import (
    joints_message,
    label_info_message,
    label_info_type,
    labels_message,
)
from diffusion_perception_ros.ros.outputs import OUTPUTS, Output
from diffusion_perception_ros.ros.parameters import CameraParameters
from diffusion_perception_ros.ros.point_cloud import PointCloudBuilder
from diffusion_perception_ros.ros.problems import Kind, Problems
from diffusion_perception_ros.ros.qos import LATCHED_QOS, OUTPUT_QOS, QosReport, publisher_events


SLOW = 0.1
"""Seconds for publishing a message, usually some milliseconds."""
SLOW_IN_A_ROW = 5


class Outputs:
    """Publishers for what a model can give of one camera."""

    def __init__(self, node: Node, camera: str, card: ModelCard, on_incompatible_qos: QosReport) -> None:
        self._node, self._camera, self.card = node, camera, card
        self._on_incompatible_qos = on_incompatible_qos
        depth = card.output("depth")
        self.is_metric = isinstance(depth, DepthOutput) and depth.quantity == "metric_depth"
        """The model itself gives metres."""
        has_confidence = isinstance(depth, DepthOutput) and depth.confidence_tensor is not None
        self.cloud = PointCloudBuilder("semantic" in card.tasks, has_confidence)
        self._outputs = [output for output in OUTPUTS if output.tasks[0] in card.tasks]
        self._publishers = {item.topic: self._advertise(item.type, item.topic, OUTPUT_QOS) for item in self._outputs}
        self._status = self._advertise(PerceptionStatus, "status", OUTPUT_QOS)
        self._latched = self._publish_labels()
        self._slow: dict[str, int] = {}
        """Messages in a row that took long to publish, by topic."""

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

    def tasks(self, parameters: CameraParameters, gives_metres: bool) -> set[str]:
        """What the network must compute for the subscribers there are now; `gives_metres`: images can have metres."""
        outputs = [item for item in self.subscribed(parameters) if gives_metres or not item.metric]
        return {task for output in outputs for task in output.tasks if task in self.card.tasks}

    def publish(self, frame: Frame, problems: Problems) -> None:
        """Converts and publishes what has subscribers; a topic that fails is a problem and costs only itself."""
        for output in self.subscribed(frame.job.parameters):
            kind = Kind.OUTPUT.of(output.topic)
            try:
                message = output.build(frame)
                if message is not None:
                    self._send(output, message, problems)
            except Exception as error:
                if rclpy.ok():  # else the process is being ended
                    reason = f"nothing on {self.name_of(output)}: {type(error).__name__}: {error}"
                    problems.report(kind, reason, error=True)
            else:
                problems.clear(kind)

    def _send(self, output: Output, message: Any, problems: Problems) -> None:
        start = time.monotonic()
        self._publishers[output.topic].publish(message)
        is_slow = time.monotonic() - start > SLOW
        self._slow[output.topic] = self._slow.get(output.topic, 0) + 1 if is_slow else 0
        if self._slow[output.topic] >= SLOW_IN_A_ROW:
            name = self.name_of(output)
            problems.report(
                Kind.READER,
                f"publishing on {name} takes over {1000 * SLOW:.0f} ms: a reader on this machine has stopped; "
                f"`ros2 topic info -v {name}` names them",
            )

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
        """What the numbers in the masks and keypoints mean, for whoever comes late, too."""
        header = Header(stamp=self._node.get_clock().now().to_msg())
        latched: list[tuple[str, Any]] = []
        if self.card.labels:
            latched.append(("segmentation/labels", labels_message(header, self.card)))
            if label_info_type() is not None:
                latched.append(("segmentation/label_info", label_info_message(header, self.card)))
        keypoints = self.card.output("keypoints")
        if isinstance(keypoints, KeypointsOutput) and keypoints.joints is not None:
            latched.append(("keypoints/labels", joints_message(header, self.card.name, keypoints.joints)))
        publishers = []
        for topic, message in latched:
            publisher = self._advertise(type(message), topic, LATCHED_QOS)
            publisher.publish(message)
            publishers.append(publisher)
        return publishers
