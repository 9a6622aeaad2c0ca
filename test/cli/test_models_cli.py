"""Where models are found, and `diffusion-perception models`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from model_factory import edit_card, write_model

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.models import DEFAULT_MODEL, MODELS_VARIABLE, find_model, list_models


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without models, a working directory without models, and one folder of the user's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "mine"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_the_default_model_is_found_without_any_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)
    assert find_model(DEFAULT_MODEL).name == DEFAULT_MODEL


def test_the_users_folders_come_first(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = write_model(elsewhere / "prefix/share/diffusion_perception_ros/models/tiny")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{elsewhere}/none{os.pathsep}{elsewhere}/prefix")
    assert find_model("tiny") == installed
    home = write_model(elsewhere / "home/.local/share/diffusion_perception_ros/models/tiny")
    assert find_model("tiny") == home
    second = write_model(elsewhere / "second/tiny")
    monkeypatch.setenv(MODELS_VARIABLE, f"{elsewhere}/mine{os.pathsep}{second.parent}")
    assert find_model("tiny") == second
    assert [entry.folder for entry in list_models() if entry.name == "tiny"] == [second]
    mine = write_model(elsewhere / "second" / DEFAULT_MODEL)
    assert find_model(DEFAULT_MODEL) == mine


def test_a_path_is_taken_as_it_is(elsewhere: Path) -> None:
    folder = write_model(elsewhere / "work" / "sub" / "tiny")
    assert find_model("sub/tiny") == Path("sub/tiny")
    assert find_model(folder) == folder
    os.chdir("sub")
    assert find_model("tiny") == Path("tiny")
    assert find_model("./tiny") == Path("tiny")


def test_unknown_models_are_named_with_what_exists(elsewhere: Path) -> None:
    write_model(elsewhere / "mine" / "tiny")
    with pytest.raises(InputError, match=f"no model 'tyni'; models found: .*tiny.*; searched: {elsewhere}/mine, "):
        find_model("tyni")
    with pytest.raises(InputError, match="no model folder /nowhere/tiny"):
        find_model("/nowhere/tiny")
    with pytest.raises(InputError, match="name is empty"):
        find_model("")


def test_list(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(elsewhere / "mine" / "tiny")
    assert main(["models", "list", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed.keys() >= {"tiny", DEFAULT_MODEL}
    tiny = listed["tiny"]
    assert tiny["folder"] == str(elsewhere / "mine" / "tiny")
    assert tiny["bytes"] == sum(file.stat().st_size for file in (elsewhere / "mine" / "tiny").iterdir())
    assert tiny["tasks"] == {
        "depth": "relative_depth",
        "normals": "normals",
        "semantic": "semantic",
        "instances": "instances",
    }
    assert (tiny["family"], tiny["precision"], tiny["licence"]) == ("test", "fp32", "Apache-2.0")
    assert main(["models", "list"]) == 0
    assert "tiny" in capsys.readouterr().out


def test_list_goes_on_past_a_broken_card(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(elsewhere / "mine" / "good")
    edit_card(write_model(elsewhere / "mine" / "newer"), schema_version=99)
    assert main(["models", "list", "--json"]) == 1
    output = capsys.readouterr()
    listed = {entry["name"]: entry["error"] for entry in json.loads(output.out)}
    assert listed["good"] is None
    assert "schema_version 99 is newer" in listed["newer"]
    assert "newer/model.yaml" in output.err


def test_show(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(elsewhere / "mine" / "tiny")
    assert main(["models", "show", "tiny"]) == 0
    assert "quantity: relative_depth" in capsys.readouterr().out
    assert main(["models", "show", "tiny", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["card"]["input"]["size"]["longest_side"] == 128
    assert main(["models", "show", "absent"]) == 2
    assert "no model 'absent'" in capsys.readouterr().err


def test_verify_runs_the_graph(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_model(elsewhere / "mine" / "tiny")
    assert main(["models", "verify", "tiny", "--backend", "cpu"]) == 0
    assert "tiny: ok" in capsys.readouterr().out
    assert main(["models", "verify", str(folder), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["error"] is None
    assert result["milliseconds"] > 0
    assert result["backend"] == "onnxruntime-cpu"


def test_verify_names_what_is_wrong(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(elsewhere / "mine" / "good")
    altered = write_model(elsewhere / "mine" / "altered")
    shutil.copy(write_model(elsewhere / "other", tasks=["depth"]) / "model.onnx", altered)
    write_model(elsewhere / "mine" / "failing", depth="broken")
    assert main(["models", "verify", "good", "altered", "failing", "absent"]) == 1
    output = capsys.readouterr()
    assert "good: ok" in output.out
    for words in ("does not match its card", "failing: onnxruntime-cpu failed", "no model 'absent'"):
        assert words in output.err
    assert main(["models", "verify", "altered"]) == 2


def test_the_bundled_model_verifies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify", DEFAULT_MODEL]) == 0
    assert f"{DEFAULT_MODEL}: ok" in capsys.readouterr().out
