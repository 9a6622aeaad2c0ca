"""A bag through perception_node: bag, node and, if wanted, rviz and a recording of what the node publishes.

ros2 launch diffusion_perception_ros replay.launch.py bag:=PATH rviz:=true

The player starts when the node is active, however long that takes, and misses nothing.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launch import Action, LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node

from diffusion_perception_ros.launching import (
    PACKAGE,
    Argument,
    answer_of,
    declare,
    executable,
    has_package,
    is_true,
    large_image_settings,
    rviz_default,
    values_of,
)


SHARE = Path(__file__).resolve().parents[1]
"""The package's share folder, or the checkout: both hold `launch` and `config` side by side."""

PASSED_ON = {
    "model": Argument("", "name or folder of the model, empty = as in params_file"),
    "backend": Argument("", "auto, cpu, cuda or tensorrt, empty = as in params_file", "auto|cpu|cuda|tensorrt"),
    "camera_info_topic": Argument("", "its camera_info, empty = found in the bag"),
    "namespace": Argument("", "namespace of the node and what it publishes"),
    "params_file": Argument(str(SHARE / "config" / "perception.yaml"), "YAML file with the node's parameters", "file"),
    "use_sim_time": Argument("true", "the node takes its time from the bag", "bool"),
    "respawn": Argument("false", "start the node again when it dies", "bool"),
    "log_level": Argument("info", "debug, info, warn, error or fatal", "debug|info|warn|error|fatal"),
    "rviz": Argument(rviz_default(), "start rviz2; by default where it is installed and there is a display", "bool"),
    "rviz_config": Argument(str(SHARE / "config" / "perception.rviz"), "what rviz2 shows", "file"),
    "fixed_frame": Argument("", "fixed frame of rviz2, empty = as in rviz_config"),
}
"""Arguments of perception.launch.py, which does what they say."""

ARGUMENTS = {
    "bag": Argument(None, "rosbag2 folder or file (mcap, db3), or ROS 1 bag"),
    "rate": Argument("1.0", "playback speed, 1 = as recorded", "number"),
    "loop": Argument("false", "start again at the end of the bag", "bool"),
    "start_offset": Argument("0.0", "seconds of the bag to leave out at the start", "number"),
    "player": Argument("auto", "bag_player (auto is the same), or ros2bag", "auto|bag_player|ros2bag"),
    "record": Argument("", "folder for a bag of what the node publishes, empty = none"),
    "image_topic": Argument("", "colour topic of the bag, with its /compressed if it has one; empty = found"),
    "sparse_depth_topic": Argument(
        "auto", "depth that gives metres; auto = the bag's that belongs to the image; or none"
    ),
    "wait_timeout": Argument("1800", "seconds for the node to become active", "number"),
    **PASSED_ON,
}


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """All processes, once the arguments are known and the bag has been looked into."""
    value = values_of(context, ARGUMENTS)
    if value["record"] and Path(value["record"]).expanduser().exists():
        raise RuntimeError(f"record:={value['record']} exists already and is not overwritten: give another folder")
    plan = json.loads(answer_of(plan_command(value)))
    player = play(value, plan)
    waiter = wait(value, plan)
    begin = [player] if player_is_ours(value) else [resume()]
    waiting = [] if player_is_ours(value) else [player]
    recorder = [record(value, plan)] if value["record"] else []
    return [
        perception(value, plan),
        *recorder,
        *waiting,
        waiter,
        when_ended(waiter, lambda code: begin if code == 0 else end("perception_node did not become active")),
        *(when_ended(process, lambda code: end("the recorder has ended")) for process in recorder),
        when_ended(player, lambda code: end("the bag has ended")),
        when_ended(
            is_perception_node, lambda code: [] if is_true(value["respawn"]) else end("perception_node has ended")
        ),
    ]


def plan_command(value: dict[str, str]) -> list[str]:
    """What is in the bag is found out by an executable of its own, with the packages that reading bags needs."""
    options = {"--image-topic": "image_topic", "--model": "model", "--params-file": "params_file"}
    chosen = [part for option, name in options.items() if value[name] for part in (option, value[name])]
    return [executable("replay_plan"), value["bag"], *chosen]


def perception(value: dict[str, str], plan: dict[str, Any]) -> Action:
    """The node, and rviz, on the bag's camera."""
    arguments = {name: value[name] for name in PASSED_ON if value[name]}
    arguments["image_topic"], arguments["image_transport"] = plan["image_topic"], plan["image_transport"]
    if plan["camera_info_topic"]:
        arguments.setdefault("camera_info_topic", plan["camera_info_topic"])
    depth = plan["depth_topic"] if value["sparse_depth_topic"] == "auto" else value["sparse_depth_topic"]
    if depth and depth != "none":
        arguments["sparse_depth_topic"] = depth
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).with_name("perception.launch.py"))),
        launch_arguments=list(arguments.items()),
    )


def record(value: dict[str, str], plan: dict[str, Any]) -> Action:
    """The recorder, which takes the camera's topic last: its subscription tells the player that all is recorded."""
    namespace = "/" + value["namespace"].strip("/") if value["namespace"] else ""
    topics = [f"{namespace}/{topic}" for topic in plan["outputs"]] + [plan["topic"]]
    return Node(
        package=PACKAGE,
        executable="recorder",
        parameters=[{"output": value["record"], "topics": topics}],
        output="screen",
    )


def subscribers(value: dict[str, str]) -> int:
    """The node, and the recorder if there is one."""
    return 2 if value["record"] else 1


def wait(value: dict[str, str], plan: dict[str, Any]) -> Node:
    """Ends when the node is active; for `ros2 bag play`, which cannot look itself, also everybody has subscribed."""
    parameters: dict[str, Any] = {"lifecycle_node": "perception_node", "timeout": float(value["wait_timeout"])}
    if not player_is_ours(value):
        parameters |= {"topics": [plan["topic"]], "subscribers": subscribers(value)}
    return Node(
        package=PACKAGE,
        executable="wait_until_active",
        namespace=value["namespace"],
        parameters=[parameters],
        output="screen",
    )


def player_is_ours(value: dict[str, str]) -> bool:
    """Whether bag_player plays.

    Raises:
        RuntimeError: `ros2 bag play` is asked for and not installed.
    """
    if value["player"] != "ros2bag":
        return True
    if not has_package("ros2bag"):
        raise RuntimeError("player:=ros2bag needs the package ros2bag, which is not installed: use player:=bag_player")
    return False


def play(value: dict[str, str], plan: dict[str, Any]) -> Action:
    """The player. Ours has found its subscribers before it starts; `ros2 bag play` stands paused until then."""
    loop = is_true(value["loop"])
    if not player_is_ours(value):
        options = [
            "--clock",
            "100",
            "--start-paused",
            "--rate",
            value["rate"],
            "--start-offset",
            value["start_offset"],
        ]
        command = ["ros2", "bag", "play", value["bag"], *options, *(["--loop"] if loop else [])]
        return ExecuteProcess(cmd=command, output="screen")
    parameters = {
        "bag": value["bag"],
        "rate": float(value["rate"]),
        "loop": loop,
        "start_offset": float(value["start_offset"]),
        "wait_for": [plan["topic"]],
        "wait_for_subscribers": subscribers(value),
    }
    return Node(package=PACKAGE, executable="bag_player", parameters=[parameters], output="screen")


def resume() -> Action:
    """Lets `ros2 bag play` go on."""
    command = ["ros2", "service", "call", "/rosbag2_player/resume", "rosbag2_interfaces/srv/Resume"]
    return ExecuteProcess(cmd=command, output="log")


def is_perception_node(action: Action) -> bool:
    """Whether a process is the node, which the included launch file starts."""
    return isinstance(action, Node) and action.node_executable == "perception_node"


def when_ended(
    process: Action | Callable[[Action], bool], then: Callable[[int], list[LaunchDescriptionEntity]]
) -> RegisterEventHandler:
    """What follows the end of a process, by its exit code; while everything is being shut down, nothing."""

    def handle(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        return [] if context.is_shutdown else then(event.returncode)

    return RegisterEventHandler(OnProcessExit(target_action=process, on_exit=handle))


def end(reason: str) -> list[LaunchDescriptionEntity]:
    """Everything stops."""
    return [EmitEvent(event=Shutdown(reason=reason))]


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    profile = SHARE / "config" / "fastdds_large_images.xml"
    return LaunchDescription([*declare(ARGUMENTS), *large_image_settings(profile), OpaqueFunction(function=start)])
