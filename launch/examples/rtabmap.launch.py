"""Mapping with rtabmap on a colour camera: odometry and graph from the picture and the depth of perception_node.

ros2 launch diffusion_perception_ros/launch/examples/rtabmap.launch.py image_topic:=/camera/image_rect

The picture must be rectified, as everywhere in rtabmap. docs/navigation.md says what has been tried.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


SHARE = Path(__file__).resolve().parents[2]
"""The package's share folder, or the checkout: both hold `launch` and `config` side by side."""

ARGUMENTS = {
    "image_topic": ("/camera/image_rect", "the camera's rectified image topic"),
    "sparse_depth_topic": ("/camera/depth/image_raw", "another sensor's depth, for models of relative depth"),
    "model": ("", "name or folder of the model, empty = the default one"),
    "use_sim_time": ("false", "take the time from /clock"),
}


def perception() -> IncludeLaunchDescription:
    """The node, with its topics below /perception."""
    arguments = {
        name: LaunchConfiguration(name) for name in ("image_topic", "sparse_depth_topic", "model", "use_sim_time")
    }
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / "launch" / "perception.launch.py")),
        launch_arguments=[
            *arguments.items(),
            ("namespace", "perception"),
            ("params_file", str(SHARE / "config" / "examples" / "perception_rectified.yaml")),
        ],
    )


def mapping() -> list[Node]:
    """Visual odometry and the map."""
    parameters = [
        str(SHARE / "config" / "examples" / "rtabmap.yaml"),
        {"use_sim_time": LaunchConfiguration("use_sim_time")},
    ]
    remappings = [
        ("rgb/image", LaunchConfiguration("image_topic")),
        ("rgb/camera_info", "/perception/depth/camera_info"),
        ("depth/image", "/perception/depth/image"),
    ]
    executables = {"rgbd_odometry": ("rtabmap_odom", []), "rtabmap": ("rtabmap_slam", ["-d"])}
    return [
        Node(
            package=package,
            executable=name,
            name=name,
            parameters=parameters,
            remappings=remappings,
            arguments=arguments,
            output="screen",
        )
        for name, (package, arguments) in executables.items()
    ]


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, perception(), *mapping()])
