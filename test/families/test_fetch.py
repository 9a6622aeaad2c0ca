"""The catalogue of published checkpoints, and `diffusion-perception models fetch`, against a hub on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from family_checkpoints import write_lotus
from hub_server import COMMIT, TOKEN, Hub, Repo, running_hub

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.export.options import ExportOptions, check_options, default_size
from diffusion_perception_ros.families import family_module
from diffusion_perception_ros.families.catalogue import find_entry, read_catalogue
from diffusion_perception_ros.inference.backends.mixed_precision import convert_precision, overflowing_nodes
from diffusion_perception_ros.inference.backends.model_graph import ModelGraph
from diffusion_perception_ros.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from diffusion_perception_ros.inference.card import CARD_NAME
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.models import find_model
from diffusion_perception_ros.inference.parity import compare_outputs


LOTUS = "jingheya/lotus-depth-d-v1-0"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
MEGABYTES = 24
"""Of the large file: more than two of the pieces of 10 MiB that the hub's client writes."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with Lotus's layout; models and downloads of this user lie in `tmp_path`."""
    folder = tmp_path / "published"
    for part in ("vae", "unet", "text_encoder", "tokenizer", "scheduler"):
        (folder / part).mkdir(parents=True)
        config = {"tokenizer": "tokenizer_config.json", "scheduler": "scheduler_config.json"}.get(part, "config.json")
        (folder / part / config).write_text("{}")
    for name in ("vae/diffusion_pytorch_model", "text_encoder/model"):
        (folder / f"{name}.safetensors").write_bytes(os.urandom(1000))
        (folder / f"{name}.bin").write_bytes(b"pickled")
        (folder / f"{name}.fp16.safetensors").write_bytes(b"half")
    (folder / WEIGHTS).write_bytes(os.urandom(MEGABYTES << 20))
    (folder / "tokenizer" / "merges.txt").write_text("a b\n")
    (folder / "README.md").write_text("not needed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with running_hub() as server:
        server.repos[LOTUS] = Repo(folder)
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def downloaded(tmp_path: Path, repository: str = LOTUS) -> Path:
    return tmp_path / "cache/diffusion_perception_ros/checkpoints" / repository.replace("/", "--") / COMMIT


def fetch(name: str, *words: str) -> int:
    return main(["models", "fetch", name, "--download-only", *words])


def stalled_fetch(hub: Hub) -> subprocess.Popen[bytes]:
    """A second process that fetches, once the hub has stopped sending to it."""
    command = [sys.executable, "-m", "diffusion_perception_ros.cli.main", "models", "fetch", "lotus-depth-d"]
    process = subprocess.Popen([*command, "--download-only"], stderr=subprocess.DEVNULL)
    while not hub.stalled.wait(0.1):
        assert process.poll() is None
    return process


def test_the_catalogue_is_complete_and_says_what_is_restricted() -> None:
    catalogue = read_catalogue()
    assert {entry.family for entry in catalogue.values()} == {
        "lotus",
        "genpercept",
        "marigold",
        "e2e-ft",
        "diception",
        "scaling",
    }
    restricted = {name for name, entry in catalogue.items() if entry.needs_acceptance}
    assert restricted == {name for name in catalogue if name.startswith(("genpercept", "diception"))}
    assert {name for name, entry in catalogue.items() if entry.gated} == {
        name for name in catalogue if name.startswith("diception")
    }


@pytest.mark.parametrize("name", read_catalogue())
def test_the_catalogue_says_what_the_recipes_say(name: str) -> None:
    entry = find_entry(name)
    recipes = [
        recipe
        for recipe in family_module(entry.family).RECIPES
        if entry.checkpoint.id in recipe.checkpoints and recipe.task == entry.task
    ]
    recipe = recipes[-1 if entry.settings.get("head") == "dpt" else 0]
    assert entry.base is None or entry.base.id == recipe.base
    assert (entry.licence, entry.non_commercial, entry.gated) == (
        recipe.licence.spdx,
        recipe.licence.non_commercial,
        recipe.licence.gated,
    )
    assert entry.quantity == recipe.outputs[0].quantity
    check_options(recipe, ExportOptions(name, entry.checkpoint.id, size=default_size(recipe), steps=entry.steps))


def test_list_available(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--available", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed["lotus-disparity-d"]["quantity"] == "relative_disparity"
    assert main(["models", "list", "--available"]) == 0
    assert "lotus-disparity-d" in capsys.readouterr().out


def test_an_unknown_name_gets_its_neighbours() -> None:
    with pytest.raises(InputError, match=r"no model 'lotus-dept-d'; the nearest are lotus-depth-d, "):
        find_entry("lotus-dept-d")


def test_one_set_of_weights_is_downloaded_and_nothing_twice(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch("lotus-depth-d") == 0
    said = capsys.readouterr().err
    assert f"licence: Apache-2.0; terms: https://huggingface.co/{LOTUS}" in said
    assert f"{LOTUS}@{COMMIT[:12]}: the hub says apache-2.0, 25.2 MB" in said
    folder = downloaded(tmp_path)
    published = hub.repos[LOTUS].files()
    assert {path for path, _ in hub.requests} == {
        path for path in published if not path.endswith((".bin", ".fp16.safetensors", ".md"))
    }
    assert all((folder / path).read_bytes() == published[path] for path, _ in hub.requests)
    hub.requests.clear()
    assert fetch("lotus-depth-d") == 0
    assert not hub.requests


def test_a_cut_connection_is_taken_up_again(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after[WEIGHTS] = 15 << 20
    assert fetch("lotus-depth-d") == 0
    asked = [wanted for path, wanted in hub.requests if path == WEIGHTS]
    assert asked == [None, f"bytes={10 << 20}-"]
    assert (downloaded(tmp_path) / WEIGHTS).read_bytes() == hub.repos[LOTUS].files()[WEIGHTS]


def test_a_killed_download_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    hub.stall_after[WEIGHTS] = 21 << 20
    process = stalled_fetch(hub)
    partial = downloaded(tmp_path) / f"{WEIGHTS}.part"
    while partial.stat().st_size < 20 << 20:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.release.set()
    assert not (downloaded(tmp_path) / WEIGHTS).exists()
    hub.requests.clear()
    assert fetch("lotus-depth-d") == 0
    assert (WEIGHTS, f"bytes={20 << 20}-") in hub.requests
    assert (downloaded(tmp_path) / WEIGHTS).read_bytes() == hub.repos[LOTUS].files()[WEIGHTS]


def test_two_processes_do_not_write_the_same_files(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.stall_after[WEIGHTS] = 1 << 20
    process = stalled_fetch(hub)
    assert fetch("lotus-depth-d") == 2
    assert "another process is downloading to" in capsys.readouterr().err
    process.kill()
    process.wait()


@pytest.mark.parametrize("path", [WEIGHTS, "tokenizer/merges.txt"])
def test_a_wrong_hash_leaves_nothing(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str) -> None:
    hub.altered.add(path)
    assert fetch("lotus-depth-d") == 2
    assert f"{path} of {LOTUS} arrived with another hash than the hub gives for it" in capsys.readouterr().err
    assert not list(downloaded(tmp_path).rglob(f"{Path(path).name}*"))
    hub.altered.clear()
    assert fetch("lotus-depth-d") == 0


def test_a_damaged_file_is_downloaded_again(hub: Hub, tmp_path: Path) -> None:
    assert fetch("lotus-depth-d") == 0
    damaged = downloaded(tmp_path) / "vae/diffusion_pytorch_model.safetensors"
    damaged.write_bytes(b"\0" * damaged.stat().st_size)
    hub.requests.clear()
    assert fetch("lotus-depth-d") == 0
    assert [path for path, _ in hub.requests] == ["vae/diffusion_pytorch_model.safetensors"]


def test_restricted_checkpoints_ask_before_anything_is_downloaded(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    entry = find_entry("diception-disparity")
    assert entry.base is not None
    for part in entry.base.parts:
        (base / part).mkdir(parents=True)
        (base / part / "vocab.json").write_text("{}")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "DICEPTION_v1.pth").write_bytes(b"weights")
    hub.repos |= {entry.checkpoint.id: Repo(tmp_path / "own", licence=None), entry.base.id: Repo(base, gated=True)}
    assert fetch("diception-disparity") == 2
    said = capsys.readouterr().err
    assert "for non-commercial use only and gated" in said
    assert "--accept-licence; nothing was downloaded" in said
    assert fetch("diception-disparity", "--accept-licence") == 2
    assert f"{entry.base.id} is gated: accept its terms on {entry.base.page}, then log in" in capsys.readouterr().err
    assert not hub.requests
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert fetch("diception-disparity", "--accept-licence") == 0
    assert (downloaded(tmp_path, entry.checkpoint.id) / "DICEPTION_v1.pth").read_bytes() == b"weights"


def test_a_licence_that_the_catalogue_does_not_know_of(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.repos[LOTUS].licence = "cc-by-nc-4.0"
    assert fetch("lotus-depth-d") == 2
    assert "lotus-depth-d is under cc-by-nc-4.0, non-commercial" in capsys.readouterr().err
    assert not hub.requests


def test_what_the_publisher_took_away(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch("lotus-depth-g") == 2
    assert "the hub has no repository 'jingheya/lotus-depth-g-v1-0' any more" in capsys.readouterr().err
    assert fetch("lotus-depth-d", "--revision", "v9") == 2
    assert f"{LOTUS} has no revision 'v9'" in capsys.readouterr().err
    (tmp_path / "published" / WEIGHTS).rename(tmp_path / "published/unet/diffusion_pytorch_model.bin")
    assert fetch("lotus-depth-d") == 2
    assert "holds its weights only as diffusion_pytorch_model.bin" in capsys.readouterr().err
    for path in (tmp_path / "published/unet").iterdir():
        path.unlink()
    assert fetch("lotus-depth-d") == 2
    assert f"{LOTUS} has no 'unet' any more" in capsys.readouterr().err


def test_without_network(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert fetch("lotus-depth-d") == 2
    (*_, sentence) = capsys.readouterr().err.strip().splitlines()
    assert sentence.startswith(f"diffusion-perception models: the hub cannot be reached for {LOTUS}")
    assert not (tmp_path / "cache").exists()


def test_an_existing_model_folder_is_kept(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    assert main(["models", "fetch", "lotus-depth-d", "-o", str(tmp_path / "mine")]) == 2
    assert "exists already: choose another folder or give --overwrite" in capsys.readouterr().err
    assert not hub.requests


def test_fetch_ends_in_a_model_that_runs(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.repos[LOTUS] = Repo(write_lotus(tmp_path / "small"))
    assert main(["models", "fetch", "lotus-depth-d", "--size", "64x64"]) == 0
    assert find_model("lotus-depth-d") == tmp_path / "data/diffusion_perception_ros/models/lotus-depth-d"
    estimator = Estimator.load("lotus-depth-d")
    assert estimator.card.source.checkpoint == f"{LOTUS}@{COMMIT[:12]}"
    assert estimator.card.source.command == (
        "diffusion-perception models fetch lotus-depth-d --precision fp32 --size 64x64"
    )
    assert str(tmp_path) not in (find_model("lotus-depth-d") / CARD_NAME).read_text()
    prediction = estimator.predict(np.zeros((48, 64, 3), np.uint8))
    assert prediction.depth_quantity == find_entry("lotus-depth-d").quantity
    assert main(["models", "fetch", "lotus-depth-d"]) == 2
    assert "exists already" in capsys.readouterr().err
    graph = ModelGraph(find_model("lotus-depth-d"), estimator.card)
    inputs = graph.example_inputs()
    convert_precision(graph.path, tmp_path / "fp16.onnx", "fp16", overflowing_nodes(graph.path, inputs))
    (fp32,), (fp16,) = (
        OnnxRuntimeBackend(path).run(inputs, ["depth"]) for path in (graph.path, tmp_path / "fp16.onnx")
    )
    (difference,) = compare_outputs([fp16], {"depth": fp32})
    assert difference.is_acceptable
