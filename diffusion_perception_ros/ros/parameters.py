"""Parameters of the nodes: one typed table per node gives defaults, descriptors, ranges and checks.

A field of a table is a parameter. Its description and limits go into the descriptor that `ros2 param describe` shows;
every change is validated as a whole and refused with a reason if any part of it is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.models import DEFAULT_MODEL


Change = Literal["live", "unconfigured", "never"]
"""When a parameter may change: at any time, while the node is unconfigured, or only before it starts."""


def _parameter(default: Any, description: str, change: Change = "live", **limits: float) -> Any:
    return Field(default, description=description, json_schema_extra={"change": change}, **limits)  # type: ignore[call-overload]


class ParameterTable(BaseModel):
    """Base of the tables below."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PerceptionParameters(ParameterTable):
    """Parameters of `perception_node`."""

    model: str = _parameter(DEFAULT_MODEL, "Name or folder of the model.", "unconfigured")
    backend: Literal["auto", "cpu", "cuda", "tensorrt"] = _parameter(
        "auto", "What runs the network; what this machine lacks falls back to the CPU.", "unconfigured"
    )
    threads: int = _parameter(0, "CPU threads of the network, 0 = all cores.", "unconfigured", ge=0, le=256)
    warm_up: bool = _parameter(True, "Run the network once while configuring, not on the first image.", "unconfigured")
    image_transport: Literal["raw", "compressed"] = _parameter(
        "raw", "Subscribe to `image` or to `image/compressed`.", "unconfigured"
    )
    autostart: bool = _parameter(True, "Configure and activate without a lifecycle manager.", "never")
    rectified: bool = _parameter(
        False, "The image is rectified: its camera matrix is P of camera_info, not K, and it has no distortion."
    )
    max_rate: float = _parameter(0.0, "Most predictions per second, 0 = as many as possible.", ge=0.0, le=1000.0)
    publish_depth: bool = _parameter(True, "Offer the depth topics.")
    publish_normals: bool = _parameter(True, "Offer the normals topics.")
    publish_segmentation: bool = _parameter(True, "Offer the segmentation topics.")
    publish_instances: bool = _parameter(True, "Offer the instances topic.")
    publish_points: bool = _parameter(True, "Offer the point cloud.")
    min_depth: float = _parameter(0.0, "Metres; metric depth below becomes NaN.", ge=0.0, le=1000.0)
    max_depth: float = _parameter(1000.0, "Metres; metric depth above becomes +Inf (REP 117).", gt=0.0, le=100000.0)
    min_confidence: float = _parameter(
        0.0, "Depth and points less sure than this become NaN, for models that tell.", ge=0.0, le=1.0
    )
    points_decimation: int = _parameter(
        1, "Every n-th column and row goes into the point cloud; 1 keeps it aligned with the mask.", ge=1, le=64
    )
    camera_info_timeout: float = _parameter(
        5.0, "Seconds with images but without camera_info until diagnostics warn.", gt=0.0, le=3600.0
    )
    sparse_depth_type: Literal["image", "points"] = _parameter(
        "image", "Type of the topic `sparse_depth`: Image or PointCloud2.", "unconfigured"
    )
    sparse_depth_tolerance: float = _parameter(
        0.1, "Most seconds between an image and the sparse depth that scales it.", ge=0.0, le=60.0
    )
    scale_time_constant: float = _parameter(
        0.5, "Seconds over which the scale from sparse depth is smoothed, 0 = not at all.", ge=0.0, le=60.0
    )
    scale_max_age: float = _parameter(
        2.0, "Seconds for which a scale from sparse depth stays usable without a new one.", ge=0.0, le=3600.0
    )
    diagnostics_period: float = _parameter(1.0, "Seconds between diagnostics.", "never", ge=0.1, le=60.0)

    @model_validator(mode="after")
    def _depth_range(self) -> PerceptionParameters:
        if self.min_depth >= self.max_depth:
            raise ValueError(f"min_depth {self.min_depth} must be below max_depth {self.max_depth}")
        return self


class PlayerParameters(ParameterTable):
    """Parameters of `bag_player`."""

    bag: str = _parameter("", "rosbag2 folder or file, ROS 1 bag, or folder of pictures.", "never")
    rate: float = _parameter(1.0, "Playback speed, 1 = as recorded.", "never", gt=0.0, le=1000.0)
    loop: bool = _parameter(False, "Start again at the end, with the same stamps.", "never")
    start_offset: float = _parameter(
        0.0, "Seconds of the recording to leave out at the start.", "never", ge=0.0, le=1e9
    )
    topics: list[str] = _parameter([], "Topics to play, empty = all.", "never")
    wait_for: list[str] = _parameter(
        [], "Topics (as published) that must have a subscriber before the start.", "never"
    )
    wait_for_subscribers: int = _parameter(1, "Subscribers that each of them needs.", "never", ge=1, le=100)
    wait_timeout: float = _parameter(60.0, "Seconds to wait for them before giving up.", "never", gt=0.0, le=1e6)
    clock: bool = _parameter(True, "Publish /clock with the time of the recording.", "never")
    clock_rate: float = _parameter(100.0, "Hz of /clock, in wall time.", "never", gt=0.0, le=1000.0)
    picture_rate: float = _parameter(10.0, "Pictures per second when a folder is played.", "never", gt=0.0, le=1000.0)
    picture_frame_id: str = _parameter("camera_optical_frame", "Frame of the pictures of a folder.", "never")


class RecorderParameters(ParameterTable):
    """Parameters of `recorder`."""

    output: str = _parameter("", "Folder of the new bag; it must not exist yet.", "never")
    topics: list[str] = _parameter([], "Topics to record, subscribed to in this order.", "never")
    compression: Literal["none", "zstd"] = _parameter("none", "Compression of the bag's chunks.", "never")
    wait_timeout: float = _parameter(
        0.0, "Seconds until topics that nobody publishes are given up, 0 = wait for ever.", "never", ge=0.0, le=1e6
    )


Table = TypeVar("Table", bound=ParameterTable)


class NodeParameters(Generic[Table]):
    """The declared parameters of a node; `values` is always a valid table."""

    values: Table

    def __init__(
        self,
        node: Node,
        table: type[Table],
        refuse: Callable[[str], str | None] = lambda name: None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Declares the parameters of `table` on `node`.

        Args:
            node: gets the parameters.
            table: the class to read them into.
            refuse: says why a parameter of class "unconfigured" cannot change now, None if it can.
            on_change: called after every change.

        Raises:
            InputError: a value given at the start is wrong.
        """
        self._table, self._refuse, self._on_change = table, refuse, on_change
        given: dict[str, Any] = {}
        for name, field in table.model_fields.items():
            try:
                given[name] = node.declare_parameter(name, field.default, _descriptor(field)).value
            except ParameterException as error:
                raise InputError(f"parameter {name}: {error}") from error
        try:
            self.values = self._validated({name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            raise InputError(_sentence(error)) from error
        node.add_on_set_parameters_callback(self._set)

    def _validated(self, values: dict[str, Any]) -> Table:
        return self._table.model_validate(values)

    def _set(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        changes = {item.name: item for item in parameters if item.name in self._table.model_fields}
        for name, item in changes.items():
            reason = "it cannot be deleted" if item.type_ == Parameter.Type.NOT_SET else self._why_fixed(name)
            if reason:
                return SetParametersResult(successful=False, reason=f"parameter {name}: {reason}")
        new = {name: item.value for name, item in changes.items()}
        try:
            self.values = self._validated(self.values.model_dump() | new)
        except ValidationError as error:
            return SetParametersResult(successful=False, reason=_sentence(error))
        if changes:
            self._on_change()
        return SetParametersResult(successful=True)

    def _why_fixed(self, name: str) -> str | None:
        return self._refuse(name) if _change(self._table.model_fields[name]) == "unconfigured" else None


def _change(field: FieldInfo) -> Change:
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    return extra["change"]  # type: ignore[return-value]


def _descriptor(field: FieldInfo) -> ParameterDescriptor:
    # Dynamic typing lets `max_rate:=5` be a number; rclpy would insist on `5.0`. The table checks the type.
    descriptor = ParameterDescriptor(
        description=field.description or "", read_only=_change(field) == "never", dynamic_typing=True
    )
    notes = {"unconfigured": ["can change while the node is unconfigured"], "live": ["can change at any time"]}.get(
        _change(field), []
    )
    if get_origin(field.annotation) is Literal:
        notes.append("one of " + ", ".join(get_args(field.annotation)))
    descriptor.additional_constraints = "; ".join(notes)
    limits = {key: getattr(item, key) for item in field.metadata for key in ("ge", "gt", "le") if hasattr(item, key)}
    lower, upper = limits.get("ge", limits.get("gt")), limits.get("le")
    if lower is not None and upper is not None:
        if field.annotation is int:
            descriptor.integer_range = [IntegerRange(from_value=lower, to_value=upper, step=1)]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(lower), to_value=float(upper))]
    return descriptor


def _sentence(error: ValidationError) -> str:
    return "; ".join(
        f"parameter {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        if problem["loc"]
        else problem["msg"].removeprefix("Value error, ")
        for problem in error.errors()
    )
