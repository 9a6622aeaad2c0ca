"""Applies a network to a fixed choice of validation pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from accelerate import Accelerator
from torch import nn

from diffusion_perception_ros.inference.card import InputSize
from diffusion_perception_ros.sample import Sample, UInt8Image
from diffusion_perception_ros.training.batches import Batch, whole_images
from diffusion_perception_ros.training.config import TrainingConfig
from diffusion_perception_ros.training.estimates import Estimates
from diffusion_perception_ros.training.learner import Learner
from diffusion_perception_ros.training.pictures import prediction_sheet
from diffusion_perception_ros.training.settings.names import MULTIPLE
from diffusion_perception_ros.training.validation import validate


_SHEET_ROWS = 6


class Evaluator:
    """Scores and pictures of one network on the same samples every time."""

    def __init__(
        self,
        network: nn.Module,
        learner: Learner,
        dataset: Sequence[Sample],
        indices: Sequence[int],
        config: TrainingConfig,
        accelerator: Accelerator,
        keep_aspect: bool = False,
    ) -> None:
        """
        Args:
            network: with the weights to score; it may be trained on between the calls.
            indices: which samples of `dataset`; those that cannot be read are left out.
            keep_aspect: resize every picture to about the area of the first training size instead of that very size,
                as the exported model does. For pictures of many shapes; slower, as they go through one by one.
        """
        self._network, self._learner, self._accelerator = network, learner, accelerator
        self._dataset, self._indices = dataset, indices
        self._size, self._batch_size = config.data.sizes[0], config.data.batch_size
        self._keep_aspect, self._classes = keep_aspect, config.data.classes
        self.unreadable: dict[int, str] = {}
        """Samples that were left out so far, and why."""

    def scores(self) -> dict[str, float]:
        """See `validation.validate`.

        Raises:
            InputError: not one of the samples can be read.
        """
        return validate(self._estimates, self._batches(), self._classes)

    def sheet(self) -> UInt8Image:
        """Predictions for the first pictures beside the truth."""
        first = next(self._batches())
        return prediction_sheet(self._estimates(first), first)[: _SHEET_ROWS * first.image.shape[2]]

    @torch.no_grad()
    def _estimates(self, batch: Batch) -> Estimates:
        with self._accelerator.autocast():
            return self._learner.estimates(self._network, batch)

    def _batches(self) -> Iterator[Batch]:
        width, height = self._size
        if self._keep_aspect:
            rule = InputSize(rule="area", area=width * height, multiple_of=MULTIPLE)
            size_for, batch_size = rule.size_for, 1
        else:
            size_for, batch_size = lambda *_: self._size, self._batch_size
        pictures = whole_images(self._dataset, self._indices, size_for, batch_size, self.unreadable)
        return (batch.to(self._accelerator.device) for batch in pictures)
