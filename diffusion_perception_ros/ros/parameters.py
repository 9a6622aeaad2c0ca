"""Parameters of the nodes: one typed table per node gives defaults, descriptors, ranges and checks.

A field of a table is a parameter. Its description and limits go into the descriptor that `ros2 param describe` shows;
every change is validated as a whole and refused with a reason if any part of it is wrong.
"""

from __future__ import annotations

import array
import math
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from diffusion_perception_ros.inference.image_encodings import ImageLimits
from diffusion_perception_ros.inference.models import DEFAULT_MODEL
from diffusion_perception_ros.inference.temporal.filter import TIME_CONSTANT
from diffusion_perception_ros.ros.transforms import SHORTEST_QUATERNION


CAMERA_NAME = r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*_?"
"""A ROS namespace without slashes; two underscores in a row are not allowed in one."""

Change = Literal["live", "unconfigured", "never"]
"""When a parameter may change: at any time, while the node is unconfigured, or only before it starts."""


def _parameter(default: Any, description: str, change: Change = "live", **limits: float) -> Any:
    return Field(default, description=description, json_schema_extra={"change": change}, **limits)  # type: ignore[call-overload]


def _are_numbers(values: Any) -> bool:
    """Whether it is a sequence of numbers, as rclpy gives them."""
    return isinstance(values, (list, tuple, array.array)) and all(type(value) in (int, float) for value in values)


class ParameterTable(BaseModel):
    """Base of the tables below."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class CameraParameters(ParameterTable):
    """Parameters that a node of several cameras can also have for one of them, as in `front.max_rate`."""

    image_transport: Literal["raw", "compressed", "ffmpeg", "foxglove"] = _parameter(
        "raw",
        "Subscribe to `image`, or to its sibling of this name: `compressed` (JPEG, PNG, H.264, H.265), or the "
        "video packets of "
        "`ffmpeg` and `foxglove`.",
        "unconfigured",
    )
    rectified: bool = _parameter(
        False, "The image is rectified: its camera matrix is P of camera_info, not K, and it has no distortion."
    )
    image_max_pixels: int = _parameter(
        25_000_000, "Larger images are refused before they are decoded.", ge=1, le=1 << 26
    )
    image_max_aspect: float = _parameter(
        20.0, "Images are refused whose one side is longer than this times the other.", ge=1.0, le=10000.0
    )
    image_max_bytes: int = _parameter(
        1 << 28, "Images are refused whose data, or decoded data, are longer than this.", ge=1, le=1 << 30
    )
    max_rate: float = _parameter(0.0, "Most predictions per second, 0 = as many as possible.", ge=0.0, le=1000.0)
    output_size: Literal["image", "half", "network"] = _parameter(
        "image", "Size of all maps: the image's, half of it, or the columns of the network's input (fastest)."
    )
    publish_depth: bool = _parameter(True, "Offer the depth topics.")
    publish_normals: bool = _parameter(True, "Offer the normals topics.")
    publish_segmentation: bool = _parameter(True, "Offer the segmentation topics.")
    publish_instances: bool = _parameter(True, "Offer the instances topic.")
    publish_points: bool = _parameter(True, "Offer the point cloud.")
    publish_alpha: bool = _parameter(True, "Offer the foreground's opacity.")
    publish_mask: bool = _parameter(True, "Offer the mask of the prompted object.")
    publish_flow: bool = _parameter(True, "Offer the optical flow topics.")
    publish_keypoints: bool = _parameter(True, "Offer the keypoints topics.")
    publish_materials: bool = _parameter(True, "Offer albedo, shading, residual and material.")
    min_depth: float = _parameter(0.0, "Metres; metric depth below becomes NaN.", ge=0.0, le=1000.0)
    max_depth: float = _parameter(1000.0, "Metres; metric depth above becomes +Inf (REP 117).", gt=0.0, le=100000.0)
    min_confidence: float = _parameter(
        0.0, "Depth and points less sure than this become NaN, for models that tell.", ge=0.0, le=1.0
    )
    points_decimation: int = _parameter(
        1, "Every n-th column and row goes into the point cloud; 1 keeps it aligned with the mask.", ge=1, le=64
    )
    points_edge_filter: float = _parameter(
        0.0,
        "Points whose depth differs from a neighbouring pixel's by more than this share leave the cloud, 0 = none.",
        ge=0.0,
        le=10.0,
    )
    temporal: bool = _parameter(False, "Steady depth, normals and classes from image to image.")
    temporal_time_constant: float = _parameter(
        TIME_CONSTANT, "Seconds over which `temporal` smooths, 0 = not at all.", ge=0.0, le=10.0
    )
    prompt_points: int = _parameter(
        0, "Last points of `prompt` that are used, 0 = as many as the model takes.", ge=0, le=1000
    )
    camera_info_timeout: float = _parameter(
        5.0, "Seconds with images but without camera_info until diagnostics warn.", gt=0.0, le=3600.0
    )
    sparse_depth_type: Literal["image", "compressed", "points"] = _parameter(
        "image",
        "Type of the topic `sparse_depth`: Image, CompressedImage (16-bit PNG, compressedDepth) or PointCloud2.",
        "unconfigured",
    )
    sparse_depth_tolerance: float = _parameter(
        0.1, "Most seconds between an image and the sparse depth that scales it.", ge=0.0, le=60.0
    )
    sparse_depth_extrinsics: list[float] = _parameter(
        [],
        "Pose of the points' sensor in the camera's body frame (x forward, y left, z up): x y z roll pitch yaw, or "
        "x y z qx qy qz qw. Empty = tf2.",
    )
    scale_field: bool = _parameter(True, "Complete the depth through the points of sparse depth, place by place.")
    scale_time_constant: float = _parameter(
        0.5, "Seconds over which scale and shift are smoothed, 0 = not at all.", ge=0.0, le=60.0
    )
    scale_max_age: float = _parameter(
        2.0, "Seconds for which a scale stays usable without a new one.", ge=0.0, le=3600.0
    )
    camera_height: float = _parameter(
        0.0, "Metres of the camera above the floor, which give relative models a scale; 0 = unknown.", ge=0.0, le=100.0
    )
    gravity_source: Literal["mount", "imu"] = _parameter(
        "mount", "Where down is: camera_pitch and camera_roll, or the topic `imu`.", "unconfigured"
    )
    camera_pitch: float = _parameter(0.0, "Radians that the camera looks down.", ge=-1.6, le=1.6)
    camera_roll: float = _parameter(0.0, "Radians that the camera leans to the right.", ge=-3.2, le=3.2)

    @field_validator("sparse_depth_extrinsics", mode="before")
    @classmethod
    def _numbers(cls, pose: Any) -> Any:
        # rclpy gives an array, and whole numbers as integers; of anything else pydantic says what is wrong.
        return [float(value) for value in pose] if _are_numbers(pose) else pose

    @field_validator("sparse_depth_extrinsics")
    @classmethod
    def _pose(cls, pose: list[float]) -> list[float]:
        if len(pose) not in (0, 6, 7) or (len(pose) == 7 and not math.hypot(*pose[3:]) > SHORTEST_QUATERNION):
            raise ValueError("give x y z roll pitch yaw, or x y z qx qy qz qw with a quaternion that is not 0")
        return pose

    @property
    def image_limits(self) -> ImageLimits:
        """What is accepted of an image."""
        return ImageLimits(self.image_max_pixels, self.image_max_aspect, self.image_max_bytes)

    @model_validator(mode="after")
    def _depth_range(self) -> CameraParameters:
        if self.min_depth >= self.max_depth:
            raise ValueError(f"min_depth {self.min_depth} must be below max_depth {self.max_depth}")
        return self


class PerceptionParameters(CameraParameters):
    """Parameters of `perception_node`."""

    cameras: list[str] = _parameter(
        [],
        "Names of several cameras that share the model; each is a namespace of its own topics. Empty = one camera.",
        "never",
    )
    model: str = _parameter(DEFAULT_MODEL, "Name or folder of the model.", "unconfigured")
    backend: Literal["auto", "cpu", "cuda", "tensorrt"] = _parameter(
        "auto", "What runs the network; what this machine lacks falls back to the CPU.", "unconfigured"
    )
    engine_precision: Literal["fp32", "fp16", "bf16"] = _parameter(
        "fp16", "What a TensorRT engine of an fp32 model computes in.", "unconfigured"
    )
    steps: int = _parameter(0, "Denoising steps, 0 = as the model's card says.", ge=0, le=1000)
    ensemble_size: int = _parameter(
        0, "Predictions from different noise that become one, 0 = as the model's card says.", ge=0, le=100
    )
    noise_mode: Literal["card", "fixed", "carry", "random"] = _parameter(
        "card",
        "Noise from image to image: the same, mixed with the last latent, new, or as the model's card says.",
    )
    tile: str = _parameter(
        "", "SIZE/OVERLAP in pixels: larger images are predicted in tiles, which takes longer. Empty = never."
    )
    threads: int = _parameter(0, "CPU threads of the network, 0 = all cores.", "unconfigured", ge=0, le=256)
    isolation: Literal["thread", "process"] = _parameter(
        "thread",
        "Where the network runs: in a thread of the node, or in a process of its own, which is killed and started "
        "again when it hangs or crashes.",
        "unconfigured",
    )
    load_timeout: float = _parameter(
        3600.0,
        "Most seconds for loading a model, which includes building an engine for a GPU.",
        "unconfigured",
        gt=0.0,
        le=1e6,
    )
    input_area: int = _parameter(
        0,
        "Pixels of the network's input, 0 = as the model's card says; for models whose input goes by its area.",
        ge=0,
        le=1 << 22,
    )
    watchdog_seconds: float = _parameter(
        0.0,
        "Seconds after which the network is taken to hang on an image, 0 = ten times what is usual, at least 5.",
        ge=0.0,
        le=3600.0,
    )
    warm_up: bool = _parameter(True, "Run the network once while configuring, not on the first image.", "unconfigured")
    autostart: bool = _parameter(True, "Configure and activate without a lifecycle manager.", "never")
    diagnostics_period: float = _parameter(1.0, "Seconds between diagnostics.", "never", ge=0.1, le=60.0)

    @field_validator("cameras")
    @classmethod
    def _camera_names(cls, names: list[str]) -> list[str]:
        for name in names:
            if not re.fullmatch(CAMERA_NAME, name):
                raise ValueError(f"'{name}' cannot be a camera's namespace: use letters, digits and _, a letter first")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"every camera needs a name of its own, {', '.join(twice)} is there twice")
        return names


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
    depth_share: float = _parameter(
        1.0, "Share of the pixels of depth images that is played; the others become holes.", "never", ge=0.0, le=1.0
    )
    picture_rate: float = _parameter(10.0, "Pictures per second when a folder is played.", "never", gt=0.0, le=1000.0)
    picture_frame_id: str = _parameter("camera_optical_frame", "Frame of the pictures of a folder.", "never")


class RecorderParameters(ParameterTable):
    """Parameters of `recorder`."""

    output: str = _parameter("", "Folder of the new bag; it must not exist yet.", "never")
    topics: list[str] = _parameter([], "Topics to record, subscribed to in this order.", "never")
    compression: Literal["none", "zstd"] = _parameter("none", "Compression of the bag's chunks.", "never")
    min_free_bytes: int = _parameter(
        64_000_000, "Bytes free on the disk below which recording ends, with a whole bag.", "never", ge=0, le=1 << 50
    )
    wait_timeout: float = _parameter(
        0.0, "Seconds until topics that nobody publishes are given up, 0 = wait for ever.", "never", ge=0.0, le=1e6
    )


class WaitParameters(ParameterTable):
    """Parameters of `wait_until_active`."""

    lifecycle_node: str = _parameter(
        "perception_node", "Node, as seen from this one's namespace, to wait for.", "never"
    )
    topics: list[str] = _parameter([], "Topics that must have subscribers as well.", "never")
    subscribers: int = _parameter(1, "Subscribers that each of them needs.", "never", ge=1, le=100)
    timeout: float = _parameter(
        1800.0, "Seconds to wait before giving up; building a TensorRT engine takes minutes.", "never", gt=0.0, le=1e6
    )
