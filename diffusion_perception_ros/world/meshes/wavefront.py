"""Wavefront OBJ/MTL inside zip archives to plain arrays."""

from __future__ import annotations

import posixpath
import zipfile
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt


TEXTURE_SIZE = 128

# The catalogue of Sweet Home 3D itself has meshes without .mtl: their materials are known by name only.
_COLORS_BY_NAME: dict[str, tuple[float, float, float]] = {
    "white": (0.88, 0.88, 0.88),
    "black": (0.05, 0.05, 0.05),
    "brown": (0.4, 0.25, 0.12),
    "red": (0.7, 0.1, 0.1),
    "blue": (0.1, 0.2, 0.6),
    "green": (0.1, 0.45, 0.1),
    "wood": (0.5, 0.33, 0.18),
    "grey": (0.5, 0.5, 0.5),
    "gray": (0.5, 0.5, 0.5),
    "glass": (0.7, 0.8, 0.85),
    "metal": (0.6, 0.6, 0.62),
    "chrome": (0.7, 0.7, 0.7),
    "yellow": (0.8, 0.7, 0.2),
    "orange": (0.8, 0.45, 0.1),
}


@dataclass
class ObjMaterial:
    """What an MTL file says about a surface."""

    color: tuple[float, float, float] = (0.6, 0.55, 0.5)
    """sRGB in [0, 1]."""
    opacity: float = 1.0
    specular: float = 0.0
    image: str | None = None
    """Archive member of the colour texture."""


@dataclass
class ObjMesh:
    """A triangle mesh with per-face materials; T triangles."""

    vertices: npt.NDArray[np.float64]
    """(V, 3)."""
    faces: npt.NDArray[np.int64]
    """(T, 3) vertex indices."""
    uvs: npt.NDArray[np.float32]
    """(T, 3, 2); v = 0 is the first row of the image; zero where the file has none."""
    material: npt.NDArray[np.int64]
    """(T,) index into `materials`."""
    materials: list[ObjMaterial] = field(default_factory=list)


def read_obj(archive: zipfile.ZipFile, member: str) -> ObjMesh:
    """Parse one OBJ of the archive with its material libraries; polygons become fans.

    Raises:
        ValueError: the file holds no face, a face without its vertices, or something that is no number.
    """
    vertices: list[list[float]] = []
    texture_vertices: list[list[float]] = [[0.0, 0.0]]  # index 0 stands for "none": OBJ counts from one
    corners: list[tuple[int, int]] = []
    material: list[int] = []
    names: dict[str, int] = {}
    libraries: list[str] = []
    current = 0
    for line in archive.read(member).decode("latin-1").replace("\\\n", " ").splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(value) for value in rest.split()[:3]])
        elif kind == "vt":
            texture_vertices.append([float(value) for value in rest.split()[:2]])
        elif kind == "f":
            polygon = [_corner(word, len(vertices), len(texture_vertices)) for word in rest.split()]
            for i in range(1, len(polygon) - 1):
                corners += (polygon[0], polygon[i], polygon[i + 1])
                material.append(current)
        elif kind == "usemtl":
            current = names.setdefault(rest.strip(), len(names))
        elif kind == "mtllib":
            libraries.append(rest.strip())
    if not corners:
        raise ValueError(f"{member}: no faces")
    index = np.array(corners, dtype=np.int64).reshape(-1, 3, 2)
    if index.min() < 0 or (index.max(axis=(0, 1)) >= (len(vertices), len(texture_vertices))).any():
        raise ValueError(f"{member}: faces name vertices that are not there")
    uvs = np.array(texture_vertices, dtype=np.float32)[index[..., 1]]
    uvs[..., 1] = 1 - uvs[..., 1]
    return ObjMesh(
        np.array(vertices), index[..., 0], uvs, np.array(material), _materials(archive, member, names, libraries)
    )


def read_texture(archive: zipfile.ZipFile, member: str) -> npt.NDArray[np.uint8] | None:
    """A texture map as (128, 128, 4) sRGB + alpha, or None when it cannot be decoded."""
    image = cv2.imdecode(np.frombuffer(archive.read(member), dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint8:
        return None
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGRA)
    elif image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
    image = cv2.resize(image, (TEXTURE_SIZE, TEXTURE_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA), dtype=np.uint8)


def _corner(word: str, vertices: int, texture_vertices: int) -> tuple[int, int]:
    parts = word.split("/")
    vertex = int(parts[0])
    texture = int(parts[1]) if len(parts) > 1 and parts[1] else 0
    return (
        vertex - 1 if vertex > 0 else vertices + vertex,
        texture if texture >= 0 else texture_vertices + texture,
    )


def _materials(
    archive: zipfile.ZipFile, member: str, names: dict[str, int], libraries: list[str]
) -> list[ObjMaterial]:
    members = {name.lower(): name for name in archive.namelist()}
    folder = posixpath.dirname(member)
    known: dict[str, ObjMaterial] = {}
    for library in libraries:
        path = _resolve(members, folder, library)
        if path:
            known.update(_read_mtl(archive.read(path).decode("latin-1"), members, folder))
    materials = [known.get(name, _guess_material(name)) for name in names]
    return materials or [ObjMaterial()]


def _read_mtl(text: str, members: dict[str, str], folder: str) -> dict[str, ObjMaterial]:
    materials: dict[str, ObjMaterial] = {}
    current = ObjMaterial()
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2:
            continue
        key = words[0].lower()
        try:
            if key == "newmtl":
                current = materials.setdefault(line.split(None, 1)[1].strip(), ObjMaterial())
            elif key == "kd":
                current.color = (float(words[1]), float(words[2]), float(words[3]))
            elif key == "ks":
                current.specular = sum(float(value) for value in words[1:4]) / 3
            elif key == "d":
                current.opacity = float(words[-1])
            elif key == "map_kd":
                current.image = _resolve(members, folder, line.split(None, 1)[1].strip())
        except (ValueError, IndexError):
            continue  # a garbled statement costs one property, not the mesh
    return materials


def _guess_material(name: str) -> ObjMaterial:
    color = next((color for key, color in _COLORS_BY_NAME.items() if key in name.lower()), ObjMaterial.color)
    return ObjMaterial(color)


def _resolve(members: dict[str, str], folder: str, path: str) -> str | None:
    return members.get(posixpath.normpath(posixpath.join(folder, path.replace("\\", "/"))).lower())
