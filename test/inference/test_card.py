"""Every rule of the model card, on real folders: what breaks it is named with file and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from model_factory import TASKS, edit_card, write_model
from sampled_model_factory import write_prompted_model, write_sampled_model

from diffusion_perception_ros.inference.card import (
    CARD_NAME,
    AlphaOutput,
    CardError,
    ColorClustering,
    DdimSampler,
    DepthOutput,
    EulerFlowSampler,
    FlowOutput,
    Graphs,
    ImageInput,
    InputSize,
    InstancesOutput,
    Joint,
    KeypointsOutput,
    Label,
    LcmSampler,
    LicenceTerms,
    ModelCard,
    NoiseInput,
    NormalsOutput,
    PictureOutput,
    PointsInput,
    SemanticOutput,
    Source,
    read_card,
    write_card,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny")


def outputs_of(model: Path) -> list[dict[str, Any]]:
    return yaml.safe_load((model / CARD_NAME).read_text())["outputs"]


def change_output(model: Path, task: str, **changes: Any) -> None:
    edit_card(model, outputs=[entry | changes if entry["task"] == task else entry for entry in outputs_of(model)])


def test_reads_what_it_writes(model: Path) -> None:
    card = read_card(model)
    assert card.tasks == TASKS
    assert [label.id for label in card.labels] == [0, 1, 2, 7]
    write_card(card, model)
    assert read_card(model) == card
    assert sorted(path.name for path in model.iterdir()) == ["model.onnx", CARD_NAME]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 3}, "newer than this package understands"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"licence": ...}, "licence: Field required"),
        ({"name": "Has Spaces"}, "name: String should match"),
        ({"precision": "fp8"}, "precision: Input should be"),
        ({"opset": 7}, "opset: Input should be greater"),
        ({"outputs": []}, "outputs: Tuple should have at least 1"),
        ({"files": {}}, "lacks the sha256 of the graph 'model.onnx'"),
        ({"files": {"../secret": "0", "model.onnx": "0"}}, "must stay inside the model folder"),
        ({"files": {"/etc/passwd": "0", "model.onnx": "0"}}, "must stay inside the model folder"),
    ],
)
def test_wrong_field_is_named(model: Path, changes: dict[str, Any], words: str) -> None:
    edit_card(model, **changes)
    with pytest.raises(CardError, match=CARD_NAME) as error:
        read_card(model)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("task", "changes", "words"),
    [
        ("depth", {"quantity": "metric_depth"}, "metric_depth needs 'unit: m'"),
        ("depth", {"quantity": "metric_depth", "unit": "m", "range": [-1.0, 1.0]}, "cannot be negative"),
        ("depth", {"unit": "m"}, "relative_depth has neither 'unit' nor 'focal_scale'"),
        ("depth", {"focal_scale": 0.1}, "relative_depth has neither 'unit' nor 'focal_scale'"),
        ("depth", {"range": [1.0, 1.0]}, "is empty"),
        ("depth", {"quantity": "inverse"}, "quantity: Input should be"),
        ("normals", {"axes": ["right", "left", "forward"]}, "three directions once each"),
        ("normals", {"axes": ["right", "down"]}, "axes"),
        ("instances", {"offset_scale": 0.0}, "offset_scale: Input should be greater than 0"),
        ("semantic", {"labels": []}, "labels: Tuple should have at least 1"),
        ("semantic", {"labels": [{"id": 1, "name": n, "color": [0, 0, 0]} for n in "ab"]}, "label id used twice: 1"),
        (
            "semantic",
            {"labels": [{"id": i, "name": "a", "color": [0] * 3} for i in (1, 2)]},
            "label name used twice",
        ),
        ("semantic", {"labels": [{"id": 1, "name": "a", "color": [0, 0, 256]}]}, "0 to 255"),
    ],
)
def test_contradiction_in_an_output_is_named(model: Path, task: str, changes: dict[str, Any], words: str) -> None:
    change_output(model, task, **changes)
    with pytest.raises(CardError) as error:
        read_card(model)
    assert words in str(error.value)


def test_tasks_must_be_different(model: Path) -> None:
    edit_card(model, outputs=outputs_of(model)[:1] + outputs_of(model)[:1])
    with pytest.raises(CardError, match="every task appears once"):
        read_card(model)


def test_instances_need_semantics(model: Path) -> None:
    edit_card(model, outputs=outputs_of(model)[3:])
    with pytest.raises(CardError, match="'instances' needs 'semantic'"):
        read_card(model)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ({"rule": "fixed", "width": 64}, "needs 'height'"),
        ({"rule": "fixed", "width": 64, "height": 64, "area": 9}, "has no use for 'area'"),
        ({"rule": "fixed", "width": 70, "height": 64, "multiple_of": 32}, "not a multiple of 32"),
        ({"rule": "longest_side"}, "needs 'longest_side'"),
        ({"rule": "area", "longest_side": 5}, "has no use for 'longest_side'"),
        ({"rule": "shortest_side"}, "rule"),
    ],
)
def test_size_rule_is_checked(size: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        InputSize(**size)


@pytest.mark.parametrize(
    ("size", "picture", "expected"),
    [
        ({"rule": "fixed", "width": 96, "height": 64}, (1000, 10), (96, 64)),
        ({"rule": "longest_side", "longest_side": 320, "multiple_of": 32}, (640, 480), (320, 256)),
        ({"rule": "longest_side", "longest_side": 320, "multiple_of": 32}, (480, 640), (256, 320)),
        ({"rule": "longest_side", "longest_side": 320, "multiple_of": 32}, (5000, 1), (320, 32)),
        ({"rule": "area", "area": 320 * 240, "multiple_of": 16}, (640, 480), (320, 240)),
        ({"rule": "area", "area": 320 * 240, "multiple_of": 16}, (20, 20), (272, 272)),
    ],
)
def test_size_rules(size: dict[str, Any], picture: tuple[int, int], expected: tuple[int, int]) -> None:
    assert InputSize(**size).size_for(*picture) == expected


def test_altered_graph_is_refused(model: Path) -> None:
    with (model / "model.onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(CardError, match=r"model\.onnx does not match its card: sha256"):
        read_card(model)
    assert read_card(model, verify_files=False).name == "tiny"


def test_missing_graph_is_named(model: Path) -> None:
    (model / "model.onnx").unlink()
    with pytest.raises(CardError, match=r"model\.onnx is named by .* but cannot be read"):
        read_card(model)


def test_folder_without_a_card(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=f"has no {CARD_NAME}"):
        read_card(tmp_path)


@pytest.mark.parametrize("content", [b"outputs: [", b"\xff\xfe\x00", b"", b"- 1"])
def test_card_that_is_no_mapping(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CARD_NAME).write_bytes(content)
    with pytest.raises(CardError, match=CARD_NAME):
        read_card(tmp_path)


def test_the_bundled_model_is_whole() -> None:
    folder = Path(__file__).resolve().parents[2] / "models" / "onestep-s"
    card = read_card(folder)
    assert card.name == folder.name
    assert set(card.tasks) == {"depth", "normals", "semantic", "instances"}
    assert (folder / "README.md").is_file()


def test_cards_of_every_kind_are_read_as_written(tmp_path: Path) -> None:
    drawing = ["semantic", "instances", "keypoints", "albedo", "shading", "alpha", "flow", "mask"]
    for folder in (
        write_sampled_model(tmp_path / "sampled", sampler={"ensemble_size": 3}),
        write_prompted_model(tmp_path / "prompted", drawing, prompts=["second_image", "points", "prompt_mask"]),
    ):
        card = read_card(folder)
        write_card(card, folder)
        assert read_card(folder) == card


def test_cards_of_schema_1_remain_valid(model: Path) -> None:
    edit_card(model, schema_version=1)
    card = read_card(model)
    write_card(card, model)
    assert read_card(model) == card
    assert card.graph_files == {"fused": "model.onnx"}


@pytest.mark.parametrize("task", ["alpha", "semantic", "instances", "keypoints"])
def test_new_outputs_need_schema_2(tmp_path: Path, task: str) -> None:
    folder = write_prompted_model(tmp_path / "tiny", [task], card={"schema_version": 1})
    with pytest.raises(CardError, match=f"output of the task '{task}' needs schema_version 2"):
        read_card(folder)


def test_the_description_of_the_card_names_every_field() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "model_card.md").read_text(encoding="utf-8")
    parts = [AlphaOutput, ColorClustering, DdimSampler, DepthOutput, EulerFlowSampler, FlowOutput, Graphs, ImageInput]
    parts += [InputSize, InstancesOutput, Joint, KeypointsOutput, Label, LcmSampler, LicenceTerms, ModelCard]
    parts += [NoiseInput, NormalsOutput, PictureOutput, PointsInput, SemanticOutput, Source]
    fields = {name for part in parts for name in part.model_fields}
    assert not {name for name in fields if name not in text}


def test_the_example_of_the_description_is_a_card() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "model_card.md").read_text(encoding="utf-8")
    whole, drawing, sampled, noise = (yaml.safe_load(block.split("```")[0]) for block in text.split("```yaml\n")[1:])
    ModelCard.model_validate(whole)
    ModelCard.model_validate(whole | drawing)
    assert ModelCard.model_validate(whole | noise).noise is not None
    graphs = {"graph": None, "files": dict.fromkeys(sampled["graphs"].values(), "0")}
    assert ModelCard.model_validate(whole | sampled | graphs).sampler is not None


@pytest.mark.parametrize("width", [1, 7, 480, 1920, 8000, 100_000, 1_000_000])
@pytest.mark.parametrize("height", [1, 31, 640, 1080, 8000, 1_000_000])
def test_no_aspect_makes_the_graphs_input_larger_than_its_area(width: int, height: int) -> None:
    size = InputSize(rule="area", area=49152, multiple_of=32)
    columns, rows = size.size_for(width, height)
    assert columns % 32 == rows % 32 == 0
    assert 32 * 32 <= columns * rows <= 1.5 * 49152
