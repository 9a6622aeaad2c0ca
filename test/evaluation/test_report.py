"""Reports: self-contained, complete, and honest about what they leave out."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from model_factory import LABELS, write_model

from diffusion_perception_ros.datasets import EvaluationSample, Skipped
from diffusion_perception_ros.evaluation.reports.charts import histogram, stage_bars
from diffusion_perception_ros.evaluation.reports.figures import frame_tiles
from diffusion_perception_ros.evaluation.reports.panels import Panel
from diffusion_perception_ros.evaluation.reports.point_view import BACKGROUND, render_point_view
from diffusion_perception_ros.evaluation.reports.report import write_evaluation_report
from diffusion_perception_ros.evaluation.run import EvaluatedFrame, Evaluation, spread
from diffusion_perception_ros.evaluation.scoring import score_completed, score_image
from diffusion_perception_ros.inference.card import ModelCard, read_card
from diffusion_perception_ros.sample import UNKNOWN_INSTANCE, Intrinsics, Prediction


WIDTH, HEIGHT = 96, 72
CAMERA = Intrinsics(WIDTH, HEIGHT, 90.0, 90.0, 47.5, 35.5)
ALL_TILES = [
    "Input",
    "Depth",
    "Depth, ground truth",
    "Depth error",
    "Point cloud",
    "Surface normals",
    "Normal error",
    "Segmentation",
]


@pytest.fixture
def card(tmp_path: Path) -> ModelCard:
    return read_card(write_model(tmp_path / "models" / "toy"))


def floor() -> tuple[EvaluationSample, Prediction]:
    """A floor seen from 0.6 m above it, predicted well up to scale and shift."""
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    depth = np.broadcast_to(0.6 / (0.35 + (rows - CAMERA.cy) / CAMERA.fy * 0.9), (HEIGHT, WIDTH)).astype(np.float32)
    depth = np.where((depth > 0) & (depth < 6), depth, np.nan)
    rgb = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    sample = EvaluationSample(rgb=rgb, depth=depth, intrinsics=CAMERA, name="floor/1 <b>&", group="floor")
    normals = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    normals[..., 1] = -1
    semantic = np.zeros((HEIGHT, WIDTH), np.uint8)
    semantic[:20] = 7
    instances = np.zeros((HEIGHT, WIDTH), np.uint16)
    instances[40:50, 20:40] = 1
    relative = np.clip(np.nan_to_num(depth, nan=6.0) / 8, 0, 1)
    prediction = Prediction(
        depth_relative=relative,
        depth_quantity="relative_depth",
        normals=normals,
        semantic=semantic,
        instances=instances,
        timings={"preprocess": 0.001, "inference": 0.02, "postprocess": 0.004},
    )
    return sample, prediction


def decode(tile: Panel) -> np.ndarray:
    assert tile.source is not None
    data = base64.b64decode(tile.source.partition(",")[2])
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image[:, :, ::-1]


class References(HTMLParser):
    """Everything that a page would load, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_report_is_self_contained_and_complete(tmp_path: Path, card: ModelCard) -> None:
    sample, prediction = floor()
    result = Evaluation("some/data", card)
    result.images = [score_image(sample, prediction, LABELS)]
    result.frames = [EvaluatedFrame(sample, prediction)]
    result.skipped = [Skipped("floor/2", "depth/2.png is <missing>")]
    path = write_evaluation_report(tmp_path / "out", result, {"processor": "a <fast> one"})
    page = path.read_text(encoding="utf-8")
    references = References()
    references.feed(page)
    assert references.loaded
    assert all(reference.startswith("data:image/") for reference in references.loaded)
    assert not re.search(r"url\(|@import|https?://|//cdn", page)
    for title in [*ALL_TILES, "Time per image", "row plane in 1/depth", "training data", "processor"]:
        assert title in page
    assert "floor/1 &lt;b&gt;&amp;" in page
    assert "depth/2.png is &lt;missing&gt;" in page
    assert "a &lt;fast&gt; one" in page
    assert references.tags.count("svg") == 2
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page


def test_depth_completed_from_the_truth_is_not_taken_for_what_the_model_says(tmp_path: Path, card: ModelCard) -> None:
    sample, prediction = floor()
    alone = score_image(sample, prediction).scores["depth"]
    prediction.depth = sample.depth
    scores = score_completed(sample, prediction, card)
    assert scores.scores["depth"] == {"model_metric": scores.scores["depth"]["model_metric"]} | alone
    assert scores.scores["depth"]["model_metric"]["absrel"] == 0.0
    result = Evaluation("some/data", card, images=[scores], frames=[EvaluatedFrame(sample, prediction)], sparse=0.01)
    page = write_evaluation_report(tmp_path / "out", result, {}).read_text(encoding="utf-8")
    assert "in metres, completed from 1% of the true depth" in page
    assert re.search(r"<b>0\.000</b><span>Depth in metres, AbsRel\s↓</span><small>completed from 1%", page)
    assert re.search(r"Depth, AbsRel\s↓ \(affine-aligned\)", page)


def test_pictures_can_be_enlarged_from_the_keyboard_and_read_aloud(tmp_path: Path, card: ModelCard) -> None:
    sample, prediction = floor()
    result = Evaluation(
        "some/data", card, images=[score_image(sample, prediction)], frames=[EvaluatedFrame(sample, prediction)]
    )
    page = write_evaluation_report(tmp_path / "out", result, {}).read_text(encoding="utf-8")
    images = re.findall(r'<button type="button" title="Enlarge"><img src="data:[^"]+" alt="([^"]+)">', page)
    assert [text.partition(" of ")[0] for text in images] == ALL_TILES
    assert page.count('<th scope="row">') == page.count("<tr") - page.count("<thead>")


def test_objects_of_the_truth_are_shown(card: ModelCard) -> None:
    sample, prediction = floor()
    sample.instances = np.zeros((HEIGHT, WIDTH), np.uint16)
    sample.instances[:10], sample.instances[40:50, 20:40], sample.instances[60:, :30] = UNKNOWN_INSTANCE, 3, 4
    tiles = {tile.title: tile for tile in frame_tiles(sample, prediction, card)}
    assert tiles["Objects, ground truth"].caption == "2 objects in arbitrary colours; grey: not known"
    prediction.semantic = None
    tiles = {tile.title: tile for tile in frame_tiles(sample, prediction, card)}
    assert tiles["Objects"].caption == "1 object in arbitrary colours"


def test_all_pictures_of_a_frame_with_ground_truth(card: ModelCard) -> None:
    sample, prediction = floor()
    tiles = frame_tiles(sample, prediction, card)
    assert [tile.title for tile in tiles] == ALL_TILES
    assert all(decode(tile).shape == (HEIGHT, WIDTH, 3) for tile in tiles)
    by_title = {tile.title: tile for tile in tiles}
    assert "fitted to the true depth" in by_title["Depth"].caption
    assert by_title["Depth"].scale is not None
    assert by_title["Depth"].scale.left.endswith(" m")
    assert by_title["Segmentation"].legend == [("ground", "#000000"), ("sky", "#0000ff")]
    assert by_title["Segmentation"].caption == "1 object outlined"
    # The prediction is right up to scale and shift: the error map is black where there is ground truth.
    error = decode(by_title["Depth error"])
    assert error[np.isfinite(np.asarray(sample.depth))].mean() < 8


def test_relative_depth_without_ground_truth_shows_no_metres_and_no_cloud(card: ModelCard) -> None:
    sample, prediction = floor()
    sample.depth = None
    tiles = {tile.title: tile for tile in frame_tiles(sample, prediction, card)}
    assert tiles["Depth"].scale is not None
    assert (tiles["Depth"].scale.left, tiles["Depth"].scale.right) == ("near", "far")
    assert tiles["Point cloud"].source is None
    assert "relative" in tiles["Point cloud"].caption
    assert not {"Depth, ground truth", "Depth error", "Normal error"} & set(tiles)


def test_metric_depth_without_calibration_shows_no_cloud(card: ModelCard) -> None:
    sample, prediction = floor()
    sample.intrinsics = None
    prediction.depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    tiles = {tile.title: tile for tile in frame_tiles(sample, prediction, card)}
    assert tiles["Point cloud"].source is None
    assert "not calibrated" in tiles["Point cloud"].caption
    assert tiles["Depth"].caption == "in metres"


def test_segmentation_error_shows_what_is_wrong(card: ModelCard) -> None:
    sample, prediction = floor()
    sample.classes, sample.label_set = ("sky", "road", "pole"), "camvid"
    sample.semantic = np.ones((HEIGHT, WIDTH), np.uint8)
    sample.semantic[:10], sample.semantic[60:] = 0, 2
    tile = frame_tiles(sample, prediction, card)[-1]
    # Sky is predicted down to row 20: rows 10 to 20 are wrong, and poles (rows 60 to 72) have no counterpart.
    assert tile.title == "Segmentation error"
    assert tile.caption == "83% of the compared pixels are right"
    red = (decode(tile)[..., 0].astype(int) - decode(tile)[..., 2]).mean(axis=1)
    assert red[12:18].min() > 60
    assert abs(red[25:55]).max() < 15
    assert decode(tile)[64:].mean() < 60


def test_only_what_was_predicted_is_shown(card: ModelCard) -> None:
    sample, _ = floor()
    assert [tile.title for tile in frame_tiles(sample, Prediction(), card)] == ["Input"]


def test_point_view_is_seen_from_the_right_and_above() -> None:
    depth = np.full((HEIGHT, WIDTH), 3.0, np.float32)
    depth[30:42, 42:54] = 1.5
    rgb = np.full((HEIGHT, WIDTH, 3), (0, 0, 255), np.uint8)
    rgb[30:42, 42:54] = (255, 0, 0)
    view = render_point_view(rgb, depth, CAMERA)
    red = np.argwhere((view[..., 0] > 200) & (view[..., 2] < 50))
    blue = np.argwhere((view[..., 2] > 200) & (view[..., 0] < 50))
    # Something near moves left and down against what is behind it.
    assert red[:, 1].mean() < blue[:, 1].mean() - 5
    assert red[:, 0].mean() > blue[:, 0].mean() + 5


def test_point_view_without_points_is_empty() -> None:
    rgb = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    for depth in (np.full((HEIGHT, WIDTH), np.nan, np.float32), np.full((HEIGHT, WIDTH), np.inf, np.float32)):
        assert (render_point_view(rgb, depth, CAMERA) == BACKGROUND).all()


@pytest.mark.parametrize("values", [[5.0], [3.0, 3.0, 3.0], list(np.linspace(10, 400, 300)), [0.0, 0.0]])
def test_histogram_draws_any_distribution(values: list[float]) -> None:
    svg = histogram(values, "ms")
    heights = [float(height) for height in re.findall(r'class="bar"[^>]*height="([0-9.]+)"', svg)]
    assert max(heights) > 100
    assert "nan" not in svg
    for name in ("p50", "p95", "p99"):
        assert name in svg


def test_stage_bars_are_proportional() -> None:
    svg = stage_bars({"a <b>": 10.0, "c": 5.0, "d": 0.0}, "ms")
    widths = [float(width) for width in re.findall(r'class="bar"[^>]*width="([0-9.]+)"', svg)]
    assert widths[0] == pytest.approx(2 * widths[1], rel=1e-2)
    assert "a &lt;b&gt;" in svg


def test_shown_pictures_are_spread_over_the_groups() -> None:
    groups = ["a"] * 10 + ["b"] * 2 + ["c"]
    assert spread(groups, 3) == [5, 11, 12]
    assert spread(groups, 5) == [2, 7, 10, 11, 12]
    assert spread(groups, 100) == list(range(13))
    assert spread([], 4) == []
