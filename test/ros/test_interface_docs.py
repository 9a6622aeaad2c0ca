"""docs/topics.md and config/perception.yaml say what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from diffusion_perception_ros.inference.image_encodings import COLOR_ENCODINGS
from diffusion_perception_ros.ros.parameters import (
    ParameterTable,
    PerceptionParameters,
    PlayerParameters,
    RecorderParameters,
)
from diffusion_perception_ros.ros.publishers import OUTPUTS


REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = (REPOSITORY / "docs" / "topics.md").read_text(encoding="utf-8")


def chapter(name: str) -> str:
    return DOCUMENT.split(f"\n## {name}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize(
    ("name", "table"),
    [("perception_node", PerceptionParameters), ("bag_player", PlayerParameters), ("recorder", RecorderParameters)],
)
def test_every_parameter_is_in_the_document(name: str, table: type[ParameterTable]) -> None:
    missing = [parameter for parameter in table.model_fields if f"`{parameter}`" not in chapter(name)]
    assert not missing


def test_every_topic_and_encoding_is_in_the_document() -> None:
    assert not [output.topic for output in OUTPUTS if f"| `{output.topic}` |" not in DOCUMENT]
    bayer = "bayer_{rggb,bggr,gbrg,grbg}{8,16}"
    assert bayer in DOCUMENT
    words = DOCUMENT.replace("`", " ").split()
    assert not [name for name in COLOR_ENCODINGS if name not in words and not name.startswith("bayer")]


def test_the_configuration_holds_every_parameter_with_its_default() -> None:
    text = (REPOSITORY / "config" / "perception.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["/**"]["ros__parameters"] == PerceptionParameters().model_dump()
