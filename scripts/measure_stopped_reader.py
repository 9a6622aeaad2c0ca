"""What one reader that stops (SIGSTOP) costs the other readers of large images: the table in docs/topics.md.

    .venv/bin/python scripts/measure_stopped_reader.py [--reliability reliable] [--seconds 16]

One process publishes 1.2 MB and 3.7 MB images at 5 Hz (depth and normals of 640x480), two read them; after 4 s one of
the two is stopped. Set FASTDDS_DEFAULT_PROFILES_FILE as for the node.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image


SIZES = {"depth": 640 * 480 * 4, "normals": 640 * 480 * 12}
PERIOD, STOP_AFTER = 0.2, 4.0


def profile(reliability: str) -> QoSProfile:
    """Depth 1, as the node's outputs."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy[reliability.upper()])


def read(reliability: str) -> None:
    """Prints when images come."""
    rclpy.init()
    node = rclpy.create_node(f"reader_{os.getpid()}")
    for topic in SIZES:
        node.create_subscription(
            Image, topic, lambda message: print(time.monotonic(), flush=True), profile(reliability)
        )
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        return


def publish(reliability: str, seconds: float) -> None:
    """Publishes, stops a reader, and prints what the other got."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("healthy", "stopped")]
        command = [sys.executable, __file__, "--read", "--reliability", reliability]
        readers = [subprocess.Popen(command, stdout=output.open("w")) for output in outputs]
        rclpy.init()
        node = rclpy.create_node("writer")
        publishers = {topic: node.create_publisher(Image, topic, profile(reliability)) for topic in SIZES}
        while any(publisher.get_subscription_count() < len(readers) for publisher in publishers.values()):
            time.sleep(0.1)
        start, durations, is_stopped = time.monotonic(), list[tuple[float, float]](), False
        while (now := time.monotonic() - start) < seconds:
            if now > STOP_AFTER and not is_stopped:
                os.kill(readers[1].pid, signal.SIGSTOP)
                is_stopped = True
            begin = time.monotonic()
            for topic, size in SIZES.items():
                message = Image()
                message.data.frombytes(np.zeros(size, np.uint8))
                publishers[topic].publish(message)
            durations.append((now, time.monotonic() - begin))
            time.sleep(max(0.0, PERIOD - (time.monotonic() - begin)))
        for reader in readers:
            reader.kill()
            reader.wait()
        arrivals = [float(line) - start for line in outputs[0].read_text().splitlines()]
    print("| seconds | published | received | publishing, median ms | longest |\n|---|---|---|---|---|")
    for low in np.arange(0, seconds, STOP_AFTER):
        inside = [1000 * duration for moment, duration in durations if low <= moment < low + STOP_AFTER]
        received = sum(low <= moment < low + STOP_AFTER for moment in arrivals)
        if inside:
            row = f"{low:g} to {low + STOP_AFTER:g} | {2 * len(inside)} | {received}"
            print(f"| {row} | {statistics.median(inside):.0f} | {max(inside):.0f} |")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--reliability", choices=("reliable", "best_effort"), default="reliable")
    parser.add_argument("--seconds", type=float, default=16.0)
    arguments = parser.parse_args()
    read(arguments.reliability) if arguments.read else publish(arguments.reliability, arguments.seconds)


if __name__ == "__main__":
    main()
