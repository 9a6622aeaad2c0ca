"""A bag through perception_node: bag, node and, if wanted, rviz and a recording of what the node publishes.

ros2 launch diffusion_perception_ros replay.launch.py bag:=PATH rviz:=true
"""

from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import Action, LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.evaluation.recording import STATUS_TOPIC, output_topics
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.models import DEFAULT_MODEL, find_model


PACKAGE = "diffusion_perception_ros"

ARGUMENTS = {
    "rate": ("1.0", "playback speed, 1 = as recorded"),
    "loop": ("false", "start again at the end of the bag"),
    "start_offset": ("0.0", "seconds of the bag to leave out at the start"),
    "player": ("auto", "ros2bag, bag_player, or auto: ros2bag where it is installed"),
    "record": ("", "folder for a bag of what the node publishes, empty = none"),
    "image_topic": ("", "colour topic of the bag, with its /compressed if it has one; empty = found"),
    "model": (DEFAULT_MODEL, "name or folder of the model"),
    "backend": ("auto", "auto, cpu, cuda or tensorrt"),
    "namespace": ("", "namespace of the node and what it publishes"),
    "use_sim_time": ("true", "the node takes its time from the bag"),
    "rviz": ("true", "start rviz2"),
}


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """All processes, once the arguments are known."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ["bag", *ARGUMENTS]}
    dataset = BagDataset(value["bag"], value["image_topic"] or None, depth_required=False)
    player = play(value, dataset)
    return [
        perception(value, dataset),
        *([record(value, dataset)] if value["record"] else []),
        player,
        RegisterEventHandler(
            OnProcessExit(target_action=player, on_exit=[EmitEvent(event=Shutdown(reason="the bag has ended"))])
        ),
    ]


def perception(value: dict[str, str], dataset: BagDataset) -> Action:
    """The node, and rviz, on the bag's camera."""
    base = dataset.image_topic.removesuffix("/compressed")
    arguments = {name: value[name] for name in ("model", "backend", "namespace", "use_sim_time", "rviz")}
    arguments["image_topic"] = base
    arguments["image_transport"] = "raw" if base == dataset.image_topic else "compressed"
    if dataset.camera_info_topic:
        arguments["camera_info_topic"] = dataset.camera_info_topic
    launch_file = Path(__file__).with_name("perception.launch.py")
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(launch_file)), launch_arguments=list(arguments.items())
    )


def record(value: dict[str, str], dataset: BagDataset) -> Action:
    """The recorder, which takes the camera's topic last: its subscription tells the player that all is recorded."""
    namespace = "/" + value["namespace"].strip("/") if value["namespace"] else ""
    outputs = [*output_topics(read_card(find_model(value["model"]))), STATUS_TOPIC]
    topics = [f"{namespace}/{topic}" for topic in outputs] + [dataset.image_topic]
    return Node(
        package=PACKAGE,
        executable="recorder",
        parameters=[{"output": value["record"], "topics": topics}],
        output="screen",
    )


def play(value: dict[str, str], dataset: BagDataset) -> Action:
    """The player. `ros2 bag play` gives the node a fixed time to load; our own waits until it has subscribed."""
    loop = value["loop"].lower() == "true"
    if value["player"] == "ros2bag" or (value["player"] == "auto" and has_ros2bag()):
        options = ["--clock", "100", "--delay", "10", "--rate", value["rate"], "--start-offset", value["start_offset"]]
        command = ["ros2", "bag", "play", value["bag"], *options, *(["--loop"] if loop else [])]
        return ExecuteProcess(cmd=command, output="screen")
    parameters = {
        "bag": value["bag"],
        "rate": float(value["rate"]),
        "loop": loop,
        "start_offset": float(value["start_offset"]),
        "wait_for": [dataset.image_topic],
        "wait_for_subscribers": 2 if value["record"] else 1,
    }
    return Node(package=PACKAGE, executable="bag_player", parameters=[parameters], output="screen")


def has_ros2bag() -> bool:
    """Whether `ros2 bag` is part of this ROS 2."""
    try:
        get_package_prefix("ros2bag")
    except PackageNotFoundError:
        return False
    return True


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    bag = DeclareLaunchArgument("bag", description="rosbag2 folder or file (mcap, db3), or ROS 1 bag")
    return LaunchDescription([bag, *arguments, OpaqueFunction(function=start)])
