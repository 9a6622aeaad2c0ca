"""Masks drawn in common formats: what is drawn is what the reader gives, and what cannot be is named."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_masks

from diffusion_perception_ros.datasets.annotated import open_annotated
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import UNKNOWN_INSTANCE, UNLABELLED


WIDTH, HEIGHT = 40, 30
BOX = [5, 4, 25, 4, 25, 14, 5, 14]
"""x, y of a rectangle's corners."""


def write_picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))


def drawn_box() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:14, 5:25] = 1
    return mask


def write_coco(folder: Path, *segmentations: Any, crowd: bool = False, **image: Any) -> Path:
    """One picture; segmentation i is of category i % 2."""
    write_picture(folder / "images" / "a.png")
    content = {
        "images": [{"id": 3, "file_name": "a.png", "width": WIDTH, "height": HEIGHT} | image],
        "categories": [{"id": 7, "name": "door", "color": [1, 2, 3]}, {"id": 2, "name": "sign"}],
        "annotations": [
            {"id": i, "image_id": 3, "category_id": (7, 2)[i % 2], "segmentation": s, "iscrowd": int(crowd)}
            for i, s in enumerate(segmentations)
        ],
    }
    path = folder / "annotations" / "instances.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def plain_run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's: column by column, zeros first."""
    column = mask.T.reshape(-1)
    ends = np.flatnonzero(np.diff(column)) + 1
    runs = np.diff([0, *ends.tolist(), column.size]).tolist()
    return runs if column[0] == 0 else [0, *runs]


def test_coco_polygons_and_both_kinds_of_run_lengths_agree(tmp_path: Path) -> None:
    packed = coco_masks.encode(np.asfortranarray(drawn_box()))
    forms = {
        "polygon": [BOX],
        "plain": {"size": [HEIGHT, WIDTH], "counts": plain_run_lengths(drawn_box())},
        "packed": {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()},
    }
    for name, segmentation in forms.items():
        path = write_coco(tmp_path / name, segmentation)
        for dataset in (open_annotated(path), open_annotated(tmp_path / name)):
            (sample,) = dataset
            assert sample.classes == ("door", "sign")
            np.testing.assert_array_equal(sample.semantic == 0, drawn_box() == 1, err_msg=name)
            assert set(np.unique(sample.semantic)) == {0, UNLABELLED}
            np.testing.assert_array_equal(sample.instances == 1, drawn_box() == 1)
            assert dataset.colors == {"door": (1, 2, 3)}


def test_small_objects_lie_on_large_ones_and_crowds_have_no_instance(tmp_path: Path) -> None:
    inner = [10, 6, 15, 6, 15, 10, 10, 10]
    (sample,) = open_annotated(write_coco(tmp_path, [inner], [BOX]), background="nothing")
    assert sample.classes == ("door", "sign", "nothing")
    assert (sample.semantic[8, 12], sample.semantic[12, 20], sample.semantic[20, 20]) == (0, 1, 2)
    assert (sample.instances[8, 12], sample.instances[12, 20], sample.instances[20, 20]) == (1, 2, 0)
    (sample,) = open_annotated(write_coco(tmp_path / "crowd", [BOX], crowd=True))
    assert sample.instances[8, 12] == UNKNOWN_INSTANCE


@pytest.mark.parametrize(
    ("segmentation", "image", "message"),
    [
        ([[1, 2, 3, 4]], {}, "no polygon of at least three points"),
        ([], {}, "no polygon of at least three points"),
        ([BOX], {"width": 80}, "a.png of .* is for 80x30 pixels but its picture is 40x30"),
        ({"size": [20, 20], "counts": [400]}, {}, "annotation 0 .* is for 20x20 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [7]}, {}, "do not add up to its 40x30 pixels"),
        ([BOX], {"file_name": "b.png"}, "b.png .* is missing"),
    ],
)
def test_a_coco_picture_that_cannot_be_used_says_why(
    tmp_path: Path, segmentation: Any, image: dict[str, Any], message: str
) -> None:
    dataset = open_annotated(write_coco(tmp_path, segmentation, **image))
    with pytest.raises(InputError, match=message):
        dataset[0]


def write_labelme(folder: Path, name: str, shapes: list[dict[str, Any]], **fields: Any) -> Path:
    content = {"shapes": shapes, "imagePath": f"..\\{folder.name}\\{name}.png", "imageData": None, **fields}
    write_picture(folder / f"{name}.png")
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def shape(label: str, kind: str, *points: tuple[float, float], **fields: Any) -> dict[str, Any]:
    return {"label": label, "shape_type": kind, "points": points, **fields}


def test_labelme_shapes(tmp_path: Path) -> None:
    _, stored = cv2.imencode(".png", np.full((3, 4), 255, np.uint8))
    shapes = [
        shape("door", "rectangle", (5, 4), (25, 14)),
        shape("sign", "circle", (30.0, 20.0), (33.0, 20.0)),
        shape("sign", "mask", (1, 20), (4, 22), mask=base64.b64encode(stored.tobytes()).decode()),
        shape("pole", "polygon", (10, 6), (15, 6), (15, 10), (10, 10), group_id=4),
        shape("pole", "polygon", (18, 6), (20, 6), (20, 10), (18, 10), group_id=4),
        shape("__ignore__", "rectangle", (22, 4), (25, 14)),
    ]
    write_labelme(tmp_path, "a", shapes, imageWidth=WIDTH, imageHeight=HEIGHT)
    dataset = open_annotated(tmp_path)
    (sample,) = dataset
    assert sample.classes == ("door", "pole", "sign")
    where = {"door": (12, 12), "pole": (8, 12), "sign": (20, 30)}
    assert [sample.classes[sample.semantic[place]] for place in where.values()] == list(where)
    assert sample.semantic[21, 2] == sample.classes.index("sign")
    assert (sample.semantic == 2).sum() == pytest.approx(np.pi * 9 + 12, abs=4)
    assert sample.semantic[8, 24] == sample.semantic[28, 28] == UNLABELLED
    assert sample.instances[8, 12] == sample.instances[8, 19] != sample.instances[12, 12]
    assert sample.instances[20, 30] != sample.instances[21, 2]
    assert dataset.things == {"door", "pole", "sign"}


def test_a_labelme_file_may_hold_its_picture(tmp_path: Path) -> None:
    _, stored = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    path = write_labelme(tmp_path, "a", [shape("door", "rectangle", (5, 4), (25, 14))])
    content = json.loads(path.read_text()) | {"imagePath": "gone.png"}
    path.write_text(json.dumps(content | {"imageData": base64.b64encode(stored.tobytes()).decode()}))
    (sample,) = open_annotated(tmp_path)
    assert sample.rgb.shape == (HEIGHT, WIDTH, 3)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"gone\.png of .* is missing"):
        open_annotated(tmp_path)[0]


def test_labelme_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    write_labelme(tmp_path / "line", "a", [shape("door", "line", (1, 1), (5, 5))])
    with pytest.raises(InputError, match=r"'door' of .*a\.json is a 'line': only polygon, rectangle, circle and mask"):
        open_annotated(tmp_path / "line")[0]
    write_labelme(tmp_path / "size", "a", [shape("door", "rectangle", (5, 4), (25, 14))], imageWidth=9, imageHeight=9)
    with pytest.raises(InputError, match=r"size/a of .* is for 9x9 pixels"):
        open_annotated(tmp_path / "size")[0]
    _, stored = cv2.imencode(".png", np.full((3, 4), 255, np.uint8))
    outside = shape("door", "mask", (38, 1), (41, 3), mask=base64.b64encode(stored.tobytes()).decode())
    write_labelme(tmp_path / "outside", "a", [outside])
    with pytest.raises(InputError, match="does not lie inside"):
        open_annotated(tmp_path / "outside")[0]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.json").write_text('{"shapes": [{"points": []}], "imagePath": "a.png"}')
    with pytest.raises(InputError, match=r"a\.json has no object that can be used: shape 0 .* label: Field required"):
        open_annotated(tmp_path / "broken")


@pytest.mark.parametrize("coloured", [False, True])
def test_mask_pictures_by_id_and_by_colour(tmp_path: Path, coloured: bool) -> None:
    for name in "ab":
        write_picture(tmp_path / "rgb" / f"{name}.png")
    mask = drawn_box()
    mask[20:] = 9
    if coloured:
        table = np.array([(10, 20, 30), (200, 0, 5)] + [(7, 7, 7)] * 8, np.uint8)
        mask = table[mask][..., ::-1]
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "b.png"), mask)
    names: Any = {"floor": [10, 20, 30], "door": [200, 0, 5]} if coloured else ["floor", "door"]
    (tmp_path / "classes.json").write_text(json.dumps(names))
    dataset = open_annotated(tmp_path)
    (sample,) = dataset
    assert sample.name.endswith("/b")
    assert (sample.semantic[8, 8], sample.semantic[18, 8], sample.semantic[25, 8]) == (1, 0, UNLABELLED)
    assert sample.instances is None
    with pytest.raises(InputError, match=r"name 'rest' in classes\.json"):
        open_annotated(tmp_path, background="rest")
    cv2.imwrite(str(tmp_path / "masks" / "b.png"), mask[:10])
    with pytest.raises(InputError, match=r"b\.png is 40x10 but its picture is 40x30"):
        dataset[0]
    (tmp_path / "classes.json").unlink()
    with pytest.raises(InputError, match=r"classes\.json must name the classes"):
        open_annotated(tmp_path)


def test_folders_without_masks_say_what_is_missing(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    with pytest.raises(InputError, match="has no masks: it needs a COCO file, LabelMe's"):
        open_annotated(tmp_path)
    with pytest.raises(InputError, match="there is no folder or annotation file"):
        open_annotated(tmp_path / "nothing")
    (tmp_path / "a.json").write_text('{"images": 3, "annotations": []}')
    with pytest.raises(InputError, match=r"a\.json is not an annotation file in the COCO format: images"):
        open_annotated(tmp_path)
    (tmp_path / "b.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(InputError, match=r"has 2 COCO files \(a\.json, b\.json\)"):
        open_annotated(tmp_path)


def test_one_bad_object_costs_that_object(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [BOX], [[1, 2, 3, 4], [float(value) for value in BOX]], [], [[1, 2]], None)
    content = json.loads(path.read_text())
    content["categories"] += [{"id": "9", "name": "wall", "color": "#a60f2f", "supercategory": None, "metadata": {}}]
    content["annotations"] += [
        {"id": 20, "image_id": 3, "category_id": 44, "segmentation": [BOX]},
        {"id": 21, "image_id": 99, "category_id": 7, "segmentation": [BOX]},
        {"id": 22, "image_id": "3", "category_id": 9, "segmentation": BOX, "bbox": None, "color": "#1f2fd9"},
        {"id": 23, "image_id": 3, "category_id": 7, "segmentation": {"size": [1, 1], "counts": "x"}},
        {"id": 24, "image_id": 3, "category_id": 7, "segmentation": {"counts": 5}},
        7,
    ]
    for entry in content["images"]:
        entry |= {"file_name": "images\\a.png", "license": None, "date_captured": 5, "path": "/datasets/a.png"}
    path.write_text(json.dumps(content))
    dataset = open_annotated(path)
    (sample,) = dataset
    assert dataset.skipped == []
    assert dataset.colors == {"door": (1, 2, 3), "wall": (166, 15, 47)}
    assert (sample.semantic != UNLABELLED).sum() == drawn_box().sum()
    assert len(set(np.unique(sample.instances)) - {UNKNOWN_INSTANCE}) == 1  # three lie on each other
    (note,) = dataset.notes
    assert note.startswith("8 object(s) of ")


COLORS = {
    "#A60F2F": (166, 15, 47),
    "a60f2f": (166, 15, 47),
    "#abc": (170, 187, 204),
    "#a60f2fff": (166, 15, 47),
    "rgb(166, 15, 47)": (166, 15, 47),
    "red": (255, 0, 0),
    "": None,
    "colourful": None,
    5: None,
    (1, 2, 300): None,
    (0.5, 0.0, 1.0): (128, 0, 255),
    (1, 2, 3, 255): (1, 2, 3),
}


@pytest.mark.parametrize("value", COLORS)
def test_colours_in_every_spelling(tmp_path: Path, value: Any) -> None:
    path = write_coco(tmp_path, [BOX])
    content = json.loads(path.read_text())
    content["categories"][0]["color"] = value
    path.write_text(json.dumps(content))
    dataset = open_annotated(path)
    assert len(list(dataset)) == 1
    assert dataset.colors.get("door") == COLORS[value]


def test_coco_panoptic(tmp_path: Path) -> None:
    write_picture(tmp_path / "images" / "a.png")
    ids = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    ids[drawn_box() == 1] = (0, 2, 1)  # BGR of 1 + 256 * 2
    ids[20:] = (0, 0, 9)
    (tmp_path / "panoptic_val").mkdir()
    cv2.imwrite(str(tmp_path / "panoptic_val" / "a.png"), ids)
    segments = [{"id": 513, "category_id": 1, "iscrowd": 0}, {"id": 9, "category_id": 2}, {"id": 5, "category_id": 77}]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "door", "isthing": 1}, {"id": 2, "name": "floor", "isthing": 0}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
    }
    (tmp_path / "panoptic_val.json").write_text(json.dumps(content))
    dataset = open_annotated(tmp_path)
    (sample,) = dataset
    np.testing.assert_array_equal(sample.semantic == 0, drawn_box() == 1)
    assert sample.semantic[25, 3] == 1
    assert (sample.instances[8, 8], sample.instances[25, 3]) == (1, UNKNOWN_INSTANCE)
    assert dataset.things == {"door"}
    assert "category 77" in dataset.notes[0]


def test_cvat(tmp_path: Path) -> None:
    write_picture(tmp_path / "images" / "a b.png")
    mask = "<mask label='sign' rle='1,2,2,1' left='30' top='20' width='3' height='2' z_order='0'/>"
    (tmp_path / "annotations.xml").write_text(
        f"""<annotations><version>1.1</version><meta><task><labels>
        <label><name>door</name><color>#a60f2f</color></label></labels></task></meta>
        <image id="0" name="a b.png" width="{WIDTH}" height="{HEIGHT}">
        <polygon label="sign" points="10,6;15,6;15,10;10,10" z_order="3"><attribute name="x">1</attribute></polygon>
        <box label="door" xtl="5" ytl="4" xbr="25" ybr="14" z_order="1"/>
        <ellipse label="pole" cx="33" cy="10" rx="3" ry="2"/>
        <polyline label="door" points="1,1;2,2"/><points label="door" points="1,1"/>{mask}<tag label="indoor"/>
        <polygon label="door" points="broken"/></image><image id="1" name="unseen.png"/></annotations>"""
    )
    dataset = open_annotated(tmp_path)
    (sample,) = dataset
    names = [sample.classes[sample.semantic[place]] for place in ((12, 20), (8, 12), (10, 33), (20, 31), (21, 32))]
    assert names == ["door", "sign", "pole", "sign", "sign"]
    assert dataset.colors == {"door": (166, 15, 47)}
    assert dataset.notes[0].startswith("3 object(s)")


def brush(mask: np.ndarray) -> list[int]:
    """Label Studio's runs and literals of the four channels."""
    values = np.repeat(mask.reshape(-1) * 255, 4)
    bits = f"{values.size:032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    place = 0
    while place < values.size:
        end = place + int(np.argmax(np.append(values[place:] != values[place], True)))
        if end - place > 4:
            bits += f"1{3:02b}{end - place - 1:016b}{values[place]:08b}"
        else:
            bits += f"0{0:02b}{end - place - 1:03b}" + "".join(f"{value:08b}" for value in values[place:end])
        place = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]


def test_label_studio(tmp_path: Path) -> None:
    write_picture(tmp_path / "images" / "a.png")
    box = {"x": 12.5, "y": 100 * 4 / 30, "width": 50, "height": 100 / 3, "rotation": 0}
    corners = [[25, 20], [37.5, 20], [37.5, 100 / 3], [25, 100 / 3]]
    small = np.zeros((HEIGHT, WIDTH), np.uint8)
    small[22:26, 30:36] = 1
    results = [
        {"id": "a", "type": "rectanglelabels", "value": box | {"rectanglelabels": ["door"]}},
        {"id": "b", "type": "polygonlabels", "value": {"points": corners, "polygonlabels": ["sign"]}},
        {"id": "c", "type": "brushlabels", "value": {"format": "rle", "rle": brush(small), "brushlabels": ["pole"]}},
        {"id": "d", "type": "keypointlabels", "value": {"x": 1, "y": 1, "keypointlabels": ["door"]}},
        {"id": "e", "type": "brushlabels", "value": {"rle": brush(small)[:9], "brushlabels": ["pole"]}},
        {"id": "f", "type": "polygonlabels", "value": {"points": [[1, 1]], "polygonlabels": ["door"]}},
    ]
    task = {"id": 3, "data": {"image": "/data/upload/1/0a1b2c3d-a.png"}, "annotations": [{"result": results}]}
    (tmp_path / "project.json").write_text(
        json.dumps([task, {"id": 4, "data": {"image": "b.png"}, "annotations": []}])
    )
    dataset = open_annotated(tmp_path)
    (sample,) = dataset
    assert [sample.classes[sample.semantic[p]] for p in ((12, 20), (8, 12), (24, 33))] == ["door", "sign", "pole"]
    np.testing.assert_array_equal(sample.semantic == sample.classes.index("pole"), small == 1)
    assert dataset.notes[0].startswith("3 object(s)")


def test_yolo(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_picture(tmp_path / "images" / "train" / f"{name}.png")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    line = " ".join(str(value / (WIDTH if place % 2 == 0 else HEIGHT)) for place, value in enumerate(BOX))
    (tmp_path / "labels" / "train" / "a.txt").write_text(f"1 {line}\n\n0 0.5 0.5 0.1 0.1\n7 {line}\n0 x y\n")
    (tmp_path / "data.yaml").write_text("names: {0: sign, 1: door}\n")
    dataset = open_annotated(tmp_path)
    (sample,) = dataset
    np.testing.assert_array_equal(sample.semantic == 1, drawn_box() == 1)
    assert dataset.notes[0].startswith("3 object(s)")


def test_boxes_that_are_turned(tmp_path: Path) -> None:
    """CVAT turns them about their centre, Label Studio about the upper left corner; both clockwise."""
    for name in ("cvat", "studio"):
        write_picture(tmp_path / name / "images" / "a.png")
    box = "<box label='door' xtl='10' ytl='10' xbr='20' ybr='14' rotation='90'/>"
    (tmp_path / "cvat" / "a.xml").write_text(f"<annotations><image name='a.png'>{box}</image></annotations>")
    value = {"x": 25, "y": 100 / 3, "width": 25, "height": 400 / 30, "rotation": 90, "rectanglelabels": ["door"]}
    task = {"data": {"image": "a.png"}, "annotations": [{"result": [{"type": "rectanglelabels", "value": value}]}]}
    (tmp_path / "studio" / "a.json").write_text(json.dumps([task]))
    for name, rows, columns in (("cvat", (7, 17), (13, 17)), ("studio", (10, 20), (6, 10))):
        (sample,) = open_annotated(tmp_path / name)
        drawn = np.argwhere(sample.semantic == 0)
        assert (*drawn.min(0), *(drawn.max(0) + 1)) == (rows[0], columns[0], rows[1], columns[1])
        assert len(drawn) == 40


@pytest.mark.parametrize("names", ["{'0': sign, '1': door, '10': wall}", "{1: sign, 2: door}", "5"])
def test_yolo_classes_that_are_not_numbered_from_0(tmp_path: Path, names: str) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "data.yaml").write_text(f"names: {names}\n")
    with pytest.raises(InputError, match="must name the classes, numbered from 0 on"):
        open_annotated(tmp_path)


def test_x_anylabeling(tmp_path: Path) -> None:
    extra = {"flags": {}, "description": None, "difficult": False, "attributes": {}, "kie_linking": [], "score": None}
    shapes = [
        shape("door", "rectangle", (5, 4), (25, 4), (25, 14), (5, 14), **extra),
        shape("sign", "rotation", (30, 20), (35, 20), (35, 25), (30, 25), direction=0.0, **extra),
        shape("sign", "point", (1, 1), **extra),
        {"label": None, "points": []},
    ]
    write_labelme(tmp_path, "a", shapes, version="2.4.0", imageWidth=WIDTH, imageHeight=HEIGHT)
    (tmp_path / "b.json").write_text('{"shapes": 5}')
    dataset = open_annotated(tmp_path)
    (sample,) = dataset
    np.testing.assert_array_equal(sample.semantic == 0, drawn_box() == 1)
    assert sample.semantic[22, 32] == 1
    assert dataset.notes[0].startswith("2 object(s)")
    assert "b.json" in dataset.skipped[0].reason
