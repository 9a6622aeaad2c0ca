"""The order of training batches: resumable, augmented, and made ahead of time in a thread.

The order of the samples and every random number of the augmentation follow from the seed, the epoch and the position
in it. A cut run that continues at a stored position therefore sees exactly the batches that it would have seen.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.datasets.augment import AugmentationConfig, random_view, recoloured
from diffusion_perception_ros.datasets.mixture import Mixture
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import Sample
from diffusion_perception_ros.training.batches import Batch, collate


MOST_UNREADABLE = 50
"""Samples in a row that may be unreadable: more mean that the data is not there (an unmounted disk)."""


@dataclass
class Position:
    """Where the order of samples stands; stored in checkpoints."""

    epoch: int = 0
    start: int = 0
    """Samples of this epoch that were used."""
    lengths: Sequence[int] = ()
    """Samples of every source in this epoch: what is added to the data later joins in the next one."""

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint; `Position(**…)` is the way back."""
        return asdict(self)


class BatchStream:
    """An endless, resumable stream of augmented batches, each with the position to continue from after it.

    Args:
        open_dataset: opens the samples; called again at every epoch, so that new data is found.
        batch_size: samples per batch of this process.
        sizes: (width, height) choices; every batch draws one, unless it is of a source with a size of its own.
        rank, world: this process takes every `world`-th sample of the common order.
    """

    def __init__(
        self,
        open_dataset: Callable[[], Mixture],
        batch_size: int,
        sizes: Sequence[tuple[int, int]],
        augmentation: AugmentationConfig,
        seed: int,
        position: Position | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._open_dataset, self._batch_size, self._sizes = open_dataset, batch_size, sizes
        self._augmentation, self._seed = augmentation, seed
        self._position = position or Position()
        self._rank, self._world = rank, world
        self.unreadable: dict[int, str] = {}
        """Samples that were replaced by the next one so far, and why."""

    def __iter__(self) -> Iterator[tuple[Batch, Position]]:
        dataset = self._open_dataset()
        epoch, start = self._position.epoch, self._position.start
        lengths = tuple(self._position.lengths) or dataset.lengths
        stride = self._batch_size * self._world
        while True:
            order = dataset.order(np.random.default_rng([self._seed, epoch]), lengths, run=stride)
            while start + stride <= max(len(order), stride):
                number = int(np.random.default_rng([self._seed, epoch, start]).integers(len(self._sizes)))
                size = dataset.size_of(int(order[start % len(order)])) or self._sizes[number]
                picks = start + self._rank + np.arange(self._batch_size) * self._world
                samples = [self._augmented(dataset, order, epoch, int(pick), size) for pick in picks]
                start += stride
                yield collate(samples), Position(epoch, start, lengths)
            dataset = self._open_dataset()
            epoch, start, lengths = epoch + 1, 0, dataset.lengths

    def _augmented(
        self, dataset: Mixture, order: npt.NDArray[np.int64], epoch: int, pick: int, size: tuple[int, int]
    ) -> Sample:
        rng = np.random.default_rng([self._seed, epoch, pick, 1])
        view = random_view(self._readable(dataset, order, pick), *size, rng, self._augmentation)
        return recoloured(view, rng, self._augmentation)

    def _readable(self, dataset: Mixture, order: npt.NDArray[np.int64], pick: int) -> Sample:
        """The sample at a place of the order, or the next one that can be read.

        Raises:
            InputError: many in a row cannot be read.
        """
        for step in range(MOST_UNREADABLE):
            index = int(order[(pick + step) % len(order)])  # fewer samples than a batch has: go round
            try:
                return dataset[index]
            except InputError as error:
                self.unreadable[index] = str(error)
        reasons = list(self.unreadable.values())
        raise InputError(f"{MOST_UNREADABLE} training samples in a row cannot be read, the last because {reasons[-1]}")


class Prefetcher(Iterator[Any]):
    """Runs an iterator in a thread, up to `depth` items ahead; its exceptions come out here. Close it when done."""

    def __init__(self, source: Iterator[Any], depth: int = 4) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._feed, args=(source,), daemon=True, name="batches")
        self._thread.start()

    def __next__(self) -> Any:
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue

    def _feed(self, source: Iterator[Any]) -> None:
        try:
            for item in source:
                self._queue.put(item)
                if self._closed.is_set():
                    return
            self._queue.put(StopIteration())
        except Exception as error:  # handed to the consumer, who can act on it
            self._queue.put(error)
