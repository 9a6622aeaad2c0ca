"""/diagnostics of `perception_node`.

diagnostic_updater is not among the ROS 2 wheels, so the statuses are built here, with the keys it would give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.ros.monitor import Monitor
from diffusion_perception_ros.ros.parameters import PerceptionParameters
from diffusion_perception_ros.ros.publishers import Outputs
from diffusion_perception_ros.ros.sparse_depth import COMPLAINT, SparseDepth


IMAGES_MISSING_AFTER = 2.0
"""Seconds without an image that are worth a warning."""
RECENT = 10.0
"""Seconds for which an image that could not be used is reported."""


@dataclass
class Input:
    """A subscribed topic."""

    topic: str
    publishers: int

    def __str__(self) -> str:
        return f"{self.topic} ({self.publishers} publisher{'' if self.publishers == 1 else 's'})"


@dataclass
class Snapshot:
    """The node at one moment."""

    node: str
    state: str
    """Lifecycle state."""
    enabled: bool
    parameters: PerceptionParameters
    monitor: Monitor
    estimator: Estimator | None
    outputs: Outputs | None
    images: Input | None
    camera_info: Input | None
    has_camera_info: bool
    """One has come since the activation."""
    sparse_depth: Input | None
    """None if the model is metric by itself."""
    sparse: SparseDepth | None


def diagnose(snapshot: Snapshot) -> list[DiagnosticStatus]:
    """The statuses of images, network and outputs."""
    return [_images(snapshot), _network(snapshot), _outputs(snapshot)]


def _images(snapshot: Snapshot) -> DiagnosticStatus:
    monitor = snapshot.monitor
    values = {"State": snapshot.state}
    if snapshot.images is None or snapshot.camera_info is None:
        failures = monitor.complaints.current(["activate"])
        idle = f"not subscribed: the node is {snapshot.state}"
        return _status(snapshot, "images", failures, values, error=True, idle=idle)
    values |= {"Image topic": str(snapshot.images), "camera_info topic": str(snapshot.camera_info)}
    problems = monitor.complaints.current("qos " + item.topic for item in (snapshot.images, snapshot.camera_info))
    rejected = monitor.complaints.current(["image"], within=RECENT)
    silence = monitor.statistics.since_last_arrival
    if silence > IMAGES_MISSING_AFTER:
        problems.append(f"waiting for images on {snapshot.images}")
    elif not snapshot.has_camera_info and monitor.statistics.age > snapshot.parameters.camera_info_timeout:
        problems.append(f"no camera_info on {snapshot.camera_info}: no metric depth, no point cloud")
    problems += monitor.complaints.current(["camera_info", "camera_info frame"])
    return _status(snapshot, "images", rejected + problems, values, error=bool(rejected))


def _network(snapshot: Snapshot) -> DiagnosticStatus:
    complaints, estimator = snapshot.monitor.complaints, snapshot.estimator
    if estimator is None:
        failures = complaints.current(["configure"])
        values = {"Model": snapshot.parameters.model}
        return _status(snapshot, "network", failures, values, error=True, idle="no model loaded")
    values = {
        "Model": estimator.card.name,
        "Backend": estimator.backend_name,
        "Backend asked for": snapshot.parameters.backend,
        "Fallback": estimator.fallback_reason or "",
        **snapshot.monitor.statistics.values(),
    }
    problems = (
        [f"running on {estimator.backend_name}: {estimator.fallback_reason}"] if estimator.fallback_reason else []
    )
    return _status(snapshot, "network", problems, values)


def _outputs(snapshot: Snapshot) -> DiagnosticStatus:
    outputs, complaints = snapshot.outputs, snapshot.monitor.complaints
    if outputs is None:
        return _status(snapshot, "outputs", [], {}, idle="no topics offered")
    subscribed = outputs.subscribed(snapshot.parameters)
    obstacle = _why_not_metric(snapshot, outputs)
    unmet = [output.topic for output in subscribed if output.metric and obstacle]
    problems = [f"nothing on {', '.join(unmet)}: {obstacle}"] if unmet else []
    problems += complaints.current(f"qos {topic}" for topic in outputs.topics)
    values = {
        "Enabled": str(snapshot.enabled),
        "Subscribed": ", ".join(output.topic for output in subscribed),
        "Computed": ", ".join(sorted(outputs.tasks(snapshot.parameters))),
        "Point cloud": f"none: {obstacle}" if obstacle else "available",
        **_scale_values(snapshot.sparse),
    }
    return _status(snapshot, "outputs", problems, values, idle="" if snapshot.enabled else "disabled by ~/enable")


def _why_not_metric(snapshot: Snapshot, outputs: Outputs) -> str:
    """Why there is neither metric depth nor a cloud, empty if there is."""
    if "depth" not in outputs.card.tasks:
        return f"model '{outputs.card.name}' gives no depth"
    if not outputs.may_be_metric:
        return (
            f"the depth of model '{outputs.card.name}' is relative, and nothing has come on {snapshot.sparse_depth} "
            "to scale it"
        )
    if not outputs.is_metric:
        sparse = snapshot.monitor.complaints.current([COMPLAINT])
        if sparse and (snapshot.sparse is None or snapshot.sparse.latest is None):
            return sparse[0]
    camera = snapshot.monitor.complaints.current(["camera_info"])
    if camera:
        return camera[0]
    return "" if snapshot.has_camera_info else "no camera_info has come"


def _scale_values(sparse: SparseDepth | None) -> dict[str, str]:
    """The scale from sparse depth, for models that need one."""
    scale = sparse.latest if sparse is not None else None
    if sparse is None or scale is None:
        return {}
    return {
        "Scale source": "sparse_depth",
        "Scale": f"{scale.scale:.4g}",
        "Shift": f"{scale.shift:.4g}",
        "Scale points": str(scale.points),
        "Scale inliers": f"{scale.inliers:.2f}",
        "Scale residual": f"{scale.residual:.3f}",
        "Scale age (s)": f"{sparse.age:.2f}",
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
