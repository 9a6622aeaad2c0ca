"""The ladder of an ablation: every rung is trained once, a cut one goes on, and the chart is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
import yaml
from toy_rooms import write_toy_shard

from diffusion_perception_ros.cli.ablate import read_ladder
from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.training.config import load_config


CONFIGS = Path(__file__).resolve().parents[1] / "config"


def write_files(folder: Path, score: str = "abs_rel") -> Path:
    write_toy_shard(folder / "train", range(8))
    write_toy_shard(folder / "val", range(50, 52))
    base = yaml.safe_load((CONFIGS / "train" / "lotus.yaml").read_text())
    base["network"]["config"] |= {"block_out_channels": [16, 16, 16], "norm_num_groups": 4}
    base["data"] |= {"train": str(folder / "train"), "validation": str(folder / "val"), "sizes": [[32, 32]]}
    base["data"]["batch_size"] = 2
    base["run"] = {"max_steps": 2, "threads": 1, "validation_samples": 2}
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    rungs = [
        {"name": "x0", "title": "x0, two steps", "set": ["objective={kind: multi_step, num_inference_steps: 2}"]},
        {"name": "lotus", "title": "Lotus-D"},
    ]
    ladder = {"base": "base.yaml", "score": score, "seeds": [0, 1], "rungs": rungs}
    (folder / "ladder.yaml").write_text(yaml.safe_dump(ladder))
    return folder / "ladder.yaml"


def test_every_rung_is_trained_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ladder, out = write_files(tmp_path), tmp_path / "out"
    assert main(["ablate", str(ladder), "-o", str(out)]) == 0
    rows = json.loads((out / "ladder.json").read_text())["rungs"]
    assert [row["name"] for row in rows] == ["x0", "lotus"]
    assert all(len(row["values"]) == 2 and row["spread"] is not None for row in rows)
    assert rows[0]["values"] != rows[1]["values"]
    assert cv2.imread(str(out / "ladder.png")).std() > 10
    assert "Lotus-D" in capsys.readouterr().out
    before = (out / "lotus-1" / "result.json").stat().st_mtime_ns
    (out / "x0-1" / "result.json").unlink()
    assert main(["ablate", str(ladder), "-o", str(out)]) == 0
    assert (out / "x0-1" / "result.json").is_file()
    assert (out / "lotus-1" / "result.json").stat().st_mtime_ns == before
    assert main(["ablate", str(ladder), "-o", str(out), "--set", "run.max_steps=3"]) == 2
    assert "was made with other settings" in capsys.readouterr().err


def test_what_is_wrong_with_a_ladder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ladder = write_files(tmp_path, score="flow_epe")
    assert main(["ablate", str(ladder), "-o", str(tmp_path / "out")]) == 2
    assert "has no score 'flow_epe' but abs_rel" in capsys.readouterr().err
    ladder.write_text("base: x.yaml\nscore: abs_rel\nseeds: []\nrungs: []\nstep: 3\n")
    assert main(["ablate", str(ladder), "-o", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "seeds: " in message
    assert "step: " in message


def test_the_shipped_ladder_can_be_climbed() -> None:
    path = CONFIGS / "ablation" / "lotus.yaml"
    ladder = read_ladder(path)
    kinds = [load_config(path.parent / ladder.base, rung.set).objective.kind for rung in ladder.rungs]
    assert kinds == ["multi_step"] * 3 + ["lotus_g"] * 2 + ["lotus_d", "genpercept"]
