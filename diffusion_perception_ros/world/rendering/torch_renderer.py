"""The second renderer: PyTorch tensors only, for machines without EGL. The same geometry and light, but no clouds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffusion_perception_ros.sample import Intrinsics
from diffusion_perception_ros.world.rendering.image import RenderedImage, check_size, ground_truth, instance_map
from diffusion_perception_ros.world.rendering.projection import (
    MAX_LIGHTS,
    OCCLUSION_RADIUS,
    camera_from_world,
    clip_from_camera,
    fit_shadow,
    place_lights,
    sample_grid,
    seen_points,
    tent_filter,
)
from diffusion_perception_ros.world.rendering.rasterizer import Fragments, rasterize
from diffusion_perception_ros.world.scene import Scene


SHADOW_SIZE = 256
OCCLUSION_TAPS = 8
SHADOW_TAPS = ((-0.9, -0.4), (0.4, -0.9), (0.9, 0.4), (-0.4, 0.9))
"""Texels."""
COS_SHADING_LIMIT = 0.5
"""As in shaders/geometry.frag."""
GOLDEN = 0.618034


class TorchRenderer:
    """Draws scenes on any PyTorch device."""

    name = "torch"

    def __init__(self, width: int, height: int, supersample: int = 1, device: str | torch.device = "cpu") -> None:
        self.width, self.height, self._supersample = width, height, supersample
        self._device = torch.device(device)

    def render(self, scene: Scene) -> RenderedImage:
        """Draws the scene as its camera sees it.

        Raises:
            ValueError: the camera's image has another size than this renderer's.
        """
        check_size(scene, self.width, self.height)
        with torch.no_grad():
            return self._render(scene, sample_grid(scene.camera.intrinsics, self._supersample))

    def render_views(self, views: Sequence[Scene]) -> list[RenderedImage]:
        """See `Renderer`."""
        return [self.render(scene) for scene in views]

    @torch.no_grad()
    def instances(self, scene: Scene, offsets: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
        """See `Renderer`.

        Raises:
            ValueError: the camera's image has another size than this renderer's.
        """
        check_size(scene, self.width, self.height)
        soup = _Soup.of(scene, camera_from_world(scene.camera.world_from_camera), self._device)
        camera = scene.camera.intrinsics
        seen = np.zeros((len(offsets), self.height, self.width), np.uint16)
        for layer, (right, down) in zip(seen, offsets, strict=True):
            moved = replace(camera, cx=camera.cx - right, cy=camera.cy - down)
            fragments = soup.rasterize(clip_from_camera(moved), self.height, self.width)
            layer[:] = instance_map(scene.triangles, fragments.triangle[0].cpu().numpy())
        return seen

    def release(self) -> None:
        """Nothing is held."""

    def _render(self, scene: Scene, camera: Intrinsics) -> RenderedImage:
        view = camera_from_world(scene.camera.world_from_camera)
        soup = _Soup.of(scene, view, self._device)
        fragments = soup.rasterize(clip_from_camera(camera), camera.height, camera.width)
        surface = _Surface.of(soup, fragments, _rays(camera, self._device))
        radiance = _Light(scene, camera, view, soup, surface).radiance().cpu().numpy().astype(np.float32)

        centres = slice(self._supersample - 1, None, self._supersample)
        depth, normals, semantic, instances = ground_truth(
            scene.triangles,
            fragments.triangle[0, centres, centres].cpu().numpy(),
            fragments.w[0, centres, centres].cpu().numpy(),
            surface.normals[centres, centres].float().cpu().numpy(),
        )
        if self._supersample == 2:
            radiance = tent_filter(radiance)
        return RenderedImage(radiance, depth, normals, semantic, instances)


@dataclass
class _Soup:
    """The scene's triangles as tensors, in the optical frame."""

    positions: Tensor
    """(N, 3, 3) float64."""
    normals: Tensor
    uvs: Tensor
    albedo: Tensor
    texture: Tensor
    emission: Tensor
    gloss: Tensor
    has_holes: Tensor
    textures: Tensor
    """(layers, S, S, 4) uint8, at least one layer."""

    @staticmethod
    def of(scene: Scene, view: npt.NDArray[np.float64], device: torch.device) -> _Soup:
        triangles = scene.triangles
        rotation, translation = view[:3, :3], view[:3, 3]
        textures = scene.textures if len(scene.textures) else np.full((1, 1, 1, 4), 255, np.uint8)
        holes = np.any(textures[..., 3] < 128, axis=(1, 2))

        def tensor(array: npt.NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        return _Soup(
            tensor(triangles.positions.astype(np.float64) @ rotation.T + translation),
            tensor((triangles.normals @ rotation.T).astype(np.float32)),
            tensor(triangles.uvs),
            tensor(triangles.albedo),
            tensor(triangles.texture.astype(np.int64)),
            tensor(triangles.emission),
            tensor(triangles.gloss),
            tensor((triangles.texture >= 0) & holes[triangles.texture]),
            tensor(textures),
        )

    def rasterize(self, matrix: npt.NDArray[np.float64], height: int, width: int) -> Fragments:
        """One view of the soup through a (4, 4) projection from the optical frame."""
        homogeneous = torch.cat([self.positions, torch.ones_like(self.positions[..., :1])], -1)
        clip = homogeneous @ torch.from_numpy(matrix.T.copy()).to(self.positions.device)
        image = torch.zeros(len(clip), dtype=torch.int64, device=clip.device)
        return rasterize(clip, image, (1, height, width), self.has_holes, self._is_solid)

    def sample_texture(self, triangle: Tensor, barycentrics: Tensor) -> Tensor:
        """(F, 4) sRGB + alpha in [0, 1], bilinear; white where a triangle has no texture."""
        uv = (self.uvs[triangle] * barycentrics[..., None]).sum(1)
        size = self.textures.shape[1]
        place = (uv - uv.floor()) * size - 0.5
        corner = place.floor()
        share = place - corner
        layer = self.texture[triangle]
        color = torch.zeros(len(triangle), 4, device=uv.device)
        for dx in (0, 1):
            for dy in (0, 1):
                column, row = ((corner[:, i].long() + (dx, dy)[i]) % size for i in (0, 1))
                weight = (share[:, 0] if dx else 1 - share[:, 0]) * (share[:, 1] if dy else 1 - share[:, 1])
                color += weight[:, None] * self.textures[layer.clamp(min=0), row, column] / 255
        return torch.where((layer >= 0)[:, None], color, 1.0)

    def _is_solid(self, triangle: Tensor, barycentrics: Tensor) -> Tensor:
        return self.sample_texture(triangle, barycentrics)[:, 3] >= 0.5


@dataclass
class _Surface:
    """What is seen, (H, W, …); meaningless where `hit` is False."""

    hit: Tensor
    positions: Tensor
    normals: Tensor
    albedo: Tensor
    emission: Tensor
    gloss: Tensor
    rays: Tensor
    """(H, W, 3) with z = 1."""

    @staticmethod
    def of(soup: _Soup, fragments: Fragments, rays: Tensor) -> _Surface:
        hit = fragments.triangle[0] >= 0
        positions = rays * fragments.w[0][..., None]
        normals, albedo = torch.zeros_like(rays), torch.zeros_like(rays)
        emission, gloss = torch.zeros_like(rays[..., 0]), torch.zeros_like(rays[..., 0])
        triangle, barycentrics = fragments.triangle[0][hit], fragments.barycentrics[0][hit]
        smooth = (soup.normals[triangle] * barycentrics[..., None]).sum(1)
        normals[hit] = _facing_normals(smooth, soup.positions[triangle].float(), positions[hit])
        albedo[hit] = soup.albedo[triangle] * soup.sample_texture(triangle, barycentrics)[:, :3] ** 2.2
        emission[hit], gloss[hit] = soup.emission[triangle], soup.gloss[triangle]
        return _Surface(hit, positions, normals, albedo, emission, gloss, rays)


class _Light:
    """The light of one image; the same steps as shaders/shade.frag."""

    def __init__(
        self, scene: Scene, camera: Intrinsics, view: npt.NDArray[np.float64], soup: _Soup, surface: _Surface
    ) -> None:
        self._scene, self._camera, self._soup, self._surface = scene, camera, soup, surface
        device = surface.rays.device
        self._up = torch.from_numpy(view[:3, 2].copy()).to(device, torch.float32)
        self._places = place_lights(scene.lights[:MAX_LIGHTS], view)
        depth = torch.where(surface.hit, surface.positions[..., 2], 0.0).cpu().numpy()
        self._points = seen_points(camera, depth)
        generator = torch.Generator().manual_seed(scene.seed % 2**63)
        self._turn = 2 * math.pi * torch.rand(surface.hit.shape, generator=generator).to(device)

    def radiance(self) -> Tensor:
        """(H, W, 3)."""
        surface = self._surface
        open_sky = self._occlusion()[..., None]
        toward_eye = -_normalize(surface.rays)
        height = (surface.normals @ self._up)[..., None]
        light = self._color(self._scene.ambient) * (0.65 + 0.35 * height) * open_sky
        highlight = torch.zeros_like(light)
        for index, (source, place) in enumerate(zip(self._scene.lights, self._places, strict=False)):
            toward = self._color(place[:3]) - surface.positions * float(place[3])
            squared = (toward**2).sum(-1, keepdim=True)
            toward = toward * squared.rsqrt()
            facing = (surface.normals * toward).sum(-1, keepdim=True).clamp(min=0)
            falloff = 1 / (squared + 0.05) if place[3] else 1.0
            visible = self._shadow(index, place, toward, squared) if index < 2 else 0.5 + 0.5 * open_sky
            arriving = self._color(source.color) * falloff * visible * facing
            light = light + arriving
            alignment = (surface.normals * _normalize(toward + toward_eye)).sum(-1, keepdim=True).clamp(min=0)
            gloss = surface.gloss[..., None]
            highlight = highlight + arriving * gloss * 0.5 * alignment ** (10 + 140 * gloss)
        lit = surface.albedo * (light + surface.emission[..., None]) + highlight
        return torch.where(surface.hit[..., None], lit, self._sky(-toward_eye))

    def _color(self, values: Sequence[float] | npt.NDArray[np.float64]) -> Tensor:
        return torch.tensor([float(value) for value in values], device=self._turn.device)

    def _sky(self, direction: Tensor) -> Tensor:
        color = self._color(self._scene.sky_color)
        horizon = (0.65 * 0.33 * color.sum() + 0.35) * 0.6 + color * 0.4
        share = (direction @ self._up).clamp(0, 1)[..., None].sqrt()
        sky = horizon + (color - horizon) * share
        for source, place in zip(self._scene.lights, self._places, strict=False):
            if not place[3]:
                toward = (direction @ self._color(place[:3])).clamp(min=0)[..., None]
                disc = ((toward - 0.9994) / 0.0004).clamp(0, 1)
                sky = sky + self._color(source.color) * (0.08 * toward**12 + 4 * disc)
        return sky

    def _occlusion(self) -> Tensor:
        """(H, W) in [0, 1], 1 = open."""
        surface = self._surface
        radius = OCCLUSION_RADIUS[self._scene.is_outdoor]
        height, width = surface.hit.shape
        device = surface.hit.device
        v, u = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
        reach = (radius * self._camera.fx / surface.positions[..., 2]).clamp(max=0.25 * width)
        blocked = torch.zeros(height, width, device=device)
        for tap in range(OCCLUSION_TAPS):
            angle = self._turn + 2 * math.pi * tap * GOLDEN
            distance = reach * (tap + 0.5) / OCCLUSION_TAPS
            column = (u + distance * angle.cos()).round().long().clamp(0, width - 1)
            row = (v + distance * angle.sin()).round().long().clamp(0, height - 1)
            toward = surface.positions[row, column] - surface.positions
            length = toward.norm(dim=-1)
            rise = ((toward * surface.normals).sum(-1) / (length + 1e-4) - 0.08).clamp(min=0)
            near = ((1.5 * radius - length) / (1.2 * radius)).clamp(0, 1)
            blocked += rise * near**2 * (3 - 2 * near) * surface.hit[row, column]
        return (1 - 2.2 * blocked / OCCLUSION_TAPS).clamp(0, 1)

    def _shadow(self, index: int, place: npt.NDArray[np.float64], toward: Tensor, squared: Tensor) -> Tensor:
        """(H, W, 1) in [0, 1], 1 = lit by light `index`."""
        surface = self._surface
        if not len(self._points):
            return torch.ones_like(squared)
        fitted = fit_shadow(self._scene.lights[index], place[:3], self._points, SHADOW_SIZE)
        nearest = self._soup.rasterize(fitted.clip_from_frame, SHADOW_SIZE, SHADOW_SIZE).depth[0]
        texel = fitted.texel * (squared.sqrt() if place[3] else 1.0)
        grazing = 1 - (surface.normals * toward).sum(-1, keepdim=True).clamp(min=0)
        lifted = surface.positions + surface.normals * texel * (1 + 3 * grazing)
        matrix = torch.from_numpy(fitted.clip_from_frame.T.copy()).to(lifted)
        clip = torch.cat([lifted, torch.ones_like(squared)], -1) @ matrix
        w = clip[..., 3].clamp(min=1e-6)
        x, y = ((clip[..., i] / w + 1) * (SHADOW_SIZE / 2) - 0.5 for i in (0, 1))
        lit = torch.zeros_like(w)
        for dx, dy in SHADOW_TAPS:
            column, row = ((value + d).round().long().clamp(0, SHADOW_SIZE - 1) for value, d in ((x, dx), (y, dy)))
            lit += (clip[..., 2] / w - 4e-4 <= nearest[row, column]).float() / len(SHADOW_TAPS)
        outside = (clip[..., 3] <= 0) | ((clip[..., :2] / w[..., None]).abs().amax(-1) > 0.99)
        return torch.where(outside, 1.0, lit)[..., None]


def _facing_normals(smooth: Tensor, corners: Tensor, positions: Tensor) -> Tensor:
    """(F, 3) unit normals that face the camera; the triangle's own where the smooth one is implausible."""
    flat = _normalize(torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    flat = torch.where((flat * positions).sum(-1, keepdim=True) > 0, -flat, flat)
    smooth = _normalize(smooth)
    smooth = torch.where((smooth * flat).sum(-1, keepdim=True) < 0, -smooth, smooth)
    agrees = (smooth * flat).sum(-1, keepdim=True) > COS_SHADING_LIMIT
    return torch.where(agrees & ((smooth * positions).sum(-1, keepdim=True) < 0), smooth, flat)


def _normalize(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


def _rays(camera: Intrinsics, device: torch.device) -> Tensor:
    """(H, W, 3), z = 1."""
    v, u = torch.meshgrid(
        torch.arange(camera.height, device=device), torch.arange(camera.width, device=device), indexing="ij"
    )
    x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
    return torch.stack([x, y, torch.ones_like(x)], -1)
