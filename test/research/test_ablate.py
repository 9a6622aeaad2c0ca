"""Ladders of experiments: every rung is trained once, a cut one goes on, figures and charts say what came of it.

Each kind of ladder in config/ablation is trained here on toy rooms, and does better on unseen ones than answers that
never look at the image.
"""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import Any

import cv2
import pytest
import yaml
from backbone_factory import SMALL_UNET
from toy_rooms import write_toy_shard

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.research.ladder import power_law, read_ladder
from diffusion_perception_ros.training.config import load_config


CONFIGS = Path(__file__).resolve().parents[2] / "config"
LADDERS = sorted((CONFIGS / "ablation").glob("*.yaml"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_toy_shard(folder / "train", range(120))
    write_toy_shard(folder / "val", range(5000, 5016))
    return folder


def write_ladder(path: Path, data: Path, rungs: list[dict[str, Any]], **fields: Any) -> Path:
    """A ladder over the base of the shipped ones, made small: 32x32 toy rooms, a few dozen steps."""
    base = yaml.safe_load((CONFIGS / "train" / "experiment.yaml").read_text())
    base["network"]["config"] |= {"sample_size": 8, "num_layers": 2}
    base["data"] |= {"train": str(data / "train"), "validation": str(data / "val"), "sizes": [[32, 32]]}
    base["data"]["batch_size"] = 16
    base["run"] |= {"max_steps": 70, "validation_samples": 16}
    (path.parent / "base.yaml").write_text(yaml.safe_dump(base))
    ladder = {"base": "base.yaml", "score": "abs_rel", "seeds": [0], "rungs": rungs, **fields}
    path.write_text(yaml.safe_dump(ladder))
    return path


def climb(ladder: Path, out: Path) -> dict[str, Any]:
    assert main(["ablate", str(ladder), "-o", str(out)]) == 0
    assert is_drawn(out / f"{ladder.stem}.png")
    figures: dict[str, Any] = json.loads((out / f"{ladder.stem}.json").read_text())
    return figures


def is_drawn(image: Path) -> bool:
    pixels = cv2.imread(str(image))
    return pixels is not None and bool(pixels.std() > 10)


def scores(figures: dict[str, Any], score: str) -> dict[str, float]:
    return {row["name"]: row["scores"][score]["mean"] for row in figures["rungs"] if score in row["scores"]}


def test_every_rung_is_trained_once(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rungs: list[dict[str, Any]] = [
        {"name": "x0", "title": "x0, two steps", "set": ["objective={kind: multi_step, num_inference_steps: 2}"]},
        {"name": "lotus", "title": "Lotus-D"},
    ]
    ladder = write_ladder(tmp_path / "steps.yaml", data, rungs, seeds=[0, 1], set=["run.max_steps=2"])
    out, figures, charts = tmp_path / "out", tmp_path / "figures", tmp_path / "charts"
    command = ["ablate", str(ladder), "-o", str(out), "--figures", str(figures), "--charts", str(charts)]
    assert main(command) == 0
    found = json.loads((figures / "steps.json").read_text())
    assert [row["name"] for row in found["rungs"]] == ["x0", "lotus"]
    for row in found["rungs"]:
        values = row["scores"]["abs_rel"]
        assert len(values["values"]) == 2
        assert values["spread"] is not None
    assert found["rungs"][0]["scores"] != found["rungs"][1]["scores"]
    assert found["baselines"]["abs_rel"].keys() == {"best constant", "row plane"}
    assert str(tmp_path) not in (figures / "steps.json").read_text()
    assert is_drawn(charts / "steps.png")
    assert "Lotus-D" in capsys.readouterr().out
    runs = out / "steps"
    before = (runs / "lotus-1" / "result.json").stat().st_mtime_ns
    (runs / "x0-1" / "result.json").unlink()
    assert main(command) == 0
    assert (runs / "x0-1" / "result.json").is_file()
    assert (runs / "lotus-1" / "result.json").stat().st_mtime_ns == before
    assert main([*command, "--set", "run.max_steps=3"]) == 2
    assert "was made with other settings" in capsys.readouterr().err


def test_what_is_wrong_with_a_ladder_is_named(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rungs = [{"name": "lotus", "title": "Lotus-D", "set": ["run.max_steps=1"]}]
    ladder = write_ladder(tmp_path / "wrong.yaml", data, rungs, score="flow_epe")
    assert main(["ablate", str(ladder), "-o", str(tmp_path / "out")]) == 2
    assert "has no score flow_epe but abs_rel" in capsys.readouterr().err
    ladder.write_text("base: x.yaml\nscore: abs_rel\nseeds: []\nrungs: []\nstep: 3\n")
    assert main(["ablate", str(ladder), "-o", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "seeds: " in message
    assert "step: " in message


@pytest.mark.parametrize("path", LADDERS, ids=lambda path: path.stem)
def test_the_shipped_ladders_can_be_climbed(path: Path) -> None:
    ladder = read_ladder(path)
    assert len(ladder.seeds) >= 3
    for rung in ladder.rungs:
        overrides = [Template(text).substitute(seed=7, ladder="runs") for text in (*ladder.set, *rung.set)]
        config = load_config(path.parent / ladder.base, overrides)
        assert config.run.max_steps is not None, "figures must not depend on the speed of the machine"


def test_lotus_learns_unseen_rooms_rung_by_rung(tmp_path: Path, data: Path) -> None:
    shipped = yaml.safe_load((CONFIGS / "ablation" / "lotus.yaml").read_text())["rungs"]
    rungs = [rung for rung in shipped if rung["name"] in ("one_step", "genpercept")]
    overrides = ["network.kind=unet", f"network.config={SMALL_UNET}", "run.max_steps=35"]
    figures = climb(write_ladder(tmp_path / "lotus.yaml", data, rungs, set=overrides), tmp_path / "out")
    assert max(scores(figures, "abs_rel").values()) < figures["baselines"]["abs_rel"]["best constant"]


def test_genpercept_learns_with_either_loss_and_head(tmp_path: Path, data: Path) -> None:
    shipped = yaml.safe_load((CONFIGS / "ablation" / "genpercept.yaml").read_text())
    rungs = [rung for rung in shipped["rungs"] if rung["name"] in ("latent", "dpt")]
    overrides = [*shipped["set"], "data.sizes=[[64, 64]]", "run.max_steps=40"]
    overrides.append("network.config.block_out_channels=[16, 16, 32, 32]")
    ladder = write_ladder(tmp_path / "genpercept.yaml", data, rungs, set=overrides)
    figures = climb(ladder, tmp_path / "out")
    assert max(scores(figures, "abs_rel").values()) < figures["baselines"]["abs_rel"]["best constant"]
    pipeline = tmp_path / "out" / "genpercept" / "dpt-0" / "run" / "pipeline"
    assert (pipeline / "dpt_head_identity" / "model.safetensors").is_file()


def test_a_head_that_does_not_fit_is_named(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = yaml.safe_load((CONFIGS / "ablation" / "genpercept.yaml").read_text())
    wrong = {
        "network.pixels=4": "positions of 8 pixels, there are 4",
        "objective={kind: lotus_d}": "'network.head' has no latent",
        "network={kind: dit, tasks: [depth], head: dpt}": "'head: dpt' is for 'kind: unet'",
    }
    for number, (override, message) in enumerate(wrong.items()):
        rungs = [{"name": "dpt", "title": "DPT", "set": [*shipped["rungs"][-1]["set"], override]}]
        ladder = write_ladder(tmp_path / f"wrong{number}.yaml", data, rungs, set=shipped["set"])
        assert main(["ablate", str(ladder), "-o", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err


def test_a_generalist_is_compared_score_by_score(tmp_path: Path, data: Path) -> None:
    rungs: list[dict[str, Any]] = [
        {"name": "generalist", "title": "both", "set": ["network.tasks=[depth, normals]", "run.max_steps=120"]},
        {"name": "depth", "title": "depth only"},
    ]
    ladder = write_ladder(tmp_path / "generalist.yaml", data, rungs, score=["abs_rel", "normals_mean"])
    figures = climb(ladder, tmp_path / "out")
    depth = scores(figures, "abs_rel")
    assert depth.keys() == {"generalist", "depth"}
    assert max(depth.values()) < figures["baselines"]["abs_rel"]["best constant"]
    assert scores(figures, "normals_mean")["generalist"] < figures["baselines"]["normals_mean"]["best constant"]


def test_compute_adds_up_over_the_runs_that_one_starts_from(tmp_path: Path, data: Path) -> None:
    start = "$ladder/dense-$seed/run/best/ema.safetensors"
    rungs: list[dict[str, Any]] = [
        {"name": "dense", "title": "dense", "curve": "dense"},
        {
            "name": "experts",
            "title": "4 experts",
            "curve": "experts",
            "set": [f"network.experts={{count: 4, per_token: 2, upcycle_from: {start}}}", "run.max_steps=20"],
        },
    ]
    figures = climb(write_ladder(tmp_path / "scaling.yaml", data, rungs, over="compute"), tmp_path / "out")
    dense, experts = figures["rungs"]
    assert experts["parameters"] > 1.5 * dense["parameters"]
    of_one_step = dense["training_flops"] / 70
    assert 20 * of_one_step < experts["training_flops"] - dense["training_flops"] < 40 * of_one_step
    found = scores(figures, "abs_rel")
    assert found["experts"] < figures["baselines"]["abs_rel"]["best constant"]
    assert figures["power_law"]["abs_rel"] is None  # two points are no law


def test_a_power_law_is_found_only_where_there_is_one() -> None:
    points = [(10.0**power, 3.0 * 10.0 ** (-0.2 * power)) for power in range(9, 14)]
    fit = power_law([*points, (1e13, 0.5)])  # what a cheaper one beats does not count
    assert fit is not None
    assert fit["exponent"] == pytest.approx(-0.2)
    assert fit["factor"] == pytest.approx(3.0)
    assert power_law(points[:3]) is None
    assert power_law([(1.0, 1.0), (2.0, 0.999), (3.0, 0.998), (4.0, 0.2)]) is None


def test_few_images_adapt_the_bundled_model(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    shipped = yaml.safe_load((CONFIGS / "ablation" / "few_shot.yaml").read_text())
    rung = shipped["rungs"][0] | {"set": [f"data.train={{kind: shards, path: {data / 'train'}, first: 10}}"]}
    overrides = [*shipped["set"], f"data.validation={data / 'val'}", "data.sizes=[[64, 64]]", "run.max_steps=12"]
    shipped |= {"base": str(CONFIGS / "train" / "adapt.yaml"), "set": overrides, "rungs": [rung], "seeds": [0]}
    ladder = tmp_path / "few_shot.yaml"
    ladder.write_text(yaml.safe_dump(shipped))
    figures = climb(ladder, tmp_path / "out")
    assert scores(figures, "abs_rel")["images_10"] < figures["baselines"]["abs_rel"]["before training"]
    assert figures["runs"][0]["samples"] == 96
