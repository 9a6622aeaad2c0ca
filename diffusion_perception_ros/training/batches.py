"""From samples to batches of tensors, with the targets of every task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffusion_perception_ros.datasets.augment import resize_sample
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import JOINTS, UNLABELLED, Sample, UInt16Image
from diffusion_perception_ros.training.onestep.network import OFFSET_SCALE


FloatArray = npt.NDArray[np.float32]


@dataclass
class Batch:
    """N pictures of H x W pixels and their ground truth."""

    image: Tensor
    """(N, 3, H, W) in [-1, 1], channels last."""
    depth: Tensor
    """(N, H, W) metres, +Inf sky, NaN unknown."""
    normals: Tensor
    """(N, 3, H, W), optical frame, zero where unknown."""
    semantic: Tensor
    """(N, H/2, W/2) int64 class ids, `UNLABELLED` where unknown."""
    offsets: Tensor
    """(N, 2, H/2, W/2) to the centre of the object, in units of `OFFSET_SCALE` pixels; NaN where there is none."""
    intrinsics: Tensor
    """(N, 4) fx fy cx cy in pixels of this image, NaN where unknown."""
    names: list[str]
    instances: Tensor | None = None
    """(N, H, W) int32 ids, 0 = none or unknown. This and what follows is None where no sample has it."""
    previous: Tensor | None = None
    """(N, 3, H, W) in [-1, 1], the pictures before; the picture itself where there is none."""
    flow: Tensor | None = None
    """(N, 2, H, W) pixels of this image to the place in the picture before, NaN where unknown."""
    alpha: Tensor | None = None
    """(N, H, W) opacity of the foreground in [0, 1], NaN where unknown."""
    amodal: Tensor | None = None
    """(N, H, W) int32, the id of one object with its hidden part, else 0."""
    keypoints: Tensor | None = None
    """(N, P, 17, 3) u, v, visibility; zero for nobody, NaN for pictures whose people are not known."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in vars(self).items()
        }
        return Batch(**moved)

    def rows(self, index: Tensor) -> Batch:
        """Some of the pictures, by their numbers (M,)."""
        names = [self.names[number] for number in index.tolist()]
        picked: dict[str, Any] = {
            key: value[index.to(value.device)] if isinstance(value, Tensor) else value
            for key, value in vars(self).items()
        }
        return Batch(**{**picked, "names": names})

    @property
    def focal(self) -> Tensor:
        """(N,) mean focal length in pixels, NaN where unknown."""
        return self.intrinsics[:, :2].mean(1)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks samples of one size. Modalities that a sample lacks count as unknown everywhere."""
    image = torch.from_numpy(np.stack([sample.rgb for sample in samples])).permute(0, 3, 1, 2)  # keeps NHWC in memory
    semantic, offsets = zip(*(_labels(sample) for sample in samples), strict=True)
    return Batch(
        image=image.float().div_(127.5).sub_(1.0),
        depth=torch.from_numpy(np.stack([_depth(sample) for sample in samples])),
        normals=torch.from_numpy(np.stack([_normals(sample) for sample in samples])),
        semantic=torch.from_numpy(np.stack(semantic)),
        offsets=torch.from_numpy(np.stack(offsets)),
        intrinsics=torch.tensor([_intrinsics(sample) for sample in samples]),
        names=[sample.name for sample in samples],
        **_targets(samples),
    )


def _targets(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """What at least one of the samples has of the fields that may be missing."""
    height, width = samples[0].rgb.shape[:2]
    blanks: dict[str, npt.NDArray[Any]] = {
        "instances": np.zeros((height, width), np.uint16),
        "flow": np.full((height, width, 2), np.nan, np.float32),
        "alpha": np.full((height, width), np.nan, np.float32),
        "amodal": np.zeros((height, width), np.uint16),
    }
    stacked: dict[str, Tensor] = {}
    for name, blank in blanks.items():
        values = [getattr(sample, name) for sample in samples]
        if any(value is not None for value in values):
            rows = np.stack([blank if value is None else value for value in values])
            stacked[name] = torch.from_numpy(rows.astype(np.int32) if rows.dtype == np.uint16 else rows)
    if "flow" in stacked:
        stacked["flow"] = stacked["flow"].permute(0, 3, 1, 2)
        before = np.stack([sample.rgb if sample.previous is None else sample.previous for sample in samples])
        stacked["previous"] = torch.from_numpy(before).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    if any(sample.keypoints is not None for sample in samples):
        stacked["keypoints"] = _keypoints(samples)
    return stacked


def _keypoints(samples: Sequence[Sample]) -> Tensor:
    most = max(1, *(len(sample.keypoints) for sample in samples if sample.keypoints is not None))
    rows = np.zeros((len(samples), most, len(JOINTS), 3), np.float32)
    for row, sample in zip(rows, samples, strict=True):
        if sample.keypoints is None:
            row[:] = np.nan
        else:
            row[: len(sample.keypoints)] = sample.keypoints
    return torch.from_numpy(rows)


def _depth(sample: Sample) -> FloatArray:
    return np.full(sample.rgb.shape[:2], np.nan, np.float32) if sample.depth is None else sample.depth


def _normals(sample: Sample) -> FloatArray:
    """(3, H, W), zero where unknown."""
    if sample.normals is None:
        return np.zeros((3, *sample.rgb.shape[:2]), np.float32)
    normals = np.ascontiguousarray(sample.normals.transpose(2, 0, 1))
    np.nan_to_num(normals, copy=False)
    return normals


def _intrinsics(sample: Sample) -> tuple[float, float, float, float]:
    camera = sample.intrinsics
    return (float("nan"),) * 4 if camera is None else (camera.fx, camera.fy, camera.cx, camera.cy)


def _labels(sample: Sample) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Semantic ids (H/2, W/2) int64 and instance offsets (2, H/2, W/2) float32."""
    height, width = sample.rgb.shape[0] // 2, sample.rgb.shape[1] // 2
    semantic = np.full((height, width), UNLABELLED, np.int64)
    if sample.semantic is not None:
        semantic[:] = sample.semantic[1::2, 1::2]
    offsets = np.full((2, height, width), np.nan, np.float32)
    if sample.instances is not None:
        offsets[:] = instance_offsets(sample.instances[1::2, 1::2])
    return semantic, offsets


def instance_offsets(instances: UInt16Image) -> FloatArray:
    """(2, h, w) float32: (right, down) from every pixel of a half-resolution map to the mean position of its object.

    In units of `OFFSET_SCALE` pixels of full resolution; NaN where there is no instance (id 0).
    """
    ids = instances.reshape(-1).astype(np.int64)
    area = np.maximum(np.bincount(ids), 1)
    offsets = np.empty((2, *instances.shape), np.float32)
    for axis, positions in enumerate((np.arange(instances.shape[1])[None], np.arange(instances.shape[0])[:, None])):
        grid = np.broadcast_to(positions, instances.shape)
        centres = np.bincount(ids, grid.reshape(-1)) / area
        offsets[axis] = (centres[ids].reshape(instances.shape) - grid) * (2.0 / OFFSET_SCALE)
    offsets[:, instances == 0] = np.nan
    return offsets


def whole_images(
    dataset: Sequence[Sample],
    indices: Sequence[int],
    size_for: Callable[[int, int], tuple[int, int]],
    batch_size: int,
    unreadable: dict[int, str],
) -> Iterator[Batch]:
    """The samples named by `indices` without augmentation, resized, in order; unreadable ones are left out.

    Args:
        size_for: (width, height) of a picture → (width, height) of the network's input, the same for a whole batch.
        unreadable: gets the indices that were left out, and why.

    Raises:
        InputError: not one of them can be read.
    """
    samples: list[Sample] = []
    for index in indices:
        try:
            sample = dataset[index]
        except InputError as error:
            unreadable[index] = str(error)
            continue
        samples.append(resize_sample(sample, *size_for(sample.rgb.shape[1], sample.rgb.shape[0])))
        if len(samples) == batch_size:
            yield collate(samples)
            samples = []
    if samples:
        yield collate(samples)
    if unreadable.keys() >= set(indices):
        reason = next(iter(unreadable.values()), "there is none")
        raise InputError(f"none of {len(indices)} samples can be read, the first because {reason}")
