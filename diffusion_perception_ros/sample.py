"""The data types that everything shares: `Intrinsics`, `Sample` (ground truth) and `Prediction` (a model's answer)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


FloatImage = npt.NDArray[np.float32]
UInt8Image = npt.NDArray[np.uint8]
UInt16Image = npt.NDArray[np.uint16]

JOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
"""The seventeen keypoints of COCO, in its order."""

UNLABELLED = 255
"""Semantic id of a pixel without a label (the highest mono8 value, as vision_msgs and nav2 use it)."""

UNKNOWN_INSTANCE = 65535
"""Instance id of a pixel whose object is not known; such pixels are left out of every score."""


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole camera in pixels, pixel centres at integer coordinates: x = (u - cx) z / fx, y = (v - cy) z / fy."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        values = (self.fx, self.fy, self.cx, self.cy)
        if not all(math.isfinite(value) for value in values) or self.fx <= 0 or self.fy <= 0:
            raise ValueError(f"intrinsics must be finite with positive focal lengths, got fx fy cx cy = {values}")
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"intrinsics belong to an image of positive size, got {self.width}x{self.height}")

    def resized(self, width: int, height: int) -> Intrinsics:
        """The same camera after resizing its image; the half-pixel shift of integer pixel centres is kept exact."""
        sx, sy = width / self.width, height / self.height
        return Intrinsics(
            width, height, self.fx * sx, self.fy * sy, (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5
        )

    def cropped(self, left: int, top: int, width: int, height: int) -> Intrinsics:
        """The same camera after cutting out the window that starts at pixel (left, top)."""
        return Intrinsics(width, height, self.fx, self.fy, self.cx - left, self.cy - top)

    def flipped(self) -> Intrinsics:
        """The same camera after a left-right flip of its image."""
        return Intrinsics(self.width, self.height, self.fx, self.fy, self.width - 1 - self.cx, self.cy)

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """K, shape (3, 3)."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass
class Sample:
    """One picture and what is known about it. All maps have the picture's height H and width W."""

    rgb: UInt8Image
    """(H, W, 3), sRGB."""
    depth: FloatImage | None = None
    """(H, W), metres along the optical axis (planar z, REP 118); NaN where unknown, +Inf for sky (REP 117)."""
    normals: FloatImage | None = None
    """(H, W, 3), unit vectors in the optical frame (x right, y down, z forward), facing the camera; NaN unknown."""
    semantic: UInt8Image | None = None
    """(H, W), class ids, `UNLABELLED` where unknown."""
    instances: UInt16Image | None = None
    """(H, W), 0 = no instance."""
    previous: UInt8Image | None = None
    """(H, W, 3), sRGB, the camera's picture before this one."""
    flow: FloatImage | None = None
    """(H, W, 2), pixels (right, down) from each pixel to where it was in the picture before this one; NaN unknown."""
    alpha: FloatImage | None = None
    """(H, W), opacity of the foreground in [0, 1]."""
    amodal: UInt16Image | None = None
    """(H, W), the id in `instances` of one object wherever it would be seen if nothing hid it, 0 elsewhere."""
    keypoints: FloatImage | None = None
    """(people, 17, 3): u, v in pixels and visibility (0 absent, 1 occluded, 2 visible), joints in the order of COCO
    (`JOINTS`)."""
    intrinsics: Intrinsics | None = None
    stamp: float | None = None
    """Seconds."""
    frame_id: str = ""
    name: str = ""
    """Where the sample came from, for error messages and reports."""


@dataclass
class Prediction:
    """What a model says about one picture, in the picture's height H and width W. Absent tasks are None."""

    depth: FloatImage | None = None
    """(H, W), metres along the optical axis, only when the model (or a scale source) makes it metric; NaN invalid."""
    depth_relative: FloatImage | None = None
    """(H, W) in [0, 1]: depth or disparity up to an unknown scale and shift; `depth_quantity` says which."""
    depth_quantity: str | None = None
    """`metric_depth`, `relative_depth` (larger = farther) or `relative_disparity` (larger = nearer)."""
    confidence: FloatImage | None = None
    """(H, W) of the depth in [0, 1], 1 = sure."""
    normals: FloatImage | None = None
    """(H, W, 3), as in `Sample`."""
    normals_confidence: FloatImage | None = None
    """(H, W) in [0, 1], 1 = sure; only from ensembles."""
    semantic: UInt8Image | UInt16Image | None = None
    """(H, W), ids of the card's labels."""
    semantic_confidence: FloatImage | None = None
    """(H, W), probability of the class given, in [0, 1]."""
    instances: UInt16Image | None = None
    """(H, W), 0 = no instance."""
    flow: FloatImage | None = None
    """(H, W, 2), pixels (right, down) from each pixel to where it was in the picture *before* this one. None on the
    first picture of a stream."""
    alpha: FloatImage | None = None
    """(H, W), opacity of the foreground in [0, 1]."""
    mask: FloatImage | None = None
    """(H, W) in [0, 1], from 0.5 on inside the object that the point prompts mean. None without prompts."""
    keypoints: FloatImage | None = None
    """(N, 3): u, v in pixels and confidence in [0, 1]; not assigned to a person, the surest first. (N, 4) from models
    that name them: the number of the joint in the card's `joints`, too."""
    albedo: FloatImage | None = None
    """(H, W, 3) RGB in [0, 1]: colour of the surface without the light."""
    shading: FloatImage | None = None
    """(H, W, 3) RGB in [0, 1]: light on the surface."""
    residual: FloatImage | None = None
    """(H, W, 3) RGB in [0, 1]: what albedo times shading leaves, such as highlights."""
    material: FloatImage | None = None
    """(H, W, 3) in [0, 1]: roughness and metallicity in the first two channels."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds per stage: `preprocess`, `inference`, `postprocess`."""
