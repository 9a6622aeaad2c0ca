"""Readers of images with ground truth. All yield `sample.Sample`; those used for scoring add what a score needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import Sample


@dataclass
class EvaluationSample(Sample):
    """A sample with what scoring needs to know about its ground truth."""

    group: str = ""
    """Part of the set that is averaged on its own, such as a scene or a sensor."""
    label_set: str | None = None
    """Name of the mapping (`evaluation/labels/<name>.yaml`) between the model's labels and `classes`."""
    classes: tuple[str, ...] = ()
    """Names of the ids in `semantic`."""
    depth_kind: str = "dense_sensor"
    """How `depth` was measured: `dense_sensor`, `stereo_ground_truth`, `sparse_lidar`, `sparse_sensor`, `exact`."""
    prompt_points: tuple[tuple[float, float, int], ...] = ()
    """u, v in pixels and 1 (inside the object that is meant) or 0 (outside)."""
    prompt_mask: npt.NDArray[np.bool_] | None = None
    """(H, W), where the object that is meant is seen."""
    prompt_answer: npt.NDArray[np.bool_] | None = None
    """(H, W), the object that these prompts mean, for amodal segmentation also where something hides it."""


@dataclass(frozen=True)
class Skipped:
    """A file or frame that could not be used, and why."""

    name: str
    reason: str


class EvaluationDataset(ABC):
    """What evaluation asks of a reader. Reading on past what cannot be used, and listing it, is the same for all."""

    def __init__(self, name: str) -> None:
        self.name = name
        """The folder or bag, for tables and reports."""
        self.skipped: list[Skipped] = []
        """What the last iteration left out."""
        self.damage: list[Skipped] = []
        """What was lost before there were samples, such as the end of a file; part of `skipped` after an iteration."""
        self.notes: list[str] = []
        """What a reader should know although nothing is left out."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples, usable or not."""

    @abstractmethod
    def __getitem__(self, index: int) -> EvaluationSample:
        """One sample.

        Raises:
            InputError: its files cannot be used; the message names them.
        """

    @abstractmethod
    def name_of(self, index: int) -> str:
        """Name of a sample, known without reading it."""

    @abstractmethod
    def group_of(self, index: int) -> str:
        """Group of a sample, known without reading it."""

    def usable(self) -> Iterator[tuple[int, EvaluationSample]]:
        """The samples that can be used, with their index; the others are added to `skipped`."""
        self.skipped.clear()
        for index in range(len(self)):
            try:
                sample = self[index]
            except InputError as error:
                self.skipped.append(Skipped(self.name_of(index), str(error)))
            else:
                yield index, sample
        self.skipped[:0] = self.damage

    def __iter__(self) -> Iterator[EvaluationSample]:
        return (sample for _, sample in self.usable())
