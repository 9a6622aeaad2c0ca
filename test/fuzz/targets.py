"""The targets: each reads bytes in one way, and may raise `InputError` or what its docstring names, nothing else."""

from __future__ import annotations

import contextlib
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from diffusion_perception_ros.datasets.camera_files import parse_calibration
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.camera_model import image_intrinsics
from diffusion_perception_ros.inference.card import CARD_NAME, read_card
from diffusion_perception_ros.inference.card.external_data import GraphFileError, external_locations
from diffusion_perception_ros.inference.image_encodings import COLOR_ENCODINGS
from diffusion_perception_ros.inference.image_messages import color_of, depth_of, kind_of
from diffusion_perception_ros.recordings.recording import Recording


ENCODINGS = (*COLOR_ENCODINGS, "16UC1", "32FC1", "rgb7")
FORMATS = (
    "jpeg",
    "png",
    "rgb8; jpeg compressed bgr8",
    "bayer_rggb8; jpeg compressed",
    "mono16; png compressed",
    "16UC1; compressedDepth png",
    "32FC1; compressedDepth png",
    "16UC1; compressedDepth rvl",
    "32FC1; compressedDepth rvl",
    "",
)
_HEAD = struct.Struct("<BBHHI")


@dataclass(frozen=True)
class Target:
    """One reader."""

    name: str
    read: Callable[[bytes], None]
    seeds: Callable[[Path], list[bytes]]
    """Good inputs, made with the help of an empty folder."""


def read_image(data: bytes) -> None:
    """An Image: five fields, then its data."""
    if len(data) < _HEAD.size:
        return
    encoding, endian, width, height, step = _HEAD.unpack_from(data)
    message = SimpleNamespace(
        encoding=ENCODINGS[encoding % len(ENCODINGS)],
        is_bigendian=endian,
        width=width,
        height=height,
        step=step,
        data=data[_HEAD.size :],
    )
    _decode(message, (height, width))


def read_compressed(data: bytes) -> None:
    """A CompressedImage: which format, then its data."""
    if data:
        _decode(SimpleNamespace(format=FORMATS[data[0] % len(FORMATS)], data=data[1:]), None)


def _decode(message: SimpleNamespace, size: tuple[int, int] | None) -> None:
    kind_of(message, "/camera/depth")
    with contextlib.suppress(InputError):
        rgb = color_of(message)
        assert rgb.dtype == np.uint8
        assert rgb.ndim == 3
        assert rgb.shape[2] == 3
        assert size is None or rgb.shape[:2] == size
    with contextlib.suppress(InputError):
        depth = depth_of(message)
        assert depth.dtype == np.float32
        assert depth.ndim == 2
        assert not (depth <= 0).any()


def read_camera_info(data: bytes) -> None:
    """A CameraInfo: numbers, the size of the image, then the distortion coefficients."""
    head = struct.Struct("<21d2H2H2B4H")
    if len(data) < head.size:
        return
    values = head.unpack_from(data)
    rest = data[head.size :]
    info = SimpleNamespace(
        k=values[:9],
        p=values[9:21],
        width=values[21],
        height=values[22],
        binning_x=values[25],
        binning_y=values[26],
        roi=SimpleNamespace(x_offset=values[27], y_offset=values[28], width=values[29], height=values[30]),
        d=np.frombuffer(rest[: len(rest) // 8 * 8]),
        distortion_model=("plumb_bob", "equidistant", "rational_polynomial", "", "x")[len(rest) % 5],
        header=SimpleNamespace(frame_id="camera"),
    )
    for rectified in (False, True):
        with contextlib.suppress(InputError):
            camera = image_intrinsics(info, max(1, values[23]), max(1, values[24]), rectified)
            assert camera.fx > 0
            assert camera.fy > 0


def read_model_card(data: bytes) -> None:
    """`model.yaml`."""
    (_folder() / CARD_NAME).write_bytes(data)
    with contextlib.suppress(InputError):
        read_card(_folder(), verify_files=False)


def read_calibration(data: bytes) -> None:
    """A camera calibration file."""
    path = _folder() / "camera.yaml"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        parse_calibration(str(path))


def read_graph(data: bytes) -> None:
    """An ONNX file; may raise GraphFileError."""
    with contextlib.suppress(GraphFileError):
        external_locations(data)


def _read_bag(name: str) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path = _folder() / name
        path.write_bytes(data)
        with contextlib.suppress(InputError), Recording(path) as recording:
            for message in recording.messages():
                if hasattr(message.content, "data") and hasattr(message.content, "header"):
                    _decode(message.content, None) if hasattr(message.content, "format") else kind_of(message.content)

    return read


def _image_seeds(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [_HEAD.pack(code, code % 2, 8, 6, 8 * 8) + rng.bytes(6 * 64 * 2) for code in range(len(ENCODINGS))]


def _compressed_seeds(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    depth = rng.integers(0, 5000, (6, 8), np.uint16)
    files = {
        "jpeg": cv2.imencode(".jpg", depth.astype(np.uint8))[1].tobytes(),
        "png": cv2.imencode(".png", depth)[1].tobytes(),
        "colour": cv2.imencode(".png", rng.integers(0, 256, (6, 8, 4), np.uint8))[1].tobytes(),
        "rvl": struct.pack("<iffii", 0, 100.0, 1.0, 8, 6) + rng.bytes(80),
    }
    with_header = struct.pack("<iff", 0, 100.0, 1.0) + files["png"]
    contents = [files["jpeg"], files["png"], files["colour"], files["rvl"], with_header]
    return [bytes([number]) + content for number in range(len(FORMATS)) for content in contents]


def _info_seeds(folder: Path) -> list[bytes]:
    numbers = (100.0, 0, 32, 0, 100.0, 24, 0, 0, 1, 100.0, 0, 32, 0, 0, 100.0, 24, 0, 0, 0, 1, 0)
    head = struct.pack("<21d2H2H2B4H", *numbers, 64, 48, 64, 48, 1, 1, 0, 0, 0, 0)
    return [head + np.zeros(count).tobytes() for count in (0, 4, 5, 8)]


def _model_seeds(name: str) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        from model_factory import write_model

        return [(write_model(folder / "tiny") / name).read_bytes()]

    return seeds


def _calibration_seeds(folder: Path) -> list[bytes]:
    return [
        b"image_width: 64\nimage_height: 48\ncamera_matrix: {data: [100, 0, 32, 0, 100, 24, 0, 0, 1]}\n",
        b"width: 64\nheight: 48\nk: [100, 0, 32, 0, 100, 24, 0, 0, 1]\n---\n",
    ]


def _bag_seeds(storage: str, suffix: str) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        from bag_factory import BagSpec, write_bag

        path = write_bag(folder / storage, BagSpec(frames=2, storage=storage, width=8, height=6))
        return [next(iter(sorted(path.rglob(f"*{suffix}")) or [path])).read_bytes()]

    return seeds


TARGETS = [
    Target("image", read_image, _image_seeds),
    Target("compressed", read_compressed, _compressed_seeds),
    Target("camera_info", read_camera_info, _info_seeds),
    Target("card", read_model_card, _model_seeds(CARD_NAME)),
    Target("calibration", read_calibration, _calibration_seeds),
    Target("graph", read_graph, _model_seeds("model.onnx")),
    Target("mcap", _read_bag("bag.mcap"), _bag_seeds("mcap", ".mcap")),
    Target("db3", _read_bag("bag.db3"), _bag_seeds("sqlite3", ".db3")),
    Target("ros1", _read_bag("bag.bag"), _bag_seeds("ros1", ".bag")),
]

_TEMPORARY: list[tempfile.TemporaryDirectory[str]] = []


def _folder() -> Path:
    """One folder for the files of this process."""
    if not _TEMPORARY:
        _TEMPORARY.append(tempfile.TemporaryDirectory(prefix="fuzz."))
    return Path(_TEMPORARY[0].name)
