"""Starts nodes as processes and talks to them over DDS; waits for conditions, never for time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, SetParametersResult
from rcl_interfaces.srv import DescribeParameters, SetParameters, SetParametersAtomically
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter as RclpyParameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header


PATIENCE = 90.0
"""Seconds until a condition that does not come true is a failure; generous, because machines are busy."""

RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)

Value = TypeVar("Value")


class Process:
    """A node in a process of its own."""

    def __init__(self, module: str, arguments: Sequence[str], environment: dict[str, str], folder: Path) -> None:
        self.output, self.errors = folder / "stdout", folder / "stderr"
        with self.output.open("wb") as stdout, self.errors.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"diffusion_perception_ros.ros.{module}", "--ros-args", *arguments],
                stdout=stdout,
                stderr=stderr,
                env=environment,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def log(self) -> str:
        return self.errors.read_text(errors="replace")

    def wait(self) -> int:
        """Exit code, once it ends by itself."""
        return self._process.wait(PATIENCE)

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Asks it to end, as Ctrl-C does; returns the exit code."""
        if self.is_running:
            self._process.send_signal(how)
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the node ignored {how.name}; its log:\n{self.log}") from None

    def summary(self) -> dict[str, Any]:
        """The line of JSON that players and recorders print at their end."""
        return json.loads(self.output.read_text().strip().splitlines()[-1])


class Ros:
    """One ROS domain: a node in this process and the processes started from it."""

    def __init__(self, domain: int, folder: Path) -> None:
        self.domain, self._folder = domain, folder
        self._context = Context()
        self._processes: list[Process] = []

    def __enter__(self) -> Ros:
        rclpy.init(context=self._context, domain_id=self.domain)
        self.node = rclpy.create_node("test", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.diagnostics: dict[str, DiagnosticStatus] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, RELIABLE)
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            with contextlib.suppress(AssertionError):
                process.stop()
            print(f"log of process {process.pid}:\n{process.log}")  # pytest shows it if a test failed
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def start(self, module: str, *arguments: str, **environment: str) -> Process:
        """Starts a node of the package in this domain."""
        folder = self._folder / str(len(self._processes))
        folder.mkdir()
        process = Process(module, arguments, {**os.environ, "ROS_DOMAIN_ID": str(self.domain), **environment}, folder)
        self._processes.append(process)
        return process

    # Waiting

    def wait_for(self, condition: Callable[[], Value], what: str, patience: float = PATIENCE) -> Value:
        """Serves callbacks until `condition()` is true, and returns its value."""
        deadline = time.monotonic() + patience
        while not (value := condition()):
            if time.monotonic() > deadline:
                logs = "\n".join(process.log[-3000:] for process in self._processes if process.is_running)
                raise AssertionError(f"never happened: {what}; logs of the nodes:\n{logs}")
            self._executor.spin_once(timeout_sec=0.05)
        return value

    def pause(self, seconds: float) -> None:
        """Serves callbacks for a while, where the order of two topics matters."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.02)

    def repeat_until(self, action: Callable[[], None], condition: Callable[[], Value], what: str) -> Value:
        """Repeats an action every few seconds until the condition is true: best-effort images may get lost."""
        next_time = 0.0

        def act_and_check() -> Value:
            nonlocal next_time
            if time.monotonic() > next_time:
                action()
                next_time = time.monotonic() + 5
            return condition()

        return self.wait_for(act_and_check, what)

    def collect(self, kind: Any, topic: str, qos: QoSProfile = RELIABLE) -> Collected:
        """Subscribes to a topic."""
        return Collected(self.node, kind, topic, qos)

    def status(self, part: str, words: str) -> DiagnosticStatus:
        """Waits until the diagnostics of a part of the perception node ("images", ...) contain some words."""

        def found() -> DiagnosticStatus | None:
            matching = [status for name, status in self.diagnostics.items() if name.endswith(f": {part}")]
            return next((status for status in matching if words in status.message), None)

        return self.wait_for(found, f"'{words}' in the diagnostics of {part}")

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        self.diagnostics.update({status.name: status for status in array.status})

    # Services

    def call(self, kind: Any, name: str, request: Any, repeat: bool = False) -> Any:
        """Calls a service and returns its response.

        `repeat`: ask again if none comes: on a busy machine a server may answer before it has discovered our reader.
        """
        client = self.node.create_client(kind, name)
        self.wait_for(client.service_is_ready, f"service {name}")
        futures = [client.call_async(request)]
        if repeat:
            self.repeat_until(
                lambda: futures.append(client.call_async(request)),
                lambda: any(future.done() for future in futures),
                f"response of {name}",
            )
        self.wait_for(lambda: any(future.done() for future in futures), f"response of {name}")
        self.node.destroy_client(client)
        return next(future.result() for future in futures if future.done())

    def state(self, node: str = "/perception_node") -> str:
        """Lifecycle state."""
        return self.call(GetState, f"{node}/get_state", GetState.Request(), repeat=True).current_state.label

    def wait_for_state(self, label: str, node: str = "/perception_node") -> None:
        """Waits until the diagnostics say that state; an autostart goes on in the background."""

        def reported() -> bool:
            parts = [name.partition(": ")[2] for name in self.diagnostics if name.startswith(f"{node}: ")]
            return any(self.value(part, "State", node) == label for part in parts)

        self.wait_for(reported, f"{node} is {label}")

    def values(self, part: str, node: str = "/perception_node") -> dict[str, str]:
        """The values of the last diagnostics of a part, none before there are any."""
        status = self.diagnostics.get(f"{node}: {part}")
        return {pair.key: pair.value for pair in status.values} if status else {}

    def value(self, part: str, key: str, node: str = "/perception_node") -> str:
        """A value of the last diagnostics of a part, empty if they have none (yet)."""
        return self.values(part, node).get(key, "")

    def message(self, part: str, node: str = "/perception_node") -> str:
        """The message of the last diagnostics of a part, empty before there are any."""
        status = self.diagnostics.get(f"{node}: {part}")
        return status.message if status else ""

    def change_state(self, transition: str, node: str = "/perception_node") -> bool:
        """Asks for a lifecycle transition by its label."""
        request = ChangeState.Request()
        request.transition.label = transition
        response = self.call(ChangeState, f"{node}/change_state", request)
        self.forget_diagnostics(node)
        return response.success

    def forget_diagnostics(self, node: str = "/perception_node") -> None:
        """What the node said so far is of the past: `status` and `value` wait for what it says next."""
        self.diagnostics = {name: status for name, status in self.diagnostics.items() if not name.startswith(node)}

    def set_parameters(
        self, node: str = "/perception_node", atomically: bool = False, **values: Any
    ) -> list[SetParametersResult]:
        """Sets parameters of the node; one result per parameter, or one for all."""
        parameters = [parameter_message(name, value) for name, value in values.items()]
        if atomically:
            request = SetParametersAtomically.Request(parameters=parameters)
            return [self.call(SetParametersAtomically, f"{node}/set_parameters_atomically", request).result]
        request = SetParameters.Request(parameters=parameters)
        return self.call(SetParameters, f"{node}/set_parameters", request).results

    def describe(self, name: str, node: str = "/perception_node") -> Any:
        """The descriptor of a parameter."""
        request = DescribeParameters.Request(names=[name])
        return self.call(DescribeParameters, f"{node}/describe_parameters", request).descriptors[0]


class Collected:
    """Messages of a topic, by the stamp of their header where they have one."""

    def __init__(self, node: Any, kind: Any, topic: str, qos: QoSProfile) -> None:
        self.messages: list[Any] = []
        self._node = node
        self.subscription = node.create_subscription(kind, topic, self.messages.append, qos)

    def at(self, stamp: float) -> Any | None:
        """The latest message with this stamp in seconds."""
        return next((item for item in reversed(self.messages) if seconds(item.header) == stamp), None)

    def close(self) -> None:
        self._node.destroy_subscription(self.subscription)


def parameter_message(name: str, value: Any) -> Parameter:
    return RclpyParameter(name, value=value).to_parameter_msg()


def header(stamp: float, frame_id: str = "camera") -> Header:
    """Stamps are multiples of 1/64 s in tests, so that seconds are exact as floats."""
    message = Header(frame_id=frame_id)
    message.stamp.sec, message.stamp.nanosec = int(stamp), round(stamp % 1 * 1e9)
    return message


def seconds(message: Header) -> float:
    return message.stamp.sec + message.stamp.nanosec * 1e-9


def image(rows: np.ndarray, encoding: str, width: int, stamp: float, bigendian: int = 0) -> Image:
    """Image message of rows of bytes (rows, step)."""
    height = rows.shape[0] * 2 // 3 if encoding in ("nv12", "nv21") else rows.shape[0]
    message = Image(header=header(stamp), height=height, width=width, encoding=encoding, step=rows.shape[1])
    message.is_bigendian = bigendian
    message.data.frombytes(np.ascontiguousarray(rows))
    return message


def rgb_image(rgb: np.ndarray, stamp: float) -> Image:
    return image(rgb.reshape(rgb.shape[0], -1), "rgb8", rgb.shape[1], stamp)


def compressed_image(data: bytes, format: str, stamp: float) -> CompressedImage:
    message = CompressedImage(header=header(stamp), format=format)
    message.data.frombytes(data)
    return message


def camera_info(stamp: float, width: int, height: int, focal: float = 100.0, frame_id: str = "camera") -> CameraInfo:
    """Pinhole camera with the principal point in the middle."""
    info = CameraInfo(header=header(stamp, frame_id), width=width, height=height, distortion_model="plumb_bob")
    cx, cy = (width - 1) / 2, (height - 1) / 2
    info.d = [0.0] * 5
    info.k = np.array([focal, 0, cx, 0, focal, cy, 0, 0, 1.0])
    info.p = np.array([focal, 0, cx, 0, 0, focal, cy, 0, 0, 0, 1.0, 0])
    return info


def pixels(message: Image) -> np.ndarray:
    """An output image as an array (H, W) or (H, W, 3)."""
    dtype, channels = {
        "mono8": (np.uint8, 1),
        "mono16": (np.uint16, 1),
        "rgb8": (np.uint8, 3),
        "32FC1": (np.float32, 1),
        "32FC3": (np.float32, 3),
    }[message.encoding]
    assert message.step == message.width * channels * np.dtype(dtype).itemsize
    array = np.frombuffer(message.data, dtype).reshape(message.height, message.width, channels)
    return array[..., 0] if channels == 1 else array
