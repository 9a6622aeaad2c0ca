"""Where training and validation samples come from: one source or a weighted mixture of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class _Source(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float | None = Field(default=None, gt=0)
    """Share of the samples of an epoch, next to the other sources' weights; default: the number of its samples."""
    size: tuple[int, int] | None = None
    """(width, height) of the network's input for this source, in place of `data.sizes`; its batches are its own."""


class Shards(_Source):
    """Rendered shards (`diffusion-perception world`)."""

    kind: Literal["shards"] = "shards"
    path: Path
    """Folder with shards; what is rendered into it during the run joins at the next epoch."""
    first: int | None = Field(default=None, gt=0)
    """Only so many samples, the first ones."""


class World(_Source):
    """Rendered on the fly."""

    kind: Literal["world"]
    config: Path | None = None
    """World config, YAML."""
    size: tuple[int, int] = (320, 240)
    count: int = Field(gt=0)
    seed: int = Field(default=0, ge=0)


class Folder(_Source):
    """A folder of pictures with depth in the package's format (`datasets/folder.py`)."""

    kind: Literal["folder"]
    path: Path
    groups: tuple[str, ...] | None = None


class Bag(_Source):
    """A recording with a colour topic and a registered depth topic."""

    kind: Literal["bag"]
    path: Path
    image_topic: str | None = None
    depth_topic: str | None = None


class Hypersim(_Source):
    """Hypersim in its published layout."""

    kind: Literal["hypersim"]
    path: Path
    split: Literal["train", "val", "test"] | None = None


class VirtualKitti2(_Source):
    """Virtual KITTI 2 in its published layout."""

    kind: Literal["vkitti2"]
    path: Path
    scenes: tuple[str, ...] | None = None
    variations: tuple[str, ...] | None = None
    benchmark_crop: bool = False
    """Only the 1216 x 352 pixels in the middle of the lower edge."""
    far: float | None = Field(default=None, gt=0)
    """Metres from which on everything counts as sky."""


class Images(_Source):
    """Unlabelled images, from which is learnt what another model sees in them."""

    kind: Literal["images"]
    path: Path
    """Folder, searched at any depth."""
    teacher: str
    """Name or folder of a model: a slower one, such as onestep-l or an exported checkpoint."""
    mirror: bool = True
    """The teacher's answers for an image and its mirror image are averaged; where they differ nothing is taught."""


SourceConfig = Annotated[
    Shards | World | Folder | Bag | Hypersim | VirtualKitti2 | Images, Field(discriminator="kind")
]


def _as_list(value: Any) -> Any:
    """A bare path means a folder with shards, a single source needs no list."""
    if isinstance(value, (str, Path)):
        return [{"kind": "shards", "path": value}]
    return [value] if isinstance(value, (dict, _Source)) else value


Sources = Annotated[tuple[SourceConfig, ...], BeforeValidator(_as_list), Field(min_length=1)]
