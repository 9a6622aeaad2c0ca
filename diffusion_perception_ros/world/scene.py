"""The one scene format: a soup of textured triangles, lights, a sky and a camera, all in metres, z up (REP 103)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.sample import Intrinsics


Float32 = npt.NDArray[np.float32]


@dataclass
class Triangles:
    """N triangles; every array has N rows."""

    positions: Float32
    """(N, 3, 3): triangle, corner, xyz in metres."""
    normals: Float32
    """(N, 3, 3) unit shading normals of the corners. Windings are free: renderers draw both sides."""
    uvs: Float32
    """(N, 3, 2) texture coordinates, repeating; v = 0 is the first row of the layer."""
    albedo: Float32
    """(N, 3) linear RGB in [0, 1], multiplied with the texture."""
    texture: npt.NDArray[np.int32]
    """(N,) layer of `Scene.textures`, -1 = none."""
    semantic: npt.NDArray[np.uint8]
    """(N,) class id of `world.labels`."""
    instance: npt.NDArray[np.int32]
    """(N,) instance id, 0 = stuff."""
    emission: Float32
    """(N,) light given off, in units of the albedo."""
    gloss: Float32
    """(N,) strength of the specular highlight in [0, 1]."""

    def __len__(self) -> int:
        return len(self.positions)

    def of_instance(self, instance: int) -> Triangles:
        """Those of one object."""
        rows = self.instance == instance
        return Triangles(**{name: getattr(self, name)[rows] for name in Triangles.__dataclass_fields__})

    @staticmethod
    def concatenate(parts: list[Triangles]) -> Triangles:
        """One soup out of several, in order."""
        names = Triangles.__dataclass_fields__
        return Triangles(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True)
class PointLight:
    """A lamp in a room."""

    position: tuple[float, float, float]
    color: tuple[float, float, float]
    """Linear RGB intensity; falls off with the squared distance."""


@dataclass(frozen=True)
class DirectionalLight:
    """The sun."""

    direction: tuple[float, float, float]
    """Unit vector from the scene towards the light."""
    color: tuple[float, float, float]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera somewhere in the world."""

    intrinsics: Intrinsics
    world_from_camera: npt.NDArray[np.float64]
    """(4, 4) pose of the optical frame (x right, y down, z forward)."""


@dataclass(frozen=True)
class Skeleton:
    """Where the joints of somebody in the scene are."""

    instance: int
    joints: npt.NDArray[np.float64]
    """(17, 3), metres in the world, in the order of `sample.JOINTS`."""


@dataclass
class Scene:
    """Everything a renderer needs."""

    triangles: Triangles
    textures: npt.NDArray[np.uint8]
    """(layers, S, S, 4) sRGB + alpha; pixels with alpha < 128 are cut out."""
    lights: list[PointLight | DirectionalLight]
    """At most four; the first two cast shadows."""
    ambient: tuple[float, float, float]
    camera: Camera
    sky_color: tuple[float, float, float] = (0.6, 0.75, 1.0)
    clouds: float = 0.0
    """Cloud cover in [0, 1]; seen where no triangle is hit (semantic `sky`, depth +Inf)."""
    is_outdoor: bool = False
    seed: int = 0
    tags: list[str] = field(default_factory=list)
    """What kind of scene it is (`room`, `tabletop`, `street`, …), for statistics."""
    skeletons: list[Skeleton] = field(default_factory=list)


def look_at(
    eye: npt.ArrayLike, target: npt.ArrayLike, roll: float = 0.0, up: npt.ArrayLike = (0.0, 0.0, 1.0)
) -> npt.NDArray[np.float64]:
    """Pose (4, 4) of an optical frame at `eye` whose z axis points to `target`; roll in radians about that axis.

    Raises:
        ValueError: eye and target coincide.
    """
    eye, target, up = (np.asarray(v, dtype=np.float64) for v in (eye, target, up))
    forward = target - eye
    length = np.linalg.norm(forward)
    if length < 1e-9:
        raise ValueError("look_at needs a target apart from the eye")
    forward /= length
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-6:  # looking straight up or down: any horizontal axis will do
        right = np.array([0.0, -1.0, 0.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = c * right + s * down, c * down - s * right, forward, eye
    return pose
