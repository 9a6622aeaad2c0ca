"""Primitive shapes as triangle arrays: everything procedural is put together from these. Metres, z up."""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


Float32 = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

_SMOOTH = 0.7
"""Neighbouring faces whose normals have at least this cosine are shaded as one round surface."""


class Shape(NamedTuple):
    """N triangles."""

    positions: Float32
    """(N, 3, 3)."""
    normals: Float32
    """(N, 3, 3), unit."""
    uvs: Float32
    """(N, 3, 2); v = 0 is a texture's first row, so v grows downwards on upright faces."""

    def moved(
        self, offset: npt.ArrayLike = (0, 0, 0), yaw: float = 0.0, rotation: npt.ArrayLike | None = None
    ) -> Shape:
        """The shape turned (about z by `yaw`, or by a rotation matrix) and then shifted."""
        matrix = rotation_z(yaw) if rotation is None else np.asarray(rotation, np.float32)
        shift = np.asarray(offset, np.float32)
        return Shape(apply(matrix, self.positions) + shift, apply(matrix, self.normals), self.uvs)


def apply(matrix: Float32, vectors: Float32) -> Float32:
    """A (3, 3) matrix times each of (N, 3, 3) vectors; one flat product is far faster than N small ones."""
    return (vectors.reshape(-1, 3) @ matrix.T).reshape(vectors.shape)


def rotation_z(angle: float) -> Float32:
    """(3, 3) rotation about z, radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)


def rotation_x(angle: float) -> Float32:
    """(3, 3) rotation about x, radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]], np.float32)


def rotation_to(direction: npt.ArrayLike) -> Float32:
    """(3, 3) rotation that turns z into `direction`."""
    a, b, c = (float(value) for value in np.asarray(direction, float))
    length = math.sqrt(a * a + b * b + c * c)
    a, b, c = a / length, b / length, c / length
    x = (0.0, -c, b) if abs(a) < 0.9 else (c, 0.0, -a)  # the x or y axis times the direction
    across = math.hypot(*x)
    x = (x[0] / across, x[1] / across, x[2] / across)
    y = (b * x[2] - c * x[1], c * x[0] - a * x[2], a * x[1] - b * x[0])
    return np.array([[x[0], y[0], a], [x[1], y[1], b], [x[2], y[2], c]], np.float32)


def join(*shapes: Shape) -> Shape:
    """Several shapes as one."""
    return Shape(*(np.concatenate(arrays) for arrays in zip(*shapes, strict=True)))


def _unit_cube() -> tuple[Float32, Float32, Float32, Float32]:
    """Corners, normals, uvs and per-corner (u, v) extent selectors of a cube of side 1 around the origin."""
    corners, normals, uvs, axes = [], [], [], []
    # face: normal, direction of u, direction of v (down on upright faces)
    for normal, u, v in (
        ((0, -1, 0), (1, 0, 0), (0, 0, -1)),
        ((0, 1, 0), (-1, 0, 0), (0, 0, -1)),
        ((1, 0, 0), (0, 1, 0), (0, 0, -1)),
        ((-1, 0, 0), (0, -1, 0), (0, 0, -1)),
        ((0, 0, 1), (1, 0, 0), (0, -1, 0)),
        ((0, 0, -1), (1, 0, 0), (0, 1, 0)),
    ):
        n, u_axis, v_axis = (np.array(axis, np.float32) for axis in (normal, u, v))
        square = [(0, 0), (1, 0), (1, 1), (0, 1)]
        points = [n / 2 + (a - 0.5) * u_axis + (b - 0.5) * v_axis for a, b in square]
        for triangle in ((0, 1, 2), (0, 2, 3)):
            corners.append([points[i] for i in triangle])
            normals.append([n] * 3)
            uvs.append([square[i] for i in triangle])
            axes.append([np.abs(u_axis), np.abs(v_axis)])
    as_array = partial(np.array, dtype=np.float32)
    return as_array(corners), as_array(normals), as_array(uvs), as_array(axes)


_CUBE, _CUBE_NORMALS, _CUBE_UVS, _CUBE_AXES = _unit_cube()


def box(size: npt.ArrayLike, center: npt.ArrayLike = (0, 0, 0), tiling: float | None = None) -> Shape:
    """A box; `tiling` is texture repeats per metre, None shows one picture per face."""
    extent = np.asarray(size, np.float32)
    uvs = _CUBE_UVS
    if tiling is not None:
        uvs = uvs * (_CUBE_AXES @ extent * tiling)[:, None]
    return Shape(_CUBE * extent + np.asarray(center, np.float32), _CUBE_NORMALS, uvs)


def quad(origin: npt.ArrayLike, u: npt.ArrayLike, v: npt.ArrayLike, repeat: tuple[float, float] = (1, 1)) -> Shape:
    """A parallelogram from `origin` along `u` and `v`; the texture repeats `repeat` times."""
    o, a, b = (np.asarray(value, np.float32) for value in (origin, u, v))
    points = np.stack([o, o + a, o + a + b, o + b])
    texture = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32) * np.asarray(repeat, np.float32)
    normal = np.cross(a, b)
    index = np.array([[0, 1, 2], [0, 2, 3]])
    normals = np.broadcast_to(normal / np.linalg.norm(normal), (2, 3, 3)).astype(np.float32)
    return Shape(points[index], normals, texture[index])


def surface(points: npt.ArrayLike, normals: npt.ArrayLike, uvs: npt.ArrayLike) -> Shape:
    """A smooth surface over an (R, C) grid of points (R, C, 3), normals (R, C, 3) and uvs (R, C, 2)."""
    return Shape(*(_grid_triangles(np.asarray(values, np.float32)) for values in (points, normals, uvs)))


def _grid_triangles(values: Float32) -> Float32:
    a, b, c, d = values[:-1, :-1], values[1:, :-1], values[1:, 1:], values[:-1, 1:]
    first, second = np.stack([a, b, c], axis=2), np.stack([a, c, d], axis=2)
    return np.concatenate([first, second]).reshape(-1, 3, values.shape[-1])


def _segment_normals(points: npt.NDArray[np.floating], closed: bool) -> npt.NDArray[np.float64]:
    """(S, 2, 2): for each segment of a polyline its unit normal at both ends, smoothed over gentle bends."""
    if closed:
        points = np.concatenate([points, points[:1]])
    along = points[1:] - points[:-1]
    normal = _unit_rows(np.stack([along[:, 1], -along[:, 0]], axis=-1))
    first, last = (normal[-1:], normal[:1]) if closed else (normal[:1], normal[-1:])
    neighbours = np.stack([np.concatenate([first, normal[:-1]]), np.concatenate([normal[1:], last])], axis=1)
    normal = normal[:, None]
    is_gentle = (normal * neighbours).sum(axis=-1, keepdims=True) > _SMOOTH
    return np.where(is_gentle, _unit_rows(normal + neighbours), normal)


def _unit_rows(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(…, 2), of length one; zero stays zero."""
    x, y = vectors[..., :1], vectors[..., 1:]
    return np.asarray(vectors / np.maximum(np.sqrt(x * x + y * y), 1e-9))


def lathe(profile: npt.ArrayLike, segments: int = 20, repeat: tuple[float, float] = (1, 1)) -> Shape:
    """A body of revolution about z of a profile (P, 2) of (radius, z), upwards on the outside."""
    line = np.asarray(profile, float)
    turn = _circle(segments)
    step = line[1:] - line[:-1]
    reach = np.concatenate([[0], np.cumsum(np.sqrt((step * step).sum(axis=-1)))])
    grid = np.empty((len(line), segments + 1, 3), np.float32)
    grid[..., :2], grid[..., 2] = line[:, None, :1] * turn, line[:, 1:]
    uvs = np.empty((len(line), segments + 1, 2), np.float32)
    uvs[..., 0] = np.linspace(0, repeat[0], segments + 1)
    uvs[..., 1] = repeat[1] * (1 - reach / max(reach[-1], 1e-9))[:, None]
    slope = _segment_normals(line, closed=False)
    normals = np.empty((len(step), 2, segments + 1, 3), np.float32)
    normals[..., :2], normals[..., 2] = slope[..., None, :1] * turn, slope[..., 1:]
    corners, ends, segment, is_high = _lathe_corners(len(line), segments)
    # A triangle with two corners on the axis, or of a step of no length, has no area.
    wide = np.where(is_high, line[1:, 0][segment], line[:-1, 0][segment])
    solid = (np.abs(wide) > 1e-7) & ((step * step).sum(axis=-1) > 1e-14)[segment]
    corners, ends = corners[solid], ends[solid]
    return Shape(grid.reshape(-1, 3)[corners], normals.reshape(-1, 3)[ends], uvs.reshape(-1, 2)[corners])


@lru_cache(maxsize=64)
def _circle(segments: int) -> npt.NDArray[np.float64]:
    """(segments + 1, 2), once round the unit circle."""
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


@lru_cache(maxsize=256)
def _lathe_corners(points: int, segments: int) -> tuple[Indices, Indices, Indices, npt.NDArray[np.bool_]]:
    """Two triangles for every cell between neighbouring points and columns, those with their side above first.

    Returns:
        (T, 3) corners among points x columns, (T, 3) among steps x (below, above) x columns; (T,) the step, whether
        the triangle's side is above.
    """
    step, column = (axis.reshape(-1) for axis in np.mgrid[: points - 1, :segments])
    below, above = np.zeros_like(step), np.ones_like(step)
    ends = [((below, 0), (above, 0), (above, 1)), ((below, 0), (above, 1), (below, 1))]
    columns = segments + 1
    corners = [[(step + end) * columns + column + right for end, right in triangle] for triangle in ends]
    pairs = [[(2 * step + end) * columns + column + right for end, right in triangle] for triangle in ends]
    flat = [np.concatenate([np.stack(triangle, axis=-1) for triangle in both]) for both in (corners, pairs)]
    return flat[0], flat[1], np.concatenate([step, step]), np.repeat([True, False], len(step))


def _band(points: Float32, normals: Float32, uvs: Float32, half: int) -> Shape:
    """One of the two triangles of every cell of S bands, each (S, 2, C, k)."""

    def corners(values: Float32) -> Float32:
        low, high = values[:, 0], values[:, 1]
        order = (low[:, :-1], high[:, :-1], high[:, 1:]) if half == 0 else (low[:, :-1], high[:, 1:], low[:, 1:])
        return np.stack(order, axis=2).reshape(-1, 3, values.shape[-1])

    return Shape(corners(points), corners(normals), corners(uvs))


def extrude(outline: npt.ArrayLike, height: float, tiling: float = 1.0) -> Shape:
    """A prism over a convex outline (K, 2), counter-clockwise, from z = 0 to `height`."""
    ring = np.asarray(outline, float)
    following = np.roll(ring, -1, axis=0)
    normals2 = _segment_normals(ring, closed=True)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(following - ring, axis=-1))])
    count = len(ring)
    points = np.zeros((count, 2, 2, 3), np.float32)  # segment, bottom/top, start/end
    points[:, :, 0, :2], points[:, :, 1, :2] = ring[:, None], following[:, None]
    points[:, 1, :, 2] = height
    normals = np.zeros_like(points)
    normals[:, :, :, :2] = normals2[:, None]
    uvs = np.zeros((count, 2, 2, 2), np.float32)
    uvs[:, :, 0, 0], uvs[:, :, 1, 0] = length[:-1, None], length[1:, None]
    uvs[:, 0, :, 1] = height
    sides = [_band(points, normals, uvs * tiling, row) for row in (0, 1)]
    return join(*sides, _cap(ring, height, 1.0, tiling), _cap(ring, 0.0, -1.0, tiling))


def _cap(ring: npt.NDArray[np.float64], height: float, up: float, tiling: float) -> Shape:
    center = np.broadcast_to(ring.mean(axis=0), ring.shape)
    flat = np.stack([center, ring, np.roll(ring, -1, axis=0)], axis=1).astype(np.float32)
    positions = np.concatenate([flat, np.full((*flat.shape[:2], 1), height, np.float32)], axis=-1)
    normals = np.zeros_like(positions)
    normals[..., 2] = up
    return Shape(positions, normals, flat * tiling)


@lru_cache(maxsize=64)
def _unit_ball(segments: int) -> Shape:
    angle = np.linspace(-np.pi / 2, np.pi / 2, segments // 2 + 1)
    return lathe(np.stack([np.cos(angle), np.sin(angle)], axis=-1), segments)


def sphere(radius: npt.ArrayLike, center: npt.ArrayLike = (0, 0, 0), segments: int = 16) -> Shape:
    """A ball, or an ellipsoid when `radius` has three values."""
    ball = _unit_ball(segments)
    scale = np.broadcast_to(np.asarray(radius, np.float32), 3)
    normals = ball.normals / scale
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return Shape(ball.positions * scale + np.asarray(center, np.float32), normals, ball.uvs.copy())


def tube(
    start: npt.ArrayLike, end: npt.ArrayLike, radius: float, end_radius: float | None = None, segments: int = 10
) -> Shape:
    """A closed cylinder or cone between two points."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    height = float(np.linalg.norm(b - a))
    end_radius = radius if end_radius is None else end_radius
    profile = [(0, 0), (radius, 0), (end_radius, height), (0, height)]
    return lathe(profile, segments).moved(a, rotation=rotation_to(b - a))


def capsule(
    start: npt.ArrayLike, end: npt.ArrayLike, radius: float, end_radius: float | None = None, segments: int = 12
) -> Shape:
    """A limb: a cone with round ends."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    height = float(np.linalg.norm(b - a))
    end_radius = radius if end_radius is None else end_radius
    angle = np.linspace(0, np.pi / 2, 4)
    low = np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=-1)
    high = np.stack([end_radius * np.cos(angle), height + end_radius * np.sin(angle)], axis=-1)
    return lathe(np.concatenate([low, high]), segments).moved(a, rotation=rotation_to(b - a))


def ellipse(a: float, b: float, count: int = 32) -> npt.NDArray[np.float64]:
    """Outline (count, 2) of an ellipse with these half axes, for `extrude`."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([a * np.cos(angle), b * np.sin(angle)], axis=-1)


def cushion(size: tuple[float, float, float], center: tuple[float, float, float] = (0, 0, 0)) -> Shape:
    """A box with swollen, rounded faces: a superellipsoid."""
    ball = _unit_ball(16)
    power = 0.45
    positions = np.sign(ball.positions) * np.abs(ball.positions) ** power
    normals = np.sign(ball.positions) * np.abs(ball.positions) ** (2 - power) / np.asarray(size, np.float32)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    half = np.asarray(size, np.float32) / 2
    flat = np.abs(ball.positions).argmax(axis=-1)[..., None] == 2  # seen from above or from the side
    uvs = np.where(flat, positions[..., :2] * half[:2], positions[..., [0, 2]] * half[[0, 2]]) * 2
    corners = positions * half + np.asarray(center, np.float32)
    return Shape(*(np.asarray(values, np.float32) for values in (corners, normals, uvs)))
