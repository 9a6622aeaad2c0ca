"""The one door to data: whatever a path holds, a data set of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffusion_perception_ros.datasets import EvaluationDataset
from diffusion_perception_ros.datasets.annotated import open_annotated
from diffusion_perception_ros.datasets.folder import MANIFEST, FolderDataset
from diffusion_perception_ros.datasets.nyu_matlab import NyuMatlabDataset
from diffusion_perception_ros.datasets.published import PublishedDataset, find_layout
from diffusion_perception_ros.datasets.rendered import RenderedDataset
from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.datasets.shards import MANIFEST as SHARD_MANIFEST
from diffusion_perception_ros.datasets.shards import ShardDataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.recordings.recording import is_recording


def open_dataset(
    path: Path,
    groups: Sequence[str] | None = None,
    image_topic: str | None = None,
    depth_topic: str | None = None,
    depth_scale: float | None = None,
    background: str | None = None,
    classes_only: bool = False,
) -> EvaluationDataset:
    """Rendered shards, a recording, a folder of the package's or of a published layout, or annotations.

    Args:
        path: folder or file.
        groups: only these groups of a folder.
        image_topic: of a recording, by default the colour topic with most depth.
        depth_topic: of a recording, registered to the colour topic.
        depth_scale: metres per unit of a recording's integer depth, by default millimetres.
        background: class of what is outside of drawn objects.
        classes_only: labels of classes are wanted: a plain folder is looked at as annotations first.

    Raises:
        InputError: nothing that can be read, and what is looked for.
    """
    if not path.exists():
        raise InputError(f"there is no folder or file {path}")
    if is_recording(path):
        return BagDataset(path, image_topic, depth_topic, depth_scale=depth_scale)
    if path.is_file():
        return NyuMatlabDataset(path) if path.suffix == ".mat" else open_annotated(path, background)
    if is_shards(path):
        return RenderedDataset(str(path), ShardDataset(path))
    if classes_only and not (path / MANIFEST).is_file():
        return open_annotated(path, background)
    layout = None if (path / MANIFEST).is_file() else find_layout(path)
    if layout is not None:
        return PublishedDataset(path, layout, groups)
    try:
        return FolderDataset(path, groups)
    except InputError as plain:
        if groups:
            raise
        try:
            return open_annotated(path, background)
        except InputError:
            raise plain from None


def is_shards(path: Path) -> bool:
    """Whether a folder holds rendered samples, or folders of them."""
    return any(next(path.glob(pattern), None) for pattern in (SHARD_MANIFEST, f"*/{SHARD_MANIFEST}"))
