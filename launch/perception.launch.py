"""perception_node on a live camera, or on several that share the model, with rviz if wanted.

ros2 launch diffusion_perception_ros perception.launch.py image_topic:=/camera/image_raw rviz:=true

multi_camera.launch.py is the one for several cameras.
"""

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


SHARE = Path(__file__).resolve().parents[1]
"""The package's share folder, or the checkout: both hold `launch` and `config` side by side."""

ARGUMENTS = {
    "model": ("", "name or folder of the model, empty = as in params_file"),
    "backend": ("", "auto, cpu, cuda or tensorrt, empty = as in params_file"),
    "cameras": ("", "names of several cameras, as in front,left; {camera} stands for each in the topics below"),
    "image_topic": ("", "the camera's image topic, without a transport's suffix such as /compressed; empty = image"),
    "camera_info_topic": ("", "its camera_info, empty = the sibling of image_topic"),
    "sparse_depth_topic": ("", "another sensor's depth, for models of relative depth; empty = sparse_depth"),
    "image_transport": ("", "raw or compressed, empty = as in params_file"),
    "namespace": ("", "namespace of the node and its topics"),
    "params_file": (str(SHARE / "config" / "perception.yaml"), "YAML file with the node's parameters"),
    "use_sim_time": ("false", "take the time from /clock"),
    "autostart": ("", "true: configure and activate at once, false: wait for a lifecycle manager"),
    "respawn": ("false", "start the node again when it dies"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "rviz": ("false", "also start rviz2"),
    "rviz_config": (str(SHARE / "config" / "perception.rviz"), "what rviz2 shows"),
    "fixed_frame": ("", "fixed frame of rviz2, empty = as in rviz_config"),
}


def large_image_settings() -> list[LaunchDescriptionEntity]:
    """Fast DDS loses large images with its defaults; a profile that the user has chosen is left alone."""
    old, new = "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"
    if os.environ.get(old) or os.environ.get(new):
        return []
    name = old if os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy") else new
    return [SetEnvironmentVariable(name, str(SHARE / "config" / "fastdds_large_images.xml"))]


def nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The nodes, once the arguments are known."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    cameras = value["cameras"].strip("[] ").replace(",", " ").split()
    overrides: dict[str, str | bool | list[str]] = {
        name: value[name] for name in ("model", "backend", "image_transport") if value[name]
    }
    if cameras:
        overrides["cameras"] = cameras
    if value["autostart"]:
        overrides["autostart"] = value["autostart"].lower() == "true"
    use_sim_time = {"use_sim_time": value["use_sim_time"].lower() == "true"}
    remappings = [remapping for camera in cameras or [""] for remapping in camera_topics(value, camera)]
    node = Node(
        package="diffusion_perception_ros",
        executable="perception_node",
        name="perception_node",
        namespace=value["namespace"],
        parameters=[value["params_file"], overrides, use_sim_time],
        remappings=remappings,
        arguments=["--ros-args", "--log-level", value["log_level"]],
        respawn=value["respawn"].lower() == "true",
        respawn_delay=2.0,
        output="screen",
    )
    return [node, *(rviz(value, camera, use_sim_time) for camera in cameras or [""])]


def camera_topics(value: dict[str, str], camera: str) -> list[tuple[str, str]]:
    """Remappings of a camera's inputs; the only camera of a node has no name."""
    prefix = f"{camera}/" if camera else ""
    inputs = ("image", "camera_info", "sparse_depth")
    topics = {name: value[f"{name}_topic"] for name in inputs}
    return [(prefix + name, topic.replace("{camera}", camera)) for name, topic in topics.items() if topic]


def rviz(value: dict[str, str], camera: str, use_sim_time: dict[str, bool]) -> Node:
    """rviz2 in the namespace of a camera."""
    namespace = "/".join(part for part in (value["namespace"].strip("/"), camera) if part)
    remappings = camera_topics(value, camera)
    if camera:  # its namespace is not the node's: only absolute names mean the same for both
        root = f"/{value['namespace'].strip('/')}/".replace("//", "/")
        remappings = [(name.removeprefix(f"{camera}/"), absolute(root, topic)) for name, topic in remappings]
    # Older image_transport does not remap the base name of a compressed topic.
    remappings += [("image/compressed", f"{topic}/compressed") for name, topic in remappings if name == "image"]
    frame = ["-f", value["fixed_frame"]] if value["fixed_frame"] else []
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=namespace,
        remappings=remappings,
        parameters=[use_sim_time],
        arguments=["-d", value["rviz_config"], *frame],
        condition=IfCondition(value["rviz"]),
        output="screen",
    )


def absolute(root: str, topic: str) -> str:
    """A topic as it is seen from anywhere; `root` ends with a slash."""
    return topic if topic.startswith("/") else root + topic


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, *large_image_settings(), OpaqueFunction(function=nodes)])
