"""Data sets as published, written by the test in their authors' layouts: each is found, and its depth is in metres."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from diffusion_perception_ros.datasets.frames import open_frames
from diffusion_perception_ros.datasets.open import open_dataset
from diffusion_perception_ros.errors import InputError


WIDTH, HEIGHT = 40, 30
METRES = np.linspace(1.0, 4.0, WIDTH * HEIGHT, dtype=np.float32).reshape(HEIGHT, WIDTH)


def color(path: Path, width: int = WIDTH, height: int = HEIGHT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), (30, 60, 90), np.uint8))


def depth(path: Path, per_metre: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.rint(METRES * per_metre).astype(np.uint16)
    values[:2] = 0
    cv2.imwrite(str(path), values)


def words(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def tum(root: Path) -> None:
    lines: dict[str, list[str]] = {
        "rgb": ["# color images", "# file: 'x.bag'", "# timestamp filename"],
        "depth": ["#"],
    }
    for index in range(4):
        color(root / f"rgb/{index}.png")
        lines["rgb"].append(f"{100 + index / 30:.6f} rgb/{index}.png")
        if index != 2:
            depth(root / f"depth/{index}.png", 5000)
            lines["depth"].append(f"{100.01 + index / 30:.6f} depth/{index}.png")
    for name, rows in lines.items():
        words(root / f"{name}.txt", "\n".join(rows) + "\n")


def seven_scenes(root: Path) -> None:
    for index in range(3):
        color(root / f"seq-01/frame-00000{index}.color.png")
        depth(root / f"seq-01/frame-00000{index}.depth.png", 1000)
        words(root / f"seq-01/frame-00000{index}.pose.txt", "1 0 0 0")


def scannet(root: Path) -> None:
    for index in (0, 1, 10):
        color(root / f"scene0000_00/color/{index}.jpg", 2 * WIDTH, 2 * HEIGHT)
        depth(root / f"scene0000_00/depth/{index}.png", 1000)
    words(root / "scene0000_00/intrinsic/intrinsic_color.txt", "80 0 39.5 0\n0 82 29.5 0\n0 0 1 0\n0 0 0 1\n")


def scannetpp(root: Path) -> None:
    base = root / "scene/iphone"
    frames = {}
    for index in range(3):
        color(base / f"rgb/frame_00000{index}.jpg", 3 * WIDTH, 3 * HEIGHT)
        depth(base / f"depth/frame_00000{index}.png", 1000)
        frames[f"frame_00000{index}"] = {"intrinsic": [[120, 0, 59.5], [0, 123, 44.5], [0, 0, 1]]}
    words(base / "pose_intrinsic_imu.json", json.dumps(frames))


def redwood(root: Path) -> None:
    for index in range(3):
        color(root / f"rgb/000000{index}-{33333 * index:012d}.jpg")
        depth(root / f"depth/000000{index}-{33333 * index + 5000:012d}.png", 1000)


def redwood_simulated(root: Path) -> None:
    for index in range(3):
        color(root / f"livingroom1-color/0000{index}.jpg")
        depth(root / f"livingroom1-depth/0000{index}.png", 1000)


def kitti_selection(root: Path) -> None:
    drive = "2011_09_26_drive_0002_sync"
    for index in range(3):
        color(root / f"image/{drive}_image_000000000{index}_image_02.png")
        depth(root / f"groundtruth_depth/{drive}_groundtruth_depth_000000000{index}_image_02.png", 256)
        words(root / f"intrinsics/{drive}_image_000000000{index}_image_02.txt", "40 0 19.5 0 41 14.5 0 0 1")


def kitti_tree(root: Path) -> None:
    drive = "2011_09_26_drive_0001_sync"
    for index in range(3):
        depth(root / f"train/{drive}/proj_depth/groundtruth/image_02/000000000{index}.png", 256)
        color(root / f"2011_09_26/{drive}/image_02/data/000000000{index}.png")


def ibims(root: Path) -> None:
    for index in range(3):
        color(root / f"rgb/room_0{index}.png")
        depth(root / f"depth/room_0{index}.png", 65535 / 50)
        words(root / f"calib/room_0{index}.txt", "40,41,19.5,14.5")
        for name in ("mask_invalid", "mask_transp"):
            (root / name).mkdir(exist_ok=True)
            mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
            mask[:, 0] = 0
            cv2.imwrite(str(root / f"{name}/room_0{index}.png"), mask)


def diode(root: Path) -> None:
    for index in range(3):
        base = root / "indoors/scene_00019/scan_00183"
        color(base / f"0_{index}.png")
        values, mask = METRES[..., None].copy(), np.ones((HEIGHT, WIDTH))
        mask[:2] = 0
        np.save(base / f"0_{index}_depth.npy", values)
        np.save(base / f"0_{index}_depth_mask.npy", mask)


def eth3d(root: Path) -> None:
    for index in range(3):
        color(root / f"courtyard/images/dslr_images/DSC_{index}.JPG")
        values = METRES.copy()
        values[:2] = np.inf
        path = root / f"courtyard/ground_truth_depth/dslr_images/DSC_{index}.JPG"
        path.parent.mkdir(parents=True, exist_ok=True)
        values.tofile(path)


def nyu_files(root: Path) -> None:
    for index in range(3):
        color(root / f"kitchen/rgb_0000{index}.jpg")
        depth(root / f"kitchen/sync_depth_0000{index}.png", 1000)


LAYOUTS: dict[str, tuple[Callable[[Path], None], float | None]] = {
    "TUM": (tum, None),
    "7-Scenes": (seven_scenes, 585.0),
    "ScanNet's": (scannet, 40.0),
    "ScanNet++": (scannetpp, 40.0),
    "Redwood": (redwood, 525.0),
    "Redwood's": (redwood_simulated, 525.0),
    "KITTI": (kitti_selection, 40.0),
    "KITTI depth": (kitti_tree, None),
    "iBims-1": (ibims, 40.0),
    "DIODE": (diode, 886.81),
    "ETH3D": (eth3d, None),
    "NYU": (nyu_files, 518.8579),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_layouts(tmp_path: Path, name: str) -> None:
    write, focal = LAYOUTS[name]
    root = tmp_path / "data set"
    write(root)
    dataset = open_dataset(root)
    samples = list(dataset)
    assert len(samples) == 3
    assert dataset.skipped == []
    assert name in dataset.notes[0]
    for sample in samples:
        assert sample.rgb.shape == (HEIGHT, WIDTH, 3)
        assert sample.depth is not None
        assert np.isnan(sample.depth[:2]).all()
        np.testing.assert_allclose(sample.depth[2:, 1:], METRES[2:, 1:], atol=0.003)
        assert (sample.intrinsics and sample.intrinsics.fx) == (focal and pytest.approx(focal))
    assert len(list(open_frames(root))) == 3


def test_what_a_layout_lacks_is_said(tmp_path: Path) -> None:
    tum(tmp_path)
    assert "1 of 4 images have no depth within 0.02 s" in " ".join(open_dataset(tmp_path).notes)
    (tmp_path / "depth/1.png").write_bytes(b"")
    dataset = open_dataset(tmp_path)
    assert len(list(dataset)) == 2
    assert "depth/1.png is empty" in dataset.skipped[0].reason
    words(tmp_path / "depth.txt", "100.0\n")
    with pytest.raises(InputError, match=r"depth\.txt:1 is not 'timestamp filename'"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("content", ["[]", '{"frame_000000": {"intrinsic": [1]}}', "{"])
def test_poses_of_scannetpp_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    scannetpp(tmp_path)
    words(tmp_path / "scene/iphone/pose_intrinsic_imu.json", content)
    with pytest.raises(InputError, match=r"pose_intrinsic_imu\.json cannot be read"):
        open_dataset(tmp_path)


def test_kitti_without_its_colour_images(tmp_path: Path) -> None:
    depth(tmp_path / "val/2011_09_26_drive_0001_sync/proj_depth/groundtruth/image_02/0000000005.png", 256)
    with pytest.raises(InputError, match="put KITTI's raw drive 2011_09_26_drive_0001_sync"):
        open_dataset(tmp_path)


def test_tum_intrinsics_follow_the_name_of_the_folder(tmp_path: Path) -> None:
    tum(tmp_path / "rgbd_dataset_freiburg2_desk")
    sample = open_dataset(tmp_path / "rgbd_dataset_freiburg2_desk")[0]
    assert sample.intrinsics is not None
    assert sample.intrinsics.fx == 520.9


def test_the_matlab_file_of_nyu(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = np.zeros((2, 3, WIDTH, HEIGHT), np.uint8)
        file["depths"] = np.stack([METRES.T, METRES.T])
    dataset = open_dataset(tmp_path / "nyu_depth_v2_labeled.mat")
    assert len(dataset) == 2
    np.testing.assert_array_equal(dataset[1].depth, METRES)  # type: ignore[arg-type]
    (tmp_path / "other.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(InputError, match=r"other\.mat is not nyu_depth_v2_labeled\.mat"):
        open_dataset(tmp_path / "other.mat")
