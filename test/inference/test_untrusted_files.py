"""Model folders and configs are data: what is in them is refused in one sentence or read, never waited for or run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from model_factory import edit_card, write_model
from onnx import TensorProto, helper

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.datasets.camera_files import parse_calibration
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import CARD_NAME, CardError, InputSize, read_card, sha256_of
from diffusion_perception_ros.inference.card.external_data import GraphFileError, external_locations
from diffusion_perception_ros.inference.models import MODELS_VARIABLE
from diffusion_perception_ros.safe_files import Limits, parse_yaml
from diffusion_perception_ros.training.config import load_config
from diffusion_perception_ros.world.config import load_config as load_world


HOSTILE = {
    "merge bomb": "a: &a {k: 1}\n" + "".join(f"b{i}: &b{i} {{<<: [*a, *a]}}\n" for i in range(3)),
    "alias bomb": "a: &a [x]\nb: [*a, *a]\n",
    "deep": "[" * 20_000,
    "deep blocks": "- " * 20_000,
    "many values": f"a: [{'1,' * 200_000}1]",
    "large": "#" * (2 << 20),
    "long integer": f"a: {'9' * 5000}",
    "long hexadecimal": f"a: 0x{'f' * 5000}",
    "sexagesimal": f"a: 1{':59' * 100_000}",
    "Python object": "a: !!python/object/apply:os.system [exit]",
    "binary": "a: !!binary =",
    "impossible date": "a: !!timestamp 2024-02-31",
    "key twice": "a: 1\na: 2",
    "list as key": "{[1]: 2}",
    "not closed": 'a: "',
    "no UTF-8": "a: \udcff",
    "control characters": "a: \0",
}
"""Texts of YAML files that no reader may accept, hang on or fail on in another way."""


def write_text(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_refused_by_every_reader(tmp_path: Path, name: str) -> None:
    path = write_text(tmp_path / CARD_NAME, HOSTILE[name])
    for read in (
        lambda: read_card(tmp_path),
        lambda: load_config(path),
        lambda: load_world(path),
        lambda: parse_calibration(str(path)),
    ):
        with pytest.raises(InputError, match=CARD_NAME) as refused:
            read()
        assert len(str(refused.value)) < 1000


def test_dates_stay_text_and_limits_are_the_callers() -> None:
    assert parse_yaml("a: 2024-02-31", "text") == {"a": "2024-02-31"}
    assert parse_yaml("[[1]]", "text", Limits(depth=2)) == [[1]]
    with pytest.raises(InputError, match="deeper than 1 levels"):
        parse_yaml("[[1]]", "text", Limits(depth=1))
    with pytest.raises(InputError, match="more than 2 values"):
        parse_yaml("[1, 2]", "text", Limits(nodes=2))


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    for name in (CARD_NAME, "model.onnx"):
        (folder / name).rename(folder / "kept")
        for make, kind in (
            (lambda path: os.mkfifo(path), "a pipe"),
            (lambda path: path.mkdir(), "a folder"),
            (lambda path: path.symlink_to("/dev/zero"), "a device"),
        ):
            make(folder / name)
            with pytest.raises(CardError, match=f"{name} is {kind}, not a regular file"):
                read_card(folder)
            (folder / name).rmdir() if kind == "a folder" else (folder / name).unlink()
        (folder / "kept").rename(folder / name)
    read_card(folder)
    (folder / "model.onnx").rename(tmp_path / "outside.onnx")
    (folder / "model.onnx").symlink_to(tmp_path / "outside.onnx")
    with pytest.raises(CardError, match=r"is a link to .*outside\.onnx, outside the model folder"):
        read_card(folder)


def test_a_build_that_links_to_its_sources_is_a_model_folder(tmp_path: Path) -> None:
    source = write_model(tmp_path / "tiny")
    installed = tmp_path / "install" / "tiny"
    installed.mkdir(parents=True)
    for path in source.iterdir():
        (installed / path.name).symlink_to(path)
    assert read_card(installed) == read_card(source)


def keep_weights_outside(folder: Path, location: str) -> None:
    """Moves the weights of a written model into a file; the card knows of the graph only."""
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location=location, size_threshold=0)
    edit_card(folder, files={"model.onnx": sha256_of(folder / "model.onnx")})


def test_every_file_that_a_graph_opens_is_hashed(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    keep_weights_outside(folder, "weights.bin")
    with pytest.raises(CardError, match=r"reads the file 'weights\.bin', whose sha256 is not among"):
        read_card(folder)
    edit_card(folder, files={name: sha256_of(folder / name) for name in ("model.onnx", "weights.bin")})
    read_card(folder)
    (folder / "weights.bin").write_bytes(b"other")
    with pytest.raises(CardError, match="does not match its card"):
        read_card(folder)


def external_tensor(location: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def test_external_data_is_found_wherever_onnx_allows_it() -> None:
    def constant(location: str) -> onnx.NodeProto:
        return helper.make_node("Constant", [], ["c"], value=external_tensor(location))

    inner = helper.make_graph([constant("in_branch")], "inner", [], [])
    sparse = onnx.SparseTensorProto(values=external_tensor("sparse_values"), indices=external_tensor("sparse_indices"))
    nodes = [constant("in_node"), helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)]
    graph = helper.make_graph(nodes, "graph", [], [], [external_tensor("weight")], sparse_initializer=[sparse])
    function = helper.make_function("own", "f", [], [], [constant("in_function")], [helper.make_opsetid("", 17)])
    model = helper.make_model(graph, functions=[function])
    model.training_info.add().algorithm.CopyFrom(helper.make_graph([constant("in_training")], "training", [], []))
    expected = {"in_node", "in_branch", "sparse_values", "sparse_indices", "weight", "in_function", "in_training"}
    assert external_locations(model.SerializeToString()) == expected


def test_graphs_that_are_no_graphs() -> None:
    engine = helper.make_graph([helper.make_node("EPContext", [], ["y"], domain="com.microsoft")], "g", [], [])
    with pytest.raises(GraphFileError, match="EPContext, a compiled engine"):
        external_locations(helper.make_model(engine).SerializeToString())
    whole = helper.make_model(helper.make_graph([], "g", [], [], [external_tensor("weight")])).SerializeToString()
    rng = np.random.default_rng(0)
    for content in [whole[:length] for length in range(len(whole))] + [rng.bytes(200) for _ in range(300)]:
        with contextlib.suppress(GraphFileError):  # and no other error
            external_locations(content)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input": {"mean": [float("nan"), 0.5, 0.5]}}, "input.mean.0"),
        ({"input": {"std": [float("inf"), 0.5, 0.5]}}, "input.std.0"),
        ({"outputs": [{"task": "depth", "range": [0.0, float("inf")]}]}, "range"),
        ({"input": {"size": {"rule": "longest_side", "longest_side": 10**9}}}, "longest_side"),
        ({"graph": "model.ort", "files": {"model.ort": "0"}}, "ends in '.onnx'"),
        ({"files": {"model.onnx": "0", "sub/../model.onnx": "0"}}, "must stay inside"),
        ({"files": {"model.onnx": "0", "a\0b": "0"}}, "not how a file"),
    ],
)
def test_values_that_make_no_model(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    folder = write_model(tmp_path / "tiny")
    fields = yaml.safe_load((folder / CARD_NAME).read_text())
    for name, value in changes.items():
        if name == "input":
            fields[name] |= value
        elif name == "outputs":
            fields[name][0] |= value[0]  # type: ignore[index]
        else:
            fields[name] = value
    (folder / CARD_NAME).write_text(yaml.safe_dump(fields))
    with pytest.raises(CardError, match=CARD_NAME) as refused:
        read_card(folder)
    assert words in str(refused.value)


@pytest.mark.parametrize("size", [(100_000, 1), (1, 100_000), (8000, 10), (640, 480), (1, 1)])
def test_the_graphs_input_is_bounded_for_every_aspect(size: tuple[int, int]) -> None:
    rule = InputSize(rule="area", area=50_000, multiple_of=32)
    width, height = rule.size_for(*size)
    assert width % 32 == height % 32 == 0
    assert 32 * 32 <= width * height <= 1.2 * 50_000


def test_list_passes_over_folders_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    write_model(tmp_path / "good")
    for name, text in HOSTILE.items():
        bad = tmp_path / name.replace(" ", "_")
        shutil.copytree(tmp_path / "good", bad)
        write_text(bad / CARD_NAME, text)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / CARD_NAME)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert main(["models", "list", "--json"]) == 1
    listed = {entry["name"]: entry["error"] for entry in json.loads(capsys.readouterr().out)}
    assert listed["good"] is None
    assert all(listed[name.replace(" ", "_")] for name in HOSTILE)
    assert "is a pipe" in listed["pipe"]
