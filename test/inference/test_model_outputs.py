"""Every kind of output and prompt through the public door, on real graphs with outputs known in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from model_factory import LABELS, edit_card
from sampled_model_factory import OUTPUTS, write_prompted_model

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import CardError, read_card, write_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.visualization import draw_keypoints


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
JOINT = {"name": "tip", "color": [1.0, 0.0, 0.0]}


def load(folder: Path, *tasks: str, **options: Any) -> Estimator:
    return Estimator.load(write_prompted_model(folder / "tiny", tasks, **options), backend="cpu", threads=1)


def picture(width: int, height: int, color: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


def smeared(drawing: np.ndarray) -> np.ndarray:
    """As a latent decoder gives it: blurred outlines and colours that are off by some grey levels."""
    noise = np.random.default_rng(0).normal(0, 6, drawing.shape)
    return np.clip(cv2.GaussianBlur(drawing, (0, 0), 1.5) + noise, 0, 255).astype(np.uint8)


def test_pictures_and_alpha_are_stretched_from_the_cards_range(tmp_path: Path) -> None:
    estimator = load(tmp_path, "albedo", "shading", "alpha")
    prediction = estimator.predict(picture(300, 200, (51, 102, 204)))
    np.testing.assert_allclose(prediction.albedo, np.broadcast_to([0.2, 0.4, 0.8], (200, 300, 3)), atol=1e-5)
    np.testing.assert_allclose(prediction.shading, np.broadcast_to([0.1, 0.2, 0.4], (200, 300, 3)), atol=1e-5)
    np.testing.assert_allclose(prediction.alpha, np.full((200, 300), 0.2), atol=1e-5)
    assert prediction.residual is None
    only = estimator.predict(picture(300, 200), tasks=["alpha"])
    assert only.albedo is None
    assert only.alpha is not None


def test_classes_drawn_in_colours(tmp_path: Path) -> None:
    rgb = picture(256, 192)
    cv2.circle(rgb, (60, 80), 40, RED, cv2.FILLED)
    cv2.rectangle(rgb, (150, 30), (240, 150), BLUE, cv2.FILLED)
    prediction = load(tmp_path, "semantic").predict(smeared(rgb))
    expected = np.select([rgb[..., 0] > 0, rgb[..., 2] > 0], [1, 7], 0)
    assert prediction.semantic is not None
    assert prediction.semantic.dtype == np.uint8
    assert np.mean(prediction.semantic == expected) > 0.98
    assert prediction.semantic_confidence is not None
    assert prediction.semantic_confidence[80, 60] > 0.95
    assert prediction.semantic_confidence.max() <= 1


def test_a_colour_between_two_labels_is_unsure(tmp_path: Path) -> None:
    prediction = load(tmp_path, "semantic").predict(picture(64, 64, (160, 160, 0)))
    assert set(np.unique(prediction.semantic)) <= {1, 2}
    np.testing.assert_allclose(prediction.semantic_confidence, 0.5, atol=0.01)


def test_entities_drawn_in_colours(tmp_path: Path) -> None:
    """Two touching, two of one colour far apart, one partly hidden, one too small, on black."""
    rgb = picture(512, 384)
    for corner, color in [
        (((20, 20), (120, 150)), (200, 40, 40)),
        (((121, 20), (220, 150)), (60, 180, 70)),  # touches the first
        (((300, 30), (380, 110)), (60, 90, 220)),
        (((400, 250), (500, 350)), (60, 90, 220)),  # same colour, elsewhere
        (((40, 220), (240, 360)), (230, 200, 40)),
    ]:
        cv2.rectangle(rgb, *corner, color, cv2.FILLED)
    cv2.rectangle(rgb, (450, 60), (456, 66), (240, 240, 240), cv2.FILLED)
    instances = load(tmp_path, "instances", card={"input": fixed_input(256, 192)}).predict(smeared(rgb)).instances
    assert instances is not None
    assert instances.dtype == np.uint16
    centres = [(85, 70), (85, 170), (70, 340), (300, 450), (290, 140)]
    found = [int(instances[centre]) for centre in centres]
    assert len(set(found)) == 5
    assert set(np.unique(instances)) == {0, *found}
    assert instances[290, 140] == 1  # the largest is the first
    for number, (top, left, bottom, right) in zip(
        found, [(20, 20, 151, 121), (20, 121, 151, 221), (30, 300, 111, 381)], strict=False
    ):
        truth = np.zeros(instances.shape, bool)
        truth[top:bottom, left:right] = True
        overlap = np.count_nonzero(truth & (instances == number)) / np.count_nonzero(truth | (instances == number))
        assert overlap > 0.9


def test_sixteen_colours_are_sixteen_entities(tmp_path: Path) -> None:
    levels = [0.25, 0.6, 0.95]
    colors = [(r, g, b) for r in levels for g in levels for b in levels][:16]
    rgb = picture(512, 512)
    for index, color in enumerate(colors):
        row, column = divmod(index, 4)
        corner = (column * 128 + 10, row * 128 + 10)
        shade = tuple(int(255 * channel) for channel in color)
        cv2.rectangle(rgb, corner, (corner[0] + 107, corner[1] + 107), shade, cv2.FILLED)
    instances = load(tmp_path, "instances", card={"input": fixed_input(256, 256)}).predict(smeared(rgb)).instances
    assert set(np.unique(instances)) == set(range(17))


def test_an_empty_drawing_has_no_entities(tmp_path: Path) -> None:
    assert not load(tmp_path, "instances").predict(smeared(picture(128, 96))).instances.any()


def fixed_input(width: int, height: int) -> dict[str, Any]:
    size = {"rule": "fixed", "width": width, "height": height}
    return {"tensor": "image", "size": size, "mean": [0.0] * 3, "std": [1.0] * 3}


def test_keypoints_are_spots_of_one_colour(tmp_path: Path) -> None:
    rgb = picture(512, 384, (30, 60, 30))
    centres = [(100, 80), (300, 120), (400, 300)]
    for centre in centres:
        cv2.circle(rgb, centre, 9, RED, cv2.FILLED)
    cv2.line(rgb, centres[0], centres[1], BLUE, 5)  # a bone of the skeleton, behind the spots
    cv2.rectangle(rgb, (20, 250), (120, 350), RED, cv2.FILLED)  # too large for a spot
    cv2.circle(rgb, centres[0], 9, RED, cv2.FILLED)
    cv2.circle(rgb, centres[1], 9, RED, cv2.FILLED)
    keypoints = load(tmp_path, "keypoints", card={"input": fixed_input(256, 192)}).predict(smeared(rgb)).keypoints
    assert keypoints is not None
    assert keypoints.shape == (3, 3)
    found = sorted(keypoints[:, :2].tolist())
    np.testing.assert_allclose(found, sorted(centres), atol=1.5)
    assert ((keypoints[:, 2] > 0.5) & (keypoints[:, 2] <= 1)).all()
    assert (np.diff(keypoints[:, 2]) <= 0).all()


def test_joints_have_names_by_their_colours(tmp_path: Path) -> None:
    rgb = picture(256, 192)
    cv2.circle(rgb, (60, 40), 5, RED, cv2.FILLED)
    cv2.circle(rgb, (200, 150), 5, BLUE, cv2.FILLED)
    joints = [
        {"name": name, "color": [channel / 255 for channel in color]} for name, color in (("tip", RED), ("base", BLUE))
    ]
    folder = write_prompted_model(tmp_path / "tiny", ["keypoints"], card={"input": fixed_input(256, 192)})
    edit_card(folder, outputs=[{"task": "keypoints", **OUTPUTS["keypoints"], "joints": joints}])
    write_card(read_card(folder), folder)  # as read
    keypoints = Estimator.load(folder).predict(rgb).keypoints
    found = sorted(keypoints.tolist(), key=lambda row: row[3])
    np.testing.assert_allclose([row[:2] for row in found], [(60, 40), (200, 150)], atol=1)
    assert [row[3] for row in found] == [0, 1]
    assert draw_keypoints(rgb, keypoints).shape == rgb.shape


def test_no_keypoints(tmp_path: Path) -> None:
    assert load(tmp_path, "keypoints").predict(picture(64, 64)).keypoints.shape == (0, 3)


def test_flow_compares_with_the_last_picture_of_the_stream(tmp_path: Path) -> None:
    """The graph's flow is the change of brightness, ten of its pixels per unit; the picture has twice its size."""
    estimator = load(tmp_path, "flow", "alpha", prompts=["second_image"])
    dark, bright = picture(256, 192, (51, 51, 51)), picture(256, 192, (102, 102, 102))
    first = estimator.predict(dark, stream="left")
    assert first.flow is None
    assert first.alpha is not None
    flow = estimator.predict(bright, stream="left").flow
    expected = np.broadcast_to([-0.2 * 10 * 2, 0], (192, 256, 2))
    np.testing.assert_allclose(flow, expected, atol=1e-4)
    np.testing.assert_allclose(estimator.predict(dark, stream="left").flow, -expected, atol=1e-4)
    assert estimator.predict(dark, stream="right").flow is None
    assert estimator.predict(picture(128, 96), stream="left").flow is None  # another size: nothing to compare with
    estimator.predict(dark)
    estimator.forget()
    assert estimator.predict(bright).flow is None
    estimator.warm_up()
    assert estimator.predict(bright).flow is not None


def test_the_last_picture_is_kept_as_it_was(tmp_path: Path) -> None:
    """A camera driver may fill the same array again."""
    estimator = load(tmp_path, "flow", prompts=["second_image"])
    rgb = picture(128, 96, (51, 51, 51))
    estimator.predict(rgb)
    rgb[:] = 102
    flow = estimator.predict(rgb).flow
    assert flow is not None
    np.testing.assert_allclose(flow[..., 0], -2, atol=1e-4)


@pytest.mark.parametrize(("order", "expected"), [("xy", 100.5 / 400), ("yx", 150.5 / 200)])
def test_points_in_the_cards_order(tmp_path: Path, order: str, expected: float) -> None:
    points = {"tensor": "points", "most": 2, "order": order}
    estimator = load(tmp_path, "mask", "alpha", prompts=["points"], card={"points": points})
    rgb = picture(400, 200)
    mask = estimator.predict(rgb, points=[(100, 150, 1), (3, 4, 0)]).mask
    np.testing.assert_allclose(mask, np.full((200, 400), expected), atol=1e-5)
    unasked = estimator.predict(rgb)
    assert unasked.mask is None
    assert unasked.alpha is not None
    estimator.warm_up()


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([(1, 2)], r"1 to 2 points as rows of u, v, label; got the shape \(1, 2\)"),
        ([], r"got the shape \(0,\)"),
        ([(1, 2, 1)] * 3, r"got the shape \(3, 3\)"),
        ([(64, 2, 1)], r"the point \(64, 2\) lies outside of the image of 64x48 pixels"),
        ([(1, 2, 1), (1, float("nan"), 1)], r"the point \(1, nan\) lies outside"),
        ([(1, 2, 2)], r"label of a point is 1 \(inside the object\) or 0"),
    ],
)
def test_points_that_mean_nothing(tmp_path: Path, points: Any, words: str) -> None:
    estimator = load(tmp_path, "mask", prompts=["points"])
    with pytest.raises(InputError, match=words):
        estimator.predict(picture(64, 48), points=points)


def test_prompts_for_models_that_take_none(tmp_path: Path) -> None:
    estimator = load(tmp_path, "alpha")
    with pytest.raises(InputError, match="model 'tiny' takes no point prompts"):
        estimator.predict(picture(64, 48), points=[(1, 2, 1)])
    with pytest.raises(InputError, match="model 'tiny' takes no mask as a prompt"):
        estimator.predict(picture(64, 48), prompt_mask=np.ones((48, 64)))


def test_a_mask_as_a_prompt(tmp_path: Path) -> None:
    outputs = [{"task": "mask", "tensor": "hint", "range": [0.0, 1.0]}]
    estimator = load(tmp_path, "mask", prompts=["prompt_mask"], card={"outputs": outputs})
    visible = np.zeros((96, 128), np.uint8)
    visible[20:50, 30:90] = 1
    np.testing.assert_array_equal(estimator.predict(picture(128, 96), prompt_mask=visible).mask, visible)
    assert estimator.predict(picture(128, 96)).mask is None
    with pytest.raises(InputError, match=r"mask has the shape \(3, 4\), the image is 128x96"):
        estimator.predict(picture(128, 96), prompt_mask=np.ones((3, 4)))
    estimator.warm_up()


@pytest.mark.parametrize(
    ("tasks", "changes", "words"),
    [
        (["alpha"], {"range": [1.0, 0.0]}, "alpha.range: Value error, range (1.0, 0.0) is empty"),
        (["alpha"], {"quantity": "mask"}, "alpha.quantity: Input should be 'alpha'"),
        (["albedo"], {"quantity": "shading"}, "the task 'albedo' gives the quantity 'albedo', not 'shading'"),
        (["albedo"], {"prediction_space": "log"}, "prediction_space: Input should be"),
        (["flow"], {}, "'flow' needs 'second_image'"),
        (["instances"], {"offset_scale": 2.0}, "encoding 'colors' has no use for 'offset_scale'"),
        (["instances"], {"encoding": "offsets"}, "encoding 'offsets' needs 'offset_scale'"),
        (["instances"], {"encoding": "offsets", "offset_scale": 1.0}, "'instances' needs 'semantic'"),
        (["instances"], {"clustering": {"most": 0}}, "clustering.most: Input should be greater than 0"),
        (
            ["semantic"],
            {"labels": [label.model_dump() | {"color": RED} for label in LABELS]},
            "label color used twice",
        ),
        (["keypoints"], {"least_area": 2.0}, "keypoints.least_area: Input should be less than 1"),
        (["keypoints"], {"joints": [JOINT, JOINT]}, "a joint appears twice in ['tip', 'tip']"),
        (["keypoints"], {"joints": [JOINT, {**JOINT, "name": "base"}]}, "the colours of 'tip' and 'base' are nearer"),
        (["keypoints"], {"joints": [JOINT], "color": [0, 1, 0]}, "'joints' have their own colours"),
    ],
)
def test_contradiction_in_an_output_is_named(
    tmp_path: Path, tasks: list[str], changes: dict[str, Any], words: str
) -> None:
    folder = write_prompted_model(tmp_path / "tiny", tasks)
    edit_card(folder, outputs=[{"task": task, **OUTPUTS[task], **changes} for task in tasks])
    with pytest.raises(CardError) as error:
        read_card(folder)
    assert words in str(error.value)


@pytest.mark.parametrize("prompt", ["points", "prompt_mask"])
def test_prompts_need_the_task_mask(tmp_path: Path, prompt: str) -> None:
    folder = write_prompted_model(tmp_path / "tiny", ["alpha"], prompts=[prompt])
    with pytest.raises(CardError, match=f"'{prompt}' needs the task 'mask'"):
        read_card(folder)


def test_licence_terms(tmp_path: Path) -> None:
    terms = {"spdx": "CC-BY-NC-4.0", "non_commercial": True, "url": "https://example.org/terms"}
    folder = write_prompted_model(tmp_path / "tiny", ["alpha"], card={"licence_terms": terms})
    card = read_card(folder)
    assert card.licence_terms is not None
    assert card.licence_terms.non_commercial
    assert not card.licence_terms.gated
    edit_card(folder, schema_version=1)
    with pytest.raises(CardError, match="'licence_terms' needs schema_version 2, the card says 1"):
        read_card(folder)
