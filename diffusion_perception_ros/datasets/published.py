"""RGB-D data sets in the layouts in which their authors publish them, told apart by their files.

Every layout is a function from a folder to its items, or None where the folder is something else. Units are those of
the authors' documentation: TUM 5000 per metre, KITTI 256, iBims-1 65535 / 50, ETH3D and DIODE floats in metres, the
others millimetres.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from diffusion_perception_ros.datasets import EvaluationDataset, EvaluationSample
from diffusion_perception_ros.datasets.depth_checks import check_depth
from diffusion_perception_ros.datasets.nyu_matlab import CAMERA as NYU_CAMERA
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.picture_files import read_picture, read_values
from diffusion_perception_ros.sample import FloatImage, Intrinsics


Camera = tuple[float, float, float, float]
"""fx, fy, cx, cy in pixels of the images."""
DepthReader = Callable[[Path, tuple[int, int]], FloatImage]
"""File and (height, width) of the image to metres."""
IMAGES = (".jpg", ".jpeg", ".png", ".JPG")
MAX_DIFFERENCE = 0.02
"""Seconds between colour and depth of TUM and Redwood."""
_TUM_CAMERAS: dict[str, Camera] = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
_KINECT: Camera = (585.0, 585.0, 320.0, 240.0)
_DIODE: Camera = (886.81, 927.06, 512.0, 384.0)
_REDWOOD: Camera = (525.0, 525.0, 319.5, 239.5)


@dataclass(frozen=True)
class PublishedItem:
    """An image with its depth."""

    rgb: Path
    depth: Path
    read: DepthReader
    group: str
    camera: Camera | None = None


@dataclass
class PublishedLayout:
    """What a folder turned out to be."""

    name: str
    items: list[PublishedItem]
    depth_kind: str = "dense_sensor"
    notes: list[str] = field(default_factory=list)


class PublishedDataset(EvaluationDataset):
    """Images and depth of a published layout; larger images are resized to their depth where both show the same."""

    def __init__(self, root: Path, layout: PublishedLayout, groups: Sequence[str] | None = None) -> None:
        super().__init__(str(root))
        known = dict.fromkeys(item.group for item in layout.items)
        if unknown := sorted(set(groups or ()) - known.keys()):
            raise InputError(f"{root} has no group {', '.join(unknown)}: it has {', '.join(known)}")
        self.layout = layout
        self.notes = [f"{root} is read as {layout.name}", *layout.notes]
        self._items = [item for item in layout.items if not groups or item.group in groups]

    def __len__(self) -> int:
        return len(self._items)

    def name_of(self, index: int) -> str:
        item = self._items[index]
        return f"{item.group}/{item.rgb.stem}"

    def group_of(self, index: int) -> str:
        return self._items[index].group

    def __getitem__(self, index: int) -> EvaluationSample:
        item = self._items[index]
        rgb = read_picture(item.rgb)
        height, width = rgb.shape[:2]
        depth = item.read(item.depth, (height, width))
        camera = None if item.camera is None else Intrinsics(width, height, *item.camera)
        if depth.shape != (height, width) and depth.ndim == 2:
            rgb, camera = _resized(rgb, camera, depth.shape)
        return EvaluationSample(
            rgb=rgb,
            depth=check_depth(depth, rgb.shape, str(item.depth)),
            intrinsics=camera,
            name=self.name_of(index),
            group=item.group,
            depth_kind=self.layout.depth_kind,
        )


def find_layout(root: Path) -> PublishedLayout | None:
    """The published layout of a folder, None if it has none of them.

    Raises:
        InputError: it has one, but a file of it cannot be read.
    """
    for layout in (_tum, _seven_scenes, _scannet, _scannetpp, _redwood, _kitti, _ibims, _diode, _eth3d, _nyu_folder):
        found = layout(root)
        if found is not None and found.items:
            return found
    return None


def _resized(rgb: Any, camera: Intrinsics | None, shape: tuple[int, ...]) -> tuple[Any, Intrinsics | None]:
    """The image at the size of its depth if that has the same aspect ratio; ScanNet's colour is larger."""
    height, width = shape
    if abs(width / height / (rgb.shape[1] / rgb.shape[0]) - 1) > 0.01:
        return rgb, camera
    smaller = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    return smaller, camera and camera.resized(width, height)


def scaled_png(per_metre: float, largest: int = 65535) -> DepthReader:
    """Reader of 16-bit files with so many units per metre; 0 and values from `largest` on are no measurement."""

    def read(path: Path, _: tuple[int, int]) -> FloatImage:
        stored = read_values(path)
        if stored.dtype != np.uint16 or stored.ndim != 2:
            raise InputError(f"{path} is no depth map of 16 bits")
        return np.where((stored == 0) | (stored >= largest), np.nan, stored / per_metre).astype(np.float32)

    return read


def _tum(root: Path) -> PublishedLayout | None:
    if not ((root / "rgb.txt").is_file() and (root / "depth.txt").is_file()):
        return None
    colors, depths = (_timed_list(root / name) for name in ("rgb.txt", "depth.txt"))
    camera = next((values for name, values in _TUM_CAMERAS.items() if name in root.resolve().name), None)
    items, apart = _by_time(root, colors, depths, scaled_png(5000.0), camera)
    notes = (
        [] if camera else ["its intrinsics are unknown: the folder's name does not say which freiburg camera it is"]
    )
    return PublishedLayout("TUM RGB-D (5000 per metre)", items, notes=notes + apart)


def _timed_list(path: Path) -> list[tuple[float, Path]]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            found.append((float(words[0]), path.parent / words[1].replace("\\", "/")))
        except (ValueError, IndexError):
            raise InputError(f"{path}:{number} is not 'timestamp filename': {line[:80]!r}") from None
    return found


def _by_time(
    root: Path,
    colors: Sequence[tuple[float, Path]],
    depths: Sequence[tuple[float, Path]],
    read: DepthReader,
    camera: Camera | None,
) -> tuple[list[PublishedItem], list[str]]:
    """Every colour image with the nearest depth; a sentence for those that have none near enough."""
    stamps = np.array([stamp for stamp, _ in depths])
    items = []
    for stamp, path in colors:
        nearest = int(np.argmin(np.abs(stamps - stamp))) if len(stamps) else -1
        if nearest >= 0 and abs(stamps[nearest] - stamp) <= MAX_DIFFERENCE:
            items.append(PublishedItem(path, depths[nearest][1], read, root.resolve().name, camera))
    missing = len(colors) - len(items)
    words = f"{missing} of {len(colors)} images have no depth within {MAX_DIFFERENCE:g} s and are left out"
    return items, [words] if missing else []


def _seven_scenes(root: Path) -> PublishedLayout | None:
    items = [
        PublishedItem(
            color,
            color.with_name(color.name.replace(".color.", ".depth.")),
            scaled_png(1000.0),
            _group(color, root),
            _KINECT,
        )
        for color in sorted(root.rglob("frame-*.color.png"))
    ]
    note = "its depth is not registered to the colour camera: scores near edges suffer from that"
    return PublishedLayout("7-Scenes", items, notes=[note]) if items else None


def _scannet(root: Path) -> PublishedLayout | None:
    items = []
    for folder in _scenes_with(root, "color", "depth"):
        matrix = folder / "intrinsic" / "intrinsic_color.txt"
        if not matrix.is_file():
            continue
        camera = _matrix(matrix)
        items += _same_stem(folder / "color", folder / "depth", scaled_png(1000.0), folder.resolve().name, camera)
    return PublishedLayout("ScanNet's export", items) if items else None


def _scannetpp(root: Path) -> PublishedLayout | None:
    items = []
    for poses in sorted(root.rglob("pose_intrinsic_imu.json")):
        folder = poses.parent
        try:
            frames: dict[str, Any] = json.loads(poses.read_text(encoding="utf-8"))
            cameras = {
                name: (k[0][0], k[1][1], k[0][2], k[1][2])
                for name, frame in frames.items()
                if (k := frame.get("intrinsic"))
            }
        except (OSError, ValueError, AttributeError, TypeError, LookupError) as error:
            raise InputError(f"{poses} cannot be read: {error!r}") from error
        for item in _same_stem(folder / "rgb", folder / "depth", scaled_png(1000.0), folder.parent.name, None):
            items.append(replace(item, camera=cameras.get(item.rgb.stem)))
    return PublishedLayout("ScanNet++ (iPhone)", items) if items else None


def _redwood(root: Path) -> PublishedLayout | None:
    read = scaled_png(1000.0)
    pairs = [(root / f"{base.name.removesuffix('-depth')}-color", base) for base in sorted(root.glob("*-depth"))]
    items = [item for color, depth in pairs for item in _same_stem(color, depth, read, color.name[:-6], _REDWOOD)]
    if items:
        return PublishedLayout("Redwood's simulated scenes", items)
    for name in ("rgb", "image", "color"):
        colors, depths = (_stamped(root / folder) for folder in (name, "depth"))
        if colors and depths:
            items, apart = _by_time(root, colors, depths, read, _REDWOOD)
            return PublishedLayout("Redwood", items, notes=apart)
    if (root / "image").is_dir() and not (root / "groundtruth_depth").is_dir():
        items = _same_stem(root / "image", root / "depth", read, root.resolve().name, _REDWOOD)
        return PublishedLayout("Redwood", items) if items else None
    return None


def _stamped(folder: Path) -> list[tuple[float, Path]]:
    """Files named <number>-<microseconds>."""
    found = []
    for path in sorted(folder.glob("*")):
        match = re.fullmatch(r"\d+-(\d+)", path.stem)
        if match and path.suffix in IMAGES:
            found.append((int(match[1]) * 1e-6, path))
    return found


def _kitti(root: Path) -> PublishedLayout | None:
    read = scaled_png(256.0)
    items = []
    for depth in sorted(root.glob("groundtruth_depth/*.png")):
        name = depth.name.replace("groundtruth_depth", "image")
        matrix = root / "intrinsics" / Path(name).with_suffix(".txt")
        camera = _matrix(matrix) if matrix.is_file() else None
        items.append(PublishedItem(root / "image" / name, depth, read, name.partition("_image_")[0], camera))
    for folder in sorted(root.rglob("proj_depth/groundtruth/image_0[23]")):
        drive = folder.parents[2]
        places: tuple[Path, ...] = (
            drive,
            drive.parent / drive.name[:10] / drive.name,
            root / drive.name[:10] / drive.name,
        )
        places += (root / "raw" / drive.name[:10] / drive.name, root.parent / drive.name[:10] / drive.name)
        raw = next((place / folder.name / "data" for place in places if (place / folder.name / "data").is_dir()), None)
        if raw is None:
            raise InputError(
                f"{folder} has no colour images: put KITTI's raw drive {drive.name} into {root / drive.name[:10]}"
            )
        items += [
            PublishedItem(_existing(raw, depth.stem), depth, read, drive.name)
            for depth in sorted(folder.glob("*.png"))
        ]
    return PublishedLayout("KITTI depth (256 per metre)", items, "sparse_lidar") if items else None


def _ibims(root: Path) -> PublishedLayout | None:
    if not (root / "mask_invalid").is_dir() or not (root / "calib").is_dir():
        return None

    def read(path: Path, size: tuple[int, int]) -> FloatImage:
        depth = scaled_png(65535 / 50.0, 65536)(path, size)
        for name in ("mask_invalid", "mask_transp"):
            mask = root / name / path.name
            if mask.is_file():
                depth[read_values(mask) == 0] = np.nan
        return depth

    items = []
    for item in _same_stem(root / "rgb", root / "depth", read, "ibims1", None):
        calibration = root / "calib" / f"{item.rgb.stem}.txt"
        items.append(replace(item, camera=_matrix(calibration) if calibration.is_file() else None))
    return PublishedLayout("iBims-1", items, "exact") if items else None


def _diode(root: Path) -> PublishedLayout | None:
    def read(path: Path, _: tuple[int, int]) -> FloatImage:
        depth = np.squeeze(_array(path)).astype(np.float32)
        mask = path.with_name(path.name.replace("_depth.npy", "_depth_mask.npy"))
        return np.where(np.squeeze(_array(mask)) > 0, depth, np.nan).astype(np.float32)

    items = [
        PublishedItem(
            _existing(depth.parent, depth.name.removesuffix("_depth.npy")), depth, read, _group(depth, root), _DIODE
        )
        for depth in sorted(root.rglob("*_depth.npy"))
        if depth.with_name(depth.name.replace("_depth.npy", "_depth_mask.npy")).is_file()
    ]
    return PublishedLayout("DIODE", items, "exact") if items else None


def _eth3d(root: Path) -> PublishedLayout | None:
    def read(path: Path, size: tuple[int, int]) -> FloatImage:
        stored = np.fromfile(path, "<f4")
        if stored.size != size[0] * size[1]:
            raise InputError(f"{path} has {stored.size} values, its image has {size[1]}x{size[0]} pixels")
        return np.where(np.isfinite(stored), stored, np.nan).reshape(size).astype(np.float32)

    items = [
        PublishedItem(scene.parent / "images" / "dslr_images" / depth.name, depth, read, scene.parent.resolve().name)
        for scene in sorted([*root.glob("ground_truth_depth"), *root.glob("*/ground_truth_depth")])
        for depth in sorted((scene / "dslr_images").glob("*"))
    ]
    return PublishedLayout("ETH3D", items, "sparse_lidar") if items else None


def _nyu_folder(root: Path) -> PublishedLayout | None:
    items = [
        PublishedItem(
            _existing(depth.parent, depth.name.replace("sync_depth_", "rgb_").removesuffix(".png")),
            depth,
            scaled_png(1000.0),
            depth.parent.resolve().name,
            NYU_CAMERA,
        )
        for depth in sorted(root.rglob("sync_depth_*.png"))
    ]
    return PublishedLayout("NYU depth v2 (synchronised files)", items) if items else None


def _scenes_with(root: Path, *folders: str) -> list[Path]:
    candidates = [root, *sorted(path for path in root.glob("*") if path.is_dir())]
    return [path for path in candidates if all((path / folder).is_dir() for folder in folders)]


def _same_stem(
    colors: Path, depths: Path, read: DepthReader, group: str, camera: Camera | None
) -> list[PublishedItem]:
    """Images that have depth of the same name, numbers in the order of numbers."""
    by_stem = {path.stem: path for path in depths.glob("*") if path.suffix in (*IMAGES, ".tiff", ".tif")}
    found = [path for path in colors.glob("*") if path.suffix in IMAGES and path.stem in by_stem]
    found.sort(key=lambda path: (int(path.stem) if path.stem.isdecimal() else 0, path.name))
    return [PublishedItem(path, by_stem[path.stem], read, group, camera) for path in found]


def _existing(folder: Path, stem: str) -> Path:
    return next(
        (folder / f"{stem}{suffix}" for suffix in IMAGES if (folder / f"{stem}{suffix}").is_file()),
        folder / f"{stem}.png",
    )


def _group(path: Path, root: Path) -> str:
    parts = path.parent.relative_to(root).parts
    return "/".join(parts) if parts else root.resolve().name


def _matrix(path: Path) -> Camera:
    """fx, fy, cx, cy of a text file with these four, or a matrix of 3x3, 3x4 or 4x4."""
    try:
        numbers = [float(word) for word in re.split(r"[\s,;]+", path.read_text(encoding="utf-8").strip())]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no camera matrix: {error}") from error
    rows = {9: 3, 12: 4, 16: 4}.get(len(numbers))
    if rows is not None:
        return numbers[0], numbers[rows + 1], numbers[2], numbers[rows + 2]
    if len(numbers) == 4:
        return numbers[0], numbers[1], numbers[2], numbers[3]
    raise InputError(f"{path} is no camera matrix: it has {len(numbers)} numbers")


def _array(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a NumPy array: {error}") from error
