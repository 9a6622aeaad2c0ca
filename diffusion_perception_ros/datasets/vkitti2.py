"""Virtual KITTI 2 in its published layout (Cabon et al., 2020; the formats are described on its page).

    SceneNN/VARIATION/frames/{rgb,depth,classSegmentation,instanceSegmentation,backwardFlow}/Camera_C/…_IIIII.*
    SceneNN/VARIATION/intrinsic.txt

Depth is planar, in centimetres, 16 bit; the sky has the highest value. Only `rgb` and `depth` must be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.datasets.augment import crop_sample
from diffusion_perception_ros.datasets.class_names import vkitti2_semantic
from diffusion_perception_ros.datasets.depth_checks import check_depth
from diffusion_perception_ros.datasets.folder import read_depth
from diffusion_perception_ros.datasets.label_files import read_mask
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.picture_files import read_picture
from diffusion_perception_ros.sample import FloatImage, Intrinsics, Sample


CENTIMETRE = 0.01
BENCHMARK_SIZE = (1216, 352)
"""Width and height of KITTI's benchmark images."""
SKY = 65534.5 * CENTIMETRE
"""Metres, from which on it is sky: the highest value that 16 bits hold."""


class VirtualKitti2Dataset(Sequence[Sample]):
    """Pictures of Virtual KITTI 2 with depth (+Inf sky) and, where the files are there, classes, instances and flow.

    Args:
        root: folder that holds `Scene01` …
        scenes: only these, such as `Scene01`; Lotus validates on Scene01 and trains on the others.
        variations: only these, such as `clone` or `rain`.
        benchmark_crop: only the 1216 x 352 pixels in the middle of the lower edge, as in the papers.
        far: metres from which on everything counts as sky (+Inf), as the papers do with 80.

    Raises:
        InputError: no pictures there, or none of these scenes and variations.
    """

    def __init__(
        self,
        root: Path | str,
        scenes: Sequence[str] | None = None,
        variations: Sequence[str] | None = None,
        benchmark_crop: bool = False,
        far: float | None = None,
    ) -> None:
        self.root, self._benchmark_crop, self._far = Path(root), benchmark_crop, far
        frames = sorted(self.root.glob("Scene*/*/frames/rgb/Camera_*/rgb_*.jpg"))
        self._frames = [
            frame
            for frame in frames
            if (scenes is None or frame.parents[4].name in scenes)
            and (variations is None or frame.parents[3].name in variations)
        ]
        if not self._frames:
            wanted = f" of the scenes {scenes} and variations {variations}" if frames else ""
            raise InputError(
                f"{root} holds no pictures of Virtual KITTI 2{wanted}: expected "
                "SceneNN/VARIATION/frames/rgb/Camera_C/rgb_IIIII.jpg"
            )
        self._cameras: dict[Path, dict[tuple[int, int], tuple[float, ...]]] = {}

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """One picture.

        Raises:
            InputError: one of its files is missing, damaged or of another size.
        """
        frame = self._frames[index]
        rgb = read_picture(frame)
        sample = Sample(rgb=rgb, intrinsics=self._intrinsics(frame, rgb.shape), name=str(frame.relative_to(self.root)))
        stored = read_depth(_sibling(frame, "depth", "depth"), CENTIMETRE)
        is_sky = stored >= SKY
        surfaces = np.where(is_sky, np.float32(np.nan), stored)
        depth = check_depth(surfaces, rgb.shape, str(_sibling(frame, "depth", "depth")))
        if self._far is not None:
            is_sky = is_sky | (depth >= self._far)
        sample.depth = np.where(is_sky, np.float32(np.inf), depth)
        classes = _sibling(frame, "classSegmentation", "classgt")
        if classes.is_file():
            colours = read_picture(classes)
            _check_size(colours, rgb.shape, classes)
            sample.semantic = vkitti2_semantic(colours)
        instances = _sibling(frame, "instanceSegmentation", "instancegt")
        if instances.is_file():
            sample.instances = read_mask(instances, rgb.shape).astype(np.uint16)
        self._add_flow(sample, frame)
        return _benchmark_crop(sample) if self._benchmark_crop else sample

    def _add_flow(self, sample: Sample, frame: Path) -> None:
        """With the picture before, where both are there."""
        flow = _sibling(frame, "backwardFlow", "backwardFlow")
        previous = frame.with_name(f"rgb_{int(frame.stem.split('_')[1]) - 1:05d}{frame.suffix}")
        if flow.is_file() and previous.is_file():
            sample.flow, sample.previous = read_flow(flow), read_picture(previous)
            _check_size(sample.flow, sample.rgb.shape, flow)
            _check_size(sample.previous, sample.rgb.shape, previous)

    def _intrinsics(self, frame: Path, shape: tuple[int, ...]) -> Intrinsics | None:
        """From `intrinsic.txt` of the variation; None without that file."""
        path = frame.parents[3] / "intrinsic.txt"
        if path not in self._cameras:
            self._cameras[path] = _read_intrinsics(path) if path.is_file() else {}
        key = int(frame.stem.split("_")[1]), int(frame.parent.name.split("_")[1])
        values = self._cameras[path].get(key)
        return None if values is None else Intrinsics(shape[1], shape[0], *values)


def _benchmark_crop(sample: Sample) -> Sample:
    """The lower middle of an image; all of it where it is smaller."""
    height, width = sample.rgb.shape[:2]
    columns, rows = min(BENCHMARK_SIZE[0], width), min(BENCHMARK_SIZE[1], height)
    return crop_sample(sample, (width - columns) // 2, height - rows, columns, rows)


def read_flow(path: Path) -> FloatImage:
    """(H, W, 2) pixels (right, down) to the other frame, NaN where unknown.

    A 16-bit PNG: red and green hold (right / (W - 1), down / (H - 1)) from -1 to 1, blue is 0 where there is no flow.

    Raises:
        InputError: missing, unreadable, or not such a picture.
    """
    try:
        stored = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if stored is None or stored.dtype != np.uint16 or stored.ndim != 3:
        raise InputError(f"{path} is not a flow picture: three channels of 16 bits are needed")
    height, width = stored.shape[:2]
    sides = np.array([width - 1, height - 1], np.float32)
    flow = (stored[..., 2:0:-1].astype(np.float32) * np.float32(2.0 / 65535.0) - np.float32(1.0)) * sides
    flow[stored[..., 0] == 0] = np.nan
    return cast(FloatImage, flow)


def _sibling(frame: Path, folder: str, prefix: str) -> Path:
    """The file of another modality that belongs to an rgb picture."""
    number = frame.stem.split("_")[1]
    return frame.parents[2] / folder / frame.parent.name / f"{prefix}_{number}.png"


def _check_size(values: npt.NDArray[Any], shape: tuple[int, ...], path: Path) -> None:
    if values.shape[:2] != shape[:2]:
        raise InputError(f"{path} is {values.shape[1]}x{values.shape[0]} but its picture is {shape[1]}x{shape[0]}")


def _read_intrinsics(path: Path) -> dict[tuple[int, int], tuple[float, ...]]:
    """(frame, camera) → fx, fy, cx, cy; the first line is a heading."""
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
        return {(int(row[0]), int(row[1])): tuple(float(value) for value in row[2:6]) for row in rows}
    except (OSError, UnicodeDecodeError, ValueError, IndexError) as error:
        raise InputError(f"{path} cannot be read as intrinsics: {error!r}") from error
