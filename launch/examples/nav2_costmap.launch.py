"""A Nav2 costmap out of a camera: perception_node, one local costmap, and the manager of its lifecycle.

ros2 launch diffusion_perception_ros/launch/examples/nav2_costmap.launch.py sparse_depth_topic:=/depth/image_raw
ros2 launch …/nav2_costmap.launch.py costmap:=semantic model:=my_metric_model

tf must connect odom, base_link and the camera's optical frame. docs/navigation.md says what has been tried.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile


SHARE = Path(__file__).resolve().parents[2]
"""The package's share folder, or the checkout: both hold `launch` and `config` side by side."""

ARGUMENTS = {
    "image_topic": ("/camera/image_raw", "the camera's image topic"),
    "sparse_depth_topic": ("/camera/depth/image_raw", "another sensor's depth, for models of relative depth"),
    "model": ("", "name or folder of the model, empty = the default one"),
    "costmap": ("voxel", "voxel: obstacles from points; semantic: costs from classes"),
    "use_sim_time": ("false", "take the time from /clock"),
}
COSTMAPS = ["voxel", "semantic"]


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
            ("params_file", str(SHARE / "config" / "examples" / "perception_nav2.yaml")),
        ],
    )


def costmap() -> list[Node]:
    """The costmap, and who configures and activates it."""
    prefix = str(SHARE / "config" / "examples" / "nav2_")
    file = ParameterFile([prefix, LaunchConfiguration("costmap"), "_layer.yaml"])
    use_sim_time = {"use_sim_time": LaunchConfiguration("use_sim_time")}
    return [
        Node(
            package="nav2_costmap_2d",
            executable="nav2_costmap_2d",
            name="local_costmap",
            namespace="local_costmap",
            parameters=[file, use_sim_time],
            output="screen",
        ),
        Node(
            package="nav2_lifecycle_manager",
            executable="lifecycle_manager",
            name="lifecycle_manager_costmap",
            parameters=[
                {"node_names": ["local_costmap/local_costmap"], "autostart": True, "bond_timeout": 0.0},
                use_sim_time,
            ],
            output="screen",
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    arguments = [
        DeclareLaunchArgument(
            name, default_value=default, description=text, choices=COSTMAPS if name == "costmap" else None
        )
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, perception(), *costmap()])
