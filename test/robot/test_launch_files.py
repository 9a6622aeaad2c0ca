"""The launch files with the real launch, in an interpreter that has only what apt gives."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


pytest.importorskip("launch", reason="launch is not installed (it has no wheels)")
pytest.importorskip("launch_ros", reason="launch_ros is not installed (it has no wheels)")

from launch import LaunchContext, LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node


READ_BACK = """
import sys
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore, get_types_from_msg
from pathlib import Path
with AnyReader([Path(sys.argv[1])], default_typestore=get_typestore(Stores.LATEST)) as reader:
    chosen = [connection for connection in reader.connections if connection.topic == sys.argv[2]]
    messages = [reader.deserialize(raw, connection.msgtype) for connection, _, raw in reader.messages(chosen)]
    print(*(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in messages))
"""


@pytest.fixture(scope="session")
def share(prefix: Path) -> Path:
    """The package's share folder."""
    return prefix / "share" / "diffusion_perception_ros"


def load(path: Path) -> ModuleType:
    """A launch file as launch imports it."""
    specification = importlib.util.spec_from_file_location(path.name.partition(".")[0], path)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_every_launch_file_can_be_imported_and_describes_itself(share: Path) -> None:
    files = sorted((share / "launch").rglob("*.launch.py"))
    assert len(files) >= 6
    for file in files:
        assert load(file).generate_launch_description().entities


def context_of(arguments: dict[str, Any], **given: str) -> LaunchContext:
    """What a launch file sees, with the defaults of its arguments."""
    context = LaunchContext()
    defaults = {name: argument.default or "" for name, argument in arguments.items()}
    context.launch_configurations.update(defaults | given)
    return context


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("rviz", "maybe", "true or false is needed"),
        ("backend", "gpu", "auto, cpu, cuda, tensorrt is needed"),
        ("params_file", "/nowhere.yaml", "there is no such file"),
        ("log_level", "", "it is empty"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_starts(share: Path, name: str, value: str, needed: str) -> None:
    module = load(share / "launch" / "perception.launch.py")
    with pytest.raises(RuntimeError, match=rf"launch argument {name}:={value}: {needed}"):
        module.nodes(context_of(module.ARGUMENTS, **{name: value}))


def test_replay_refuses_what_cannot_be_played(share: Path, ready: Path, tmp_path: Path) -> None:
    module = load(share / "launch" / "replay.launch.py")
    clip = str(share / "demo" / "clip")
    for given, sentence in (
        ({"bag": clip, "rate": "fast"}, r"rate:=fast: a number is needed"),
        ({"bag": ""}, r"bag:=: it is empty"),
        ({"bag": str(tmp_path / "none")}, r"none"),
        ({"bag": clip, "image_topic": "/rear/image"}, r"has no image topic /rear/image: it has /camera"),
        ({"bag": clip, "player": "ros2bag"}, r"needs the package ros2bag"),
    ):
        if given.get("player") and module.has_package("ros2bag"):
            continue
        with pytest.raises(RuntimeError, match=sentence):
            module.start(context_of(module.ARGUMENTS, **given))


def test_the_launch_files_have_each_others_arguments(share: Path) -> None:
    perception, replay, cameras = (
        load(share / "launch" / f"{name}.launch.py").ARGUMENTS for name in ("perception", "replay", "multi_camera")
    )
    # A bag says how its images travel and has one camera; its player waits for the node, so no manager starts it.
    assert set(perception) - set(replay) == {"cameras", "image_transport", "autostart"}
    assert set(perception) - set(cameras) == {"rviz_config", "fixed_frame"}
    assert perception["rviz"].default == cameras["rviz"].default == "false"


def test_no_rviz_without_a_display(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert load(share / "launch" / "replay.launch.py").ARGUMENTS["rviz"].default == "false"


def test_cameras_of_one_node_get_topics_of_their_own(share: Path, ready: Path) -> None:
    module = load(share / "launch" / "perception.launch.py")
    context = context_of(module.ARGUMENTS, cameras="front,left", image_topic="/{camera}/image_raw", namespace="robot")
    (node,) = module.nodes(context)
    assert isinstance(node, Node)
    assert node.node_executable == "perception_node"


def test_a_replay_misses_nothing_and_ends_by_itself(share: Path, ready: Path, tmp_path: Path) -> None:
    clip, recording = share / "demo" / "clip", tmp_path / "recording"
    arguments = {
        "bag": clip,
        "record": recording,
        "rate": 0.2,
        "model": "onestep-s",
        "rviz": "false",
        "namespace": "robot",
    }
    service = LaunchService()
    source = PythonLaunchDescriptionSource(str(share / "launch" / "replay.launch.py"))
    given = [(name, str(value)) for name, value in arguments.items()]
    service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source, launch_arguments=given)]))
    assert service.run() == 0
    plan = json.loads(subprocess.run([ready / "replay_plan", clip], check=True, capture_output=True).stdout)
    played, answered = stamps(clip, plan["topic"]), stamps(recording, "/robot/status")
    assert answered[0] == played[0]
    assert set(answered) <= set(played)
    assert stamps(recording, "/robot/depth/image")[0] == played[0]


def stamps(bag: Path, topic: str) -> list[int]:
    """Nanoseconds of the headers on a topic."""
    folder = Path(os.environ["DIFFUSION_PERCEPTION_ENVIRONMENT"]) / "bin" / "python"
    python = str(folder) if folder.exists() else "python3"
    answer = subprocess.run([python, "-c", READ_BACK, str(bag), topic], check=True, capture_output=True, text=True)
    return [int(word) for word in answer.stdout.split()]
