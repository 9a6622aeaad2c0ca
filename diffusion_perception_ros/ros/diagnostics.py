"""/diagnostics of `perception_node`.

diagnostic_updater is not among the ROS 2 wheels, so the statuses are built here, with the keys it would give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.ros.camera import Camera
from diffusion_perception_ros.ros.camera_topics import topic_of
from diffusion_perception_ros.ros.gravity import COMPLAINT as GROUND_PLANE
from diffusion_perception_ros.ros.monitor import Complaints, summary
from diffusion_perception_ros.ros.parameters import PerceptionParameters
from diffusion_perception_ros.ros.predictor import COMPLAINT as BATCH
from diffusion_perception_ros.ros.prompts import COMPLAINT as PROMPT
from diffusion_perception_ros.ros.publishers import Outputs
from diffusion_perception_ros.ros.sparse_depth import COMPLAINT as SPARSE_DEPTH


IMAGES_MISSING_AFTER = 2.0
"""Seconds without an image that are worth a warning."""
RECENT = 10.0
"""Seconds for which an image that could not be used is reported."""


@dataclass
class Snapshot:
    """The node at one moment."""

    node: str
    state: str
    """Lifecycle state."""
    parameters: PerceptionParameters
    complaints: Complaints
    """Of the node; its cameras have their own."""
    estimator: Estimator | None
    cameras: Sequence[Camera]
    count_publishers: Callable[[str], int]
    """Of a resolved topic."""

    def input(self, camera: Camera, name: str) -> str:
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


def _images(snapshot: Snapshot, camera: Camera) -> DiagnosticStatus:
    part, monitor = topic_of(camera.name, "images"), camera.monitor
    values = {"State": snapshot.state}
    if not {"image", "camera_info"} <= camera.inputs.keys():
        failures = snapshot.complaints.current(["activate"])
        idle = f"not subscribed: the node is {snapshot.state}"
        return _status(snapshot, part, failures, values, error=True, idle=idle)
    images, camera_info = snapshot.input(camera, "image"), snapshot.input(camera, "camera_info")
    values |= {"Image topic": images, "camera_info topic": camera_info, **summary([monitor.statistics])}
    problems = monitor.complaints.current(f"qos {item.topic_name}" for item in camera.inputs.values())
    rejected = monitor.complaints.current(["image"], within=RECENT)
    silence = monitor.statistics.since_last_arrival
    if silence > IMAGES_MISSING_AFTER:
        problems.append(f"waiting for images on {images}")
    elif _lacks_camera_info(camera) and monitor.statistics.age > camera.parameters.camera_info_timeout:
        problems.append(f"no camera_info on {camera_info}: no metric depth, no point cloud")
    problems += monitor.complaints.current(["camera_info", "camera_info frame"])
    return _status(snapshot, part, rejected + problems, values, error=bool(rejected))


def _network(snapshot: Snapshot) -> DiagnosticStatus:
    estimator = snapshot.estimator
    if estimator is None:
        failures = snapshot.complaints.current(["configure"])
        values = {"Model": snapshot.parameters.model}
        return _status(snapshot, "network", failures, values, error=True, idle="no model loaded")
    asked = snapshot.parameters
    sampling = estimator.check_sampling(asked.steps or None, asked.ensemble_size or None)
    values = {
        "Model": estimator.card.name,
        "Backend": estimator.backend_name,
        "Backend asked for": snapshot.parameters.backend,
        "Fallback": estimator.fallback_reason or "",
        "Licence": estimator.card.licence,
        "Exported graph differs by": ", ".join(f"{name} {value:.2g}" for name, value in estimator.card.parity.items()),
        "Steps": str(sampling.steps),
        "Ensemble size": str(sampling.ensemble_size),
        "Images at once": str(len(snapshot.cameras) if estimator.takes_batches else 1),
        **summary([camera.monitor.statistics for camera in snapshot.cameras]),
    }
    problems = snapshot.complaints.current([BATCH])
    if estimator.fallback_reason:
        problems.append(f"running on {estimator.backend_name}: {estimator.fallback_reason}")
    return _status(snapshot, "network", problems, values)


def _outputs(snapshot: Snapshot, camera: Camera) -> DiagnosticStatus:
    part, outputs = topic_of(camera.name, "outputs"), camera.outputs
    if outputs is None:
        return _status(snapshot, part, [], {}, idle="no topics offered")
    subscribed = outputs.subscribed(camera.parameters)
    obstacle = _why_not_metric(snapshot, camera, outputs)
    unmet = [outputs.name_of(output) for output in subscribed if output.metric and obstacle]
    problems = [f"nothing on {', '.join(unmet)}: {obstacle}"] if unmet else []
    problems += _prompt_problems(snapshot, camera, {task for output in subscribed for task in output.tasks})
    problems += camera.monitor.complaints.current(f"qos {topic}" for topic in outputs.topics)
    values = {
        "Enabled": str(camera.enabled),
        "Subscribed": ", ".join(outputs.name_of(output) for output in subscribed),
        "Computed": ", ".join(sorted(outputs.tasks(camera.parameters))),
        "Point cloud": f"none: {obstacle}" if obstacle else "available",
        **_scale_values(camera),
    }
    return _status(snapshot, part, problems, values, idle="" if camera.enabled else "disabled by ~/enable")


def _prompt_problems(snapshot: Snapshot, camera: Camera, tasks: Set[str]) -> list[str]:
    """What is wrong with the prompts of a model that has to be asked for a mask."""
    topics = [name for name in ("prompt", "prompt_mask") if name in camera.inputs]
    if "mask" not in tasks or camera.pipeline is None or not topics:
        return []
    if not camera.pipeline.prompts.any_yet:
        sources = " or ".join(snapshot.input(camera, name) for name in topics)
        return [f"no mask: nothing has come on {sources}"]
    return camera.monitor.complaints.current([PROMPT], within=RECENT)


def _why_not_metric(snapshot: Snapshot, camera: Camera, outputs: Outputs) -> str:
    """Why there is neither metric depth nor a cloud, empty if there is."""
    if "depth" not in outputs.card.tasks:
        return f"model '{outputs.card.name}' gives no depth"
    if not outputs.may_be_metric:
        source = snapshot.input(camera, "sparse_depth") if "sparse_depth" in camera.inputs else "sparse_depth"
        return f"the depth of model '{outputs.card.name}' is relative, and nothing has come on {source} to scale it"
    if not outputs.is_metric:
        scale = camera.monitor.complaints.current([SPARSE_DEPTH, GROUND_PLANE])
        if scale and (camera.pipeline is None or camera.pipeline.scale is None):
            return "; ".join(scale)
    complaint = camera.monitor.complaints.current(["camera_info"])
    if complaint:
        return complaint[0]
    return "no camera_info has come" if _lacks_camera_info(camera) else ""


def _lacks_camera_info(camera: Camera) -> bool:
    """None has come since the activation."""
    return camera.pipeline is None or not camera.pipeline.infos.any_yet


def _scale_values(camera: Camera) -> dict[str, str]:
    """Scale and shift of the last frame, for models that need them."""
    if camera.pipeline is None or camera.pipeline.scale is None:
        return {}
    scale, age = camera.pipeline.scale
    return {
        "Scale source": scale.source,
        "Scale": f"{scale.scale:.4g}",
        "Shift": f"{scale.shift:.4g}",
        "Scale points": str(scale.points),
        "Scale inliers": f"{scale.inliers:.2f}",
        "Scale residual": f"{scale.residual:.3f}",
        "Scale age (s)": f"{age:.2f}",
        "Completed through the points": str(scale.field is not None),
    }


def _status(
    snapshot: Snapshot,
    part: str,
    problems: list[str],
    values: Mapping[str, str],
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
        hardware_id=snapshot.estimator.card.name if snapshot.estimator else "",
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
