"""The mesh library: furniture catalogues, simplified and cached, ready to be placed in scenes.

Meshes are in metres with z up, base at z = 0, centred in x and y, and look along -y (their back is at +y).
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.files import whole_file
from diffusion_perception_ros.world.labels import CLASS_ID
from diffusion_perception_ros.world.meshes.catalogue import CatalogueEntry, find_archives, read_catalogue
from diffusion_perception_ros.world.meshes.wavefront import TEXTURE_SIZE, ObjMaterial, ObjMesh, read_obj, read_texture


CACHE_VERSION = 3
MAX_TRIANGLES, MAX_TRIANGLES_SMALL = 40_000, 8_000
"""Meshes (and things below half a metre) that stay heavier than this after simplification are left out."""
_TARGETS = {"person": 12_000, "vegetation": 8_000}
_TARGET, _TARGET_SMALL = 5_000, 1_500
_SMOOTHING_ROUNDS = 4
_MIN_OPACITY = 0.35
"""More transparent materials (panes, glass) are left out: depth cameras and labels see through them."""


@dataclass(frozen=True)
class MeshInfo:
    """One mesh of the library; lengths in metres."""

    name: str
    class_id: int
    placement: str
    """`floor`, `top`, `wall`, `ceiling` or `outdoor`, see `world.catalogue`."""
    size: tuple[float, float, float]
    """Width (x), depth (y), height (z)."""
    elevation: float
    top_height: float
    start: int
    stop: int
    """Its triangles in the library's arrays."""


@dataclass
class MeshLibrary:
    """All meshes, their triangles in shared arrays of T rows."""

    meshes: list[MeshInfo]
    positions: npt.NDArray[np.float32]
    """(T, 3, 3)."""
    normals: npt.NDArray[np.int8]
    """(T, 3, 3), unit normals times 127."""
    uvs: npt.NDArray[np.float16]
    """(T, 3, 2)."""
    albedo: npt.NDArray[np.uint8]
    """(T, 3), linear RGB times 255."""
    texture: npt.NDArray[np.int16]
    """(T,) index into `textures`, -1 = none."""
    gloss: npt.NDArray[np.uint8]
    """(T,), times 255."""
    textures: npt.NDArray[np.uint8]
    """(layers, 128, 128, 4) sRGB + alpha."""

    @staticmethod
    def load(folder: Path) -> MeshLibrary:
        """The library of every catalogue below `folder`; the first call takes a minute or two, later ones use a cache.

        Raises:
            InputError: the folder has no catalogue, or none with a usable mesh.
        """
        archives = find_archives(folder)
        cache = cache_file(archives)
        if not cache.exists():
            _write_cache(cache, [entry for archive in archives for entry in read_catalogue(archive)])
        with np.load(cache, allow_pickle=False) as file:
            info = file["info"]
            arrays = {name: file[name] for name in _ARRAYS}
        meshes = [_mesh_info(row) for row in info]
        return MeshLibrary(meshes, **arrays)


_ARRAYS = ("positions", "normals", "uvs", "albedo", "texture", "gloss", "textures")
_INFO_DTYPE = np.dtype(
    [
        ("name", "U64"),
        ("class_id", "i4"),
        ("placement", "U16"),
        ("size", "f8", 3),
        ("elevation", "f8"),
        ("top_height", "f8"),
        ("start", "i8"),
        ("stop", "i8"),
    ]
)


def cache_file(archives: list[Path]) -> Path:
    """Where the library of these archives is kept; the name changes with their content and the import's version."""
    digest = hashlib.sha256(f"v{CACHE_VERSION}".encode())
    for archive in archives:
        with archive.open("rb") as file:
            digest.update(hashlib.sha256(file.read()).digest())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "diffusion_perception_ros" / f"meshes-{digest.hexdigest()[:16]}.npz"


def _mesh_info(row: Any) -> MeshInfo:
    """One row of `_INFO_DTYPE`."""
    width, depth, height = row["size"].tolist()
    plain = {name: row[name].item() for name in _INFO_DTYPE.names or () if name != "size"}
    return MeshInfo(size=(width, depth, height), **plain)


def _write_cache(path: Path, entries: list[CatalogueEntry]) -> None:
    parts: list[dict[str, npt.NDArray[Any]]] = []
    textures: list[npt.NDArray[np.uint8]] = []
    info = []
    start = 0
    with ProcessPoolExecutor() as pool:
        imported = zip(entries, pool.map(import_mesh, entries, chunksize=8), strict=True)
        console = Console(stderr=True)
        for entry, mesh in track(imported, "Importing meshes (once)", len(entries), console=console, transient=True):
            if mesh is None:
                continue
            stop = start + len(mesh["positions"])
            texture = mesh["texture"]
            mesh["texture"] = np.where(texture >= 0, texture + len(textures), -1).astype(np.int16)
            textures += list(mesh.pop("textures"))
            label = CLASS_ID[entry.label]
            info.append(
                (entry.name, label, entry.placement, entry.size, entry.elevation, entry.top_height, start, stop)
            )
            parts.append(mesh)
            start = stop
    if not parts:
        raise InputError("the furniture catalogues hold no mesh that can be read; unpack the packages again")
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    arrays["textures"] = np.stack(textures) if textures else np.zeros((0, TEXTURE_SIZE, TEXTURE_SIZE, 4), np.uint8)
    with whole_file(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, info=np.array(info, dtype=_INFO_DTYPE), **arrays)


def import_mesh(entry: CatalogueEntry) -> dict[str, npt.NDArray[Any]] | None:
    """One mesh as arrays of `MeshLibrary` (textures counted from zero), or None where it is broken or too heavy."""
    with zipfile.ZipFile(entry.archive) as archive:
        try:
            mesh = read_obj(archive, entry.model)
        except (ValueError, IndexError, zipfile.BadZipFile):
            return None  # a broken mesh costs itself only
        layers: dict[str, int] = {}
        images: list[npt.NDArray[np.uint8]] = []
        for material in mesh.materials:
            if material.image and material.image not in layers:
                image = read_texture(archive, material.image)
                if image is not None:
                    layers[material.image] = len(images)
                    images.append(image)
    mesh.vertices = _normalised(mesh, entry)
    texture = np.array([layers.get(material.image or "", -1) for material in mesh.materials])
    is_small = max(entry.size) < 0.5
    target = _TARGETS.get(entry.label, _TARGET_SMALL if is_small else _TARGET)
    triangles = list(_simplified(mesh, texture, target))
    if not triangles:
        return None
    positions = np.concatenate([part for part, _, _ in triangles])
    if len(positions) > (MAX_TRIANGLES_SMALL if is_small else MAX_TRIANGLES):
        return None
    material = np.concatenate([np.full(len(part), index) for part, _, index in triangles])
    return {
        "positions": positions.astype(np.float32),
        "normals": np.round(127 * corner_normals(positions)).astype(np.int8),
        "uvs": np.concatenate([uvs for _, uvs, _ in triangles]).astype(np.float16),
        "albedo": _albedo(mesh.materials, texture)[material],
        "texture": texture[material].astype(np.int16),
        "gloss": _gloss(mesh.materials)[material],
        "textures": np.stack(images) if images else np.zeros((0, TEXTURE_SIZE, TEXTURE_SIZE, 4), np.uint8),
    }


def corner_normals(positions: npt.NDArray[np.floating], crease: float = 0.75) -> npt.NDArray[np.float64]:
    """Smooth unit normals (T, 3, 3) of a triangle soup; faces that bend by more than acos(crease) stay apart."""
    positions = positions.astype(np.float64)
    area = np.cross(positions[:, 1] - positions[:, 0], positions[:, 2] - positions[:, 0])
    face = area / np.maximum(np.linalg.norm(area, axis=-1, keepdims=True), 1e-15)
    keys = np.round(positions.reshape(-1, 3) * 2e4).astype(np.int64)
    _, vertex = np.unique(keys, axis=0, return_inverse=True)
    vertex = vertex.reshape(-1)
    joins = np.ones((len(face), 3), dtype=bool)
    # A face too far from its corner's mean leaves it. The mean then turns, so this is repeated: after one round the
    # front of a cabinet would still lean towards the sides that have left.
    for _ in range(_SMOOTHING_ROUNDS):
        weighted = (area[:, None] * joins[..., None]).reshape(-1, 3)
        sums = np.stack([np.bincount(vertex, weighted[:, axis]) for axis in range(3)], axis=-1)
        smooth = sums[vertex].reshape(-1, 3, 3).astype(np.float64)
        smooth = smooth / np.maximum(np.linalg.norm(smooth, axis=-1, keepdims=True), 1e-15)
        joins &= np.einsum("tcx,tx->tc", smooth, face) > crease
    return np.where(joins[..., None], smooth, face[:, None])


def _normalised(mesh: ObjMesh, entry: CatalogueEntry) -> npt.NDArray[np.float64]:
    """Vertices with z up, scaled to the catalogue's size, base at z = 0."""
    vertices = mesh.vertices
    if entry.rotation:
        vertices = vertices @ np.reshape(entry.rotation, (3, 3)).T
    vertices = np.stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]], axis=-1)
    used = vertices[np.unique(mesh.faces)]
    low, high = used.min(axis=0), used.max(axis=0)
    scaled = (vertices - (low + high) / 2) * (np.array(entry.size) / np.maximum(high - low, 1e-6))
    scaled[:, 2] += entry.size[2] / 2
    return np.asarray(scaled)


def _simplified(
    mesh: ObjMesh, texture: npt.NDArray[np.int64], target: int
) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.float32], int]]:
    """Per opaque material its triangles (n, 3, 3) and uvs (n, 3, 2).

    Only untextured parts are simplified: quadric decimation ignores texture seams.
    """
    import fast_simplification  # here, because worlds without catalogue meshes do without it

    visible = [i for i, material in enumerate(mesh.materials) if material.opacity > _MIN_OPACITY]
    count = np.isin(mesh.material, visible).sum()
    for index in visible:
        chosen = mesh.material == index
        faces, uvs = mesh.faces[chosen], mesh.uvs[chosen]
        positions = mesh.vertices[faces]
        area = np.linalg.norm(np.cross(positions[:, 1] - positions[:, 0], positions[:, 2] - positions[:, 0]), axis=-1)
        positions, uvs = positions[area > 1e-12], uvs[area > 1e-12]
        wanted = int(len(positions) * target / max(count, 1))
        if texture[index] < 0 and wanted < len(positions) > 32:
            points, corners = np.unique(np.round(positions.reshape(-1, 3), 5), axis=0, return_inverse=True)
            points, corners = fast_simplification.simplify(
                points.astype(np.float32), corners.reshape(-1, 3).astype(np.int32), target_count=max(wanted, 16), agg=5
            )
            if len(corners):
                positions, uvs = points[corners].astype(np.float64), np.zeros((len(corners), 3, 2), np.float32)
        if len(positions):
            uvs = np.nan_to_num(uvs, posinf=0, neginf=0)
            yield positions, np.clip(uvs - np.floor(uvs.min(axis=1, keepdims=True)), 0, 1000), index


def _albedo(materials: list[ObjMaterial], texture: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    color = np.clip([material.color for material in materials], 0, 1)
    linear = np.where(color > 0.04045, ((color + 0.055) / 1.055) ** 2.4, color / 12.92)
    linear[texture >= 0] = 0.9  # the map holds the colour; modellers leave any Kd beside it
    return np.round(255 * linear).astype(np.uint8)


def _gloss(materials: list[ObjMaterial]) -> npt.NDArray[np.uint8]:
    specular = np.clip([material.specular for material in materials], 0, 1)
    return np.round(255 * 0.6 * specular).astype(np.uint8)
