"""What every part of the card has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


Range = tuple[float, float]
"""Smallest and largest value that a tensor can take."""


class StrictModel(BaseModel):
    """Immutable; unknown fields are errors, and so are numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def check_range(limits: Range) -> Range:
    """Checks that a range is not empty.

    Raises:
        ValueError: it is.
    """
    if limits[0] >= limits[1]:
        raise ValueError(f"range {limits} is empty")
    return limits
