"""`models wrap`: graphs in the layouts of published exports become model folders that mean what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto
from third_party_graphs import CLASSES, GRAPHS, channels_last, depth_anything_v2, segformer

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.sample import Intrinsics


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))


def wrap(file: Path, output: str, *options: str) -> int:
    return main(["models", "wrap", str(file), "-o", output, "--licence", "Apache-2.0", *options])


@pytest.mark.parametrize("family", GRAPHS)
def test_published_layouts(tmp_path: Path, family: str) -> None:
    write, options, tasks = GRAPHS[family]
    assert wrap(write(tmp_path / "x.onnx"), "wrapped", *options) == 0
    card = read_card(tmp_path / "wrapped")
    assert (card.family, set(card.tasks)) == (family, tasks)
    assert list((tmp_path / "wrapped-preview").glob("*.png"))
    rgb = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    prediction = Estimator.load(str(tmp_path / "wrapped"), "cpu").predict(
        rgb, Intrinsics(320, 240, 300, 300, 160, 120)
    )
    if "normals" in tasks:
        assert np.nanmax(np.abs(np.linalg.norm(prediction.normals, axis=-1) - 1)) < 1e-3  # type: ignore[arg-type]
    if "depth" in tasks:
        depth = prediction.depth if prediction.depth is not None else prediction.depth_relative
        assert depth is not None
        assert depth.shape == (240, 320)
        assert np.isfinite(depth).all()
        assert np.ptp(depth) > 0.1
    if "semantic" in tasks:
        assert set(np.unique(prediction.semantic)) <= set(range(7))
        assert card.labels[0].name == "road (0)"


def test_the_values_are_those_of_the_graph(tmp_path: Path) -> None:
    file = depth_anything_v2(tmp_path / "x.onnx")
    assert wrap(file, "metric", "--quantity", "metric_depth", "--size", "56x42") == 0
    rgb = np.random.default_rng(1).integers(0, 256, (42, 56, 3), np.uint8)
    prediction = Estimator.load(str(tmp_path / "metric"), "cpu").predict(rgb)
    image = ((rgb / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32).transpose(2, 0, 1)[None]
    (expected,) = onnxruntime.InferenceSession(str(file)).run(None, {"pixel_values": image})
    np.testing.assert_allclose(prediction.depth, expected[0], rtol=1e-4)


def test_metric3d_follows_the_focal_length(tmp_path: Path) -> None:
    assert wrap(GRAPHS["metric3d"][0](tmp_path / "x.onnx"), "wrapped") == 0
    estimator = Estimator.load(str(tmp_path / "wrapped"), "cpu")
    rgb = np.random.default_rng(0).integers(0, 256, (308, 532, 3), np.uint8)
    near, far = (estimator.predict(rgb, Intrinsics(532, 308, f, f, 266, 154)).depth for f in (250.0, 500.0))
    np.testing.assert_allclose(far, 2 * near, rtol=1e-4)  # type: ignore[operator]
    assert estimator.predict(rgb).depth is None


@pytest.mark.parametrize("opset", [12, 17, 18, 20])
def test_every_opset_and_half_precision(tmp_path: Path, opset: int) -> None:
    file = depth_anything_v2(tmp_path / "x.onnx", max(opset, 13), TensorProto.FLOAT16, image="image")
    assert wrap(file, "wrapped", "--quantity", "relative_depth") == 0
    assert read_card(tmp_path / "wrapped").precision == "fp16"


def test_channels_last(tmp_path: Path) -> None:
    assert wrap(channels_last(tmp_path / "x.onnx"), "wrapped", "--quantity", "relative_depth") == 0


def test_what_a_graph_cannot_say_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = depth_anything_v2(tmp_path / "x.onnx")
    assert main(["models", "wrap", str(file), "-o", "w"]) == 2
    said = capsys.readouterr().err
    assert "--licence" in said
    assert "--quantity metric_depth|relative_depth|relative_disparity" in said
    assert not (tmp_path / "w").exists()
    (tmp_path / "s").mkdir()
    assert wrap(segformer(tmp_path / "s" / "y.onnx"), "w") == 2
    assert "--labels FILE with the names of the 7 classes" in capsys.readouterr().err
    (tmp_path / "few.txt").write_text("a\nb\n")
    assert wrap(tmp_path / "s" / "y.onnx", "w", "--labels", "few.txt") == 2
    assert "names 2 classes" in capsys.readouterr().err
    names = {str(number): f"class {number}" for number in range(7)}
    (tmp_path / "s" / "config.json").write_text(json.dumps({"id2label": names}))
    assert wrap(tmp_path / "s" / "y.onnx", "w") == 0
    (tmp_path / "z.onnx").write_bytes(b"no graph")
    assert wrap(tmp_path / "z.onnx", "v") == 2
    assert "cannot be read as an ONNX graph" in capsys.readouterr().err
