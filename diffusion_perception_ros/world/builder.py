"""Puts a scene together: items (catalogue meshes or procedural) are placed, surfaces added, all becomes one soup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.assets import Assets
from diffusion_perception_ros.world.config import WorldConfig
from diffusion_perception_ros.world.items.shapes import Shape, apply, rotation_z
from diffusion_perception_ros.world.labels import CLASS_ID, LABELS
from diffusion_perception_ros.world.scene import Skeleton, Triangles
from diffusion_perception_ros.world.textures.tools import hsv


class Tag(NamedTuple):
    """What a triangle belongs to."""

    semantic: int
    instance: int


@dataclass(frozen=True)
class Material:
    """Surface of a part; single values, or one row per triangle."""

    albedo: npt.ArrayLike = (0.8, 0.8, 0.8)
    texture: npt.ArrayLike = -1
    gloss: npt.ArrayLike = 0.0
    emission: npt.ArrayLike = 0.0


class Part(NamedTuple):
    """One shape of one material."""

    shape: Shape
    material: Material


@dataclass
class Item:
    """A thing in its own frame: base at z = 0, centred in x and y, front along -y."""

    label: str
    size: tuple[float, float, float]
    """Width (x), depth (y), height (z)."""
    parts: list[Part] = field(default_factory=list)
    top_height: float = 0.0
    """Height of the surface that carries other things; 0 = nothing can stand on it."""
    elevation: float = 0.0
    """Where its base usually is above the floor."""


@dataclass
class Person(Item):
    """An item that knows where its joints are."""

    joints: npt.NDArray[np.float64] = field(kw_only=True)
    """(17, 3), metres in the item's own frame, in the order of `sample.JOINTS`."""


class SceneBuilder:
    """Collects the triangles of one scene."""

    def __init__(
        self,
        rng: np.random.Generator,
        assets: Assets,
        config: WorldConfig,
        make: Callable[[SceneBuilder, str, Sequence[str]], Item],
    ) -> None:
        """`make` builds a procedural item of a class for one of some placements (`floor`, `top`, `wall`, …)."""
        self.rng = rng
        self.assets = assets
        self.config = config
        self._make = make
        self._parts: list[tuple[Shape, Material, Tag]] = []
        self._instances = 0
        self.triangle_count = 0
        self.skeletons: list[Skeleton] = []
        self._places: list[tuple[float, float, float, float]] = []

    def tag(self, label: str) -> Tag:
        """A new instance of a thing, or the one tag of stuff."""
        class_id = CLASS_ID[label]
        if not LABELS[class_id].is_thing:
            return Tag(class_id, 0)
        self._instances += 1
        return Tag(class_id, self._instances)

    def add(self, shape: Shape, tag: Tag, material: Material) -> None:
        """Add one shape, given in the world frame."""
        self._parts.append((shape, material, tag))
        self.triangle_count += len(shape.positions)

    def place(
        self,
        item: Item,
        position: npt.ArrayLike,
        yaw: float = 0.0,
        scale: npt.ArrayLike = 1.0,
        tilt: npt.ArrayLike | None = None,
    ) -> Tag | None:
        """Put an item into the world; `tilt` is a rotation applied before yaw. None once the scene is full."""
        count = sum(len(part.shape.positions) for part in item.parts)
        if self.triangle_count + count > self.config.max_triangles:
            return None
        tag = self.tag(item.label)
        rotation = rotation_z(yaw) if tilt is None else rotation_z(yaw) @ np.asarray(tilt, np.float32)
        factor = np.broadcast_to(np.asarray(scale, np.float32), 3)
        offset = np.asarray(position, np.float32)
        is_uniform = bool(np.all(factor == factor[0]))
        for shape, material in item.parts:
            normals = apply(rotation, shape.normals) if is_uniform else _unit(apply(rotation / factor, shape.normals))
            self.add(Shape(apply(rotation * factor, shape.positions) + offset, normals, shape.uvs), tag, material)
        reach = float(np.hypot(*item.size[:2]) / 2 * factor.max())
        self._places.append((float(offset[0]), float(offset[1]), reach, float(offset[2] + item.size[2] * factor[2])))
        if isinstance(item, Person):
            self.skeletons.append(Skeleton(tag.instance, item.joints @ (rotation * factor).T + offset))
        return tag

    def is_clear(self, eye: npt.NDArray[np.float64], clearance: float) -> bool:
        """Whether no item reaches up to a place (3,) from below, nor comes as near to it as this."""
        x, y, reach, top = np.array(self._places).reshape(-1, 4).T
        near = np.hypot(x - eye[0], y - eye[1]) < reach + clearance
        return not bool((near & (top > eye[2] - clearance)).any())

    def mesh(self, index: int) -> Item:
        """A catalogue mesh as an item, often in another colour than the modeller's."""
        library = self.assets.library
        if library is None:
            raise ValueError("this world has no mesh library")
        info = library.meshes[index]
        span = slice(info.start, info.stop)
        shape = Shape(
            library.positions[span],
            _unit(library.normals[span].astype(np.float32)),
            library.uvs[span].astype(np.float32),
        )
        albedo = library.albedo[span] * np.float32(1 / 255)
        texture = library.texture[span].astype(np.int32)
        label = LABELS[info.class_id].name
        if label not in ("person", "animal", "vegetation", "plant") and self.rng.random() < 0.5:
            gain = hsv(self.rng.random(), self.rng.uniform(0, 0.6), 1.0) * self.rng.uniform(0.35, 1.25)
            albedo = np.clip(albedo * gain.astype(np.float32), 0, 1)
        if label in ("table", "cabinet", "shelf", "chair") and self.rng.random() < 0.15:
            texture = np.where(texture < 0, self.texture("wood", "wood", "plaster", "speckle"), texture)
        gloss = library.gloss[span] * np.float32(1 / 255)
        return Item(label, info.size, [Part(shape, Material(albedo, texture, gloss))], info.top_height, info.elevation)

    def pick_mesh(self, label: str, *placements: str) -> Item | None:
        """A random catalogue mesh of a class, or None where the catalogue has none."""
        catalogue = self.assets.catalogue
        indices = [index for placement in placements for index in catalogue.get((label, placement), ())]
        return self.mesh(indices[int(self.rng.integers(len(indices)))]) if indices else None

    def pick(self, label: str, *placements: str) -> Item:
        """A catalogue mesh of a class, or a procedural item where there is none (and now and then for variety)."""
        item = None
        needs_joints = label == "person" and "keypoints" in self.config.targets  # meshes have none
        if self.rng.random() >= self.config.procedural_share and not needs_joints:
            item = self.pick_mesh(label, *placements)
        return item or self._make(self, label, placements)

    def texture(self, *kinds: str) -> int:
        """A random layer of one of these kinds of procedural texture; repeat a kind to make it likelier."""
        span = self.assets.kinds[self.choice(kinds)]
        return int(self.rng.integers(span.start, span.stop))

    def choice(self, options: Sequence[str]) -> str:
        """One of several names."""
        return options[int(self.rng.integers(len(options)))]

    def color(
        self, value: tuple[float, float] = (0.4, 1.0), saturation: tuple[float, float] = (0.0, 0.3)
    ) -> npt.NDArray[np.float64]:
        """(3,) random linear RGB; value and saturation are those of the sRGB colour."""
        return hsv(self.rng.random(), self.rng.uniform(*saturation), self.rng.uniform(*value)) ** 2.2

    def build(self) -> Triangles:
        """Everything added so far as one soup."""
        counts = [len(shape.positions) for shape, _, _ in self._parts]
        stops = np.cumsum(counts)
        total = int(stops[-1]) if counts else 0
        out = Triangles(
            positions=np.concatenate([shape.positions for shape, _, _ in self._parts], dtype=np.float32),
            normals=np.concatenate([shape.normals for shape, _, _ in self._parts], dtype=np.float32),
            uvs=np.concatenate([shape.uvs for shape, _, _ in self._parts], dtype=np.float32),
            albedo=np.empty((total, 3), np.float32),
            texture=np.empty(total, np.int32),
            semantic=np.empty(total, np.uint8),
            instance=np.empty(total, np.int32),
            emission=np.empty(total, np.float32),
            gloss=np.empty(total, np.float32),
        )
        for (_, material, tag), stop, count in zip(self._parts, stops, counts, strict=True):
            rows = slice(stop - count, stop)
            out.albedo[rows] = material.albedo
            out.texture[rows] = material.texture
            out.semantic[rows] = tag.semantic
            out.instance[rows] = tag.instance
            out.emission[rows] = material.emission
            out.gloss[rows] = material.gloss
        return out


def item_of(label: str, parts: list[Part], top_height: float = 0.0, elevation: float = 0.0) -> Item:
    """An item whose size is that of its parts."""
    points = np.concatenate([part.shape.positions.reshape(-1, 3) for part in parts])
    width, depth, height = (
        float(value) for value in points.max(axis=0) - np.minimum(points.min(axis=0), (np.inf, np.inf, 0))
    )
    return Item(label, (width, depth, height), parts, top_height, elevation)


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    flat = vectors.reshape(-1, 3)
    length = np.sqrt(np.einsum("nx,nx->n", flat, flat))[:, None]
    unit = flat / np.maximum(length, 1e-6)
    if length.min(initial=1) < 1e-6:  # a degenerate corner gets any normal: renderers fall back on the face's own
        unit[length[:, 0] < 1e-6] = (0, 0, 1)
    return np.asarray(unit.reshape(vectors.shape))
