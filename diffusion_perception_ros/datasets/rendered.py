"""Rendered samples, from shards or on the fly, as ground truth to score against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from diffusion_perception_ros.datasets import EvaluationDataset, EvaluationSample
from diffusion_perception_ros.sample import Sample
from diffusion_perception_ros.world.labels import LABELS


class RenderedDataset(EvaluationDataset):
    """Samples whose classes are those of the world, and whose ground truth is exact."""

    def __init__(self, name: str, samples: Sequence[Sample]) -> None:
        """
        Args:
            name: For tables and reports.
            samples: Such as a `ShardDataset` or a `WorldDataset`.
        """
        super().__init__(name)
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> EvaluationSample:
        sample = self._samples[index]
        return EvaluationSample(
            **{field.name: getattr(sample, field.name) for field in fields(sample)},
            group="rendered",
            label_set="world",
            classes=tuple(label.name for label in LABELS),
            depth_kind="exact",
        )

    def name_of(self, index: int) -> str:
        """See `EvaluationDataset`."""
        return f"{self.name}/{index}"

    def group_of(self, index: int) -> str:
        """See `EvaluationDataset`."""
        return "rendered"
