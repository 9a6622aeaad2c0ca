"""Several datasets as one, each with its share of every epoch."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.sample import Sample


class Mixture(Sequence[Sample]):
    """Datasets one after the other, and a random order in which they take turns.

    Args:
        parts: the datasets, each with at least one sample.
        weights: share of each in an epoch, in any unit; None for a part's own length. An epoch always has as many
            samples as all parts together: parts with less weight than length are seen in part, the others several
            times.
        sizes: (width, height) that the samples of each are to be resized to; None where it does not matter.
    """

    def __init__(
        self,
        parts: Sequence[Sequence[Sample]],
        weights: Sequence[float | None] | None = None,
        sizes: Sequence[tuple[int, int] | None] | None = None,
    ) -> None:
        self.parts = list(parts)
        self.sizes = list(sizes or [None] * len(self.parts))
        self._weights = list(weights or [None] * len(self.parts))
        self._ends = list(itertools.accumulate(len(part) for part in self.parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        number = self._part_of(index)
        return self.parts[number][index - self._ends[number] + len(self.parts[number])]

    def size_of(self, index: int) -> tuple[int, int] | None:
        """The size of the part that a sample belongs to."""
        return self.sizes[self._part_of(index)]

    def _part_of(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"the mixture has {len(self)} samples, asked for number {index}")
        return bisect.bisect_right(self._ends, index)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Samples of every part."""
        return tuple(len(part) for part in self.parts)

    def order(
        self, rng: np.random.Generator, lengths: Sequence[int] | None = None, run: int = 1
    ) -> npt.NDArray[np.int64]:
        """Indices of one epoch.

        Args:
            rng: the order follows from its state alone.
            lengths: how many samples of each part to draw from, for an epoch that began when there were fewer.
            run: where parts have sizes of their own, so many after each other are of one part, as a batch has one
                size; what is left of a part after its last full run is not in this epoch.
        """
        lengths = tuple(lengths or self.lengths)
        starts = [end - length for end, length in zip(self._ends, self.lengths, strict=True)]
        counts = self._counts(lengths)
        picks = [
            start + _cycled(rng, length, count) for start, length, count in zip(starts, lengths, counts, strict=True)
        ]
        if run == 1 or not any(self.sizes):
            return rng.permutation(np.concatenate(picks))
        runs = [part[: len(part) // run * run].reshape(-1, run) for part in picks]
        together = np.concatenate(runs)
        if not len(together):  # less than one batch of every part
            return rng.permutation(np.concatenate(picks))
        return np.concatenate(list(rng.permutation(together)))

    def _counts(self, lengths: Sequence[int]) -> list[int]:
        """Samples of every part in an epoch, by largest remainder."""
        weights = np.array([length if w is None else w for w, length in zip(self._weights, lengths, strict=True)])
        exact = weights / weights.sum() * sum(lengths)
        counts = np.floor(exact).astype(int)
        for number in np.argsort(counts - exact)[: sum(lengths) - counts.sum()]:
            counts[number] += 1
        return [int(count) for count in counts]


def _cycled(rng: np.random.Generator, length: int, count: int) -> npt.NDArray[np.int64]:
    """`count` of the numbers below `length` in random order, all of them before any of them again."""
    rounds = -(-count // length)
    if not rounds:
        return np.empty(0, np.int64)
    return np.concatenate([rng.permutation(length) for _ in range(rounds)])[:count]
