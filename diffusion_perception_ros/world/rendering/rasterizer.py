"""A triangle rasteriser in PyTorch tensors, on any device.

It follows Olano and Greer, "Triangle scan conversion using 2D homogeneous coordinates" (1997): with M the 3x3 matrix
whose columns are a triangle's corners as (u w, v w, w), the row vector e = M^-1 (u, v, 1) holds the barycentric
coordinates of what pixel (u, v) sees, divided by w. So e is affine over the image, its sum is 1 / w, and triangles
that reach behind the camera need no clipping.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


CHUNK = 1_000_000
"""Fragments looked at together."""
DEPTH_STEPS = float(2**31 - 1)
"""Clip depth is compared as an integer of this range, with the triangle's index in the lower 32 bits."""
NOTHING = torch.iinfo(torch.int64).max

KeepFragment = Callable[[Tensor, Tensor], Tensor]
"""(triangle (F,), barycentrics (F, 3)) → bool (F,): False where the surface has a hole."""


@dataclass
class Fragments:
    """What is seen at each of B x H x W pixels."""

    triangle: Tensor
    """(B, H, W) int64 index, -1 = nothing."""
    barycentrics: Tensor
    """(B, H, W, 3) float32, perspective-correct."""
    w: Tensor
    """(B, H, W) float32 clip w, which is z for a camera; 1 where nothing is seen."""
    depth: Tensor
    """(B, H, W) float32 clip depth in [-1, 1]; 1 where nothing is seen."""


def rasterize(
    clip: Tensor,
    image: Tensor,
    size: tuple[int, int, int],
    has_holes: Tensor | None = None,
    keep_fragment: KeepFragment | None = None,
) -> Fragments:
    """Finds the nearest triangle at every pixel centre.

    Args:
        clip: (N, 3, 4) float64 corners in clip coordinates, rows of the image growing with y.
        image: (N,) int64, which of the B images a triangle belongs to.
        size: B, H, W.
        has_holes: (N,) bool, triangles whose fragments `keep_fragment` is asked about.
    """
    batch, height, width = size
    setup = _Setup.of(clip, height, width)
    nearest = torch.full((batch * height * width,), NOTHING, dtype=torch.int64, device=clip.device)
    ends = torch.cumsum(setup.area, 0)
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(int(torch.searchsorted(ends, before + CHUNK, right=True)), start + 1)
        chunk = torch.arange(start, stop, device=clip.device)
        owner = torch.repeat_interleave(chunk, setup.area[start:stop])
        within = torch.arange(before, int(ends[stop - 1]), device=clip.device) - (ends - setup.area)[owner]
        _draw(setup, owner, within, image, nearest, (height, width), has_holes, keep_fragment)
        start = stop
    return _resolve(setup, nearest, size)


@dataclass
class _Setup:
    """Triangles that may be seen: T of the N given."""

    source: Tensor
    """(T,) index among all triangles."""
    left: Tensor
    top: Tensor
    columns: Tensor
    area: Tensor
    """(T,) pixels of the bounding box."""
    edges: Tensor
    """(T, 3, 3) float64: M^-1."""
    depth: Tensor
    """(T, 3) float64 clip z of the corners."""

    @staticmethod
    def of(clip: Tensor, height: int, width: int) -> _Setup:
        w = clip[..., 3]
        # Window coordinates times w; pixel centres are integers.
        u = (clip[..., 0] + w) * (width / 2) - 0.5 * w
        v = (clip[..., 1] + w) * (height / 2) - 0.5 * w
        left, right = _bounds(u, clip, width)
        top, bottom = _bounds(v, clip, height)
        corners = torch.stack([u, v, w], 1)  # (N, 3, 3), a column per corner
        cofactors = torch.stack(
            [torch.linalg.cross(corners[..., i - 2], corners[..., i - 1]) for i in range(3)], 1
        )  # rows of the adjugate
        determinant = (cofactors[:, 0] * corners[..., 0]).sum(-1)
        area = (right - left + 1).clamp(min=0) * (bottom - top + 1).clamp(min=0)
        source = ((area > 0) & (determinant.abs() > 1e-12)).nonzero()[:, 0]
        edges = cofactors[source] / determinant[source, None, None]
        columns = (right - left + 1)[source]
        return _Setup(source, left[source], top[source], columns, area[source], edges, clip[source, :, 2])

    def evaluate(self, triangle: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Barycentrics (F, 3), w (F,) and clip depth in [-1, 1] (F,) of pixels seen through triangles, float64."""
        edges = self.edges[triangle]
        over_w = edges[..., 0] * u[:, None] + edges[..., 1] * v[:, None] + edges[..., 2]
        inverse = over_w.sum(-1)
        w = 1 / inverse
        barycentrics = over_w * w[:, None]
        return barycentrics, w, (barycentrics * self.depth[triangle]).sum(-1) * inverse


def _bounds(scaled: Tensor, clip: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """First and last pixel, int64 (N,), of the part of each triangle in front of the near plane z = -w."""
    ahead = clip[..., 2] + clip[..., 3]  # distance from the near plane
    w = clip[..., 3]
    following = [1, 2, 0]
    crossing = (ahead > 0) != (ahead[:, following] > 0)
    share = ahead / torch.where(crossing, ahead - ahead[:, following], 1.0)
    cut = (scaled + share * (scaled[:, following] - scaled)) / (w + share * (w[:, following] - w)).clamp(min=1e-9)
    places = torch.cat([scaled / torch.where(ahead > 0, w, 1.0), cut], 1)
    seen = torch.cat([ahead > 0, crossing], 1)
    low = torch.where(seen, places, torch.inf).amin(1).clamp(-1, length)
    high = torch.where(seen, places, -torch.inf).amax(1).clamp(-1, length)
    return low.ceil().long().clamp(min=0), high.floor().long().clamp(max=length - 1)


def _draw(
    setup: _Setup,
    owner: Tensor,
    within: Tensor,
    image: Tensor,
    nearest: Tensor,
    size: tuple[int, int],
    has_holes: Tensor | None,
    keep_fragment: KeepFragment | None,
) -> None:
    """Keeps the nearest of these fragments: number `within` of the bounding box of triangle `owner`."""
    height, width = size
    row = torch.div(within, setup.columns[owner], rounding_mode="floor")
    u = setup.left[owner] + within - row * setup.columns[owner]
    v = setup.top[owner] + row
    barycentrics, w, depth = setup.evaluate(owner, u.double(), v.double())
    inside = (barycentrics >= 0).all(1) & (w > 0) & (depth > -1) & (depth < 1)
    kept = inside.nonzero()[:, 0]
    source = setup.source[owner[kept]]
    if has_holes is not None and keep_fragment is not None:
        asked = has_holes[source].nonzero()[:, 0]
        if len(asked):
            solid = torch.ones_like(kept, dtype=torch.bool)
            solid[asked] = keep_fragment(source[asked], barycentrics[kept[asked]].float())
            kept, source = kept[solid], source[solid]
    key = (((depth[kept] + 1) * (0.5 * DEPTH_STEPS)).long() << 32) | owner[kept]
    pixel = (image[source] * height + v[kept]) * width + u[kept]
    nearest.scatter_reduce_(0, pixel, key, "amin")


def _resolve(setup: _Setup, nearest: Tensor, size: tuple[int, int, int]) -> Fragments:
    batch, height, width = size
    hit = nearest != NOTHING
    triangle = torch.full_like(nearest, -1)
    barycentrics = torch.zeros(len(nearest), 3, device=nearest.device)
    w, depth = torch.ones(len(nearest), device=nearest.device), torch.ones(len(nearest), device=nearest.device)
    pixel = hit.nonzero()[:, 0]
    owner = nearest[pixel] & 0xFFFFFFFF
    u = (pixel % width).double()
    v = (torch.div(pixel, width, rounding_mode="floor") % height).double()
    seen = setup.evaluate(owner, u, v)
    triangle[pixel] = setup.source[owner]
    barycentrics[pixel], w[pixel], depth[pixel] = (value.float() for value in seen)
    shape = (batch, height, width)
    return Fragments(triangle.view(shape), barycentrics.view(*shape, 3), w.view(shape), depth.view(shape))
