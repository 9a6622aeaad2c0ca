"""perception_node on a live camera, or on several that share the model, with rviz if wanted.

ros2 launch diffusion_perception_ros perception.launch.py image_topic:=/camera/image_raw rviz:=true

multi_camera.launch.py is the one for several cameras.
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import OpaqueFunction
from launch_ros.actions import Node

from diffusion_perception_ros.launching import (
    Argument,
    check_installation,
    check_rviz,
    declare,
    is_true,
    large_image_settings,
    values_of,
)


SHARE = Path(__file__).resolve().parents[1]
"""The package's share folder, or the checkout: both hold `launch` and `config` side by side."""

ARGUMENTS = {
    "model": Argument("", "name or folder of the model, empty = as in params_file"),
    "backend": Argument("", "auto, cpu, cuda or tensorrt, empty = as in params_file", "auto|cpu|cuda|tensorrt"),
    "cameras": Argument(
        "", "names of several cameras, as in front,left; {camera} stands for each in the topics below"
    ),
    "image_topic": Argument("", "image topic, without a transport's suffix such as /compressed; empty = image"),
    "camera_info_topic": Argument("", "its camera_info, empty = the sibling of image_topic"),
    "sparse_depth_topic": Argument("", "another sensor's depth, for models of relative depth; empty = sparse_depth"),
    "image_transport": Argument("", "raw or compressed, empty = as in params_file", "raw|compressed"),
    "namespace": Argument("", "namespace of the node and its topics"),
    "params_file": Argument(str(SHARE / "config" / "perception.yaml"), "YAML file with the node's parameters", "file"),
    "use_sim_time": Argument("false", "take the time from /clock", "bool"),
    "autostart": Argument("", "true: configure and activate at once, false: wait for a lifecycle manager", "bool"),
    "respawn": Argument("false", "start the node again when it dies", "bool"),
    "log_level": Argument("info", "debug, info, warn, error or fatal", "debug|info|warn|error|fatal"),
    "rviz": Argument("false", "also start rviz2", "bool"),
    "rviz_config": Argument(str(SHARE / "config" / "perception.rviz"), "what rviz2 shows", "file"),
    "fixed_frame": Argument("", "fixed frame of rviz2, empty = as in rviz_config"),
}


def nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The nodes, once the arguments are known."""
    value = values_of(context, ARGUMENTS)
    check_installation()
    if is_true(value["rviz"]):
        check_rviz()
    cameras = value["cameras"].strip("[] ").replace(",", " ").split()
    overrides: dict[str, str | bool | list[str]] = {
        name: value[name] for name in ("model", "backend", "image_transport") if value[name]
    }
    if cameras:
        overrides["cameras"] = cameras
    if value["autostart"]:
        overrides["autostart"] = is_true(value["autostart"])
    use_sim_time = {"use_sim_time": is_true(value["use_sim_time"])}
    remappings = [remapping for camera in cameras or [""] for remapping in camera_topics(value, camera)]
    node = Node(
        package="diffusion_perception_ros",
        executable="perception_node",
        name="perception_node",
        namespace=value["namespace"],
        parameters=[value["params_file"], overrides, use_sim_time],
        remappings=remappings,
        arguments=["--ros-args", "--log-level", value["log_level"]],
        respawn=is_true(value["respawn"]),
        respawn_delay=2.0,
        output="screen",
    )
    views = cameras or [""] if is_true(value["rviz"]) else []
    return [node, *(rviz(value, camera, use_sim_time) for camera in views)]


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
        output="screen",
    )


def absolute(root: str, topic: str) -> str:
    """A topic as it is seen from anywhere; `root` ends with a slash."""
    return topic if topic.startswith("/") else root + topic


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    profile = SHARE / "config" / "fastdds_large_images.xml"
    return LaunchDescription([*declare(ARGUMENTS), *large_image_settings(profile), OpaqueFunction(function=nodes)])
