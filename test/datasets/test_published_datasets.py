"""Hypersim and Virtual KITTI 2 in small folders of their published layouts, and mixtures of sources to train on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import yaml
from bag_factory import BagSpec, write_bag
from pydantic import TypeAdapter
from toy_rooms import toy_room, write_toy_shard

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.datasets.hypersim import FOCAL, HypersimDataset
from diffusion_perception_ros.datasets.mixture import Mixture
from diffusion_perception_ros.datasets.vkitti2 import VirtualKitti2Dataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import UNLABELLED
from diffusion_perception_ros.training.settings.sources import Sources
from diffusion_perception_ros.training.sources import label_counts, open_sources
from diffusion_perception_ros.world.labels import CLASS_ID


WIDTH, HEIGHT = 64, 48


def write_hypersim_frame(root: Path, scene: str, number: int) -> Path:
    """A wall 3 m away that faces the camera, with its far side's normals on the right half."""
    images = root / scene / "images"
    preview, geometry = images / "scene_cam_00_final_preview", images / "scene_cam_00_geometry_hdf5"
    preview.mkdir(parents=True, exist_ok=True)
    geometry.mkdir(exist_ok=True)
    frame = preview / f"frame.{number:04d}.tonemap.jpg"
    cv2.imwrite(str(frame), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    focal = FOCAL * WIDTH / 1024
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    distance = 3.0 * np.sqrt(((u - 31.5) / focal) ** 2 + ((v - 23.5) / focal) ** 2 + 1.0)
    distance[0, 0] = np.nan
    normals = np.zeros((HEIGHT, WIDTH, 3), np.float16)
    normals[..., 2] = np.where(u < WIDTH // 2, 1.0, -1.0)  # camera axes: x right, y up, z backward
    semantic = np.full((HEIGHT, WIDTH), 1, np.int16)
    semantic[:5], semantic[5:9] = -1, 35  # unlabelled, lamp
    instance = np.full((HEIGHT, WIDTH), -1, np.int16)
    instance[5:9] = 4
    arrays = {"depth_meters": distance.astype(np.float16), "normal_cam": normals, "semantic": semantic}
    for kind, values in {**arrays, "semantic_instance": instance}.items():
        with h5py.File(geometry / f"frame.{number:04d}.{kind}.hdf5", "w") as file:
            file["dataset"] = values
    return frame


def test_hypersim_becomes_planar_depth_and_optical_normals(tmp_path: Path) -> None:
    write_hypersim_frame(tmp_path, "ai_001_001", 0)
    (sample,) = list(HypersimDataset(tmp_path))
    assert np.isnan(sample.depth[0, 0])
    np.testing.assert_allclose(sample.depth[1:], 3.0, rtol=2e-3)
    np.testing.assert_allclose(sample.normals, np.broadcast_to([0, 0, -1], sample.normals.shape), atol=1e-3)
    assert (sample.semantic[:5] == UNLABELLED).all()
    assert (sample.semantic[5:9] == CLASS_ID["lamp"]).all()
    assert (sample.semantic[9:] == CLASS_ID["wall"]).all()
    assert set(np.unique(sample.instances)) == {0, 4}
    assert sample.intrinsics.fx == pytest.approx(FOCAL * WIDTH / 1024)


def test_hypersim_follows_its_published_split(tmp_path: Path) -> None:
    for number in range(3):
        write_hypersim_frame(tmp_path, "ai_001_001", number)
    fields = ("scene_name", "camera_name", "frame_id", "included_in_public_release", "split_partition_name")
    rows = [
        ("ai_001_001", "cam_00", 0, "True", "train"),
        ("ai_001_001", "cam_00", 1, "True", "val"),
        ("ai_001_001", "cam_00", 2, "False", ""),
    ]
    with pytest.raises(InputError, match=r"needs .*metadata_images_split_scene_v1\.csv"):
        HypersimDataset(tmp_path, "train")
    with (tmp_path / "metadata_images_split_scene_v1.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([fields, *rows])
    assert len(HypersimDataset(tmp_path)) == 2
    (sample,) = list(HypersimDataset(tmp_path, "val"))
    assert "frame.0001" in sample.name


def test_what_is_wrong_with_a_hypersim_frame_is_named(tmp_path: Path) -> None:
    frame = write_hypersim_frame(tmp_path, "ai_001_001", 0)
    geometry = frame.parents[1] / "scene_cam_00_geometry_hdf5"
    with h5py.File(geometry / "frame.0000.semantic.hdf5", "w") as file:
        file["dataset"] = np.zeros((4, 4), np.int16)
    with pytest.raises(InputError, match=r"semantic.hdf5 has shape \(4, 4\), its picture needs \(48, 64\)"):
        HypersimDataset(tmp_path)[0]
    (geometry / "frame.0000.depth_meters.hdf5").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"depth_meters.hdf5 cannot be read"):
        HypersimDataset(tmp_path)[0]
    with pytest.raises(InputError, match="holds no pictures of Hypersim"):
        HypersimDataset(tmp_path / "elsewhere")


def write_vkitti2_frame(root: Path, scene: str, variation: str, number: int) -> None:
    """A road under a sky with a car."""
    frames = root / scene / variation / "frames"
    depth = np.full((HEIGHT, WIDTH), 1234, np.uint16)
    depth[:16] = 65535
    classes = np.full((HEIGHT, WIDTH, 3), (100, 60, 100), np.uint8)
    classes[:16], classes[20:30, 10:20], classes[47] = (90, 200, 255), (255, 127, 80), (1, 2, 3)
    instances = np.zeros((HEIGHT, WIDTH), np.uint8)
    instances[20:30, 10:20] = 3
    flow = np.zeros((HEIGHT, WIDTH, 3), np.uint16)  # valid, down, right in OpenCV's order
    flow[..., 0], flow[..., 1], flow[..., 2] = 1, 32768, round((2 / (WIDTH - 1) + 1) * 65535 / 2)
    flow[0, 0] = 0
    files = {
        f"rgb/Camera_0/rgb_{number:05d}.jpg": np.full((HEIGHT, WIDTH, 3), 90, np.uint8),
        f"depth/Camera_0/depth_{number:05d}.png": depth,
        f"classSegmentation/Camera_0/classgt_{number:05d}.png": classes[..., ::-1],
        f"instanceSegmentation/Camera_0/instancegt_{number:05d}.png": instances,
        f"backwardFlow/Camera_0/backwardFlow_{number:05d}.png": flow,
    }
    for name, values in files.items():
        (frames / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(frames / name), values)
    text = "frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]\n"
    (frames.parent / "intrinsic.txt").write_text(text + f"{number} 0 725.0087 725.0087 620.5 187\n")


def test_virtual_kitti_2_has_metres_sky_classes_and_flow(tmp_path: Path) -> None:
    write_vkitti2_frame(tmp_path, "Scene01", "clone", 6)
    write_vkitti2_frame(tmp_path, "Scene01", "clone", 7)
    write_vkitti2_frame(tmp_path, "Scene02", "rain", 7)
    first, sample = list(VirtualKitti2Dataset(tmp_path, scenes=["Scene01"]))
    assert first.flow is None  # there is no picture before it
    assert sample.previous.shape == sample.rgb.shape
    assert np.isposinf(sample.depth[:16]).all()
    np.testing.assert_allclose(sample.depth[16:], 12.34, rtol=1e-5)
    assert sample.semantic[0, 0] == CLASS_ID["sky"]
    assert sample.semantic[25, 15] == CLASS_ID["car"]
    assert sample.semantic[40, 5] == CLASS_ID["road"]
    assert (sample.semantic[47] == UNLABELLED).all()
    assert sample.instances[25, 15] == 3
    np.testing.assert_allclose(sample.flow[5, 5], (2.0, 0.0), atol=2e-3)
    assert np.isnan(sample.flow[0, 0]).all()
    assert sample.intrinsics.fx == 725.0087
    assert len(VirtualKitti2Dataset(tmp_path)) == 3
    with pytest.raises(InputError, match=r"of the scenes \['Scene18'\]"):
        VirtualKitti2Dataset(tmp_path, scenes=["Scene18"])
    (tmp_path / "Scene01/clone/frames/depth/Camera_0/depth_00007.png").unlink()
    with pytest.raises(InputError, match=r"depth_00007.png cannot be read"):
        VirtualKitti2Dataset(tmp_path)[1]


def test_a_mixture_keeps_the_weights_and_shows_all_before_repeating() -> None:
    small, large = [toy_room(seed) for seed in range(4)], [toy_room(seed) for seed in range(10, 22)]
    mixture = Mixture([small, large], [1.0, 1.0])
    order = mixture.order(np.random.default_rng(1))
    assert len(order) == len(mixture) == 16
    counts = np.bincount(order, minlength=16)
    assert (counts[:4] == 2).all()  # half of 16 from the four
    assert sorted(counts[4:]) == [0] * 4 + [1] * 8
    np.testing.assert_array_equal(order, mixture.order(np.random.default_rng(1)))
    assert sorted(Mixture([small, large]).order(np.random.default_rng(2))) == list(range(16))
    assert mixture[5].name == large[1].name


def test_sources_are_checked_and_opened(tmp_path: Path) -> None:
    write_toy_shard(tmp_path / "shards", range(3))
    write_hypersim_frame(tmp_path / "hypersim", "ai_001_001", 0)
    fields = [
        {"kind": "shards", "path": str(tmp_path / "shards"), "weight": 3},
        {"kind": "hypersim", "path": str(tmp_path / "hypersim")},
        {"kind": "world", "count": 2, "size": [64, 48], "seed": 5},
    ]
    mixture = open_sources(TypeAdapter(Sources).validate_python(fields))
    assert mixture.lengths == (3, 1, 2)
    rendered = mixture[4]
    assert rendered.rgb.shape == (48, 64, 3)
    np.testing.assert_array_equal(rendered.depth, mixture[4].depth)
    assert label_counts(mixture)[CLASS_ID["wall"]] > 0
    for wrong, message in (
        ([{"kind": "hypersim", "pth": "x"}], "Extra inputs are not permitted"),
        ([{"kind": "imagenet"}], "does not match any of the expected tags"),
        ([], "at least 1 item"),
        ([{"kind": "shards", "path": "x", "weight": 0}], "greater than 0"),
    ):
        with pytest.raises(ValueError, match=message):
            TypeAdapter(Sources).validate_python(wrong)


def test_a_robots_own_recordings_are_sources_with_their_faults(tmp_path: Path) -> None:
    """A bag and a folder; a frame in millimetres, one without a measurement and one of another size stay out."""
    bag = write_bag(tmp_path, BagSpec(frames=3))
    (tmp_path / "drive" / "rgb").mkdir(parents=True)
    (tmp_path / "drive" / "depth").mkdir()
    metres = {"good": np.full((48, 64), 2.0), "unit": np.full((48, 64), 2000.0), "blind": np.zeros((48, 64))}
    for name, depth in (metres | {"size": np.full((24, 64), 2.0)}).items():
        cv2.imwrite(str(tmp_path / "drive" / "rgb" / f"{name}.png"), np.full((48, 64, 3), 90, np.uint8))
        np.save(tmp_path / "drive" / "depth" / f"{name}.npy", depth)
    fields = [{"kind": "bag", "path": str(bag)}, {"kind": "folder", "path": str(tmp_path / "drive")}]
    mixture = open_sources(TypeAdapter(Sources).validate_python(fields))
    assert mixture.lengths == (3, 4)
    assert np.nanmax(mixture[2].depth) == pytest.approx(1.5)
    assert mixture[0].intrinsics.fx == 50.0
    reasons = {}
    for index in range(3, 7):
        try:
            assert np.nanmedian(mixture[index].depth) == 2.0
        except InputError as error:
            reasons[index] = str(error)
    for said, reason in zip(reasons.values(), ("no pixel with depth", "64x24 but", "1000 times off"), strict=True):
        assert reason in said


def test_training_on_a_mixture_passes_over_what_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_toy_shard(tmp_path / "shards", range(24))
    for number in range(4):
        write_hypersim_frame(tmp_path / "hypersim", "ai_001_001", number)
    broken = "ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0002.depth_meters.hdf5"
    (tmp_path / "hypersim" / broken).write_bytes(b"cut")
    config = {
        "name": "mixed",
        "data": {
            "train": [
                {"kind": "shards", "path": str(tmp_path / "shards"), "weight": 1},
                {"kind": "hypersim", "path": str(tmp_path / "hypersim"), "weight": 1},
            ],
            "validation": str(tmp_path / "shards"),
            "real": {"kind": "hypersim", "path": str(tmp_path / "hypersim")},
            "sizes": [[64, 64]],
            "batch_size": 4,
        },
        "run": {"max_steps": 7, "threads": 1, "validation_samples": 8},
    }
    (tmp_path / "mixed.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", str(tmp_path / "mixed.yaml"), "-o", str(tmp_path / "run")]) == 0
    assert "training samples could not be read and were passed over" in capsys.readouterr().err
    record = json.loads((tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()[-1])
    assert record["real_scores"]["metric_abs_rel"] > 0
    assert "abs_rel" in record["scores"]
