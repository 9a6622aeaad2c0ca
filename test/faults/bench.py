"""The node under test: good images to it, what comes back, and what the process holds."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
from harness import RELIABLE, Process, Ros, camera_info, compressed_image, rgb_image
from model_factory import write_model
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2


TOPIC = "/camera/image_raw"
INFO_TOPIC = "/camera/camera_info"
NODE = "/perception_node"
WIDTH, HEIGHT = 96, 64
SIZE = {"rule": "longest_side", "longest_side": 96, "multiple_of": 32}
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)

Parameters = dict[str, Any]


@dataclass(frozen=True)
class Resources:
    """What a process holds."""

    memory_mb: float
    """Resident."""
    threads: int
    handles: int
    """Open file descriptors."""


def resources(pid: int) -> Resources:
    process = psutil.Process(pid)
    with process.oneshot():
        return Resources(round(process.memory_info().rss / 1e6, 1), process.num_threads(), process.num_fds())


class Bench:
    """One perception node as a process, fed and observed from this one. Rows of the campaign share it.

    Models of `model_factory` are made when they are first used; `use` starts another node only where it must.
    """

    def __init__(self, ros: Ros, folder: Path) -> None:
        self.ros, self.folder = ros, folder
        self.images = ros.node.create_publisher(Image, TOPIC, RELIABLE)
        self.compressed = ros.node.create_publisher(CompressedImage, f"{TOPIC}/compressed", RELIABLE)
        self.infos = ros.node.create_publisher(CameraInfo, INFO_TOPIC, RELIABLE)
        self.depths = ros.collect(Image, "/depth_relative/image")
        self.clouds = ros.collect(PointCloud2, "/points")
        self._node: Process | None = None
        self._settings: Parameters | None = None
        self._stamps = itertools.count(64 * 1000)

    # The node

    def use(self, model: str | Path = "plain", **parameters: Any) -> Process:
        """The running node with these settings, started anew if it has others or is gone."""
        settings = {"model": model, **parameters}
        if self._node is None or not self._node.is_running or settings != self._settings:
            self.end()
            folder = model if isinstance(model, Path) else self.model(model)
            self._node, self._settings = self.start(model=folder, **parameters), settings
            self.recover()
        return self._node

    def start(self, name: str = "", **parameters: Any) -> Process:
        """Another perception node, for rows that end it."""
        arguments = ["-r", f"image:={TOPIC}", *(["-r", f"__node:={name}"] if name else [])]
        for key, value in {"threads": 1, "diagnostics_period": 0.2, **parameters}.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            arguments += ["-p", f"{key}:={text}"]
        return self.ros.start("perception_node", *arguments)

    def end(self) -> None:
        """Ends the shared node; the next `use` starts it again."""
        if self._node is not None and self._node.is_running:
            self._node.stop(signal.SIGTERM)
        self._node = None
        self.ros.diagnostics.clear()

    def end_hard(self) -> None:
        """The same for a node that may hang."""
        if self._node is not None and self._node.is_running:
            os.kill(self._node.pid, signal.SIGKILL)
            self._node.wait()
        self.end()

    @property
    def node(self) -> Process:
        assert self._node is not None
        return self._node

    def model(self, name: str) -> Path:
        """The folder of a model: `plain`, `metric`, or a kind of `depth` of `model_factory`."""
        folder = self.folder / "models" / name.replace(" ", "_")
        if not folder.exists():
            metric = {"quantity": "metric_depth", "unit": "m", "range": [0.0, 1.0]}
            depth = "brightness" if name in ("plain", "metric") else name
            write_model(folder, ["depth"], depth=depth, size=SIZE, depth_card=metric if name == "metric" else None)
        return folder

    # Good images

    def stamp(self) -> float:
        """The next stamp, 1/64 s after the last."""
        return next(self._stamps) / 64

    def send(self, rgb: np.ndarray = RGB, stamp: float | None = None, focal: float = 100.0) -> float:
        """Publishes an image on the transport in use, with its camera_info; returns its stamp."""
        stamp = self.stamp() if stamp is None else stamp
        height, width = rgb.shape[:2]
        self.infos.publish(camera_info(stamp, width, height, focal))
        if self._settings and self._settings.get("image_transport") == "compressed":
            data = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
            self.compressed.publish(compressed_image(data, "rgb8; png compressed bgr8", stamp))
        else:
            self.images.publish(rgb_image(rgb, stamp))
        return stamp

    def recover(self, patience: float = 90.0) -> float:
        """Seconds until a good image that is sent now or later comes back as depth."""
        start = time.monotonic()
        outputs = self.clouds if self._settings and self._settings["model"] == "metric" else self.depths
        sent: list[float] = []
        next_time = 0.0

        def is_back() -> bool:
            nonlocal next_time
            if time.monotonic() >= next_time:
                sent.append(self.send())
                next_time = time.monotonic() + 0.1
            return any(outputs.at(stamp) for stamp in sent[-50:])

        self.ros.wait_for(is_back, "a good image after the fault comes back", patience)
        del outputs.messages[:-20]
        return time.monotonic() - start

    def rate(self, seconds: float, hertz: float = 30.0) -> float:
        """Maps per second that come back from images sent at a rate."""
        before, start = len(self.depths.messages), time.monotonic()
        while time.monotonic() - start < seconds:
            self.send()
            self.ros.pause(1 / hertz)
        return (len(self.depths.messages) - before) / (time.monotonic() - start)

    # What the node says

    def said(self, part: str, words: str, patience: float = 90.0) -> str:
        """Waits until the diagnostics of a part contain some words, and returns them with their level."""

        def found() -> str:
            for name, status in self.ros.diagnostics.items():
                if name == f"{NODE}: {part}" and words in status.message:
                    return f"{('OK', 'WARN', 'ERROR', 'STALE')[status.level[0]]}: {status.message}"
            return ""

        return self.ros.wait_for(found, f"'{words}' in the diagnostics of {part}", patience)

    def until(self, condition: Callable[[], Any], what: str, patience: float = 90.0) -> Any:
        """Waits while good images keep coming at 10 Hz."""
        next_time = 0.0

        def check() -> Any:
            nonlocal next_time
            if time.monotonic() >= next_time:
                self.send()
                next_time = time.monotonic() + 0.1
            return condition()

        return self.ros.wait_for(check, what, patience)
