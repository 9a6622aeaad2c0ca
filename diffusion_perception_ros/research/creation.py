"""New labelled pairs as samples, from a network that was trained to create (objective `joint`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import Intrinsics, Sample, UInt8Image
from diffusion_perception_ros.training import checkpoint as checkpoints
from diffusion_perception_ros.training.batches import whole_images
from diffusion_perception_ros.training.diffusion.annotations import classes_of
from diffusion_perception_ros.training.diffusion.joint import Pairs, depth_of, relative_focal
from diffusion_perception_ros.training.diffusion.joint_learner import Created, Labels, load_learner
from diffusion_perception_ros.world.sheet import color_depth, color_normals, color_semantic, grid


_SHORTEST_NORMAL = 0.5
"""A shorter vector is grey rather than a direction."""
_GAP = 4
_SMALLEST_TILE = 96
"""Pixels: smaller images are enlarged on a sheet."""


class Creator:
    """The averaged network of a training run, and what it creates: images of the size that it was trained on."""

    def __init__(self, checkpoint: Path, steps: int | None = None) -> None:
        """
        Args:
            checkpoint: folder written by the trainer.
            steps: denoising steps from pure noise on; default: as in the training config.

        Raises:
            InputError: it is no checkpoint, or of a network that does not create.
        """
        found = checkpoints.read_checkpoint(checkpoint)
        if not found.identity.get("joint"):
            raise InputError(
                f"{checkpoint} is of a network that creates nothing: train one with 'objective: {{kind: joint}}', "
                "such as config/train/diff2in1.yaml"
            )
        self._learner, config = load_learner(found)
        self._learner.steps = steps or self._learner.steps
        self.tasks, self.size = self._learner.tasks, config.data.sizes[0]
        self._batch_size = config.data.batch_size

    def from_real(
        self, dataset: Sequence[Sample], indices: Sequence[int], noise_level: float, labels: Labels, seed: int
    ) -> Iterator[tuple[Sample, Sample]]:
        """The real images, resized, and what becomes of each when it is noised to a share of T and denoised.

        Raises:
            InputError: an image cannot be read, ground truth is missing, or the network gives no finite numbers.
        """
        generator = torch.Generator().manual_seed(seed)
        unreadable: dict[int, str] = {}
        for batch in whole_images(dataset, indices, lambda *_: self.size, self._batch_size, unreadable):
            created = self._create(self._learner.encode(batch), noise_level, labels, generator)
            cameras = [_camera(row, self.size) for row in batch.intrinsics.tolist()]
            names = [f"created from {name}" for name in batch.names]
            real = [Sample(rgb=rgb, name=name) for rgb, name in zip(_levels(batch.image), batch.names, strict=True)]
            yield from zip(real, _samples(created, cameras, names, relative_focal(batch)), strict=True)
        if unreadable:
            index, reason = next(iter(unreadable.items()))
            raise InputError(f"{len(unreadable)} of {len(indices)} samples cannot be read, such as {index}: {reason}")

    def from_noise(self, count: int, labels: Labels, seed: int) -> Iterator[Sample]:
        """Pairs out of nothing, seen by a camera whose focal length is the width of its image.

        Raises:
            InputError: the network gives numbers that are not finite.
        """
        generator = torch.Generator().manual_seed(seed)
        for start in range(0, count, self._batch_size):
            number = min(self._batch_size, count - start)
            created = self._create(self._learner.nothing(number, self.size), 1.0, labels, generator)
            cameras = [_camera((float("nan"),) * 4, self.size)] * number
            names = [f"created from noise {seed}/{start + index}" for index in range(number)]
            yield from _samples(created, cameras, names, torch.ones(number))

    def _create(self, pairs: Pairs, noise_level: float, labels: Labels, generator: torch.Generator) -> Created:
        return self._learner.create_pictures(self._learner.network, pairs, noise_level, labels, generator)


def _levels(images: Tensor) -> UInt8Image:
    """(N, 3, H, W) in [-1, 1] → (N, H, W, 3)."""
    levels = ((images + 1.0) * 127.5).round().clamp(0, 255)
    return levels.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()


def _camera(intrinsics: Sequence[float], size: tuple[int, int]) -> Intrinsics:
    """That of a row of `Batch.intrinsics`; where it is unknown, one whose focal length is the width of its image."""
    width, height = size
    if not np.isfinite(intrinsics).all():
        return Intrinsics(width, height, width, width, (width - 1) / 2, (height - 1) / 2)
    return Intrinsics(width, height, *intrinsics)


def _samples(created: Created, cameras: Sequence[Intrinsics], names: Sequence[str], focal: Tensor) -> list[Sample]:
    """
    Args:
        focal: (N,) in widths of the image.
    """
    samples = [
        Sample(rgb=rgb, intrinsics=camera, name=name)
        for rgb, camera, name in zip(_levels(created.picture), cameras, names, strict=True)
    ]
    for task, drawings in created.annotations.items():
        match task:
            case "depth":
                values = (depth_of(drawings) * focal[:, None, None]).cpu().numpy().astype(np.float32)
            case "normals":
                length = drawings.norm(dim=1, keepdim=True)
                vectors = torch.where(length < _SHORTEST_NORMAL, float("nan"), -drawings / length)
                values = vectors.permute(0, 2, 3, 1).cpu().numpy().astype(np.float32)
            case _:
                values = classes_of(drawings).cpu().numpy().astype(np.uint8)
        for sample, value in zip(samples, values, strict=True):
            setattr(sample, task, value)
    return samples


def pair_sheet(pairs: Sequence[tuple[Sample | None, Sample]], columns: int = 2) -> UInt8Image:
    """Rows of the real image, where there is one, the created one and its labels; `columns` pairs side by side."""
    strips = [np.concatenate([_tile(tile) for tile in _tiles(real, created)], axis=1) for real, created in pairs]
    return grid(strips, columns)


def _tiles(real: Sample | None, created: Sample) -> list[UInt8Image]:
    tiles = [] if real is None else [real.rgb]
    tiles.append(created.rgb)
    if created.depth is not None:
        tiles.append(color_depth(created.depth))
    if created.normals is not None:
        tiles.append(color_normals(created.normals))
    if created.semantic is not None:
        tiles.append(color_semantic(created.semantic))
    return tiles


def _tile(image: UInt8Image) -> UInt8Image:
    times = -(-_SMALLEST_TILE // min(image.shape[:2]))
    size = image.shape[1] * times, image.shape[0] * times
    large = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
    return np.pad(large, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
