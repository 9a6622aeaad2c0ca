"""Quality of service of the node's topics, all of which `qos_overrides` parameters can change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy


try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

IMAGE_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Best effort matches every publisher. Stale images are dropped by `FairWorker`, which counts them; a queue of one
would lose them uncounted while other work keeps the executor from taking them."""

CAMERA_INFO_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)

SPARSE_DEPTH_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)

PROMPT_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""A click must not get lost."""

OUTPUT_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""Reliable matches every subscriber; rviz asks for it."""

LATCHED_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)

QosReport = Callable[[str, Any], None]
"""Gets the topic and the event when the other end's QoS does not match."""


def publisher_events(topic: str, report: QosReport) -> PublisherEventCallbacks:
    """Callbacks of a publisher that report incompatible subscribers."""
    return PublisherEventCallbacks(incompatible_qos=lambda event: report(topic, event))


def subscription_events(topic: str, report: QosReport) -> SubscriptionEventCallbacks:
    """Callbacks of a subscription that report incompatible publishers."""
    return SubscriptionEventCallbacks(incompatible_qos=lambda event: report(topic, event))
