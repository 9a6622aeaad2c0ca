"""What `ros2 launch` hands to the nodes: parameter file, Fast DDS profile, rviz topics.

launch itself is not among the wheels; what is tested here is that everything its files name exists.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Ros
from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.parameter import parameter_value_to_python

from diffusion_perception_ros.ros.parameters import (
    PerceptionParameters,
    PlayerParameters,
    RecorderParameters,
    WaitParameters,
)
from diffusion_perception_ros.ros.publishers import OUTPUTS


REPOSITORY = Path(__file__).resolve().parents[2]
PARAMETERS = REPOSITORY / "config" / "perception.yaml"
PROFILE = REPOSITORY / "config" / "fastdds_large_images.xml"
LAUNCH_FILES = sorted((REPOSITORY / "launch").glob("*.launch.py"))


def test_parameter_file_is_what_the_node_has_without_it(ros: Ros) -> None:
    node = "/robot/perception_node"
    ros.start("perception_node", "-r", "__ns:=/robot", "--params-file", str(PARAMETERS))
    ros.wait_for(lambda: ros.state(node) == "active", "the node is active")
    written: dict[str, Any] = yaml.safe_load(PARAMETERS.read_text())["/**"]["ros__parameters"]
    declared = ros.call(ListParameters, f"{node}/list_parameters", ListParameters.Request()).result.names
    assert set(written) == set(PerceptionParameters.model_fields) <= set(declared)
    request = GetParameters.Request(names=list(written))
    values = ros.call(GetParameters, f"{node}/get_parameters", request).values
    assert [parameter_value_to_python(value) for value in values] == list(written.values())
    assert written == PerceptionParameters().model_dump()


@pytest.mark.parametrize(
    ("file", "function", "tables"),
    [
        ("perception", "nodes", [PerceptionParameters]),
        ("replay", "play", [PlayerParameters]),
        ("replay", "record", [RecorderParameters]),
        ("replay", "wait", [WaitParameters]),
    ],
)
def test_launch_files_set_parameters_that_exist(file: str, function: str, tables: list[Any]) -> None:
    tree = ast.parse((REPOSITORY / "launch" / f"{file}.launch.py").read_text())
    (body,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    dictionaries = [node for node in ast.walk(body) if isinstance(node, ast.Dict)]
    names = {key.value for node in dictionaries for key in node.keys if isinstance(key, ast.Constant)}
    assert names - {"use_sim_time"} <= {name for table in tables for name in table.model_fields}
    assert names


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_files_name_files_that_exist(path: Path) -> None:
    strings = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    named = {
        text for text in strings if isinstance(text, str) and text.endswith((".yaml", ".rviz", ".xml", ".launch.py"))
    }
    known = {file.name for folder in ("config", "launch") for file in (REPOSITORY / folder).iterdir()}
    assert named
    assert named <= known


def test_rviz_shows_topics_that_exist_with_displays_that_can() -> None:
    displays = {"sensor_msgs.msg._image": "Image", "sensor_msgs.msg._point_cloud2": "PointCloud2"}
    published = {output.topic: displays.get(output.type.__module__) for output in OUTPUTS}
    published |= {"image": "Image", "image/compressed": "Image"}
    config = yaml.safe_load((REPOSITORY / "config" / "perception.rviz").read_text())
    shown = {
        display["Topic"]["Value"]: display["Class"].removeprefix("rviz_default_plugins/")
        for display in config["Visualization Manager"]["Displays"]
        if "Topic" in display
    }
    assert shown == {topic: published[topic] for topic in shown}
    colors = {topic for topic in published if topic.endswith("image_color")}
    assert colors | {"image", "points"} <= set(shown)


def test_fast_dds_accepts_the_profile(tmp_path: Path) -> None:
    assert problems(PROFILE) == ""
    broken = tmp_path / "broken.xml"
    broken.write_text(PROFILE.read_text().replace("large_shared_memory</transport_id>\n        <type>SHM", "x</y>"))
    assert "XMLPARSER" in problems(broken)


def problems(profile: Path) -> str:
    """What a participant with this profile prints."""
    program = "import rclpy; rclpy.init(domain_id=101); rclpy.create_node('reader').destroy_node(); rclpy.shutdown()"
    variable = "FASTRTPS" if os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy") else "FASTDDS"
    environment = os.environ | {f"{variable}_DEFAULT_PROFILES_FILE": str(profile)}
    answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    return answer.stdout + answer.stderr
