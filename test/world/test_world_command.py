"""From seeds to shards and sheets, through the command and the function behind it, with real worker processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.datasets.shard_rendering import render_shards
from diffusion_perception_ros.datasets.shards import ShardDataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.world.clip import write_clip
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
    image = cv2.imread(str(sheet))
    assert image.shape[0] >= 2 * 48
    assert image.shape[1] >= 5 * 64
    for row in range(2):
        for column in range(5):
            tile = image[row * 52 : row * 52 + 48, column * 68 : column * 68 + 64]
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


def test_the_clip_is_a_bag_whose_depth_and_transforms_meet_the_floor(tmp_path: Path) -> None:
    """Pixels lifted by depth, camera_info, /tf and /tf_static: nothing lies below the floor, much lies on it."""
    size = write_clip(tmp_path / "clip", frames=2)
    assert sorted(file.name for file in (tmp_path / "clip").iterdir()) == ["clip.mcap", "metadata.yaml"]
    assert [path.name for path in tmp_path.iterdir()] == ["clip"]
    assert size == sum(file.stat().st_size for file in (tmp_path / "clip").iterdir())
    samples = list(BagDataset(tmp_path / "clip"))
    poses, static = [], {}
    with AnyReader([tmp_path / "clip"], default_typestore=get_typestore(Stores.ROS2_KILTED)) as bag:
        assert set(bag.topics) == {
            "/camera/color/image_raw/compressed",
            "/camera/color/camera_info",
            "/camera/depth/image_raw",
            "/camera/depth/camera_info",
            "/tf",
            "/tf_static",
        }
        for connection, _, data in bag.messages():
            if connection.topic in ("/tf", "/tf_static"):
                for stamped in bag.deserialize(data, connection.msgtype).transforms:
                    pair = (stamped.header.frame_id, stamped.child_frame_id)
                    static[pair] = matrix(stamped.transform)
                    if pair == ("map", "camera_link"):
                        poses.append(static[pair])
    assert len(samples) == len(poses) == 2
    optical = static["camera_link", "camera_color_frame"] @ static["camera_color_frame", "camera_color_optical_frame"]
    np.testing.assert_allclose(optical[:3, :3], [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], atol=1e-9)
    for sample, pose in zip(samples, poses, strict=True):
        assert sample.rgb.shape == (480, 640, 3)
        k = sample.intrinsics
        v, u = np.mgrid[:480, :640]
        z = sample.depth
        points = np.stack([(u - k.cx) / k.fx * z, (v - k.cy) / k.fy * z, z], -1)[np.isfinite(z)]
        height = (points @ (pose @ optical)[2, :3]) + pose[2, 3]
        assert height.min() > -0.02
        assert (np.abs(height) < 0.02).mean() > 0.05
    with pytest.raises(InputError, match="exists"):
        write_clip(tmp_path / "clip", frames=2)


def matrix(transform) -> np.ndarray:
    """(4, 4) of a geometry_msgs Transform."""
    q = np.array([transform.rotation.x, transform.rotation.y, transform.rotation.z, transform.rotation.w])
    assert abs(np.linalg.norm(q) - 1) < 1e-9
    angle = 2 * np.arctan2(np.linalg.norm(q[:3]), q[3])
    axis = q[:3] / max(np.linalg.norm(q[:3]), 1e-12)
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(axis * angle)[0]
    pose[:3, 3] = transform.translation.x, transform.translation.y, transform.translation.z
    return pose


def test_without_egl_pytorch_takes_over_and_one_line_says_so(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    command = ["world", "--sheet", str(sheet), "--count", "1", "--size", "64x48"]
    done = subprocess.run(
        [sys.executable, "-m", "diffusion_perception_ros.cli.main", *command],
        env={**os.environ, "__EGL_VENDOR_LIBRARY_FILENAMES": "/nonexistent.json"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sheet.exists()
    assert len([line for line in done.stderr.splitlines() if "libegl1" in line]) == 1
