"""The per-pixel work around the network in C++ (`src/*.cpp`), where the library was built; else None is loaded.

Every function does what the function of the same name in `preprocess`, `postprocess` or `instances` does, on arrays
that it does not check. Those are the reference: the tests compare them.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import diffusion_perception_ros
from diffusion_perception_ros.inference.tensor import FloatTensor
from diffusion_perception_ros.sample import FloatImage, UInt8Image, UInt16Image


LIBRARY = "libdiffusion_perception_ros_kernels.so"
SWITCH = "DIFFUSION_PERCEPTION_NATIVE"
"""Environment variable: `0` leaves the library alone."""

Size = tuple[int, int]
"""(width, height), OpenCV's order."""
Allocate = Callable[[tuple[int, ...], npt.DTypeLike], npt.NDArray[Any]]
"""Gives memory for a map of a shape and type, which need not be cleared."""


class Native:
    """The loaded library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def enlarge_map(self, values: FloatImage, size: Size, allocate: Allocate = np.empty) -> FloatImage:
        """(h, w) → (H, W), linear; NaN and infinity keep their own cells and do not spread."""
        out = allocate(size[::-1], np.float32)
        self._library.enlarge_map(_address(values), *_ints(*values.shape), _address(out), *_ints(*out.shape))
        return out

    def enlarge_normals(
        self, tensor: FloatTensor, axes: Sequence[int], signs: Sequence[float], size: Size, allocate: Allocate
    ) -> FloatImage:
        """(3, h, w) of any length → unit vectors (H, W, 3); channel c becomes component axes[c] times signs[c]."""
        if len(tensor) != 3:
            raise ValueError(f"normals have 3 components, got an output of {len(tensor)}")
        out = allocate((size[1], size[0], 3), np.float32)
        directions, factors = np.array(axes, np.int32), np.array(signs, np.float32)
        self._library.enlarge_normals(
            _address(tensor),
            *_ints(*tensor.shape[1:]),
            _address(directions),
            _address(factors),
            _address(out),
            *_ints(*out.shape[:2]),
        )
        return out

    def class_scores(self, logits: FloatTensor) -> tuple[tuple[int, ...], FloatTensor, npt.NDArray[np.int32]]:
        """(C, h, w) → channels that win somewhere, their probabilities (K, h, w) and the winner (h, w)."""
        probabilities = np.empty(logits.shape, np.float32)
        channels, winner = np.empty(len(logits), np.int32), np.empty(logits.shape[1:], np.int32)
        count = self._library.class_scores(
            _address(logits), *_ints(*logits.shape), _address(probabilities), _address(channels), _address(winner)
        )
        return tuple(channels[:count].tolist()), probabilities[:count], winner

    def enlarge_classes(
        self,
        probabilities: FloatTensor,
        label_ids: UInt8Image | UInt16Image,
        size: Size,
        allocate_ids: Allocate,
        allocate_confidence: Allocate,
    ) -> tuple[UInt8Image | UInt16Image, FloatImage]:
        """(K, h, w) and the K labels → label ids, of the type of `label_ids`, and their probability, both (H, W)."""
        ids = allocate_ids(size[::-1], label_ids.dtype)
        confidence = allocate_confidence(size[::-1], np.float32)
        call = self._library.enlarge_classes_8 if label_ids.itemsize == 1 else self._library.enlarge_classes_16
        call(
            _address(probabilities),
            *_ints(*probabilities.shape),
            _address(label_ids),
            _address(ids),
            _address(confidence),
            *_ints(*ids.shape),
        )
        return ids, confidence

    def find_instances(
        self,
        winner: npt.NDArray[np.int32],
        offsets: FloatTensor,
        scale: tuple[float, float],
        things: npt.NDArray[np.uint8],
        settings: Sequence[float],
    ) -> tuple[UInt16Image, npt.NDArray[np.int32]]:
        """See `instances.find_instances`; `things` is 1 for countable channels, `settings` are its four constants."""
        if offsets.shape != (2, *winner.shape):
            raise ValueError(f"offsets of {winner.shape} cells have the shape {offsets.shape}")
        if winner.max(initial=-1) >= len(things):
            raise ValueError(f"class {winner.max()} wins, but there are {len(things)} labels")
        ids, channels = np.empty(winner.shape, np.uint16), np.empty(1 << 16, np.int32)
        constants = np.array(settings, np.float64)
        count = self._library.find_instances(
            _address(winner),
            _address(offsets),
            ctypes.c_float(scale[0]),
            ctypes.c_float(scale[1]),
            *_ints(*winner.shape),
            _address(things),
            *_ints(len(things)),
            _address(constants),
            _address(ids),
            _address(channels),
        )
        return ids, channels[:count]

    def enlarge_instances(
        self,
        ids: UInt16Image,
        channels: npt.NDArray[np.int32],
        semantic: UInt8Image | UInt16Image,
        label_ids: npt.NDArray[np.int32],
        allocate: Allocate = np.empty,
    ) -> UInt16Image:
        """See `instances.enlarge_instances`; `channels` are those of the ids from 1, every label has one channel."""
        out = allocate(semantic.shape, np.uint16)
        narrow = semantic.itemsize == 1
        call = self._library.enlarge_instances_8 if narrow else self._library.enlarge_instances_16
        call(
            _address(ids),
            *_ints(*ids.shape),
            _address(channels),
            *_ints(len(channels)),
            _address(semantic),
            _address(label_ids),
            _address(out),
            *_ints(*out.shape),
        )
        return out

    def shrink_image(
        self, rgb: UInt8Image, scale: npt.NDArray[np.float32], shift: npt.NDArray[np.float32], out: FloatTensor
    ) -> None:
        """(H, W, 3), pixels of a row side by side, → (3, h, w): means of the pixels that a cell covers, normalised."""
        self._library.shrink_image(
            _address(rgb),
            *_ints(*rgb.shape[:2]),
            ctypes.c_int64(rgb.strides[0]),
            _address(scale),
            _address(shift),
            _address(out),
            *_ints(*out.shape[1:]),
        )

    def limit_depth(
        self, depth: FloatImage, confidence: FloatImage | None, low: float, high: float, least: float, out: FloatImage
    ) -> None:
        """+Inf above `high`, NaN below `low` and where the confidence is below `least`; `out` may be `depth`."""
        self._library.limit_depth(
            _address(depth),
            None if confidence is None else _address(confidence),
            *_floats(low, high, least),
            _address(out),
            ctypes.c_int64(depth.size),
        )

    def to_bytes(self, values: FloatImage, factor: float, offset: float, missing: float, out: UInt8Image) -> None:
        """round(value * factor + offset) within 0 to 255, `missing` where a value is NaN."""
        factors = _floats(factor, offset, missing)
        self._library.scale_to_bytes(_address(values), *factors, _address(out), ctypes.c_int64(values.size))

    def color_depth(self, depth: FloatImage, low: float, factor: float, colors: UInt8Image, out: UInt8Image) -> None:
        """Colour of the level (depth - low) * factor of 0 to 255; the 257th colour where depth is NaN."""
        numbers = _floats(low, factor)
        self._library.color_depth(
            _address(depth), *numbers, _address(colors), _address(out), ctypes.c_int64(depth.size)
        )

    def color_labels(self, ids: UInt8Image | UInt16Image, colors: UInt8Image, out: UInt8Image) -> None:
        """`colors[ids]`, with a colour for every value of the type of `ids`."""
        call = self._library.color_labels_8 if ids.itemsize == 1 else self._library.color_labels_16
        call(_address(ids), _address(colors), _address(out), ctypes.c_int64(ids.size))

    def write_points(
        self,
        depth: FloatImage,
        rgb: UInt8Image,
        rays: tuple[FloatImage, FloatImage],
        confidence: FloatImage | None,
        labels: UInt8Image | UInt16Image | None,
        every: int,
        out: npt.NDArray[np.void],
    ) -> None:
        """Organised points of every n-th row and column into a structured array with the fields of `out`.

        Args:
            depth: (H, W) metres.
            rgb: (H, W, 3), pixels of a row side by side.
            rays: x / z of the columns (W,) and y / z of the rows (H,), or both of every pixel (H, W).
            confidence, labels: (H, W); without them the fields are NaN and 255.
            every: n.
            out: Contiguous, with x, y, z, rgb first; `confidence` and `label` are optional.
        """
        offsets = {name: layout[1] for name, layout in (out.dtype.fields or {}).items()}
        self._library.write_points(
            _address(depth),
            _address(rgb),
            ctypes.c_int64(rgb.strides[0]),
            *(_address(ray) for ray in rays),
            *_ints(rays[0].ndim == 2),
            None if confidence is None else _address(confidence),
            *_ints(offsets.get("confidence", -1)),
            None if labels is None else _address(labels),
            *_ints(0 if labels is None else labels.itemsize, offsets.get("label", -1), every),
            _address(out),
            *_ints(out.itemsize, *depth.shape),
        )


def is_plain(*arrays: npt.NDArray[Any] | None) -> bool:
    """Whether the library takes these maps as they are: of one size, row by row without gaps, and no float64."""
    maps = [array for array in arrays if array is not None]
    return all(
        array.flags.c_contiguous and array.dtype != np.float64 and array.shape[:2] == maps[0].shape[:2]
        for array in maps
    )


@functools.cache
def load() -> Native | None:
    """The library, None where it was not built or is switched off."""
    if os.environ.get(SWITCH) == "0":
        return None
    for folder in diffusion_perception_ros.__path__:
        path = Path(folder) / LIBRARY
        if path.is_file():
            try:
                library = ctypes.CDLL(str(path))
                library.class_scores.restype = library.find_instances.restype = ctypes.c_int32
            except (OSError, AttributeError):  # built for another machine
                continue
            return Native(library)
    return None


def _address(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _floats(*values: float) -> list[ctypes.c_float]:
    return [ctypes.c_float(value) for value in values]


def _ints(*values: int) -> list[ctypes.c_int32]:
    return [ctypes.c_int32(value) for value in values]
