"""What is said of a model's licence."""

from __future__ import annotations

from pathlib import Path

from model_factory import edit_card, write_model

from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.licences import notice


def test_a_non_commercial_model_says_so(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    assert notice(read_card(folder)) is None
    terms = {"spdx": "BSD-2-Clause", "non_commercial": True, "url": "https://example.org/terms"}
    edit_card(folder, schema_version=2, licence_terms=terms)
    assert notice(read_card(folder)) == (
        "the weights of model 'tiny' are for non-commercial use only (BSD-2-Clause, see https://example.org/terms)"
    )
    edit_card(folder, licence_terms=terms | {"non_commercial": False})
    assert notice(read_card(folder)) is None
