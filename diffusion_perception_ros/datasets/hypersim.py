"""Hypersim in its published layout (Roberts et al., ICCV 2021; the layout is described in its repository's README).

    ai_VVV_NNN/images/scene_cam_XX_final_preview/frame.IIII.tonemap.jpg
    ai_VVV_NNN/images/scene_cam_XX_geometry_hdf5/frame.IIII.{depth_meters,normal_cam,semantic,semantic_instance}.hdf5

`depth_meters` is the distance to the optical centre, not planar depth; camera axes are x right, y up, z backward.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.datasets.class_names import nyu40_semantic
from diffusion_perception_ros.datasets.depth_checks import check_depth
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.picture_files import read_picture
from diffusion_perception_ros.sample import FloatImage, Intrinsics, Sample, UInt16Image


FOCAL = 886.81
"""Pixels, for pictures 1024 wide: what Lotus, Marigold and GenPercept use for every scene (Lotus
utils/hypersim_dataset.py). Some scenes have tilt-shift cameras, for which this is an approximation."""
WIDTH = 1024
SPLIT = "metadata_images_split_scene_v1.csv"
"""The published split. Where it lies in the root, only pictures that it includes in the release are used."""


class HypersimDataset(Sequence[Sample]):
    """Pictures of Hypersim with planar depth, normals, semantics and instances.

    Args:
        root: folder that holds the scenes `ai_VVV_NNN`.
        split: `train`, `val` or `test` of the published split; None takes everything.

    Raises:
        InputError: no pictures there, a split without its table, or a table that cannot be read.
    """

    def __init__(self, root: Path | str, split: str | None = None) -> None:
        self.root = Path(root)
        self._frames = sorted(self.root.glob("ai_*/images/scene_cam_*_final_preview/frame.*.tonemap.jpg"))
        table = self.root / SPLIT
        if table.is_file():
            chosen = _read_split(table, split)
            self._frames = [frame for frame in self._frames if _key(frame) in chosen]
        elif split is not None:
            raise InputError(f"the split '{split}' of Hypersim needs {table}, which its repository has")
        if not self._frames:
            raise InputError(
                f"{root} holds no pictures of Hypersim: expected "
                "ai_VVV_NNN/images/scene_cam_XX_final_preview/frame.IIII.tonemap.jpg"
            )

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """One picture.

        Raises:
            InputError: one of its files is missing, damaged or of another size.
        """
        frame = self._frames[index]
        rgb = read_picture(frame)
        height, width = rgb.shape[:2]
        focal = FOCAL * width / WIDTH
        camera = Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
        rays = _rays(camera)
        distance = _read(frame, "depth_meters", rgb.shape).astype(np.float32)
        depth = distance / np.linalg.norm(rays, axis=-1)
        return Sample(
            rgb=rgb,
            depth=check_depth(depth, rgb.shape, str(_geometry(frame, "depth_meters"))),
            normals=_facing(_read(frame, "normal_cam", rgb.shape, 3), rays),
            semantic=nyu40_semantic(_read(frame, "semantic", rgb.shape)),
            instances=_instances(_read(frame, "semantic_instance", rgb.shape)),
            intrinsics=camera,
            name=str(frame.relative_to(self.root)),
        )


def _key(frame: Path) -> tuple[str, str, int]:
    """(scene, camera, frame number) as the split's table has them."""
    camera = frame.parent.name.removeprefix("scene_").removesuffix("_final_preview")
    return frame.parents[2].name, camera, int(frame.name.split(".")[1])


def _read_split(table: Path, split: str | None) -> set[tuple[str, str, int]]:
    try:
        with table.open(newline="", encoding="utf-8") as stream:
            return {
                (row["scene_name"], row["camera_name"], int(row["frame_id"]))
                for row in csv.DictReader(stream)
                if row["included_in_public_release"].strip().lower() == "true"
                and split in (None, row["split_partition_name"])
            }
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, ValueError) as error:
        raise InputError(f"{table} cannot be read as Hypersim's split: {error!r}") from error


def _geometry(frame: Path, kind: str) -> Path:
    folder = frame.parent.name.replace("_final_preview", "_geometry_hdf5")
    return frame.parents[1] / folder / frame.name.replace("tonemap.jpg", f"{kind}.hdf5")


def _read(frame: Path, kind: str, shape: tuple[int, ...], channels: int = 1) -> npt.NDArray[Any]:
    import h5py  # of the `train` extra

    path = _geometry(frame, kind)
    try:
        with h5py.File(path, "r") as file:
            values: npt.NDArray[Any] = file["dataset"][:]
    except (OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    expected = shape[:2] if channels == 1 else (*shape[:2], channels)
    if values.shape != expected:
        raise InputError(f"{path} has shape {values.shape}, its picture needs {expected}")
    return values


def _rays(camera: Intrinsics) -> FloatImage:
    """(H, W, 3) direction of every pixel in the optical frame, z = 1."""
    x = (np.arange(camera.width) - camera.cx) / camera.fx
    y = (np.arange(camera.height) - camera.cy) / camera.fy
    rays = np.ones((camera.height, camera.width, 3), np.float32)
    rays[..., 0], rays[..., 1] = x[None], y[:, None]
    return rays


def _facing(normals: npt.NDArray[Any], rays: FloatImage) -> FloatImage:
    """Hypersim's normals (x right, y up, z backward) in the optical frame, turned to the camera; NaN where unknown.

    Thin geometry is two-sided there: some normals are those of the far side.
    """
    optical = normals.astype(np.float32) * np.array([1.0, -1.0, -1.0], np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        optical /= np.linalg.norm(optical, axis=-1, keepdims=True)
        away = np.einsum("hwc,hwc->hw", optical, rays) > 0
    optical[away] *= -1.0
    return optical


def _instances(ids: npt.NDArray[Any]) -> UInt16Image:
    """Hypersim's instance ids (-1 = none) → 0 = none."""
    return np.where((ids > 0) & (ids < 65535), ids, 0).astype(np.uint16)
