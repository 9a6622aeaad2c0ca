"""Where training and validation samples come from: one source or a weighted mixture of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from diffusion_perception_ros.datasets import EvaluationDataset, EvaluationSample
from diffusion_perception_ros.datasets.hypersim import HypersimDataset
from diffusion_perception_ros.datasets.mixture import Mixture
from diffusion_perception_ros.datasets.open import open_dataset
from diffusion_perception_ros.datasets.shards import ShardDataset
from diffusion_perception_ros.datasets.taught import TaughtImages
from diffusion_perception_ros.datasets.vkitti2 import VirtualKitti2Dataset
from diffusion_perception_ros.datasets.world_stream import WorldDataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import UNKNOWN_INSTANCE, UNLABELLED, Sample
from diffusion_perception_ros.training.settings.sources import (
    Bag,
    Folder,
    Hypersim,
    Images,
    Shards,
    Sources,
    VirtualKitti2,
    World,
)
from diffusion_perception_ros.world.config import WorldConfig, load_config
from diffusion_perception_ros.world.labels import CLASS_ID, LABELS


_LABEL_SAMPLES = 400


def stored_sources(state: Mapping[str, Any]) -> tuple[Any, ...]:
    """The training sources of a checkpoint, from its state."""
    sources: tuple[Any, ...] = TypeAdapter(Sources).validate_python(state["config"]["data"]["train"])
    return sources


def open_sources(sources: Sequence[Any], classes: int = UNLABELLED) -> Mixture:
    """Opens every source.

    Args:
        classes: number of classes; a sample with a higher id than they have counts as unreadable.

    Raises:
        InputError: one of them is missing, empty or unreadable; the message names it.
    """
    return Mixture(
        [_KnownClasses(_open(source), classes) for source in sources],
        [source.weight for source in sources],
        [source.size for source in sources],
    )


def evenly(length: int, count: int) -> list[int]:
    """At most `count` numbers below `length`, ascending, spread evenly."""
    return sorted({int(index) for index in np.linspace(0, length - 1, min(count, length))})


def label_counts(dataset: Sequence[Sample], classes: int = len(LABELS)) -> Tensor:
    """(classes,) pixels per class in a few hundred samples spread over the dataset; unreadable ones do not count."""
    counts = np.zeros(256, np.int64)
    for index in evenly(len(dataset), _LABEL_SAMPLES):
        try:
            semantic = dataset[index].semantic
        except InputError:
            continue
        if semantic is not None:
            counts += np.bincount(semantic.reshape(-1), minlength=256)
    return torch.from_numpy(counts[:classes])


def _open(source: Any) -> Sequence[Sample]:
    match source:
        case Shards():
            shards = ShardDataset(source.path)
            return shards if source.first is None else _First(shards, source.first)
        case World():
            config = load_config(source.config) if source.config else WorldConfig()
            return WorldDataset(config, source.size, source.count, source.seed)
        case Folder():
            return _Measured(open_dataset(source.path, source.groups))
        case Bag():
            return _Measured(open_dataset(source.path, None, source.image_topic, source.depth_topic))
        case Hypersim():
            return HypersimDataset(source.path, source.split)
        case VirtualKitti2():
            return VirtualKitti2Dataset(
                source.path, source.scenes, source.variations, source.benchmark_crop, source.far
            )
        case Images():
            return TaughtImages(source.path, source.teacher, source.mirror)
    raise InputError(f"{source!r} is no source of samples")


class _KnownClasses(Sequence[Sample]):
    """A source without the samples that say something of classes that there are not."""

    def __init__(self, samples: Sequence[Sample], classes: int) -> None:
        self._samples, self._classes = samples, classes

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """As the source has it.

        Raises:
            InputError: it cannot be read, or has a class id that is none.
        """
        sample = self._samples[index]
        if sample.semantic is not None:
            highest = int(np.max(sample.semantic, where=sample.semantic != UNLABELLED, initial=0))
            if highest >= self._classes:
                raise InputError(
                    f"{sample.name} has the class id {highest}, but the {self._classes} classes of 'data.classes' end "
                    f"at {self._classes - 1}: name all classes of the data there, or mark the others with {UNLABELLED}"
                )
        return sample


class _First(Sequence[Sample]):
    """The first samples of a dataset."""

    def __init__(self, samples: Sequence[Sample], count: int) -> None:
        self._samples, self._count = samples, min(count, len(samples))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """See the dataset."""
        return self._samples[range(self._count)[index]]


class _Measured(Sequence[Sample]):
    """A dataset made for scoring as one to learn from: its classes become the model's where the names agree."""

    def __init__(self, dataset: EvaluationDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """See `EvaluationDataset`."""
        sample = self._dataset[index]
        if sample.semantic is not None:
            sample.semantic = _own_classes(sample)
        if sample.instances is not None:
            sample.instances = np.where(sample.instances == UNKNOWN_INSTANCE, 0, sample.instances).astype(np.uint16)
        return sample


def _own_classes(sample: EvaluationSample) -> Any:
    """(H, W) uint8 ids of `world.labels`; classes of other names count as unlabelled."""
    table = np.full(256, UNLABELLED, np.uint8)
    for number, name in enumerate(sample.classes):
        table[number] = CLASS_ID.get(name, UNLABELLED)
    return table[np.asarray(sample.semantic)]
