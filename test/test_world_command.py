"""From seeds to shards and sheets, through the command and the function behind it, with real worker processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.datasets.shard_rendering import render_shards
from diffusion_perception_ros.datasets.shards import ShardDataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.world.config import WorldConfig
from diffusion_perception_ros.world.generate import render_sample


SIZE = (64, 48)


def assert_same(a, b) -> None:
    for name in ("rgb", "semantic", "instances"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_allclose(a.depth, b.depth, rtol=5e-4)


def test_the_command_writes_shards_and_continues_what_was_cut(tmp_path: Path, capsys) -> None:
    arguments = ["world", "-o", str(tmp_path), "--count", "5", "--seed", "40", "--size", "64x48"]
    arguments += ["--shard", "2", "--workers", "2", "--json"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["written"], report["kept"]) == (5, 0)
    dataset = ShardDataset(tmp_path)
    assert [sample.name for sample in dataset] == [f"seed {seed}" for seed in range(40, 45)]
    assert_same(dataset[3], render_sample(43, WorldConfig(), *SIZE))

    (dataset.folders[1] / "shard.json").unlink()  # as if the run had been cut there
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["written"], report["kept"]) == (2, 3)
    again = ShardDataset(tmp_path)
    for index in range(5):
        assert_same(again[index], dataset[index])


def test_shards_of_another_config_are_not_mixed_in(tmp_path: Path, capsys) -> None:
    render_shards(WorldConfig(), range(1), SIZE, tmp_path)
    with pytest.raises(InputError, match="other seeds, size or config"):
        render_shards(WorldConfig(), range(1), (48, 48), tmp_path)
    assert main(["world", "-o", str(tmp_path), "--count", "1", "--size", "64x48", "--supersample", "2"]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    killed = []

    def kill_one(done: int) -> None:
        children = multiprocessing.active_children()
        if children and not killed:
            killed.append(children[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    report = render_shards(WorldConfig(), range(3), SIZE, tmp_path, workers=2, shard_size=2, on_progress=kill_one)
    assert killed
    assert report.restarts == 1
    assert report.written == 3
    assert len(ShardDataset(tmp_path)) == 3


def test_the_contact_sheet_shows_every_modality(tmp_path: Path, capsys) -> None:
    sheet = tmp_path / "new" / "sheet.png"
    assert main(["world", "--sheet", str(sheet), "--count", "2", "--size", "64x48"]) == 0
    picture = cv2.imread(str(sheet))
    assert picture.shape[0] >= 2 * 48
    assert picture.shape[1] >= 5 * 64
    for row in range(2):
        for column in range(5):
            tile = picture[row * 52 : row * 52 + 48, column * 68 : column * 68 + 64]
            assert len(np.unique(tile.reshape(-1, 3), axis=0)) > 1
    assert os.listdir(sheet.parent) == ["sheet.png"]


def test_wrong_input_is_named(tmp_path: Path, capsys) -> None:
    config = tmp_path / "world.yaml"
    config.write_text("mixture: {rooms: 1}\n")
    assert main(["world", "--sheet", "x.png", "--config", str(config)]) == 2
    assert "mixture.rooms" in capsys.readouterr().err
    assert main(["world"]) == 2
    assert "--sheet" in capsys.readouterr().err
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main(["world", "-o", str(blocked / "below"), "--count", "1", "--size", "64x48"]) == 2
    assert str(blocked) in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["world", "-o", str(tmp_path), "--size", "64by48"])


def test_a_full_or_missing_disk_leaves_finished_shards_alone(tmp_path: Path) -> None:
    render_shards(WorldConfig(), range(2), SIZE, tmp_path, shard_size=1)
    shutil.rmtree(tmp_path / "seed-000000001")
    (tmp_path / "seed-000000001").write_text("in the way")
    with pytest.raises(InputError, match="seed-000000001"):
        render_shards(WorldConfig(), range(2), SIZE, tmp_path, shard_size=1)
    assert len(ShardDataset(tmp_path)) == 1
