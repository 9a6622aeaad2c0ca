"""The examples for Nav2, rtabmap and depth_image_proc: whatever they name exists here or is documented there.

Neither launch nor those packages are among the wheels, so the parameter names that they know are listed here, from
their sources: nav2_costmap_2d (plugins/voxel_layer.cpp, plugins/obstacle_layer.cpp, plugins/inflation_layer.cpp,
src/costmap_2d_ros.cpp), semantic_segmentation_layer (src/semantic_segmentation_layer.cpp) and rtabmap_ros
(rtabmap_sync/src/CommonDataSubscriber.cpp, rtabmap_odom/src/OdometryROS.cpp, rtabmap_slam/src/CoreWrapper.cpp).
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Ros
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python

from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.models import find_model
from diffusion_perception_ros.ros.outputs import OUTPUTS
from diffusion_perception_ros.ros.parameters import PerceptionParameters


REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / "config" / "examples"
LAUNCH_FILES = sorted((REPOSITORY / "launch" / "examples").glob("*.launch.py"))
NAMESPACE = "/perception"

COSTMAP = {
    *(
        "update_frequency",
        "publish_frequency",
        "global_frame",
        "robot_base_frame",
        "rolling_window",
        "width",
        "height",
    ),
    *("resolution", "robot_radius", "plugins", "filters", "track_unknown_space", "transform_tolerance", "footprint"),
}
INFLATION_LAYER = {
    "plugin",
    "enabled",
    "cost_scaling_factor",
    "inflation_radius",
    "inflate_unknown",
    "inflate_around_unknown",
}
VOXEL_LAYER = {
    *("plugin", "enabled", "footprint_clearing_enabled", "min_obstacle_height", "max_obstacle_height", "z_voxels"),
    *("origin_z", "z_resolution", "unknown_threshold", "mark_threshold", "combination_method", "publish_voxel_map"),
    *("observation_sources", "tf_filter_tolerance"),
}
VOXEL_SOURCE = {
    *("topic", "sensor_frame", "observation_persistence", "expected_update_rate", "data_type", "min_obstacle_height"),
    *("max_obstacle_height", "inf_is_valid", "marking", "clearing", "obstacle_max_range", "obstacle_min_range"),
    *("raytrace_max_range", "raytrace_min_range", "transport_type"),
}
SEMANTIC_LAYER = {
    *("plugin", "enabled", "combination_method", "observation_sources", "publish_debug_topics"),
    "use_approximate_time_sync",
}
SEMANTIC_SOURCE = {
    *("segmentation_topic", "confidence_topic", "labels_topic", "pointcloud_topic", "observation_persistence"),
    *("expected_update_rate", "class_types", "max_obstacle_distance", "min_obstacle_distance", "tile_map_decay_time"),
    *("visualize_tile_map", "use_cost_selection"),
}
SEMANTIC_CLASS = {
    *("classes", "base_cost", "max_cost", "mark_confidence", "samples_to_max_cost", "dominant_priority"),
}
RTABMAP_BOTH = {
    *("frame_id", "approx_sync", "topic_queue_size", "sync_queue_size", "qos", "wait_for_transform", "odom_frame_id"),
    "publish_tf",
}
RTABMAP_SLAM = RTABMAP_BOTH | {"subscribe_depth", "subscribe_rgb", "subscribe_odom_info", "subscribe_rgbd"}


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CONFIG / name).read_text())
    return content


def costmap(name: str) -> dict[str, Any]:
    parameters: dict[str, Any] = load(name)["local_costmap"]["local_costmap"]["ros__parameters"]
    layers = set(parameters["plugins"])
    assert set(parameters) - layers <= COSTMAP
    assert set(parameters["inflation_layer"]) <= INFLATION_LAYER
    assert layers <= set(parameters)
    return parameters


def published(topic: str) -> str:
    """The name in the node's namespace of a topic that an example reads."""
    assert topic.startswith(f"{NAMESPACE}/")
    name = topic.removeprefix(f"{NAMESPACE}/")
    assert name in {output.topic for output in OUTPUTS} | {"segmentation/label_info"}
    return name


def test_voxel_layer() -> None:
    layer = costmap("nav2_voxel_layer.yaml")["voxel_layer"]
    sources = layer["observation_sources"].split()
    assert set(layer) - set(sources) <= VOXEL_LAYER
    assert layer["z_voxels"] <= 16, "the voxel grid has sixteen levels"
    for source in sources:
        assert set(layer[source]) <= VOXEL_SOURCE
        assert layer[source]["data_type"] == "PointCloud2"
        assert published(layer[source]["topic"]) == "points"


def test_semantic_layer_knows_every_class_of_the_bundled_model() -> None:
    layer = costmap("nav2_semantic_layer.yaml")["semantic_layer"]
    sources = layer["observation_sources"].split()
    assert set(layer) - set(sources) <= SEMANTIC_LAYER
    for source in sources:
        settings = layer[source]
        types = settings["class_types"]
        assert set(settings) - set(types) <= SEMANTIC_SOURCE
        topics = {published(value) for name, value in settings.items() if name.endswith("_topic")}
        assert topics == {"segmentation/mask", "segmentation/confidence", "segmentation/label_info", "points"}
        assert all(set(settings[kind]) == SEMANTIC_CLASS for kind in types)
        classes = [name for kind in types for name in settings[kind]["classes"]]
        labels = [label.name for label in read_card(find_model("onestep-s")).labels]
        assert sorted(classes) == sorted(labels)


def test_rtabmap_parameters() -> None:
    content = load("rtabmap.yaml")
    allowed = {"/**": RTABMAP_BOTH, "rgbd_odometry": RTABMAP_BOTH, "rtabmap": RTABMAP_SLAM}
    assert content.keys() == allowed.keys()
    for node, names in allowed.items():
        assert set(content[node]["ros__parameters"]) <= names


@pytest.mark.parametrize("name", ["perception_nav2", "perception_rectified"])
def test_the_node_takes_its_example_parameters(ros: Ros, name: str) -> None:
    node = f"/{name}/perception_node"
    process = ros.start("perception_node", "-r", f"__ns:=/{name}", "--params-file", str(CONFIG / f"{name}.yaml"))
    ros.wait_for(lambda: ros.state(node) == "active", f"the node is active with {name}.yaml")
    written = load(f"{name}.yaml")["/**"]["ros__parameters"]
    assert set(written) <= set(PerceptionParameters.model_fields)
    values = ros.call(GetParameters, f"{node}/get_parameters", GetParameters.Request(names=list(written))).values
    assert [parameter_value_to_python(value) for value in values] == list(written.values())
    assert process.stop() == 0


def test_the_semantic_layer_gets_a_point_for_every_pixel_of_the_mask() -> None:
    assert load("perception_nav2.yaml")["/**"]["ros__parameters"]["points_decimation"] == 1


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_examples_name_what_exists(path: Path) -> None:
    tree = ast.parse(path.read_text())
    documentation = ast.get_docstring(tree) or ""
    strings = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in documentation
    }
    for text in strings:
        if text.endswith((".yaml", ".launch.py")) and not text.startswith("_"):
            folders = [CONFIG, REPOSITORY / "config", REPOSITORY / "launch"]
            assert any((folder / text).exists() for folder in folders), text
        if text.startswith(f"{NAMESPACE}/"):
            published(text)
    # What it hands to perception.launch.py are arguments of that.
    perception = ast.parse((REPOSITORY / "launch" / "perception.launch.py").read_text())
    assert {"image_topic", "sparse_depth_topic", "model", "use_sim_time"} <= arguments(tree)
    assert arguments(tree) - {"costmap"} <= arguments(perception)
    assert {"namespace", "params_file"} <= arguments(perception)
    assert f"{path.name} " in documentation, "the command that starts it"


def arguments(tree: ast.Module) -> set[str]:
    """Keys of the table ARGUMENTS of a launch file."""
    (table,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "ARGUMENTS"
    ]
    assert isinstance(table, ast.Dict)
    return {key.value for key in table.keys if isinstance(key, ast.Constant)}


def test_the_costmaps_of_the_launch_file_have_a_file() -> None:
    text = (REPOSITORY / "launch" / "examples" / "nav2_costmap.launch.py").read_text()
    (names,) = re.findall(r"COSTMAPS = \[(.*)\]", text)
    for name in re.findall(r'"(\w+)"', names):
        assert (CONFIG / f"nav2_{name}_layer.yaml").exists()
