"""Ground truth of flow, opacity, people and prompts: written as public data sets do, read, scored, drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sampled_model_factory import write_prompted_model

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.datasets.folder import FolderDataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import JOINTS


WIDTH, HEIGHT = 128, 96
SHIFT = 2.0
"""Pixels of the written flow, to the right; what the model says where the second picture is 20 % brighter."""
NOSE, ANKLE = (30, 20), (90, 70)
"""Where the two joints are."""

Items = dict[str, dict[str, Any]]


def save(path: Path, picture: np.ndarray) -> str:
    """Writes a picture in OpenCV's order of channels; its path below the folder."""
    cv2.imwrite(str(path), picture)
    return path.name


def grey(value: float) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), round(255 * value), np.uint8)


def kitti_flow(u: float, known: int = HEIGHT) -> np.ndarray:
    """B, G, R as OpenCV writes it: whether the vector is known, down, right."""
    stored = np.zeros((HEIGHT, WIDTH, 3), np.uint16)
    stored[:known] = (1, 2**15, 2**15 + round(64 * u))
    return stored


def write_middlebury(path: Path, u: float) -> str:
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    flow[..., 0] = u
    flow[-4:] = 1.6666667e9  # not known
    with path.open("wb") as file:
        file.write(b"PIEH" + np.array([WIDTH, HEIGHT], "<i4").tobytes() + flow.astype("<f4").tobytes())
    return path.name


def write_people(path: Path, **changes: Any) -> str:
    """One person with two joints, and a crowd without any."""
    joints = np.zeros((17, 3))
    joints[JOINTS.index("nose")] = (*NOSE, 2)
    joints[JOINTS.index("left_ankle")] = (*ANKLE, 1)
    content = {
        "images": [{"id": 7, "file_name": "train/people.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "person", "keypoints": list(JOINTS)}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "keypoints": joints.reshape(-1).tolist()},
            {"id": 2, "image_id": 7, "category_id": 1, "keypoints": [0] * 51, "iscrowd": 1},
        ],
    }
    path.write_text(json.dumps(content | changes))
    return path.name


def write_manifest(folder: Path, items: Items) -> Path:
    entries = [{"id": f"{name}/0", **fields} for name, fields in items.items()]
    (folder / "manifest.json").write_text(json.dumps({"items": entries}))
    return folder


@pytest.fixture
def items(tmp_path: Path) -> Items:
    """An item per kind of truth; the model of `write_prompted_model` answers all but the prompt perfectly."""
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[:, :64, 2] = 204
    dots = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for u, v in (NOSE, ANKLE):
        cv2.circle(dots, (u, v), 2, (0, 0, 255), cv2.FILLED)
    left = np.zeros((HEIGHT, WIDTH), np.uint8)
    left[:, :64] = 255
    dark, bright = save(tmp_path / "dark.png", grey(0.2)), save(tmp_path / "bright.png", grey(0.4))
    return {
        "kitti": {
            "rgb": dark,
            "rgb_next": bright,
            "flow": save(tmp_path / "kitti.png", kitti_flow(SHIFT, known=HEIGHT // 3)),
        },
        "middlebury": {
            "rgb": dark,
            "rgb_previous": bright,
            "flow": write_middlebury(tmp_path / "middlebury.flo", SHIFT),
        },
        "matte8": {"rgb": save(tmp_path / "red.png", red), "alpha": save(tmp_path / "a8.png", red[..., 2])},
        "matte16": {"rgb": "red.png", "alpha": save(tmp_path / "a16.png", red[..., 2].astype(np.uint16) * 257)},
        "people": {
            "rgb": save(tmp_path / "people.png", dots),
            "keypoints": write_people(tmp_path / "people.json"),
        },
        "prompt": {
            "rgb": "dark.png",
            "prompt_answer": save(tmp_path / "left.png", left),
            "prompt_points": [[100, 50, 1]],
        },
    }


def test_every_truth_is_read(tmp_path: Path, items: Items) -> None:
    dataset = FolderDataset(write_manifest(tmp_path, items))
    kitti, middlebury, matte8, matte16, people, prompt = (dataset[index] for index in range(len(dataset)))
    assert dataset.groups == tuple(items)
    for sample, known in ((kitti, HEIGHT // 3), (middlebury, HEIGHT - 4)):
        assert sample.flow is not None
        assert sample.previous is not None
        np.testing.assert_array_equal(sample.flow[:known], np.broadcast_to((SHIFT, 0.0), (known, WIDTH, 2)))
        assert np.isnan(sample.flow[known:]).all()
        assert sample.previous[0, 0, 0] == 102
    for sample in (matte8, matte16):
        assert sample.alpha is not None
        np.testing.assert_allclose(sample.alpha[:, [0, 127]], np.broadcast_to((0.8, 0.0), (HEIGHT, 2)), atol=1e-6)
    assert people.keypoints is not None
    assert people.keypoints.shape == (1, 17, 3)
    np.testing.assert_array_equal(people.keypoints[0, 0], (*NOSE, 2))
    assert prompt.prompt_answer is not None
    assert prompt.prompt_answer.sum() == 64 * HEIGHT
    assert prompt.prompt_points == ((100.0, 50.0, 1),)


def test_evaluate_scores_and_draws_them(tmp_path: Path, items: Items) -> None:
    model = write_prompted_model(
        tmp_path / "model", ["alpha", "flow", "mask", "keypoints"], prompts=["second_image", "points"]
    )
    out, report = tmp_path / "scores.json", tmp_path / "report"
    data = write_manifest(tmp_path, items)
    assert main(["evaluate", *map(str, ("--data", data, "--model", model, "--json", out, "--report", report))]) == 0
    result = json.loads(out.read_text())
    tasks = {task: groups["all"] for task, groups in result["tasks"].items()}
    assert tasks["flow"]["model"]["images"] == 2
    assert tasks["flow"]["model"]["epe"] < 0.02
    assert tasks["flow"]["no_motion"]["epe"] == pytest.approx(SHIFT)
    assert tasks["alpha"]["model"]["mae"] < 0.02
    assert tasks["alpha"]["no_foreground"]["mae"] == pytest.approx(0.4)
    assert tasks["keypoints"]["model"] == {"pck": 1.0, "precision": 1.0, "images": 1}
    # The model's mask is everywhere as its first point is far to the right: the given point was asked, not the middle.
    assert tasks["mask"]["model"]["iou"] == pytest.approx(0.5)
    page = (report / "report.html").read_text(encoding="utf-8")
    for title in ("Optical flow, ground truth", "Flow error", "Opacity error", "Keypoints", "Prompted mask, ground"):
        assert title in page
    assert "the rim is 2 px or more" in page
    assert "IoU 0.50" in page


def test_a_hidden_object_is_asked_for_by_its_seen_part(tmp_path: Path, items: Items) -> None:
    model = write_prompted_model(
        tmp_path / "model", ["mask"], prompts=["prompt_mask"], card={"outputs": [amodal_output()]}
    )
    seen = np.zeros((HEIGHT, WIDTH), np.uint8)
    seen[:48, :64] = 1
    item = items["prompt"] | {"prompt_mask": save(tmp_path / "seen.png", seen)}
    out = tmp_path / "scores.json"
    data = write_manifest(tmp_path, {"hidden": item})
    assert main(["evaluate", "--data", str(data), "--model", str(model), "--json", str(out)]) == 0
    # The model answers with its prompt: half of the object.
    assert json.loads(out.read_text())["tasks"]["mask"]["all"]["model"]["iou"] == pytest.approx(0.5, abs=0.02)


def test_scale_asks_and_scores_prompts_too(tmp_path: Path, items: Items) -> None:
    model = write_prompted_model(tmp_path / "model", ["mask"], prompts=["points", "noise"])
    data = write_manifest(tmp_path, {"prompt": items["prompt"]})
    command = [
        "scale",
        str(model),
        "--data",
        str(data),
        "--steps",
        "1",
        "--ensemble",
        "1",
        "-o",
        str(tmp_path / "out"),
    ]
    assert main(command) == 0
    (setting,) = json.loads((tmp_path / "out" / "scale.json").read_text())["settings"]
    assert setting["scores"]["mask"]["iou"] == pytest.approx(0.5)


def amodal_output() -> dict[str, Any]:
    return {"task": "mask", "tensor": "hint", "range": [0.0, 1.0]}


def test_data_without_truth_for_the_model_is_an_error(
    tmp_path: Path, items: Items, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_prompted_model(tmp_path / "model", ["alpha"])
    data = write_manifest(tmp_path, {name: items[name] for name in ("people", "kitti")})
    assert main(["evaluate", "--data", str(data), "--model", str(model)]) == 2
    assert "no ground truth of what model 'model' predicts (alpha)" in capsys.readouterr().err
    data = write_manifest(tmp_path, {name: items[name] for name in ("people", "matte8")})
    assert main(["evaluate", "--data", str(data), "--model", str(model)]) == 0
    assert "1 image with no ground truth" in capsys.readouterr().err


def change(name: str, **fields: Any) -> Callable[[Path, Items], None]:
    return lambda folder, items: items[name].update(fields)


def write(name: str, field: str, picture: np.ndarray) -> Callable[[Path, Items], None]:
    return lambda folder, items: items[name].update({field: save(folder / "other.png", picture)})


def people(**changes: Any) -> Callable[[Path, Items], None]:
    return lambda folder, items: items["people"].update(keypoints=write_people(folder / "other.json", **changes))


def cut(folder: Path, items: Items) -> None:
    path = folder / "middlebury.flo"
    path.write_bytes(path.read_bytes()[:5000])


SMALL = np.zeros((20, 30), np.uint8)
BREAKAGES: dict[str, tuple[str, Callable[[Path, Items], None], str]] = {
    "no second picture": ("kitti", lambda _, items: items["kitti"].pop("rgb_next"), "rgb_next or rgb_previous"),
    "two second pictures": ("kitti", change("kitti", rgb_previous="dark.png"), "not both"),
    "second picture of another size": ("kitti", write("kitti", "rgb_next", SMALL), "30x20 but its picture is 128x96"),
    "missing flow": ("kitti", change("kitti", flow="nowhere.png"), r"nowhere\.png cannot be read"),
    "missing flo": ("kitti", change("kitti", flow="nowhere.flo"), r"nowhere\.flo cannot be read"),
    "coloured flow": ("kitti", change("kitti", flow="dark.png"), r"3 channel\(s\) of 8 bits"),
    "nothing known": ("kitti", write("kitti", "flow", kitti_flow(0, known=0)), "no pixel with a known vector"),
    "other encoding": ("kitti", write("kitti", "flow", kitti_flow(300)), "longer than the picture"),
    "truncated flo": ("middlebury", cut, "not a whole .flo file"),
    "coloured alpha": ("matte8", change("matte8", alpha="red.png"), "it has colours"),
    "alpha of ones": ("matte8", write("matte8", "alpha", np.eye(HEIGHT, WIDTH, dtype=np.uint8)), "up to 255"),
    "alpha of another size": ("matte8", write("matte8", "alpha", SMALL), "30x20 but its picture is 128x96"),
    "no annotations": ("people", change("people", keypoints="nowhere.json"), r"nowhere\.json cannot be read"),
    "no JSON": ("people", change("people", keypoints="dark.png"), "cannot be read as a file of COCO keypoints"),
    "other JSON": ("people", people(images=3), "not a file of COCO keypoints: images"),
    "other joints": (
        "people",
        people(categories=[{"id": 1, "keypoints": ["hoof", "tail"]}]),
        "keypoints of other names",
    ),
    "too few numbers": (
        "people",
        people(annotations=[{"id": 4, "image_id": 7, "category_id": 1, "keypoints": [1, 2]}]),
        "annotation 4 of .* has 2 numbers for 17 keypoints",
    ),
    "unknown category": (
        "people",
        people(annotations=[{"id": 4, "image_id": 7, "category_id": 9, "keypoints": [1, 2, 2]}]),
        "does not name the keypoints of the category 9",
    ),
    "unknown visibility": (
        "people",
        people(annotations=[{"id": 4, "image_id": 7, "category_id": 1, "keypoints": [1, 2, 5] * 17}]),
        "visibility that is none of 0, 1 and 2",
    ),
    "picture not annotated": ("people", change("people", rgb="dark.png"), r"no picture\(s\) of the name dark\.png"),
    "unknown id": ("people", change("people", image_id=8), r"no picture\(s\) with the id 8"),
    "annotated at another size": (
        "people",
        people(images=[{"id": 7, "file_name": "people.png", "width": 64, "height": 48}]),
        "is 64x48, but it is 128x96",
    ),
    "empty answer": ("prompt", write("prompt", "prompt_answer", np.zeros((HEIGHT, WIDTH), np.uint8)), "is empty"),
    "seen part elsewhere": (
        "prompt",
        write("prompt", "prompt_mask", np.eye(HEIGHT, WIDTH, 80, dtype=np.uint8)),
        "no pixel in common",
    ),
    "points without labels": ("prompt", change("prompt", prompt_points=[[3, 4]]), "not rows of u, v, label"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_broken_truth_is_named(tmp_path: Path, items: Items, breakage: str) -> None:
    name, break_it, message = BREAKAGES[breakage]
    break_it(tmp_path, items)
    dataset = FolderDataset(write_manifest(tmp_path, {name: items[name]}))
    assert list(dataset) == []
    with pytest.raises(InputError, match=message):
        dataset[0]
    assert dataset.skipped[0].name == f"{name}/0"


def test_a_changed_annotation_file_is_read_again(tmp_path: Path, items: Items) -> None:
    dataset = FolderDataset(write_manifest(tmp_path, {"people": items["people"]}))
    assert dataset[0].keypoints is not None
    write_people(tmp_path / "people.json", annotations=[])
    again = dataset[0].keypoints
    assert again is not None
    assert again.shape == (0, 17, 3)
