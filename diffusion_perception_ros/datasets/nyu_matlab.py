"""NYU depth v2 as it is published: `nyu_depth_v2_labeled.mat`, a file of HDF5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diffusion_perception_ros.datasets import EvaluationDataset, EvaluationSample
from diffusion_perception_ros.datasets.depth_checks import check_depth
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import Intrinsics


CAMERA = (518.8579, 519.4696, 325.5824, 253.7362)
"""fx, fy, cx, cy of the colour camera at 640x480, of the authors' toolbox."""


class NyuMatlabDataset(EvaluationDataset):
    """The 1449 labelled images with their filled depth in metres.

    Raises:
        InputError: h5py is missing, or it is another file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        try:
            import h5py
        except ImportError as error:
            raise InputError(f"reading {path} needs h5py: install diffusion-perception-ros[train]") from error
        try:
            self._file: Any = h5py.File(path, "r")
            self._images, self._depths = self._file["images"], self._file["depths"]
        except (OSError, KeyError) as error:
            raise InputError(f"{path} is not nyu_depth_v2_labeled.mat: {error}") from error

    def __len__(self) -> int:
        return int(self._images.shape[0])

    def name_of(self, index: int) -> str:
        return f"nyu/{index:04d}"

    def group_of(self, index: int) -> str:
        return "nyu"

    def __getitem__(self, index: int) -> EvaluationSample:
        # MATLAB stores columns first: (3, W, H) and (W, H).
        try:
            rgb = np.ascontiguousarray(np.transpose(self._images[index], (2, 1, 0)))
            depth = np.ascontiguousarray(np.transpose(self._depths[index])).astype(np.float32)
        except (OSError, ValueError) as error:
            raise InputError(f"image {index} of {self.path} cannot be read: {error}") from error
        height, width = rgb.shape[:2]
        return EvaluationSample(
            rgb=rgb,
            depth=check_depth(depth, rgb.shape, f"{self.path} {index}"),
            intrinsics=Intrinsics(640, 480, *CAMERA).resized(width, height),
            name=self.name_of(index),
            group="nyu",
        )
