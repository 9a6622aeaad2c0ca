"""Several cameras on one model: one perception_node serves them all, each in a namespace of its own.

ros2 launch diffusion_perception_ros multi_camera.launch.py cameras:=front,left image_topic:=/{camera}/image_raw
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from diffusion_perception_ros.launching import Argument, declare


SHARE = Path(__file__).resolve().parents[1]
"""The package's share folder, or the checkout: both hold `launch` and `config` side by side."""

ARGUMENTS = {
    "cameras": Argument(None, "names of the cameras, as in front,left,rear"),
    "image_topic": Argument("{camera}/image", "image topic of every camera, {camera} stands for its name"),
    "camera_info_topic": Argument("", "its camera_info, empty = the sibling of image_topic"),
    "sparse_depth_topic": Argument("", "another sensor's depth; empty = sparse_depth below the camera's name"),
    "model": Argument("", "name or folder of the model, empty = as in params_file"),
    "backend": Argument("", "auto, cpu, cuda or tensorrt, empty = as in params_file"),
    "image_transport": Argument("", "raw or compressed, empty = as in params_file"),
    "namespace": Argument("", "namespace of the node, above those of the cameras"),
    "params_file": Argument(str(SHARE / "config" / "perception.yaml"), "YAML file with the node's parameters"),
    "use_sim_time": Argument("false", "take the time from /clock"),
    "autostart": Argument("", "true: configure and activate at once, false: wait for a lifecycle manager"),
    "respawn": Argument("false", "start the node again when it dies"),
    "log_level": Argument("info", "debug, info, warn, error or fatal"),
    "rviz": Argument("false", "also start rviz2, once per camera"),
}


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`. perception.launch.py checks the values."""
    perception = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).with_name("perception.launch.py"))),
        launch_arguments=[(name, LaunchConfiguration(name)) for name in ARGUMENTS],
    )
    return LaunchDescription([*declare(ARGUMENTS), perception])
