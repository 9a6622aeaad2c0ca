"""A scene's triangles, materials and textures on the OpenGL device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.world.scene import Scene, Triangles


MATERIAL_TRIANGLES = 1024
"""Triangles per row of the material texture, two texels each."""
BLOCK = 64
"""Triangles that are drawn or left out together: neighbours in the soup are neighbours in the world."""


class SceneBuffers:
    """The scene's triangles and textures on the device; they grow with the largest scene seen."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._count = self._solid_count = self._capacity = 0
        self._scene_triangles: Triangles | None = None
        self._bounds: npt.NDArray[np.float32] = np.zeros((2, 0, 3), np.float32)
        self._order: npt.NDArray[np.int64] | None = None
        self._textures: Any = None
        self._texture_source: npt.NDArray[np.uint8] | None = None
        self._has_holes: npt.NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self._arrays: dict[int, Any] = {}
        self._selection: Any = None
        self._positions: Any = None
        self._normals: Any = None
        self._uvs: Any = None
        self.materials: Any = None
        self._reserve(64 * MATERIAL_TRIANGLES)

    def upload(self, scene: Scene) -> None:
        """Sends the scene, triangles with holes last.

        Triangles and textures are sent again only when they are other objects than the last scene's.
        """
        triangles = scene.triangles
        self._upload_textures(scene.textures)
        if triangles is self._scene_triangles:
            return
        self._scene_triangles = triangles
        holes = (triangles.texture >= 0) & self._has_holes[triangles.texture]
        self._order = np.argsort(holes, kind="stable") if holes.any() else None
        self._count, self._solid_count = len(triangles), len(triangles) - int(holes.sum())
        if self._count > self._capacity:
            self._reserve(self._count)
        if self._count == 0:
            return
        for buffer, values in (
            (self._normals, triangles.normals),
            (self._uvs, triangles.uvs),
            (self._positions, triangles.positions),
        ):
            ordered = np.ascontiguousarray(values if self._order is None else values[self._order], np.float32)
            buffer.write(ordered)
        corners, starts = ordered.reshape(-1, 3), np.arange(0, 3 * self._count, 3 * BLOCK)
        self._bounds = np.stack([bound.reduceat(corners, starts) for bound in (np.minimum, np.maximum)])
        materials = self._pack_materials(triangles)
        self.materials.write(materials, viewport=(0, 0, 2 * MATERIAL_TRIANGLES, len(materials)))

    def original_index(self, drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Index in the scene of triangles by their place in the buffers; -1 stays -1."""
        return drawn if self._order is None else np.where(drawn < 0, -1, self._order[drawn])

    def draw(self, programs: Sequence[Any], clip_from_world: npt.NDArray[np.float64]) -> None:
        """Draws what may be in view: solid triangles with the first program, those with holes with the second."""
        self.materials.use(0)
        self._textures.use(1)
        chosen = np.flatnonzero(np.repeat(self._in_view(clip_from_world), BLOCK)[: self._count])
        self._selection.write((3 * chosen[:, None] + np.arange(3)).astype(np.uint32))
        solid = int(np.searchsorted(chosen, self._solid_count))
        for program, (start, stop) in zip(programs, ((0, solid), (solid, len(chosen))), strict=True):
            for unit, name in enumerate(("materials", "textures")):
                if name in program:
                    program[name].value = unit
            if start < stop:
                self._array(program).render(self._context.TRIANGLES, vertices=3 * (stop - start), first=3 * start)

    def _in_view(self, clip_from_world: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """(blocks,): not wholly on the far side of one of the planes that bound what a projection shows."""
        planes = np.concatenate([clip_from_world[3] + clip_from_world[:3], clip_from_world[3] - clip_from_world[:3]])
        normals, offsets = planes[:, None, :3], planes[:, 3:]  # (6, 1, 3), (6, 1)
        low, high = self._bounds
        reach = np.where(normals > 0, high, low)  # each block's corner that is farthest inside
        return np.asarray(((reach * normals).sum(-1) + offsets > 0).all(axis=0))

    def _array(self, program: Any) -> Any:
        if program.glo not in self._arrays:
            attributes = {"position": self._positions, "normal": self._normals, "uv": self._uvs}
            content = [
                (buffer, "2f" if name == "uv" else "3f", name)
                for name, buffer in attributes.items()
                if name in program
            ]
            self._arrays[program.glo] = self._context.vertex_array(program, content, self._selection)
        return self._arrays[program.glo]

    def _reserve(self, count: int) -> None:
        rows = -(-count // MATERIAL_TRIANGLES)
        self._capacity = rows * MATERIAL_TRIANGLES
        if self.materials is not None:
            arrays = self._arrays.values()
            for resource in (*arrays, self._selection, self._positions, self._normals, self._uvs, self.materials):
                resource.release()
            self._arrays = {}
        self._selection = self._context.buffer(reserve=self._capacity * 12, dynamic=True)
        self._positions = self._context.buffer(reserve=self._capacity * 36, dynamic=True)
        self._normals = self._context.buffer(reserve=self._capacity * 36, dynamic=True)
        self._uvs = self._context.buffer(reserve=self._capacity * 24, dynamic=True)
        self.materials = self._context.texture((2 * MATERIAL_TRIANGLES, rows), 4, dtype="f4")

    def _upload_textures(self, textures: npt.NDArray[np.uint8]) -> None:
        if textures is self._texture_source:
            return
        if self._textures is not None:
            self._textures.release()
        self._texture_source = textures
        layers = textures if len(textures) else np.full((1, 1, 1, 4), 255, np.uint8)
        self._has_holes = np.any(layers[..., 3] < 128, axis=(1, 2))
        count, height, width, _ = layers.shape
        self._textures = self._context.texture_array((width, height, count), 4, np.ascontiguousarray(layers))
        self._textures.build_mipmaps()
        self._textures.filter = (self._context.LINEAR_MIPMAP_NEAREST, self._context.LINEAR)
        self._textures.repeat_x = self._textures.repeat_y = True

    def _pack_materials(self, triangles: Triangles) -> npt.NDArray[np.float32]:
        """(rows, 2 MATERIAL_TRIANGLES, 4): (albedo, texture layer), (emission, gloss, 0, 0) per triangle, as drawn."""
        rows = -(-len(triangles) // MATERIAL_TRIANGLES)
        packed = np.zeros((rows * MATERIAL_TRIANGLES, 2, 4), np.float32)
        used = packed[: len(triangles)]
        used[:, 0, :3], used[:, 0, 3] = triangles.albedo, triangles.texture
        used[:, 1, 0], used[:, 1, 1] = triangles.emission, triangles.gloss
        if self._order is not None:
            used[:] = used[self._order]
        return packed.reshape(rows, 2 * MATERIAL_TRIANGLES, 4)
