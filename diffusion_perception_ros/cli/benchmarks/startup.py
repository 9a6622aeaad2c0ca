"""Prints the CPU time until a perception node is active, of this process from its first instruction on, as JSON."""

from __future__ import annotations

import json
import os
import resource
import sys

import rclpy
from rclpy.parameter import Parameter

from diffusion_perception_ros.ros.perception_node import PerceptionNode


def main() -> None:
    """`python -m … MODEL`."""
    rclpy.init()
    overrides = [
        Parameter("model", value=sys.argv[1]),
        Parameter("threads", value=1),
        Parameter("backend", value="cpu"),
    ]
    node = PerceptionNode(parameter_overrides=overrides)
    node.trigger_configure()
    node.trigger_activate()
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"cpu_s": used.ru_utime + used.ru_stime}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
