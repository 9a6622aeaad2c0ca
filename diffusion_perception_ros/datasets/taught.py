"""Unlabelled images as a dataset: another model's answers are what there is to learn (distillation).

The teacher sees every image and its mirror image. Where the two answers contradict each other, nothing is taught.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.picture_files import PICTURE_SUFFIXES, read_picture
from diffusion_perception_ros.sample import UNLABELLED, FloatImage, Prediction, Sample, UInt8Image
from diffusion_perception_ros.world.labels import CLASS_ID


LONGEST_SIDE = 480
"""Pixels; larger images are shrunk before the teacher sees them."""
_KEPT_BYTES = 1 << 29
_DEPTH_DISAGREEMENT = 0.15
"""Relative difference of the two depths beyond which none is taught."""
_NORMAL_AGREEMENT = np.cos(np.radians(25.0))


class TaughtImages(Sequence[Sample]):
    """All images below a folder, each with the depth, normals and classes that a model sees in it.

    Depth is in an arbitrary scale and comes without intrinsics, so that no loss can take it for metres. Answers are
    kept in memory, up to half a gigabyte of them.

    Args:
        folder: with images, at any depth.
        teacher: name or folder of a model.
        mirror: average over the image and its mirror image; twice the time.

    Raises:
        InputError: no images, no such model, or one that answers nothing that can be learnt.
    """

    def __init__(self, folder: Path, teacher: str, mirror: bool = True) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder: give one with images for the teacher to look at")
        self._files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
        if not self._files:
            raise InputError(f"{folder} holds no images ({', '.join(sorted(PICTURE_SUFFIXES))}) to learn from")
        self._estimator = Estimator.load(teacher, threads=1)
        self._mirror = mirror
        self._tasks, self._classes = _teachable(self._estimator)
        self._kept: OrderedDict[int, Sample] = OrderedDict()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """One image with its answers.

        Raises:
            InputError: it cannot be read.
        """
        if index not in self._kept:
            self._kept[index] = self._taught(self._files[index])
            each = sum(array.nbytes for array in vars(self._kept[index]).values() if isinstance(array, np.ndarray))
            while len(self._kept) > max(1, _KEPT_BYTES // each):
                self._kept.popitem(last=False)
        return self._kept[index]

    def _taught(self, path: Path) -> Sample:
        rgb = _shrunk(read_picture(path))
        prediction = self._estimator.predict(rgb, tasks=self._tasks)
        sample = Sample(rgb=rgb, name=os.fspath(path))
        sample.depth = _positive(prediction) if "depth" in self._tasks else None
        sample.normals = prediction.normals
        sample.semantic = None if prediction.semantic is None else self._classes[prediction.semantic]
        if self._mirror:
            mirrored = self._estimator.predict(np.ascontiguousarray(rgb[:, ::-1]), tasks=self._tasks)
            _merge(sample, mirrored, self._classes)
        return sample


def _merge(sample: Sample, mirrored: Prediction, classes: UInt8Image) -> None:
    """Averages the sample with the answers for its mirror image, in place."""
    if sample.depth is not None:
        sample.depth = _agreed_depth(sample.depth, _positive(mirrored)[:, ::-1])
    if sample.normals is not None and mirrored.normals is not None:
        turned = mirrored.normals[:, ::-1] * np.array([-1.0, 1.0, 1.0], np.float32)
        sample.normals = _agreed_normals(sample.normals, turned)
    if sample.semantic is not None and mirrored.semantic is not None:
        differs = sample.semantic != classes[mirrored.semantic][:, ::-1]
        sample.semantic = np.where(differs, UNLABELLED, sample.semantic).astype(np.uint8)


def _teachable(teacher: Estimator) -> tuple[list[str], UInt8Image]:
    """The tasks to ask for, and the class id here of every class id there.

    Raises:
        InputError: nothing of what it answers can be learnt.
    """
    card = teacher.card
    table = np.full(1 << 16, UNLABELLED, np.uint8)
    tasks = []
    for output in card.outputs:
        teaches = output.task == "normals"
        if output.task == "semantic":
            for label in output.labels:
                table[label.id] = CLASS_ID.get(label.name, UNLABELLED)
            teaches = bool((table != UNLABELLED).any())
        elif output.task == "depth":
            # Up to one factor only: that of other families has an unknown shift as well, under which a plane bends.
            own = card.family == "onestep" and output.quantity == "relative_depth"
            teaches = own or output.quantity == "metric_depth"
        if teaches:
            tasks.append(output.task)
    if not tasks:
        raise InputError(
            f"model '{card.name}' cannot teach: of {', '.join(card.tasks)} nothing is depth up to a factor, normals, "
            "or classes with the names of this package's"
        )
    return list(tasks), table


def _shrunk(rgb: UInt8Image) -> UInt8Image:
    factor = LONGEST_SIDE / max(rgb.shape[:2])
    if factor >= 1:
        return rgb
    size = max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _positive(prediction: Prediction) -> FloatImage:
    """Depth in any unit; NaN where there is none."""
    depth = prediction.depth if prediction.depth is not None else prediction.depth_relative
    assert depth is not None
    return np.where(depth > 0, depth, np.nan).astype(np.float32)


def _agreed_depth(one: FloatImage, other: FloatImage) -> FloatImage:
    """Geometric mean of two depths, in the first one's scale; NaN where they differ, +Inf where both are."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log(other) - np.log(one)
        known = np.isfinite(ratio)
        if not known.any():
            return one
        difference = np.where(known, ratio - np.median(ratio[known]), np.nan)
        mean = one * np.exp(difference / 2)
        agreed = np.where(np.abs(difference) <= _DEPTH_DISAGREEMENT, mean, np.nan)
    return np.where(np.isposinf(one) & np.isposinf(other), np.inf, agreed).astype(np.float32)


def _agreed_normals(one: FloatImage, other: FloatImage) -> FloatImage:
    """Mean direction; NaN where the two differ."""
    total = one + other
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / np.linalg.norm(total, axis=-1, keepdims=True)
        agree = (one * other).sum(-1, keepdims=True) >= _NORMAL_AGREEMENT
    return np.where(agree, mean, np.nan).astype(np.float32)
