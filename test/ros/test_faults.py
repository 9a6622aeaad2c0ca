"""The quick rows of the fault campaign (`make faults` runs all), each on the node that survived the last one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Ros


sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.bench import Bench
from faults.campaign import Row, chosen, run_row
from faults.rows import ROWS


@pytest.fixture(scope="module")
def bench(ros: Ros, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(ros, tmp_path_factory.mktemp("faults"))
    yield bench
    bench.end()


@pytest.mark.parametrize("entry", chosen("", quick=True), ids=lambda entry: entry.name)
def test_fault(bench: Bench, entry: Row) -> None:
    result = run_row(bench, entry)
    if result.outcome == "skipped":
        pytest.skip(result.reaction)
    assert result.outcome == "passed", result.reaction


def test_every_row_has_a_name_of_its_own() -> None:
    assert len({entry.name for entry in ROWS}) == len(ROWS)
