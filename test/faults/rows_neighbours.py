"""Faults of others in the same domain: readers, namesakes, many participants."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import rclpy
from harness import RELIABLE
from rclpy.context import Context
from sensor_msgs.msg import Image

from faults.bench import NODE, TOPIC, Bench
from faults.campaign import row


OUTPUT = "/depth_relative/image"
TESTS = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def reader(bench: Bench) -> Iterator[subprocess.Popen[bytes]]:
    """A reliable subscriber in a process of its own, matched with the node."""
    path = os.pathsep.join([*(str(TESTS / folder) for folder in ("", "ros")), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "faults.reader", str(bench.ros.domain), OUTPUT]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.DEVNULL)
    try:
        bench.ros.wait_for(lambda: f"reader_{process.pid}" in bench.ros.node.get_node_names(), "the reader is there")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def _beside(bench: Bench, how: signal.Signals) -> str:
    alone = bench.rate(4.0)
    with reader(bench) as process:
        bench.recover()
        process.send_signal(how)
        beside = bench.rate(8.0)
    assert beside >= 0.5 * alone, f"{beside:.1f} maps/s beside the {how.name} reader, {alone:.1f} alone"
    return f"{beside:.1f} maps/s beside it, {alone:.1f} alone"


@row("a reliable subscriber is stopped (SIGSTOP)", "the others get their maps at the same rate", quick=True)
def stopped_reader(bench: Bench) -> str:
    return _beside(bench, signal.SIGSTOP)


@row("a reliable subscriber is killed", "the others get their maps at the same rate")
def killed_reader(bench: Bench) -> str:
    return _beside(bench, signal.SIGKILL)


@row("300 subscribers come and go", "nothing stays behind", memory_mb=80.0)
def many_subscribers(bench: Bench) -> str:
    return _subscribers(bench, 300)


@row("30 subscribers come and go", "nothing stays behind", memory_mb=80.0, quick=True)
def some_subscribers(bench: Bench) -> str:
    return _subscribers(bench, 30)


def _subscribers(bench: Bench, count: int) -> str:
    node, topics = bench.ros.node, [OUTPUT, "/depth/image", "/points", "/depth_relative/confidence"]
    for number in range(count):
        subscription = node.create_subscription(Image, topics[number % 2], lambda message: None, RELIABLE)
        if number % 10 == 0:
            bench.send()
            bench.ros.pause(0.05)
        node.destroy_subscription(subscription)
    return f"{count} subscriptions made and ended"


@row("another node has the same name", "said in diagnostics")
def same_name(bench: Bench) -> str:
    other = bench.start(model=bench.model("plain"))
    try:
        return bench.said("network", "name")
    finally:
        other.stop()


@row("50 other participants in the domain", "the node goes on", memory_mb=150.0)
def participants(bench: Bench) -> str:
    contexts = []
    try:
        for number in range(50):
            context = Context()
            rclpy.init(context=context, domain_id=bench.ros.domain)
            contexts.append((context, rclpy.create_node(f"neighbour_{number}", context=context)))
            if number % 10 == 0:
                bench.recover()
        bench.recover()
    finally:
        for context, node in contexts:
            node.destroy_node()
            context.try_shutdown()
    return f"{NODE} predicted with {len(contexts)} of them; images on {TOPIC}"
