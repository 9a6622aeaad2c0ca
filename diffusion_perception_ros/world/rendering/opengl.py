"""The main renderer: OpenGL through EGL, on a GPU or in software (Mesa's llvmpipe, one process per core).

Four passes: what is seen (normal, depth, triangle, albedo), two shadow maps fitted to what is seen, and light.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import Intrinsics
from diffusion_perception_ros.world.rendering.opengl_buffers import SceneBuffers
from diffusion_perception_ros.world.rendering.projection import (
    MAX_LIGHTS,
    OCCLUSION_RADIUS,
    ShadowView,
    camera_from_world,
    clip_from_camera,
    fit_shadow,
    place_lights,
    sample_grid,
    seen_points,
    tent_filter,
)
from diffusion_perception_ros.world.rendering.renderer import RenderedImage, check_size, ground_truth, instance_map
from diffusion_perception_ros.world.scene import Scene


SHADERS = Path(__file__).parent / "shaders"
SHADOW_SIZE = 448
"""Texels along a side of a shadow map."""


class EGLMissing(InputError):
    """This machine has no EGL that can draw without a screen."""


class OpenGLRenderer:
    """Draws scenes off-screen. Create it in the process (and thread) that uses it."""

    name = "opengl"

    def __init__(self, width: int, height: int, supersample: int = 1) -> None:
        """Opens a context for pictures of one size; `supersample` 2 draws colour with four times the samples.

        Raises:
            EGLMissing: EGL cannot be used; the message names the packages that bring it.
        """
        self.width, self.height, self._supersample = width, height, supersample
        grid = sample_grid(Intrinsics(width, height, 1.0, 1.0, 0.0, 0.0), supersample)
        self._context = _create_context()
        self._buffers = SceneBuffers(self._context)
        self._draw_geometry = [self._program("geometry.vert", "geometry.frag", holes=holes) for holes in (False, True)]
        self._draw_shadow = [self._program("shadow.vert", "shadow.frag", holes=holes) for holes in (False, True)]
        self._draw_light = self._program("screen.vert", "shade.frag")
        self._create_targets(grid.width, grid.height)

    @property
    def device(self) -> str:
        """What draws, as the driver calls it."""
        return str(self._context.info["GL_RENDERER"])

    def render(self, scene: Scene) -> RenderedImage:
        """Draws the scene as its camera sees it.

        Raises:
            ValueError: the camera's picture has another size than this renderer's.
        """
        check_size(self, scene)
        camera = sample_grid(scene.camera.intrinsics, self._supersample)
        view = camera_from_world(scene.camera.world_from_camera)
        self._buffers.upload(scene)
        self._render_geometry(camera, view)
        geometry = _read(self._geometry, np.float32)
        self._render_light(scene, camera, view, geometry[..., 3])

        centres = slice(self._supersample - 1, None, self._supersample)
        geometry, hit = geometry[centres, centres], self._hit()
        depth, normals, semantic, instances = ground_truth(scene.triangles, hit, geometry[..., 3], geometry[..., :3])
        radiance = _read(self._light, np.float16)[..., :3].astype(np.float32)
        if self._supersample == 2:
            radiance = tent_filter(radiance)
        return RenderedImage(radiance, depth, normals, semantic, instances)

    def instances(self, scene: Scene, offsets: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
        """See `Renderer`.

        Raises:
            ValueError: the camera's picture has another size than this renderer's.
        """
        check_size(self, scene)
        camera, view = scene.camera.intrinsics, camera_from_world(scene.camera.world_from_camera)
        self._buffers.upload(scene)
        seen = np.zeros((len(offsets), self.height, self.width), np.uint16)
        for layer, (right, down) in zip(seen, offsets, strict=True):
            moved = replace(camera, cx=camera.cx - right, cy=camera.cy - down)
            self._render_geometry(sample_grid(moved, self._supersample), view)
            layer[:] = instance_map(scene.triangles, self._hit())
        return seen

    def release(self) -> None:
        """Gives up the context and everything in it."""
        self._context.release()

    def _program(self, vertex: str, fragment: str, holes: bool = False) -> Any:
        """Compiles two files; with `holes`, the variant that looks for cut-out texels and so is slower."""
        sources = [(SHADERS / name).read_text(encoding="utf-8") for name in (vertex, fragment)]
        if holes:
            sources = [source.replace("#version 330\n", "#version 330\n#define HOLES\n", 1) for source in sources]
        return self._context.program(*sources)

    def _create_targets(self, width: int, height: int) -> None:
        context = self._context
        size = (width, height)
        self._geometry = context.texture(size, 4, dtype="f4")
        self._surface = context.texture(size, 4, dtype="f4")
        self._geometry_target = context.framebuffer([self._geometry, self._surface], context.depth_renderbuffer(size))
        self._light = context.texture(size, 4, dtype="f2")
        self._light_target = context.framebuffer([self._light])
        self._light_triangle = context.vertex_array(self._draw_light, [])
        self._shadows = [context.depth_texture((SHADOW_SIZE, SHADOW_SIZE)) for _ in range(2)]
        self._shadow_targets = [context.framebuffer([], shadow) for shadow in self._shadows]
        for shadow in self._shadows:
            shadow.compare_func = "<="
            shadow.repeat_x = shadow.repeat_y = False

    def _render_geometry(self, camera: Intrinsics, view: npt.NDArray[np.float64]) -> None:
        """Fills the G-buffer: (normal, z) and (albedo, triangle + 1); 0 = nothing."""
        self._context.enable(self._context.DEPTH_TEST)
        self._geometry_target.use()
        self._geometry_target.clear(depth=1.0)
        for program in self._draw_geometry:
            _set(program, camera_from_world=view.T, clip_from_camera=clip_from_camera(camera).T)
        self._buffers.draw(self._draw_geometry)

    def _hit(self) -> npt.NDArray[np.int64]:
        """(H, W), index in the scene of the triangle at every pixel's centre, -1 = nothing."""
        centres = slice(self._supersample - 1, None, self._supersample)
        surface = _read(self._surface, np.float32)[centres, centres]
        return self._buffers.original_index(surface[..., 3].astype(np.int64) - 1)

    def _render_light(
        self, scene: Scene, camera: Intrinsics, view: npt.NDArray[np.float64], depth: npt.NDArray[np.float32]
    ) -> None:
        lights = scene.lights[:MAX_LIGHTS]
        position, color = np.zeros((MAX_LIGHTS, 4)), np.zeros((MAX_LIGHTS, 3))
        if lights:
            position[: len(lights)] = place_lights(lights, view)
            color[: len(lights)] = [light.color for light in lights]
        points = seen_points(camera, depth)
        shadows = [
            fit_shadow(light, position[index, :3], points, SHADOW_SIZE)
            for index, light in enumerate(lights[:2])
            if len(points)
        ]
        for target, shadow in zip(self._shadow_targets, shadows, strict=False):
            target.use()
            target.clear(depth=1.0)
            for program in self._draw_shadow:
                _set(program, clip_from_world=(shadow.clip_from_camera @ view).T)
            self._buffers.draw(self._draw_shadow)

        self._context.disable(self._context.DEPTH_TEST)
        self._light_target.use()
        self._bind_light_textures()
        matrices, texels = _shadow_uniforms(shadows)
        _set(
            self._draw_light,
            camera=[camera.fx, camera.fy, camera.cx, camera.cy],
            up=view[:3, 2],
            world_x=view[:3, 0],
            world_y=view[:3, 1],
            ambient=scene.ambient,
            sky_color=scene.sky_color,
            clouds=scene.clouds,
            seed=np.random.default_rng(scene.seed).random(),
            occlusion_radius=OCCLUSION_RADIUS[scene.is_outdoor],
            light_position=position,
            light_color=color,
            shadow_from_camera=matrices,
            shadow_texel=texels,
        )
        self._draw_light["light_count"].value = len(lights)
        self._light_triangle.render(self._context.TRIANGLES, vertices=3)

    def _bind_light_textures(self) -> None:
        textures = {
            "geometry": self._geometry,
            "surface": self._surface,
            "materials": self._buffers.materials,
            "shadow0": self._shadows[0],
            "shadow1": self._shadows[1],
        }
        for unit, (name, texture) in enumerate(textures.items()):
            texture.use(unit)
            self._draw_light[name].value = unit


def _create_context() -> Any:
    try:
        import moderngl

        return moderngl.create_context(standalone=True, require=330, backend="egl")  # type: ignore[arg-type]
    except Exception as error:  # moderngl raises bare Exceptions, and OSError or ImportError for missing libraries
        raise EGLMissing(
            f"OpenGL cannot be used here ({error}): install moderngl and, on Debian or Ubuntu, the packages "
            "libegl1 libegl-mesa0 libgl1-mesa-dri."
        ) from error


def _read(texture: Any, dtype: type[np.floating[Any]]) -> npt.NDArray[Any]:
    width, height = texture.size
    return np.frombuffer(texture.read(), dtype).reshape(height, width, texture.components)


def _set(program: Any, **values: npt.ArrayLike) -> None:
    """Sets float uniforms; one that the compiler found unused is passed over."""
    for name, value in values.items():
        if name in program:
            program[name].write(np.asarray(value, np.float32).tobytes())


def _shadow_uniforms(shadows: list[ShadowView]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Matrices (2, 4, 4) in OpenGL's order and texel widths (2,); a light without a map lights everything."""
    matrices, texels = np.zeros((2, 4, 4)), np.zeros(2)
    for index, shadow in enumerate(shadows):
        matrices[index], texels[index] = shadow.clip_from_camera.T, shadow.texel
    return matrices, texels
