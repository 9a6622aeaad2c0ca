"""perception_node on a live camera, with rviz if wanted.

ros2 launch diffusion_perception_ros perception.launch.py image_topic:=/camera/image_raw rviz:=true
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
    "image_topic": ("image", "the camera's image topic, without a transport's suffix such as /compressed"),
    "camera_info_topic": ("", "its camera_info, empty = the sibling of image_topic"),
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
    overrides: dict[str, str | bool] = {
        name: value[name] for name in ("model", "backend", "image_transport") if value[name]
    }
    if value["autostart"]:
        overrides["autostart"] = value["autostart"].lower() == "true"
    use_sim_time = {"use_sim_time": value["use_sim_time"].lower() == "true"}
    remappings = [("image", value["image_topic"])]
    if value["camera_info_topic"]:
        remappings.append(("camera_info", value["camera_info_topic"]))
    frame = ["-f", value["fixed_frame"]] if value["fixed_frame"] else []
    return [
        Node(
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
        ),
        Node(
            package="rviz2",
            executable="rviz2",
            namespace=value["namespace"],
            # Older image_transport does not remap the base name of a compressed topic.
            remappings=[*remappings, ("image/compressed", f"{value['image_topic']}/compressed")],
            parameters=[use_sim_time],
            arguments=["-d", value["rviz_config"], *frame],
            condition=IfCondition(value["rviz"]),
            output="screen",
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, *large_image_settings(), OpaqueFunction(function=nodes)])
