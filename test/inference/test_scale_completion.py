"""`evaluate --compare`: what is given away, the interpolations that need no model, and the table."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from model_factory import write_model

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.metrics import interpolation as completion
from diffusion_perception_ros.metrics.sparse_patterns import sparse_pattern


HEIGHT, WIDTH = 96, 128


def slanted() -> np.ndarray:
    rows, columns = np.indices((HEIGHT, WIDTH), np.float32)
    return 2 + rows / 100 + columns / 50


@pytest.mark.parametrize("share", [0.005, 0.05])
@pytest.mark.parametrize("pattern", ["random", "rows", "rows16"])
def test_patterns_give_the_share_that_is_asked_for(share: float, pattern: str) -> None:
    depth = slanted()
    depth[:20] = np.nan
    given = sparse_pattern(depth, share, pattern, 3)
    assert np.count_nonzero(given) == pytest.approx(share * np.isfinite(depth).sum(), rel=0.35)
    assert not given[:20].any()
    np.testing.assert_array_equal(given, sparse_pattern(depth, share, pattern, 3))
    if pattern != "random":
        assert len(np.unique(np.nonzero(given)[0])) <= (16 if pattern == "rows16" else 32)


def test_unknown_patterns_are_named() -> None:
    with pytest.raises(InputError, match="spiral"):
        sparse_pattern(slanted(), 0.1, "spiral", 0)


def test_interpolations_are_what_they_say() -> None:
    depth = slanted()
    given = sparse_pattern(depth, 0.05, "random", 0)
    rows, columns = np.nonzero(given)
    distance = (rows - 40) ** 2 + (columns - 70) ** 2
    at_least = depth[given][distance == distance.min()]
    assert completion.nearest(depth, given)[40, 70] in at_least
    inside = np.s_[20:-20, 20:-20]
    np.testing.assert_allclose(completion.linear(depth, given)[inside], depth[inside], rtol=1e-4)
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[:, 64:] = 255
    stepped = np.where(rgb[..., 0] == 0, np.float32(1), np.float32(4))
    np.testing.assert_allclose(completion.joint_bilateral(stepped, given, rgb), stepped, rtol=1e-3)


def test_interpolations_of_every_nth_pixel_are_those_of_the_picture() -> None:
    depth = slanted()
    given = sparse_pattern(depth, 0.05, "random", 0)
    rgb = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    some = np.s_[::3, ::3]
    np.testing.assert_array_equal(completion.nearest(depth, given, 3), completion.nearest(depth, given)[some])
    np.testing.assert_allclose(
        completion.joint_bilateral(depth, given, rgb, 3),
        completion.joint_bilateral(depth, given, rgb)[some],
        rtol=1e-6,
    )


def test_points_on_one_line_have_no_triangles() -> None:
    depth = slanted()
    given = np.zeros(depth.shape, bool)
    given[50, ::10] = True
    np.testing.assert_array_equal(completion.linear(depth, given), completion.nearest(depth, given))


def test_the_table_compares_on_the_remaining_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("rgb", "depth"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    depth = slanted()
    depth[30:70, 40:90] = 1.5
    brightness = np.round(depth * 50).astype(np.uint8)  # the model's depth is the brightness
    cv2.imwrite(str(tmp_path / "data" / "rgb" / "a.png"), cv2.merge([brightness] * 3))
    cv2.imwrite(str(tmp_path / "data" / "depth" / "a.png"), np.round(depth * 1000).astype(np.uint16))
    model = write_model(tmp_path / "model", ["depth"], depth="brightness")
    out = tmp_path / "out.json"
    report = tmp_path / "report"
    command = ["evaluate", "--data", str(tmp_path / "data"), "--model", str(model), "--json", str(out), "--compare"]
    command += ["--report", str(report)]
    assert main([*command, "--sparse", "0.01", "0.05", "--sparse-pattern", "random", "rows16"]) == 0
    printed = capsys.readouterr().out
    assert "joint bilateral" in printed
    entries = json.loads(out.read_text())["completion"]
    assert [(entry["share"], entry["pattern"]) for entry in entries] == [
        (0.01, "random"),
        (0.01, "rows16"),
        (0.05, "random"),
        (0.05, "rows16"),
    ]
    for entry in entries:
        assert entry["methods"]["model"]["absrel"] < 0.05
        assert entry["methods"]["nearest"]["coverage"] == 1.0
    page = (report / "report.html").read_text(encoding="utf-8")
    for title in ("Given depth", "Depth, completed", "Error, joint bilateral", "1% of the pixels given, rows16"):
        assert title in page
    assert main(command) == 2
    assert "--sparse" in capsys.readouterr().err


def test_several_shares_need_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--data", str(tmp_path), "--sparse", "0.1", "0.2"]) == 2
    assert "--compare" in capsys.readouterr().err
    assert main(["evaluate", "--data", str(tmp_path), "--sparse", "0.1", "--temporal"]) == 2
    assert "--temporal" in capsys.readouterr().err
