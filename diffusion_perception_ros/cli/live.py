"""A bag through the perception node as on a robot: bag player, node and recorder as three processes over DDS."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_perception_ros.cli.processes import Child, Children, children
from diffusion_perception_ros.cli.resources import find_resource
from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.evaluation.recording import STATUS_TOPIC, output_topics
from diffusion_perception_ros.inference.card import ModelCard


NAMESPACE = "/perception"
"""Of the node."""
DDS_PROFILE = "config/fastdds_large_images.xml"
START_TIMEOUT = 120.0
"""Seconds for the node to load its model and for all processes to find each other."""
DRAIN_TIME = 2.0
"""Seconds after the last image until the recorder is stopped: the node may still be predicting."""


def play_live(
    dataset: BagDataset,
    model: Path,
    card: ModelCard,
    recording: Path,
    logs: Path,
    backend: str = "auto",
    rate: float = 1.0,
    sparse_share: float = 0.0,
) -> int:
    """Plays a bag to its end and records everything that the node answers.

    Args:
        dataset: The bag, opened with `depth_required=False`; its colour topic and camera_info are played.
        model, card: What the node runs.
        recording: Folder of the recorder's bag; an old one is replaced.
        logs: Folder for the output of the three processes.
        backend: Of the node.
        rate: Playback speed.
        sparse_share: Of the pixels of the bag's depth, which the node gets as `sparse_depth`; 0 = none of them.

    Returns:
        The number of images published, all of them after node and recorder had been found.

    Raises:
        ChildError: a process failed; the message shows its log.
        InputError: the folder for the logs cannot be written.
    """
    shutil.rmtree(recording, ignore_errors=True)
    duration = (max(dataset.stamps) - min(dataset.stamps)) * 1e-9 / rate
    # Recorded last, so whoever sees its second subscriber (after the node) knows that all outputs are recorded.
    trigger = dataset.camera_info_topic or dataset.image_topic
    transport, base = _transport(dataset.image_topic)
    outputs = [f"{NAMESPACE}/{topic}" for topic in [*output_topics(card), STATUS_TOPIC]]
    with children(logs, _environment()) as group:
        recorder = _start(group, "recorder", output=str(recording), topics=[*outputs, trigger])
        remaps = ["-r", f"__ns:={NAMESPACE}", "-r", f"image:={base}"]
        played = [dataset.image_topic, trigger]
        if sparse_share and dataset.depth_topic is not None:
            remaps += ["-r", f"sparse_depth:={dataset.depth_topic}"]
            played.append(dataset.depth_topic)
        settings: dict[str, object] = {"model": str(model), "backend": backend, "image_transport": transport}
        node = _start(group, "perception_node", remaps, **settings)
        player = _start(
            group,
            "bag_player",
            bag=str(dataset.path.resolve()),
            rate=rate,
            topics=list(dict.fromkeys(played)),
            depth_share=sparse_share or 1.0,
            wait_for=[trigger],
            wait_for_subscribers=2,
            wait_timeout=START_TIMEOUT,
            clock=False,
        )
        # Exit code 1: played except for damaged parts, which the dataset has named too.
        player.wait(START_TIMEOUT + 2 * duration + 30, others=[recorder, node], success=(0, 1))
        time.sleep(DRAIN_TIME)
        node.check()
        recorder.process.send_signal(signal.SIGINT)
        recorder.wait(30)
        return int(_last_json(player.output().splitlines())["published"][dataset.image_topic])


def play_cameras(
    bag: Path,
    cameras: Sequence[str],
    seconds: float,
    model: Path,
    card: ModelCard,
    recording: Path,
    logs: Path,
    backend: str = "auto",
) -> None:
    """Plays several cameras to one node that serves them all, and records its answers.

    Args:
        bag: Holds `image_raw` and `camera_info` of every camera in its namespace below `/`.
        cameras: Their names. Outputs are recorded in `NAMESPACE/<camera>`.
        seconds: Length of the bag.
        model, card, recording, logs, backend: As for `play_live`.

    Raises:
        ChildError: a process failed; the message shows its log.
        InputError: the folder for the logs cannot be written.
    """
    shutil.rmtree(recording, ignore_errors=True)
    infos = [f"/{camera}/camera_info" for camera in cameras]
    topics = [*output_topics(card), STATUS_TOPIC]
    outputs = [f"{NAMESPACE}/{camera}/{topic}" for camera in cameras for topic in topics]
    with children(logs, _environment()) as group:
        recorder = _start(group, "recorder", output=str(recording), topics=[*outputs, *infos])
        remaps = ["-r", f"__ns:={NAMESPACE}"]
        for camera in cameras:
            remaps += ["-r", f"{camera}/image:=/{camera}/image_raw"]
        node = _start(group, "perception_node", remaps, model=str(model), backend=backend, cameras=list(cameras))
        player = _start(
            group,
            "bag_player",
            bag=str(bag.resolve()),
            wait_for=infos,
            wait_for_subscribers=2,
            wait_timeout=START_TIMEOUT,
            clock=False,
        )
        player.wait(START_TIMEOUT + 2 * seconds + 30, others=[recorder, node])
        time.sleep(DRAIN_TIME)
        node.check()
        recorder.process.send_signal(signal.SIGINT)
        recorder.wait(30)


def _start(group: Children, name: str, remaps: Sequence[str] = (), **parameters: object) -> Child:
    arguments = ["--ros-args", *remaps]
    for key, value in parameters.items():
        arguments += ["-p", f"{key}:={_yaml(value)}"]
    return group.start(name, f"diffusion_perception_ros.ros.{name}", arguments)


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(_yaml(entry) for entry in value) + "]"
    return f"'{value}'" if isinstance(value, str) else str(value)


def _transport(topic: str) -> tuple[str, str]:
    """The image_transport of a topic and the base name that the node asks for."""
    if topic.endswith("/compressed"):
        return "compressed", topic.removesuffix("/compressed")
    return "raw", topic


def _environment() -> dict[str, str]:
    """Of the children: large images pass through shared memory, and only this machine is looked at."""
    profile = str(find_resource(DDS_PROFILE).resolve())
    variable = "FASTRTPS" if os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy") else "FASTDDS"
    settings = {f"{variable}_DEFAULT_PROFILES_FILE": profile, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    # A domain of its own keeps other nodes of this machine out of the measurement; 1 to 101 are free of clashes
    # with the ephemeral ports of Linux.
    domain = os.environ.get("ROS_DOMAIN_ID") or str(1 + os.getpid() % 101)
    return os.environ | settings | {"ROS_DOMAIN_ID": domain, "PYTHONUNBUFFERED": "1"}


def _last_json(lines: Sequence[str]) -> dict[str, Any]:
    """The last line of a program's output that is a JSON object; empty if there is none."""
    for line in reversed(lines):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            return value
    return {}
