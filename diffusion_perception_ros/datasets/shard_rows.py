"""A sample as rows of memory-mapped arrays, one `.npy` per modality, and back.

| file | dtype | shape | meaning |
|---|---|---|---|
| rgb.npy | uint8 | (N, H, W, 3) | sRGB |
| depth.npy | float16 | (N, H, W) | metres, +Inf sky, NaN unknown |
| normals.npy | int8 | (N, H, W, 3) | round(127 n), all zero where unknown |
| semantic.npy | uint8 | (N, H, W) | class ids, 255 unlabelled |
| instances.npy | uint16 | (N, H, W) | 0 = none |
| intrinsics.npy | float32 | (N, 4) | fx fy cx cy, all NaN where unknown |

Shards of a world that was asked for more `targets` name them in `shard.json` and have the files for them:

| target | file | dtype | shape | meaning |
|---|---|---|---|---|
| flow | previous.npy | uint8 | (N, H, W, 3) | the image before, sRGB |
| flow | flow.npy | float16 | (N, H, W, 2) | pixels to the place in that image, NaN unknown |
| alpha | alpha.npy | uint8 | (N, H, W) | round(255 opacity) |
| amodal | amodal.npy | uint16 | (N, H, W) | id of one object with its hidden part, else 0 |
| keypoints | keypoints.npy | float32 | (N, `MOST_PEOPLE`, 17, 3) | u v visibility, NaN where there is nobody |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.sample import JOINTS, UNLABELLED, Intrinsics, Sample


NORMAL_SCALE = 127
MOST_PEOPLE = 16
"""Of one sample; the joints of more are left out."""
LARGEST_DEPTH = float(np.finfo(np.float16).max)

ArraySpec = tuple[tuple[int, ...], np.dtype[Any]]
"""Shape and dtype."""


def array_specs(count: int, height: int, width: int, targets: Sequence[str] = ()) -> dict[str, ArraySpec]:
    """Name of every array of a shard → (shape, dtype)."""
    extra: dict[str, dict[str, ArraySpec]] = {
        "flow": {
            "previous": ((count, height, width, 3), np.dtype(np.uint8)),
            "flow": ((count, height, width, 2), np.dtype(np.float16)),
        },
        "alpha": {"alpha": ((count, height, width), np.dtype(np.uint8))},
        "amodal": {"amodal": ((count, height, width), np.dtype(np.uint16))},
        "keypoints": {"keypoints": ((count, MOST_PEOPLE, len(JOINTS), 3), np.dtype(np.float32))},
    }
    wanted = {name: spec for target in targets for name, spec in extra[target].items()}
    return wanted | {
        "rgb": ((count, height, width, 3), np.dtype(np.uint8)),
        "depth": ((count, height, width), np.dtype(np.float16)),
        "normals": ((count, height, width, 3), np.dtype(np.int8)),
        "semantic": ((count, height, width), np.dtype(np.uint8)),
        "instances": ((count, height, width), np.dtype(np.uint16)),
        "intrinsics": ((count, 4), np.dtype(np.float32)),
    }


def encode(sample: Sample) -> dict[str, npt.NDArray[Any]]:
    """The rows that stand for a sample, in the shard's dtypes."""
    height, width = sample.rgb.shape[:2]
    rows: dict[str, npt.NDArray[Any]] = {
        "rgb": sample.rgb,
        "depth": np.full((height, width), np.nan, np.float16),
        "normals": np.zeros((height, width, 3), np.int8),
        "semantic": np.full((height, width), UNLABELLED, np.uint8),
        "instances": np.zeros((height, width), np.uint16),
        "intrinsics": np.full(4, np.nan, np.float32),
    }
    if sample.depth is not None:
        # A far but finite surface must not turn into sky by overflowing float16.
        near = np.where(np.isfinite(sample.depth), np.minimum(sample.depth, LARGEST_DEPTH), sample.depth)
        rows["depth"] = near.astype(np.float16)
    if sample.normals is not None:
        rows["normals"] = np.nan_to_num(np.round(sample.normals * NORMAL_SCALE)).astype(np.int8)
    if sample.semantic is not None:
        rows["semantic"] = sample.semantic
    if sample.instances is not None:
        rows["instances"] = sample.instances
    if sample.intrinsics is not None:
        camera = sample.intrinsics
        rows["intrinsics"] = np.array([camera.fx, camera.fy, camera.cx, camera.cy], np.float32)
    return rows


def encode_targets(sample: Sample, targets: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """The rows of what only some shards have."""
    rows: dict[str, npt.NDArray[Any]] = {}
    for target in targets:
        if getattr(sample, target) is None:
            raise ValueError(f"{sample.name} lacks {target}, which its shard holds")
    if "flow" in targets and sample.flow is not None:
        if sample.previous is None:
            raise ValueError(f"{sample.name} has flow, but not the image before")
        rows |= {"previous": sample.previous, "flow": sample.flow.astype(np.float16)}
    if "alpha" in targets and sample.alpha is not None:
        rows["alpha"] = np.round(sample.alpha * 255).astype(np.uint8)
    if "amodal" in targets and sample.amodal is not None:
        rows["amodal"] = sample.amodal
    if "keypoints" in targets and sample.keypoints is not None:
        rows["keypoints"] = np.full((MOST_PEOPLE, len(JOINTS), 3), np.nan, np.float32)
        rows["keypoints"][: len(sample.keypoints)] = sample.keypoints[:MOST_PEOPLE]
    return rows


def _decode_targets(sample: Sample, rows: dict[str, npt.NDArray[Any]]) -> Sample:
    if "flow" in rows:
        sample.previous, sample.flow = np.array(rows["previous"]), rows["flow"].astype(np.float32)
    if "alpha" in rows:
        sample.alpha = rows["alpha"] * np.float32(1 / 255)
    if "amodal" in rows:
        sample.amodal = np.array(rows["amodal"])
    if "keypoints" in rows:
        sample.keypoints = np.array(rows["keypoints"][np.isfinite(rows["keypoints"][:, 0, 0])])
    return sample


def decode(rows: dict[str, npt.NDArray[Any]], name: str) -> Sample:
    """The sample behind the rows of `encode` and `encode_targets`."""
    height, width = rows["depth"].shape
    normals = rows["normals"].astype(np.float32)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that marks an unknown normal
        normals /= length
    camera = rows["intrinsics"]
    known = bool(np.isfinite(camera).all())
    sample = Sample(
        rgb=np.array(rows["rgb"]),
        depth=rows["depth"].astype(np.float32),
        normals=normals,
        semantic=np.array(rows["semantic"]),
        instances=np.array(rows["instances"]),
        intrinsics=Intrinsics(width, height, *map(float, camera)) if known else None,
        name=name,
    )
    return _decode_targets(sample, rows)
