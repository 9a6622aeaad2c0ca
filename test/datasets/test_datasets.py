"""Folders and bags with ground truth, good and broken; every file is written by the test."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bag_factory import BagSpec, write_bag
from PIL import Image

from diffusion_perception_ros.datasets.folder import FolderDataset
from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.recordings.recording import is_recording
from diffusion_perception_ros.sample import UNKNOWN_INSTANCE, UNLABELLED


WIDTH, HEIGHT = 48, 32
CAMERA = {"width": WIDTH, "height": HEIGHT, "fx": 40.0, "fy": 41.0, "cx": 23.5, "cy": 15.5}


def picture(shade: int = 100) -> np.ndarray:
    """A picture whose red, green and blue differ."""
    rgb = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    rgb[...] = (shade, shade // 2, 10)
    return rgb


def write_picture(path: Path, shade: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture(shade)[:, :, ::-1])


def write_depth(path: Path, metres: float = 1.5, **changes: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    depth = np.full((changes.get("height", HEIGHT), WIDTH), round(metres * 1000), np.uint16)
    depth[:4] = 0
    cv2.imwrite(str(path), depth)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A plain folder of three good frames."""
    for name in ("a", "b", "c"):
        write_picture(tmp_path / "scene" / "rgb" / f"{name}.png")
        write_depth(tmp_path / "scene" / "depth" / f"{name}.png")
    (tmp_path / "scene" / "intrinsics.json").write_text(json.dumps(CAMERA))
    return tmp_path / "scene"


def test_plain_folder(plain: Path) -> None:
    dataset = FolderDataset(plain)
    assert len(dataset) == 3
    sample = dataset[1]
    assert sample.name == "scene/b"
    np.testing.assert_array_equal(sample.rgb, picture())
    assert sample.depth is not None
    assert np.isnan(sample.depth[:4]).all()
    np.testing.assert_allclose(sample.depth[4:], 1.5)
    assert sample.intrinsics is not None
    assert (sample.intrinsics.fx, sample.intrinsics.cy) == (40.0, 15.5)
    assert [sample.name for sample in dataset] == ["scene/a", "scene/b", "scene/c"]
    assert dataset.skipped == []


def test_float_depth_is_in_metres_and_a_scale_can_be_given(plain: Path) -> None:
    (plain / "depth" / "a.png").unlink()
    np.save(plain / "depth" / "a.npy", np.full((HEIGHT, WIDTH), 2.5))
    assert np.nanmedian(FolderDataset(plain)[0].depth) == 2.5  # type: ignore[call-overload]
    (plain / "intrinsics.json").write_text(json.dumps(CAMERA | {"depth_scale_m": 0.0002}))
    assert np.nanmedian(FolderDataset(plain)[1].depth) == pytest.approx(0.3)  # type: ignore[call-overload]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BREAKAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing depth": (lambda root: (root / "depth/b.png").unlink(), "depth/b.png cannot be read"),
    "empty picture": (lambda root: (root / "rgb/b.png").write_bytes(b""), "rgb/b.png is empty"),
    "text for depth": (lambda root: (root / "depth/b.png").write_text("hello"), "depth/b.png is not an image"),
    "truncated depth": (lambda root: cut(root / "depth/b.png"), "depth/b.png"),
    "wrong size": (lambda root: write_depth(root / "depth/b.png", height=20), "48x20 but its picture is 48x32"),
    "no measurement": (lambda root: write_depth(root / "depth/b.png", 0.0), "no pixel with depth"),
    "metres as millimetres": (lambda root: write_depth(root / "depth/b.png", 0.002), "1000 times off"),
    "colour for depth": (lambda root: write_picture(root / "depth/b.png"), "one channel is needed"),
    "8 bits": (lambda root: cv2.imwrite(str(root / "depth/b.png"), picture()[..., 0]) and None, "8 bits per pixel"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_broken_frame_is_skipped_and_named(plain: Path, breakage: str) -> None:
    break_it, message = BREAKAGES[breakage]
    break_it(plain)
    dataset = FolderDataset(plain)
    assert [sample.name for sample in dataset] == ["scene/a", "scene/c"]
    (skipped,) = dataset.skipped
    assert skipped.name == "scene/b"
    assert message in skipped.reason
    with pytest.raises(InputError, match=r"b\.png"):
        dataset[1]


def test_millimetres_as_metres_are_found_out(plain: Path) -> None:
    (plain / "depth" / "b.png").unlink()
    np.save(plain / "depth" / "b.npy", np.full((HEIGHT, WIDTH), 1500.0))
    dataset = FolderDataset(plain)
    assert len(list(dataset)) == 2
    assert "1000 times off" in dataset.skipped[0].reason


def test_wrong_intrinsics_are_named(plain: Path) -> None:
    (plain / "intrinsics.json").write_text(json.dumps(CAMERA | {"fx": "wide"}))
    dataset = FolderDataset(plain)
    assert list(dataset) == []
    assert "intrinsics" in dataset.skipped[0].reason
    (plain / "intrinsics.json").write_text("{")
    with pytest.raises(InputError, match=r"intrinsics\.json"):
        FolderDataset(plain)


def test_folder_without_ground_truth(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rgb/ and depth/"):
        FolderDataset(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        FolderDataset(tmp_path / "nowhere")


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A folder with a manifest: two groups with depth, one of them with objects, and three label formats."""
    items: list[dict[str, Any]] = []
    for group, name in (("kitchen", "1"), ("kitchen", "2"), ("table", "3")):
        base = tmp_path / "rgbd" / group
        write_picture(base / "rgb" / f"{name}.png")
        write_depth(base / "depth" / f"{name}.png")
        item = {"id": f"{group}/{name}", "task": "rgbd", "group": group, "intrinsics": CAMERA, "depth_scale_m": 0.002}
        item |= {kind: f"rgbd/{group}/{kind}/{name}.png" for kind in ("rgb", "depth")}
        items.append(item)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[8:], mask[16:, :8] = 1, 2
    cv2.imwrite(str(tmp_path / "rgbd/table/mask.png"), mask)
    items[2] |= {"mask": "rgbd/table/mask.png", "mask_kind": "object_instances: 0 no data, 1 table, 2.. objects"}
    items += [_camvid(tmp_path), _voc(tmp_path), _coco(tmp_path)]
    items.append({"id": "rgb/only", "task": "rgb_only", "rgb": "rgb/only.png"})
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 1, "items": items}))
    return tmp_path


def _camvid(root: Path) -> dict[str, Any]:
    write_picture(root / "segmentation/camvid/rgb/x.png")
    (root / "segmentation/camvid/label").mkdir()
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:10], labels[20:] = 1, 11
    cv2.imwrite(str(root / "segmentation/camvid/label/x.png"), labels)
    (root / "segmentation/camvid/classes.json").write_text('["sky", "road"]')
    paths = {"rgb": "segmentation/camvid/rgb/x.png", "mask": "segmentation/camvid/label/x.png"}
    return {"id": "camvid/x", "task": "semantic_segmentation"} | paths


def _voc(root: Path) -> dict[str, Any]:
    write_picture(root / "segmentation/voc/rgb/x.png")
    for kind in ("class", "instance"):
        (root / f"segmentation/voc/{kind}").mkdir()
        ids = np.zeros((HEIGHT, WIDTH), np.uint8)
        ids[:10] = 2
        ids[10] = 255
        image = Image.fromarray(ids, mode="P")
        image.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
        image.save(root / f"segmentation/voc/{kind}/x.png")
    (root / "segmentation/voc/classes.json").write_text('["_background_", "cat", "dog"]')
    paths = {"rgb": "rgb/x.png", "mask": "class/x.png", "instance_mask": "instance/x.png"}
    item = {key: f"segmentation/voc/{path}" for key, path in paths.items()}
    return {"id": "voc/x", "task": "instance_segmentation"} | item


def _coco(root: Path) -> dict[str, Any]:
    base = root / "segmentation/coco_panoptic"
    write_picture(base / "rgb/x.png")
    (base / "panoptic").mkdir()
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[:10], rgb[10:20], rgb[20:25] = (1, 2, 3), (4, 0, 0), (5, 0, 0)
    cv2.imwrite(str(base / "panoptic/x.png"), rgb[:, :, ::-1])
    segments = [
        {"id": 1 + 256 * 2 + 65536 * 3, "category": "person", "isthing": 1, "iscrowd": 0},
        {"id": 4, "category": "grass-merged", "isthing": 0, "iscrowd": 0},
        {"id": 5, "category": "person", "isthing": 1, "iscrowd": 1},
    ]
    (base / "panoptic/x.json").write_text(json.dumps(segments))
    paths = {"rgb": "segmentation/coco_panoptic/rgb/x.png", "mask": "segmentation/coco_panoptic/panoptic/x.png"}
    return {"id": "coco_panoptic/x", "task": "panoptic_segmentation"} | paths


def test_manifest_and_folders_below_it(listed: Path) -> None:
    everything = FolderDataset(listed)
    assert everything.groups == ("kitchen", "table", "camvid", "voc", "coco_panoptic")
    assert len(list(everything)) == 6
    assert everything.skipped == []
    assert len(FolderDataset(listed / "rgbd")) == 3
    assert len(FolderDataset(listed / "segmentation")) == 3
    assert [sample.name for sample in FolderDataset(listed / "rgbd", ["table"])] == ["table/3"]
    assert np.nanmedian(everything[0].depth) == pytest.approx(3.0)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="no group attic: it has kitchen, table"):
        FolderDataset(listed / "rgbd", ["attic"])


def test_measurements_beyond_the_maximum_do_not_count(listed: Path) -> None:
    manifest = json.loads((listed / "manifest.json").read_text())
    manifest["items"][0]["max_depth_m"] = 2.5
    (listed / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="no pixel with depth"):
        FolderDataset(listed)[0]
    assert np.nanmedian(FolderDataset(listed)[1].depth) == pytest.approx(3.0)  # type: ignore[call-overload]


def test_masks_of_every_format(listed: Path) -> None:
    table, camvid, voc, coco = [FolderDataset(listed)[index] for index in (2, 3, 4, 5)]
    assert table.instances is not None
    assert [int(table.instances[row, 0]) for row in (0, 10, 20)] == [UNKNOWN_INSTANCE, 0, 1]
    assert camvid.semantic is not None
    assert [int(camvid.semantic[row, 0]) for row in (0, 15, 25)] == [1, 0, UNLABELLED]
    assert (camvid.label_set, camvid.classes) == ("camvid", ("sky", "road"))
    assert voc.semantic is not None
    assert voc.instances is not None
    assert [int(voc.semantic[row, 0]) for row in (0, 10, 20)] == [2, UNLABELLED, 0]
    assert [int(voc.instances[row, 0]) for row in (0, 10, 20)] == [2, UNKNOWN_INSTANCE, 0]
    assert coco.semantic is not None
    assert coco.instances is not None
    assert coco.classes == ("grass-merged", "person")
    assert [int(coco.semantic[row, 0]) for row in (0, 15, 22, 30)] == [1, 0, 1, UNLABELLED]
    assert [int(coco.instances[row, 0]) for row in (0, 15, 22, 30)] == [1, 0, UNKNOWN_INSTANCE, UNKNOWN_INSTANCE]


def test_manifest_that_is_not_one(listed: Path) -> None:
    (listed / "manifest.json").write_text('{"items": [{"depth": "x.png"}]}')
    with pytest.raises(InputError, match=r"manifest\.json is not a manifest"):
        FolderDataset(listed)


def test_mask_without_its_classes_is_skipped(listed: Path) -> None:
    (listed / "segmentation/camvid/classes.json").unlink()
    (listed / "segmentation/coco_panoptic/panoptic/x.json").write_text("[{}]")
    dataset = FolderDataset(listed / "segmentation")
    assert [sample.name for sample in dataset] == ["voc/x"]
    assert [skipped.name for skipped in dataset.skipped] == ["camvid/x", "coco_panoptic/x"]


@pytest.mark.parametrize("storage", ["mcap", "mcap-zstd", "sqlite3", "ros1"])
@pytest.mark.parametrize("compressed", [False, True])
def test_bag_of_every_kind(tmp_path: Path, storage: str, compressed: bool) -> None:
    bag = write_bag(tmp_path, BagSpec(frames=5, storage=storage, compressed=compressed))
    assert is_recording(bag)
    dataset = BagDataset(bag)
    assert dataset.image_topic == ("/camera/image_raw/compressed" if compressed else "/camera/image_raw")
    assert dataset.depth_topic == "/camera/depth/image_raw"
    samples = list(dataset)
    assert len(samples) == len(dataset) == 5
    assert dataset.skipped == []
    for index, sample in enumerate(samples):
        assert sample.stamp == pytest.approx(100 + 0.1 * index)
        assert sample.frame_id == "camera_optical"
        assert abs(int(sample.rgb[0, 0, 0]) - 20 * index) <= 4
        assert sample.depth is not None
        np.testing.assert_allclose(sample.depth[10:], 1.0 + 0.25 * index, atol=1e-6)
        assert np.isnan(sample.depth[:2]).all()
        assert sample.intrinsics is not None
        assert sample.intrinsics.fx == 50.0


def test_bag_in_any_order(tmp_path: Path) -> None:
    dataset = BagDataset(write_bag(tmp_path, BagSpec(frames=6)))
    for index in (4, 1, 1, 5, 0, 2):
        assert np.nanmax(dataset[index].depth) == pytest.approx(1.0 + 0.25 * index)  # type: ignore[call-overload]


def test_depth_is_paired_by_stamp_only_when_close(tmp_path: Path) -> None:
    near = BagDataset(write_bag(tmp_path / "near", BagSpec(frames=4, depth_delay=0.015)))
    assert len(near) == 4
    with pytest.raises(InputError, match=r"within 0\.02 s"):
        BagDataset(write_bag(tmp_path / "far", BagSpec(frames=4, depth_delay=0.04)))


def test_depth_of_another_frame_is_not_registered(tmp_path: Path) -> None:
    bag = write_bag(tmp_path, BagSpec(frames=3, depth_frame_id="depth_optical"))
    with pytest.raises(InputError, match=r"/camera/depth/image_raw \(depth, depth_optical\)"):
        BagDataset(bag)
    dataset = BagDataset(bag, depth_required=False)
    assert [sample.depth for sample in dataset] == [None, None, None]


def test_topics_can_be_chosen_and_must_exist(tmp_path: Path) -> None:
    bag = write_bag(tmp_path, BagSpec(frames=3))
    assert len(BagDataset(bag, "/camera/image_raw", "/camera/depth/image_raw")) == 3
    with pytest.raises(InputError, match=r"no image topic /nope: it has /camera/depth/image_raw, /camera/image_raw"):
        BagDataset(bag, "/nope")
    with pytest.raises(InputError, match="no bag"):
        BagDataset(tmp_path / "nothing.mcap")


def test_uncalibrated_camera_gives_no_intrinsics(tmp_path: Path) -> None:
    assert BagDataset(write_bag(tmp_path, BagSpec(frames=2, focal=0.0)))[0].intrinsics is None


def test_broken_image_in_a_bag_is_skipped_and_named(tmp_path: Path) -> None:
    dataset = BagDataset(write_bag(tmp_path, BagSpec(frames=4, compressed=True, broken_image=2)))
    assert len(list(dataset)) == 3
    (skipped,) = dataset.skipped
    assert skipped.name.endswith("/0002")
    assert "/camera/image_raw/compressed" in skipped.reason


@pytest.mark.parametrize("storage", ["mcap", "mcap-zstd", "sqlite3"])
def test_truncated_bag_gives_its_beginning_and_says_so(tmp_path: Path, storage: str) -> None:
    bag = write_bag(tmp_path, BagSpec(frames=20, storage=storage, noise=True, width=320, height=240))
    (file,) = [file for file in bag.iterdir() if file.suffix in (".mcap", ".db3")]
    os.truncate(file, file.stat().st_size * 6 // 10)
    dataset = BagDataset(bag)
    samples = list(dataset)
    assert 5 < len(samples) < 20
    assert [sample.stamp for sample in samples] == pytest.approx([100 + 0.1 * i for i in range(len(samples))])
    assert any(file.name in skipped.reason for skipped in dataset.skipped)


def test_bag_without_metadata_is_read(tmp_path: Path) -> None:
    bag = write_bag(tmp_path, BagSpec(frames=3))
    (bag / "metadata.yaml").unlink()
    assert len(list(BagDataset(bag))) == 3


def test_garbage_is_no_bag(tmp_path: Path) -> None:
    file = tmp_path / "x.mcap"
    file.write_bytes(b"not a bag at all")
    with pytest.raises(InputError, match=r"x\.mcap"):
        BagDataset(file)
