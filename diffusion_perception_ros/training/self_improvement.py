"""Diff-2-in-1's second stage (arXiv:2411.05005): learning from real pairs and from created ones.

Two copies of one network: the exploitation copy is the one that is trained; the creation copy, the moving average of
its weights, makes new pictures out of those of the batch, labels them, and is what a run delivers. It creates anew for
every batch, so that nothing but the two sets of weights has to be kept for a run to go on exactly where it was cut.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SelfImprovementConfig(BaseModel):
    """What is created, and how much of a batch it takes the place of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(default=0.5, gt=0, lt=1)
    """Of every batch that is replaced by created pairs."""
    noise_level: float = Field(default=0.6, gt=0, le=1)
    """Share of T to which real pairs are noised before they are denoised into new ones; 1: from pure noise."""

    def created_rows(self, batch_size: int) -> int:
        """How many pictures of a batch are replaced: at least one, and never all."""
        return min(max(1, round(self.share * batch_size)), batch_size - 1)
