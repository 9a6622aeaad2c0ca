"""The point cloud by depth_image_proc instead of perception_node, from our depth image and the camera's picture.

ros2 launch diffusion_perception_ros/launch/examples/depth_image_proc.launch.py image_topic:=/camera/image_rect

The picture must be rectified: depth_image_proc knows no lens. docs/navigation.md says what has been tried.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import ComposableNodeContainer
from launch_ros.descriptions import ComposableNode


SHARE = Path(__file__).resolve().parents[2]
"""The package's share folder, or the checkout: both hold `launch` and `config` side by side."""

ARGUMENTS = {
    "image_topic": ("/camera/image_rect", "the camera's rectified image topic; its camera_info is the sibling"),
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


def cloud() -> ComposableNodeContainer:
    """depth_image_proc, in a container as its authors run it."""
    node = ComposableNode(
        package="depth_image_proc",
        plugin="depth_image_proc::PointCloudXyzrgbNode",
        name="point_cloud_xyzrgb",
        # Depth carries the stamp of its image, so the two belong together exactly; the image waits for the network.
        parameters=[{"exact_sync": True, "queue_size": 30, "use_sim_time": LaunchConfiguration("use_sim_time")}],
        remappings=[
            ("rgb/image_rect_color", LaunchConfiguration("image_topic")),
            ("depth_registered/image_rect", "/perception/depth/image"),
            ("points", "/depth_image_proc/points"),
        ],
    )
    return ComposableNodeContainer(
        name="depth_image_proc",
        namespace="",
        package="rclcpp_components",
        executable="component_container",
        composable_node_descriptions=[node],
        output="screen",
    )


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, perception(), cloud()])
