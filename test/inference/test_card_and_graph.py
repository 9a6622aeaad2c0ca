"""A card that does not describe its graph is refused when the model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from model_factory import LABELS, edit_card, write_model

from diffusion_perception_ros.inference.card import CardError, sha256_of
from diffusion_perception_ros.inference.estimator import Estimator


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"graph": "absent.onnx", "files": {"absent.onnx": "0"}}, r"absent\.onnx .*cannot be read"),
        ({"noise": {"tensor": "noise", "channels": 4, "downscale": 8}}, "names the input 'noise', .* has image"),
        ({"input": {"tensor": "pixels"}}, "names the input 'pixels', .* has image"),
        (
            {"outputs": {"depth": {"tensor": "distance"}}},
            "names the output 'distance', .* has depth, depth_confidence",
        ),
        ({"outputs": {"depth": {"tensor": "normals"}}}, r"'normals' of .* has the shape .*implies 1 x 1 x any x any"),
        ({"outputs": {"depth": {"confidence_tensor": "semantic"}}}, "'semantic' of .* has the shape"),
        ({"outputs": {"semantic": {"labels": [LABELS[0].model_dump(mode="json")]}}}, "'semantic' .* implies 1 x 1"),
    ],
)
def test_card_and_graph_must_agree(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    folder = write_model(tmp_path / "tiny")
    fields = yaml.safe_load((folder / "model.yaml").read_text())
    if "outputs" in changes:
        changes = {"outputs": [entry | changes["outputs"].get(entry["task"], {}) for entry in fields["outputs"]]}
    if "input" in changes:
        changes = {"input": fields["input"] | changes["input"]}
    edit_card(folder, **changes)
    with pytest.raises(CardError, match=words):
        Estimator.load(folder, "cpu")


def test_graph_input_that_the_card_does_not_mention(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny", noise={"tensor": "noise", "channels": 4, "downscale": 8})
    edit_card(folder, noise=...)
    with pytest.raises(CardError, match="needs the input 'noise', which its card does not mention"):
        Estimator.load(folder, "cpu")


def test_graph_that_is_no_graph(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    (folder / "model.onnx").write_bytes(b"not a graph")
    edit_card(folder, files={"model.onnx": sha256_of(folder / "model.onnx")})
    with pytest.raises(CardError, match=r"model\.onnx cannot be used as an ONNX graph: "):
        Estimator.load(folder, "cpu")
