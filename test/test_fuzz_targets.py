"""The fuzz targets of `make fuzz` on some hundred mutated inputs each, and every input that once broke one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest


sys.path.insert(0, str(Path(__file__).resolve().parent))

from fuzz.mutation import mutate
from fuzz.targets import TARGETS, Target


COUNT, COUNT_OF_BAGS = 200, 20
"""Inputs per target; bags are files, and slow."""
FOUND = Path(__file__).parent / "fuzz" / "found"
"""Inputs that broke a target, as `TARGET.WHAT`."""


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_mutated_inputs_are_read_or_refused(target: Target, tmp_path: Path) -> None:
    rng = np.random.default_rng(sum(target.name.encode()))
    seeds = target.seeds(tmp_path)
    for seed in seeds:
        target.read(seed)
    for number in range(COUNT_OF_BAGS if target.name in ("mcap", "db3", "ros1") else COUNT):
        target.read(mutate(seeds[number % len(seeds)], rng))


@pytest.mark.parametrize("path", sorted(FOUND.glob("*.*")), ids=lambda path: path.name)
def test_what_was_found_stays_mended(path: Path) -> None:
    target = next(target for target in TARGETS if target.name == path.name.partition(".")[0])
    target.read(path.read_bytes())
