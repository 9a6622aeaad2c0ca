"""Benchmarks: what they compare and what they write, not how fast this machine is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from model_factory import write_model

from diffusion_perception_ros.cli.benchmarks.comparison import Comparison, take_turns
from diffusion_perception_ros.cli.main import main


def test_ratios_are_against_the_last_variant() -> None:
    times = Comparison("x", "ms", {"fast": 2.0, "slow": 10.0})
    assert times.ratios() == {"fast": 5.0, "slow": 1.0}
    rates = Comparison("x", "Hz", {"fast": 10.0, "slow": 2.0}, larger_is_better=True)
    assert rates.ratios() == {"fast": 5.0, "slow": 1.0}


def test_variants_take_turns() -> None:
    calls: list[str] = []
    medians = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 0.01)
    assert calls[:6] == ["a", "b", "a", "b", "a", "b"]
    assert set(medians) == {"a", "b"}


def test_sections_are_written_with_their_ratios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "models" / "toy")
    out = tmp_path / "deep" / "bench.json"
    arguments = ["--only", "estimator", "--only", "encoding", "--seconds", "0.05", "--json", str(out)]
    assert main(["bench", "--model", str(model), *arguments]) == 0
    result = json.loads(out.read_text())
    assert set(result["sections"]) == {"estimator", "encoding"}
    assert result["left_out"] == {}
    stages, asked = result["sections"]["estimator"]
    assert set(stages["values"]) == {"preprocess", "inference", "postprocess", "whole prediction"}
    assert set(asked["values"]) == {"depth only", "normals only", "semantic only", "instances only", "all tasks"}
    for entry in [stages, asked, *result["sections"]["encoding"]]:
        assert list(entry["ratios"].values())[-1] == 1.0
        assert min(entry["values"].values()) > 0
    assert "filling data of a message" in capsys.readouterr().out


def test_nothing_measured_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    assert main(["bench", "--model", "no-such-model", "--only", "estimator", "--json", str(out)]) == 2
    assert "no-such-model" in capsys.readouterr().err
    assert not out.exists()


def test_what_is_spent_around_the_network(tmp_path: Path) -> None:
    """Every goal is in the file with its value, or with the reason why this run has none."""
    model = write_model(tmp_path / "models" / "toy")
    out, docs = tmp_path / "bench.json", tmp_path / "performance.md"
    arguments = ["--only", "around", "--json", str(out), "--docs", str(docs)]
    assert main(["bench", "--model", str(model), *arguments]) == 0
    result = json.loads(out.read_text())
    rows = result["ratios"]
    for size in ("640x480", "1280x720", "1920x1080"):
        row = rows[f"predict over bare session, all outputs, {size}"]
        assert row["value"] > 1  # a toy network takes less time than its maps
        assert row["ok"] == (row["value"] <= row["goal"])
    peer = rows["CPU per image, the obvious node over ours, depth"]
    assert (peer["value"], peer["ok"]) == (None, None)
    assert "weights" in peer["note"]
    assert rows["page faults per image, any resolution"]["value"] >= 0
    assert all(name in docs.read_text() for name in rows)
