"""Several cameras on one model: one perception_node serves them all, each in a namespace of its own.

ros2 launch diffusion_perception_ros multi_camera.launch.py cameras:=front,left image_topic:=/{camera}/image_raw
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration


SHARE = Path(__file__).resolve().parents[1]
"""The package's share folder, or the checkout: both hold `launch` and `config` side by side."""

ARGUMENTS = {
    "image_topic": ("{camera}/image", "image topic of every camera, {camera} stands for its name"),
    "camera_info_topic": ("", "its camera_info, empty = the sibling of image_topic"),
    "model": ("", "name or folder of the model, empty = as in params_file"),
    "backend": ("", "auto, cpu, cuda or tensorrt, empty = as in params_file"),
    "image_transport": ("", "raw or compressed, empty = as in params_file"),
    "namespace": ("", "namespace of the node, above those of the cameras"),
    "params_file": (str(SHARE / "config" / "perception.yaml"), "YAML file with the node's parameters"),
    "use_sim_time": ("false", "take the time from /clock"),
    "rviz": ("false", "also start rviz2, once per camera"),
}


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    cameras = DeclareLaunchArgument("cameras", description="names of the cameras, as in front,left,rear")
    perception = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).with_name("perception.launch.py"))),
        launch_arguments=[(name, LaunchConfiguration(name)) for name in ["cameras", *ARGUMENTS]],
    )
    return LaunchDescription([cameras, *arguments, perception])
