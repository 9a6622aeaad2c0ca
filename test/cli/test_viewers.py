"""Files for viewers: a Rerun recording holds every map, the Foxglove layout only names what the node publishes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusion_perception_ros.cli.rerun_log import RerunLog
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.sample import Intrinsics, Prediction


ROOT = Path(__file__).resolve().parents[2]


def test_a_rerun_recording(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    log = RerunLog(tmp_path / "new" / "out.rrd", read_card(ROOT / "models" / "onestep-s", verify_files=False))
    rgb = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    normals = np.tile(np.float32([0, 0, -1]), (48, 64, 1))
    for number in range(3):
        prediction = Prediction(depth=np.full((48, 64), 2.0, np.float32), normals=normals)
        prediction.semantic = np.zeros((48, 64), np.uint8)
        log.add(rgb, prediction, Intrinsics(64, 48, 50, 50, 31.5, 23.5), 100.0 + number)
    log.close()
    command = [str(Path(sys.executable).with_name("rerun")), "rrd", "print", str(tmp_path / "new" / "out.rrd")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    for name in ("/camera/image", "image/depth", "image/normals", "image/classes", "/camera/points"):
        assert name in printed


def leaves(layout: Any) -> Iterator[str]:
    if isinstance(layout, str):
        yield layout
    else:
        yield from leaves(layout["first"])
        yield from leaves(layout["second"])


def test_the_foxglove_layout_names_topics_of_the_node() -> None:
    content = json.loads((ROOT / "config" / "foxglove_layout.json").read_text())
    assert sorted(leaves(content["layout"])) == sorted(content["configById"])
    documented = (ROOT / "docs" / "topics.md").read_text()
    for panel in content["configById"].values():
        topics = [*panel.get("topics", {}), *([t] if (t := panel.get("imageMode", {}).get("imageTopic")) else [])]
        topics += [path["value"].partition(".")[0] for path in panel.get("paths", ())]
        for topic in topics:
            assert f"`{topic.removeprefix('/')}`" in documented
