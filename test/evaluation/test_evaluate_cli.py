"""`diffusion-perception evaluate` from end to end, with a small real model whose answers are known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bag_factory import BagSpec, write_bag
from model_factory import write_model

from diffusion_perception_ros.cli.main import main


WIDTH, HEIGHT = 96, 64


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Depth = row of the image; normals face the camera."""
    return write_model(tmp_path / "models" / "rows")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two groups. `ramp`: depth grows by row, which the model gets right. `wall`: depth grows by column."""
    items = []
    for group, count in (("ramp", 2), ("wall", 1)):
        for number in range(count):
            base = tmp_path / "data" / group
            for kind in ("rgb", "depth"):
                (base / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(base / "rgb" / f"{number}.png"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
            rows, columns = np.mgrid[:HEIGHT, :WIDTH]
            depth = 1000 + 20 * (rows if group == "ramp" else columns)
            cv2.imwrite(str(base / "depth" / f"{number}.png"), depth.astype(np.uint16))
            item: dict[str, Any] = {"id": f"{group}/{number}", "task": "rgbd", "group": group, "depth_scale_m": 0.001}
            item |= {kind: f"{group}/{kind}/{number}.png" for kind in ("rgb", "depth")}
            items.append(item)
    (tmp_path / "data" / "manifest.json").write_text(json.dumps({"items": items}))
    return tmp_path / "data"


def evaluate(*arguments: object) -> int:
    return main(["evaluate", *(str(argument) for argument in arguments)])


def test_folder_to_table_and_json(
    scenes: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.json"
    assert evaluate("--data", scenes, "--model", model, "--json", out) == 0
    table = capsys.readouterr().out
    for word in ("AbsRel", "affine-aligned", "row plane in 1/depth", "constant", "ramp", "wall"):
        assert word in table
    result = json.loads(out.read_text())
    groups = result["tasks"]["depth"]
    assert groups["ramp"]["model_affine"]["images"] == 2
    # The model answers with the row, resampled: within the row plane's reach on the ramp, useless on the wall.
    assert groups["ramp"]["model_affine"]["absrel"] < 0.01
    assert groups["ramp"]["row_plane"]["absrel"] < 1e-6
    assert groups["wall"]["model_affine"]["absrel"] == pytest.approx(groups["wall"]["constant"]["absrel"], rel=1e-3)
    assert groups["all"]["model_affine"]["images"] == 3
    assert [image["name"] for image in result["images"]] == ["ramp/0", "ramp/1", "wall/0"]
    assert set(result["stage_ms"]) == {"preprocess", "inference", "postprocess"}
    assert result["environment"]["backend"] == "onnxruntime-cpu"
    assert result["skipped"] == result["failed"] == []


def test_files_are_written_although_nobody_reads_the_table(scenes: Path, model: Path, tmp_path: Path) -> None:
    """As with `| head`, whose end of the pipe is closed before the table comes."""
    out = tmp_path / "scores.json"
    module = "diffusion_perception_ros.cli.main"
    command = [sys.executable, "-m", module, "evaluate", "--data", scenes, "--model", model, "--json", out]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert len(json.loads(out.read_text())["images"]) == 3


def test_group_and_folder_below_the_manifest(scenes: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    assert evaluate("--data", scenes / "wall", "--model", model, "--json", out) == 0
    assert list(json.loads(out.read_text())["tasks"]["depth"]) == ["wall", "all"]
    assert evaluate("--data", scenes, "--group", "ramp", "--model", model, "--json", out) == 0
    assert len(json.loads(out.read_text())["images"]) == 2


def test_sparse_depth_makes_a_relative_model_metric(scenes: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    assert evaluate("--data", scenes, "--group", "ramp", "--model", model, "--sparse", 0.02, "--json", out) == 0
    result = json.loads(out.read_text())
    assert result["sparse"] == 0.02
    assert result["tasks"]["depth"]["ramp"]["model_metric"]["absrel"] < 0.01
    for share in ("0", "1.5", "much"):
        with pytest.raises(SystemExit):
            evaluate("--data", scenes, "--model", model, "--sparse", share)


def test_metric_model_is_scored_in_metres(scenes: Path, tmp_path: Path) -> None:
    card = {"quantity": "metric_depth", "unit": "m", "range": [0.0, 80.0]}
    model = write_model(tmp_path / "metric", ["depth"], depth_card=card)
    out = tmp_path / "scores.json"
    assert evaluate("--data", scenes / "ramp", "--model", model, "--json", out) == 0
    rows = json.loads(out.read_text())["tasks"]["depth"]["all"]
    # It says 0 to 1 m where the truth is 1 to 2.3 m.
    assert rows["model_metric"]["absrel"] > 0.5
    assert rows["model_metric"]["delta1"] == 0.0
    assert rows["model_affine"]["absrel"] < 0.01


def test_bag(model: Path, tmp_path: Path) -> None:
    bag = write_bag(tmp_path, BagSpec(frames=3))
    out = tmp_path / "scores.json"
    assert evaluate("--data", bag, "--model", model, "--json", out) == 0
    result = json.loads(out.read_text())
    assert [image["name"] for image in result["images"]] == ["camera/0000", "camera/0001", "camera/0002"]
    assert result["tasks"]["depth"]["all"]["constant"]["absrel"] < 1e-6


def test_flicker_needs_depth_or_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "models" / "normals", ["normals"])
    assert evaluate("--data", write_bag(tmp_path, BagSpec(frames=2)), "--model", model, "--temporal") == 2
    assert "neither depth nor classes" in capsys.readouterr().err


def test_bad_frame_is_named_and_the_rest_scored(
    scenes: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scenes / "ramp" / "rgb" / "1.png").write_bytes(b"broken")
    out = tmp_path / "scores.json"
    assert evaluate("--data", scenes, "--model", model, "--json", out) == 1
    error = capsys.readouterr().err
    assert "ramp/1" in error
    assert "2 images scored, 1 left out" in error
    result = json.loads(out.read_text())
    assert [entry["name"] for entry in result["skipped"]] == ["ramp/1"]
    assert len(result["images"]) == 2


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_damaged_bag_is_named_and_its_beginning_scored(
    model: Path, tmp_path: Path, storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(tmp_path, BagSpec(frames=12, storage=storage, noise=True, width=320, height=240))
    (file,) = [file for file in bag.iterdir() if file.suffix in (".mcap", ".db3")]
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 6 // 10])
    assert evaluate("--data", bag, "--model", model) == 1
    assert file.name in capsys.readouterr().err


def test_nothing_left_is_an_error(scenes: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in scenes.glob("*/depth/*.png"):
        path.write_bytes(b"")
    assert evaluate("--data", scenes, "--model", model) == 2
    assert "not one image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "wanted", "message"),
    [("nowhere", "rows", "there is no folder"), ("data", "no-such-model", "no-such-model"), ("data", "rows", None)],
)
def test_wrong_arguments(
    scenes: Path, model: Path, data: str, wanted: str, message: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = model if wanted == "rows" else wanted
    code = evaluate("--data", scenes.parent / data, "--model", chosen)
    assert code == (2 if message else 0)
    if message:
        assert message in capsys.readouterr().err


def test_unwritable_output_is_an_error(
    scenes: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert evaluate("--data", scenes, "--model", model, "--json", tmp_path / "file" / "out.json") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_segmentation_against_mapped_classes(tmp_path: Path) -> None:
    """The model's label is that of the nearest colour: blue is `sky`, black is `ground`."""
    base = tmp_path / "segmentation" / "camvid"
    for kind in ("rgb", "label"):
        (base / kind).mkdir(parents=True)
    bgr = np.zeros((64, 128, 3), np.uint8)
    bgr[:32, :, 0] = 255
    cv2.imwrite(str(base / "rgb" / "x.png"), bgr)
    label = np.full((64, 128), 3, np.uint8)
    label[:32], label[:, 120:] = 0, 11
    cv2.imwrite(str(base / "label" / "x.png"), label)
    (base / "classes.json").write_text(json.dumps(["sky", "building", "pole", "road"]))
    item = {"id": "camvid/x", "task": "semantic_segmentation", "rgb": "rgb/x.png", "mask": "label/x.png"}
    item |= {key: f"segmentation/camvid/{item[key]}" for key in ("rgb", "mask")}
    (tmp_path / "manifest.json").write_text(json.dumps({"items": [item]}))
    model = write_model(tmp_path / "models" / "colours")
    out = tmp_path / "scores.json"
    assert evaluate("--data", tmp_path / "segmentation", "--model", model, "--json", out) == 0
    rows = json.loads(out.read_text())["tasks"]["semantic"]["all"]
    assert rows["model"]["miou"] > 0.9
    assert rows["model"]["boundary_f1"] > 0.9
    assert rows["majority_class"]["miou"] == pytest.approx(0.25)
    assert rows["majority_class_per_row"]["miou"] == 1.0
