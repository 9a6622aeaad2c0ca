"""What `diffusion-perception doctor` reports: one finding per thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


Level = Literal["ok", "lack", "problem"]
"""`lack`: something optional is missing or slower than it could be. `problem`: predictions cannot be made."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    level: Level
    state: str
    """What is there, or what is not."""
    remedy: str = ""
    """One sentence that says what to do; never empty for a lack or a problem."""
