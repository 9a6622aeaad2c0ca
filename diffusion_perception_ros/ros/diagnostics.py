"""/diagnostics of `perception_node`.

diagnostic_updater is not among the ROS 2 wheels, so the statuses are built here, with the keys it would give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from enum import Enum

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from diffusion_perception_ros.ros.camera import CameraInput
from diffusion_perception_ros.ros.camera_topics import topic_of
from diffusion_perception_ros.ros.log import shortened
from diffusion_perception_ros.ros.monitor import WINDOW, Statistics, summed
from diffusion_perception_ros.ros.network import NodeNetwork
from diffusion_perception_ros.ros.outputs import OUTPUTS
from diffusion_perception_ros.ros.parameters import PerceptionParameters
from diffusion_perception_ros.ros.problems import Kind, Problems
from diffusion_perception_ros.ros.publishers import Outputs


IMAGES_MISSING_AFTER = 2.0
"""Seconds without an image that are worth a warning."""
RECENT = 10.0
"""Seconds for which an image that could not be used is reported."""


class Key(str, Enum):
    """The keys of the values, as diagnostic_updater would name them where it has them."""

    STATE = "State"
    IMAGE_TOPIC = "Image topic"
    CAMERA_INFO_TOPIC = "camera_info topic"
    MODEL = "Model"
    BACKEND = "Backend"
    BACKEND_ASKED_FOR = "Backend asked for"
    FALLBACK = "Fallback"
    LICENCE = "Licence"
    EXPORT = "Exported graph differs by"
    STEPS = "Steps"
    ENSEMBLE_SIZE = "Ensemble size"
    IMAGES_AT_ONCE = "Images at once"
    LIMIT = "Longest time per image (s)"
    EVENTS_IN_WINDOW = "Events in window"
    EVENTS_SINCE_STARTUP = "Events since startup"
    WINDOW = "Duration of window (s)"
    FREQUENCY = "Actual frequency (Hz)"
    IMAGE_FREQUENCY = "Image frequency (Hz)"
    MEDIAN_LATENCY = "Median latency (ms)"
    LARGEST_LATENCY = "Largest latency (ms)"
    RECEIVED = "Frames received"
    DROPPED = "Frames dropped"
    SKIPPED = "Frames skipped"
    REJECTED = "Frames rejected"
    LAST_ERROR = "Last error"
    ENABLED = "Enabled"
    SUBSCRIBED = "Subscribed"
    COMPUTED = "Computed"
    POINT_CLOUD = "Point cloud"
    SCALE_SOURCE = "Scale source"
    SCALE = "Scale"
    SHIFT = "Shift"
    SCALE_POINTS = "Scale points"
    SCALE_INLIERS = "Scale inliers"
    SCALE_RESIDUAL = "Scale residual"
    SCALE_AGE = "Scale age (s)"
    COMPLETED = "Completed through the points"


Values = dict[Key, str]


@dataclass
class Snapshot:
    """The node at one moment."""

    node: str
    state: str
    """Lifecycle state."""
    parameters: PerceptionParameters
    problems: Problems
    """Of the node; its cameras have their own."""
    network: NodeNetwork | None
    loading: str
    """What is being loaded, and how far it is; empty when nothing is."""
    limit: float
    """Seconds that an image may take."""
    cameras: Sequence[CameraInput]
    count_publishers: Callable[[str], int]
    """Of a resolved topic."""

    def input(self, camera: CameraInput, name: str) -> str:
        """A subscribed topic and who publishes it."""
        topic = camera.inputs[name].topic_name
        publishers = self.count_publishers(topic)
        return f"{topic} ({publishers} publisher{'' if publishers == 1 else 's'})"


def diagnose(snapshot: Snapshot) -> list[DiagnosticStatus]:
    """The statuses of the network, and of the images and outputs of every camera."""
    statuses = [_network(snapshot)]
    for camera in snapshot.cameras:
        statuses += [_images(snapshot, camera), _outputs(snapshot, camera)]
    return statuses


def _images(snapshot: Snapshot, camera: CameraInput) -> DiagnosticStatus:
    part, monitor = topic_of(camera.name, "images"), camera.monitor
    values = {Key.STATE: snapshot.state}
    if not {"image", "camera_info"} <= camera.inputs.keys():
        failures = snapshot.problems.current([Kind.ACTIVATE])
        idle = f"not subscribed: the node is {snapshot.state}"
        return _status(snapshot, part, failures, values, error=True, idle=idle)
    images, camera_info = snapshot.input(camera, "image"), snapshot.input(camera, "camera_info")
    values |= {Key.IMAGE_TOPIC: images, Key.CAMERA_INFO_TOPIC: camera_info, **_summary([monitor.statistics])}
    problems = monitor.problems.current(Kind.QOS.of(item.topic_name) for item in camera.inputs.values())
    rejected = monitor.problems.current([Kind.IMAGE], within=RECENT)
    silence = monitor.statistics.since_last_arrival
    if silence > IMAGES_MISSING_AFTER:
        problems.append(f"waiting for images on {images}")
    elif _lacks_camera_info(camera) and monitor.statistics.age > camera.parameters.camera_info_timeout:
        problems.append(f"no camera_info on {camera_info}: no metric depth, no point cloud")
    problems += monitor.problems.current([Kind.CAMERA_INFO, Kind.CAMERA_INFO_FRAME])
    late = monitor.problems.current([Kind.STAMPS], within=RECENT)
    if not late and snapshot.count_publishers(camera.inputs["image"].topic_name) > 1:
        late = [f"more than one node publishes images on {images}: give every camera a topic of its own"]
    return _status(snapshot, part, rejected + problems + late, values, error=bool(rejected))


def _network(snapshot: Snapshot) -> DiagnosticStatus:
    network = snapshot.network
    broken = snapshot.problems.current([Kind.NETWORK, Kind.CONFIGURE])
    broken += snapshot.problems.current([Kind.WORKER, Kind.CALLBACK], within=RECENT)
    warnings = snapshot.problems.current([Kind.NAME, Kind.BATCH])
    if network is None:
        values = {Key.MODEL: snapshot.parameters.model}
        idle = snapshot.loading or "no model loaded"
        if snapshot.loading and broken:
            idle, broken = "", [*broken, snapshot.loading]
        return _status(snapshot, "network", broken + warnings, values, error=bool(broken), idle=idle)
    estimator, asked = network.estimator, snapshot.parameters
    sampling = estimator.check_sampling(asked.steps or None, asked.ensemble_size or None)
    values = {
        Key.MODEL: network.card.name,
        Key.BACKEND: estimator.backend_name,
        Key.BACKEND_ASKED_FOR: snapshot.parameters.backend,
        Key.FALLBACK: estimator.fallback_reason or "",
        Key.LICENCE: network.card.licence,
        Key.EXPORT: ", ".join(f"{name} {value:.2g}" for name, value in network.card.parity.items()),
        Key.STEPS: str(sampling.steps),
        Key.ENSEMBLE_SIZE: str(sampling.ensemble_size),
        Key.IMAGES_AT_ONCE: str(len(snapshot.cameras) if network.takes_batches else 1),
        Key.LIMIT: f"{snapshot.limit:.1f}",
        **_summary([camera.monitor.statistics for camera in snapshot.cameras]),
    }
    if estimator.fallback_reason:
        warnings.append(f"running on {estimator.backend_name}: {estimator.fallback_reason}")
    return _status(snapshot, "network", broken + warnings, values, error=bool(broken))


def _summary(statistics: Sequence[Statistics]) -> Values:
    """Rates, latencies and counts of one camera, or of several together: their rates and counts add up."""
    counts = summed(statistics)
    arrivals, predictions = zip(*(entry.recent() for entry in statistics), strict=True)
    latencies = sorted(latency for entries in predictions for _, latency in entries)
    return {
        Key.EVENTS_IN_WINDOW: str(len(latencies)),
        Key.EVENTS_SINCE_STARTUP: str(counts.predicted),
        Key.WINDOW: f"{WINDOW:.1f}",
        Key.FREQUENCY: f"{sum(_rate([moment for moment, _ in entries]) for entries in predictions):.2f}",
        Key.IMAGE_FREQUENCY: f"{sum(map(_rate, arrivals)):.2f}",
        Key.MEDIAN_LATENCY: f"{latencies[len(latencies) // 2] * 1000:.1f}" if latencies else "",
        Key.LARGEST_LATENCY: f"{latencies[-1] * 1000:.1f}" if latencies else "",
        Key.RECEIVED: str(counts.received),
        Key.DROPPED: str(counts.dropped),
        Key.SKIPPED: str(counts.skipped),
        Key.REJECTED: str(counts.rejected),
        Key.LAST_ERROR: shortened(next((entry.last_error for entry in statistics if entry.last_error), "")),
    }


def _rate(moments: list[float]) -> float:
    return (len(moments) - 1) / (moments[-1] - moments[0]) if len(moments) > 1 and moments[-1] > moments[0] else 0.0


def _outputs(snapshot: Snapshot, camera: CameraInput) -> DiagnosticStatus:
    part, outputs = topic_of(camera.name, "outputs"), camera.outputs
    if outputs is None:
        return _status(snapshot, part, [], {}, idle="no topics offered")
    subscribed = outputs.subscribed(camera.parameters)
    obstacle = _why_not_metric(snapshot, camera, outputs)
    unmet = [outputs.name_of(output) for output in subscribed if output.metric and obstacle]
    problems = [f"nothing on {', '.join(unmet)}: {obstacle}"] if unmet else []
    problems += _prompt_problems(snapshot, camera, {task for output in subscribed for task in output.tasks})
    failed = camera.monitor.problems.current((Kind.OUTPUT.of(item.topic) for item in OUTPUTS), within=RECENT)
    problems += camera.monitor.problems.current(Kind.QOS.of(topic) for topic in outputs.topics)
    problems += camera.monitor.problems.current([Kind.READER], within=RECENT)
    values = {
        Key.ENABLED: str(camera.enabled),
        Key.SUBSCRIBED: ", ".join(outputs.name_of(output) for output in subscribed),
        Key.COMPUTED: ", ".join(sorted(outputs.tasks(camera.parameters, camera.gives_metres))),
        Key.POINT_CLOUD: f"none: {obstacle}" if obstacle else "available",
        **_scale_values(camera),
    }
    idle = "" if camera.enabled else "disabled by ~/enable"
    return _status(snapshot, part, failed + problems, values, error=bool(failed), idle=idle)


def _prompt_problems(snapshot: Snapshot, camera: CameraInput, tasks: Set[str]) -> list[str]:
    """What is wrong with the prompts of a model that has to be asked for a mask."""
    topics = [name for name in ("prompt", "prompt_mask") if name in camera.inputs]
    if "mask" not in tasks or camera.stages is None or not topics:
        return []
    if not camera.stages.prompts.any_yet:
        sources = " or ".join(snapshot.input(camera, name) for name in topics)
        return [f"no mask: nothing has come on {sources}"]
    return camera.monitor.problems.current([Kind.PROMPT], within=RECENT)


def _why_not_metric(snapshot: Snapshot, camera: CameraInput, outputs: Outputs) -> str:
    """Why there is neither metric depth nor a cloud, empty if there is."""
    if "depth" not in outputs.card.tasks:
        return f"model '{outputs.card.name}' gives no depth"
    if not camera.gives_metres:
        source = snapshot.input(camera, "sparse_depth") if "sparse_depth" in camera.inputs else "sparse_depth"
        return f"the depth of model '{outputs.card.name}' is relative, and nothing has come on {source} to scale it"
    if not outputs.is_metric:
        scale = camera.monitor.problems.current([Kind.SPARSE_DEPTH, Kind.GROUND_PLANE])
        if scale and (camera.stages is None or camera.stages.scale is None):
            return "; ".join(scale)
    problems = camera.monitor.problems.current([Kind.CAMERA_INFO])
    if problems:
        return problems[0]
    return "no camera_info has come" if _lacks_camera_info(camera) else ""


def _lacks_camera_info(camera: CameraInput) -> bool:
    """None has come since the activation."""
    return camera.stages is None or not camera.stages.infos.any_yet


def _scale_values(camera: CameraInput) -> Values:
    """Scale and shift of the last frame, for models that need them."""
    latest = camera.stages.scale if camera.stages is not None else None
    if latest is None:
        return {}
    scale, age = latest
    return {
        Key.SCALE_SOURCE: scale.source,
        Key.SCALE: f"{scale.scale:.4g}",
        Key.SHIFT: f"{scale.shift:.4g}",
        Key.SCALE_POINTS: str(scale.points),
        Key.SCALE_INLIERS: f"{scale.inliers:.2f}",
        Key.SCALE_RESIDUAL: f"{scale.residual:.3f}",
        Key.SCALE_AGE: f"{age:.2f}",
        Key.COMPLETED: str(scale.field is not None),
    }


def _status(
    snapshot: Snapshot,
    part: str,
    problems: list[str],
    values: Values,
    error: bool = False,
    idle: str = "",
) -> DiagnosticStatus:
    """OK without problems, else WARN, or ERROR if asked for; `idle` is the message when there are none."""
    level = DiagnosticStatus.OK
    if problems:
        level = DiagnosticStatus.ERROR if error else DiagnosticStatus.WARN
    return DiagnosticStatus(
        level=level,
        name=f"{snapshot.node}: {part}",
        message="; ".join(problems) or idle or "OK",
        hardware_id=snapshot.network.card.name if snapshot.network else "",
        values=[KeyValue(key=key.value, value=value) for key, value in values.items()],
    )
