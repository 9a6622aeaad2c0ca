"""The main renderer: OpenGL through EGL, on a GPU or in software (Mesa's llvmpipe, one process per core).

Four passes: what is seen (normal, depth, triangle, albedo), two shadow maps fitted to what is seen, and light.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import Intrinsics
from diffusion_perception_ros.world.rendering.image import RenderedImage, check_size, ground_truth, instance_map
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
from diffusion_perception_ros.world.scene import DirectionalLight, PointLight, Scene


SHADERS = Path(__file__).parent / "shaders"
SHADOW_SIZE = 448
"""Texels along a side of a shadow map."""


class EGLMissing(InputError):
    """This machine has no EGL that can draw without a screen."""


class OpenGLRenderer:
    """Draws scenes off-screen. Create it in the process (and thread) that uses it."""

    name = "opengl"

    def __init__(self, width: int, height: int, supersample: int = 1) -> None:
        """Opens a context for images of one size; `supersample` 2 draws colour with four times the samples.

        Raises:
            EGLMissing: EGL cannot be used; the message names the packages that bring it.
        """
        self.width, self.height, self._supersample = width, height, supersample
        grid = sample_grid(Intrinsics(width, height, 1.0, 1.0, 0.0, 0.0), supersample)
        self._grid = (grid.width, grid.height)
        self._context = _create_context()
        with self._context:
            self._buffers = SceneBuffers(self._context)
            self._draw_geometry = self._programs("geometry.vert", "geometry.frag", "HOLES")
            self._draw_shadow = self._programs("shadow.vert", "shadow.frag", "HOLES")
            self._draw_light = self._programs("screen.vert", "shade.frag", "SKY")
            self._light_triangles = {
                program.glo: self._context.vertex_array(program, []) for program in self._draw_light
            }
            self._surfaces = [_SurfaceTarget(self._context, *self._grid)]
            self._light = self._context.texture(self._grid, 4, dtype="f2")
            self._light_target = self._context.framebuffer([self._light])
            self._shadows = [self._context.depth_texture((SHADOW_SIZE, SHADOW_SIZE)) for _ in range(2)]
            self._shadow_targets = [self._context.framebuffer([], shadow) for shadow in self._shadows]
            for shadow in self._shadows:
                shadow.compare_func = "<="
                shadow.filter = (self._context.NEAREST, self._context.NEAREST)
                shadow.repeat_x = shadow.repeat_y = False

    @property
    def device(self) -> str:
        """What draws, as the driver calls it."""
        return str(self._context.info["GL_RENDERER"])

    def render(self, scene: Scene) -> RenderedImage:
        """See `Renderer`.

        Raises:
            ValueError: the camera's image has another size than this renderer's.
        """
        return self.render_views([scene])[0]

    def render_views(self, views: Sequence[Scene]) -> list[RenderedImage]:
        """See `Renderer`.

        Raises:
            ValueError: a camera's image has another size than this renderer's.
        """
        for scene in views:
            check_size(scene, self.width, self.height)
        with self._context:
            self._buffers.upload(views[0])
            while len(self._surfaces) < len(views):
                self._surfaces.append(_SurfaceTarget(self._context, *self._grid))
            seen = [self._render_surfaces(scene, target) for scene, target in zip(views, self._surfaces, strict=False)]
            shadows = self._render_shadows(views[0].lights, np.concatenate([points for _, points in seen]))
            images = []
            for scene, target, (geometry, _) in zip(views, self._surfaces, seen, strict=False):
                self._render_light(scene, target, geometry[..., 3], shadows)
                images.append(self._image(scene, target, geometry))
        return images

    def instances(self, scene: Scene, offsets: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
        """See `Renderer`.

        Raises:
            ValueError: the camera's image has another size than this renderer's.
        """
        check_size(scene, self.width, self.height)
        camera, view = scene.camera.intrinsics, camera_from_world(scene.camera.world_from_camera)
        seen = np.zeros((len(offsets), self.height, self.width), np.uint16)
        with self._context:
            self._buffers.upload(scene)
            for layer, (right, down) in zip(seen, offsets, strict=True):
                moved = replace(camera, cx=camera.cx - right, cy=camera.cy - down)
                self._render_geometry(sample_grid(moved, self._supersample), view, self._surfaces[0])
                layer[:] = instance_map(scene.triangles, self._hit(self._surfaces[0]))
        return seen

    def release(self) -> None:
        """Gives up the context and everything in it."""
        self._context.release()

    def _programs(self, vertex: str, fragment: str, option: str) -> list[Any]:
        """Compiles two files without and with an option (`#define`), which makes them slower."""
        sources = [(SHADERS / name).read_text(encoding="utf-8") for name in (vertex, fragment)]
        longer = [source.replace("#version 330\n", f"#version 330\n#define {option}\n", 1) for source in sources]
        return [self._context.program(*sources), self._context.program(*longer)]

    def _render_surfaces(self, scene: Scene, target: _SurfaceTarget) -> tuple[Any, npt.NDArray[np.float64]]:
        """Fills a target; (normal, z) of every sample, and places seen (N, 3), in the world, that shadows fit."""
        camera = sample_grid(scene.camera.intrinsics, self._supersample)
        pose = scene.camera.world_from_camera
        self._render_geometry(camera, camera_from_world(pose), target)
        geometry = _read(target.geometry, np.float32)
        return geometry, seen_points(camera, geometry[..., 3]) @ pose[:3, :3].T + pose[:3, 3]

    def _render_geometry(self, camera: Intrinsics, view: npt.NDArray[np.float64], target: _SurfaceTarget) -> None:
        self._context.enable(self._context.DEPTH_TEST)
        target.framebuffer.use()
        target.framebuffer.clear(depth=1.0)
        projection = clip_from_camera(camera)
        for program in self._draw_geometry:
            _set(program, camera_from_world=view.T, clip_from_camera=projection.T)
        self._buffers.draw(self._draw_geometry, projection @ view)

    def _hit(self, target: _SurfaceTarget) -> npt.NDArray[np.int64]:
        """(H, W), index in the scene of the triangle at every pixel's centre, -1 = nothing."""
        centres = slice(self._supersample - 1, None, self._supersample)
        surface = _read(target.surface, np.float32)[centres, centres]
        return self._buffers.original_index(surface[..., 3].astype(np.int64) - 1)

    def _render_shadows(
        self, lights: Sequence[PointLight | DirectionalLight], points: npt.NDArray[np.float64]
    ) -> list[ShadowView]:
        """Draws shadow maps of the first lights around the points (N, 3), in the world, that are seen."""
        places = place_lights(lights, np.eye(4))[:, :3]
        shadows = [
            fit_shadow(light, place, points, SHADOW_SIZE)
            for light, place in zip(lights[:2], places, strict=False)
            if len(points)
        ]
        for target, shadow in zip(self._shadow_targets, shadows, strict=False):
            target.use()
            target.clear(depth=1.0)
            for program in self._draw_shadow:
                _set(program, clip_from_world=shadow.clip_from_frame.T)
            self._buffers.draw(self._draw_shadow, shadow.clip_from_frame)
        return shadows

    def _render_light(
        self, scene: Scene, target: _SurfaceTarget, depth: npt.NDArray[np.float32], shadows: list[ShadowView]
    ) -> None:
        camera, lights = sample_grid(scene.camera.intrinsics, self._supersample), scene.lights[:MAX_LIGHTS]
        view = camera_from_world(scene.camera.world_from_camera)
        position, color = np.zeros((MAX_LIGHTS, 4)), np.zeros((MAX_LIGHTS, 3))
        if lights:
            position[: len(lights)] = place_lights(lights, view)
            color[: len(lights)] = [light.color for light in lights]
        program = self._draw_light[bool((depth <= 0).any())]
        self._context.disable(self._context.DEPTH_TEST)
        self._light_target.use()
        self._bind_light_textures(program, target)
        matrices, texels = _shadow_uniforms(shadows, scene.camera.world_from_camera)
        _set(
            program,
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
        program["light_count"].value = len(lights)
        self._light_triangles[program.glo].render(self._context.TRIANGLES, vertices=3)

    def _image(self, scene: Scene, target: _SurfaceTarget, geometry: npt.NDArray[np.float32]) -> RenderedImage:
        """Light and ground truth of the view that was drawn last."""
        centres = slice(self._supersample - 1, None, self._supersample)
        geometry = geometry[centres, centres]
        truth = ground_truth(scene.triangles, self._hit(target), geometry[..., 3], geometry[..., :3])
        radiance = _read(self._light, np.float16)[..., :3].astype(np.float32)
        if self._supersample == 2:
            radiance = tent_filter(radiance)
        return RenderedImage(radiance, *truth)

    def _bind_light_textures(self, program: Any, target: _SurfaceTarget) -> None:
        textures = {
            "geometry": target.geometry,
            "surface": target.surface,
            "materials": self._buffers.materials,
            "shadow0": self._shadows[0],
            "shadow1": self._shadows[1],
        }
        for unit, (name, texture) in enumerate(textures.items()):
            texture.use(unit)
            program[name].value = unit


class _SurfaceTarget:
    """What one view sees, on the device: (normal, z) and (albedo, triangle + 1) of every sample; 0 = nothing."""

    def __init__(self, context: Any, width: int, height: int) -> None:
        self.geometry, self.surface = (context.texture((width, height), 4, dtype="f4") for _ in range(2))
        depth = context.depth_renderbuffer((width, height))
        self.framebuffer = context.framebuffer([self.geometry, self.surface], depth)


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


def _shadow_uniforms(
    shadows: list[ShadowView], world_from_camera: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Matrices (2, 4, 4) in OpenGL's order and texel widths (2,); a light without a map lights everything."""
    matrices, texels = np.zeros((2, 4, 4)), np.zeros(2)
    for index, shadow in enumerate(shadows):
        matrices[index], texels[index] = (shadow.clip_from_frame @ world_from_camera).T, shadow.texel
    return matrices, texels
