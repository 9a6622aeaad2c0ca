"""A subscriber as a process of its own, to be stopped and killed: `python -m faults.reader DOMAIN TOPIC...`."""

from __future__ import annotations

import os
import sys

import rclpy
from harness import RELIABLE
from sensor_msgs.msg import Image


def main(domain: int, topics: list[str]) -> None:
    """Receives until it is ended."""
    rclpy.init(domain_id=domain)
    node = rclpy.create_node(f"reader_{os.getpid()}")
    for topic in topics:
        node.create_subscription(Image, topic, lambda message: None, RELIABLE)
    rclpy.spin(node)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
