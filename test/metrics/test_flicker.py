"""Flicker: the measure against motions known in closed form, and what the commands make of real clips."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.datasets.rosbag import BagDataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.temporal import SETTLING, evaluate_video
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.metrics.flicker import (
    at_places,
    correspond,
    depth_change,
    depth_edges,
    edge_band,
    nearest_to_places,
)
from diffusion_perception_ros.sample import Intrinsics, Sample, UInt8Image
from diffusion_perception_ros.world.crossing import render_crossing
from diffusion_perception_ros.world.labels import CLASS_ID


CLIP = Path(__file__).resolve().parents[2] / "demo" / "clip"
WIDTH, HEIGHT = 320, 240
CAMERA = Intrinsics(WIDTH, HEIGHT, 300.0, 300.0, 159.5, 119.5)


def texture() -> UInt8Image:
    rng = np.random.default_rng(0)
    layers = [
        cv2.resize(rng.uniform(0, 255, (HEIGHT // n, WIDTH // n, 3)).astype(np.float32), (WIDTH, HEIGHT))
        for n in (6, 24)
    ]
    return np.clip(sum(layers) / 2, 0, 255).astype(np.uint8)


def wall(distance: float, sideways: float = 0.0) -> Sample:
    """A wall straight ahead, painted so that the image at 3 m is `texture()`; and the camera moved to the right."""
    zoom = 3.0 / distance
    shift = np.array([CAMERA.cx, CAMERA.cy]) * (1 - zoom) - (CAMERA.fx * sideways / distance, 0.0)
    image = cv2.warpAffine(texture(), np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]]), (WIDTH, HEIGHT))
    depth = np.full((HEIGHT, WIDTH), distance, np.float32)
    return Sample(np.asarray(image, np.uint8), depth, intrinsics=CAMERA)


def test_the_true_change_of_an_approached_wall_is_no_flicker() -> None:
    before, now = wall(3.0), wall(2.9, 0.02)
    link = correspond(before, now)
    assert link is not None
    assert len(link.rows) > 0.8 * WIDTH * HEIGHT
    np.testing.assert_allclose(link.change, np.log(2.9 / 3.0), atol=3e-3)
    # A point at (x, y) now was at c + (x - c) * 2.9 / 3 + f * 0.02 / 3 before.
    expected = CAMERA.cx + (link.columns - CAMERA.cx) * 2.9 / 3.0 + CAMERA.fx * 0.02 / 3.0
    assert np.abs(link.places[:, 0] - expected).mean() < 0.3
    steady = depth_change(at_places(before.depth, link.places), now.depth[link.rows, link.columns], link.change)
    assert np.abs(steady).mean() < 3e-3
    # 5 % too far in one frame, in any scale, is a flicker of log 1.05.
    jump = depth_change(at_places(before.depth, link.places), 1.05 * now.depth[link.rows, link.columns], link.change)
    np.testing.assert_allclose(np.mean(jump), np.log(1.05), atol=3e-3)


def test_what_moves_by_itself_and_what_is_hidden_is_left_out() -> None:
    before, now = wall(3.0), wall(3.0)
    for sample, left in ((before, 100), (now, 130)):
        sample.depth[80:160, left : left + 50] = 2.0
        sample.rgb[80:160, left : left + 50] = np.random.default_rng(1).integers(0, 255, (80, 50, 3))
    link = correspond(before, now)
    assert link is not None
    scored = np.zeros((HEIGHT, WIDTH), bool)
    scored[link.rows, link.columns] = True
    assert not scored[82:158, 152:178].any(), "the box covers what was wall"
    assert not scored[82:158, 102:128].any(), "the wall was hidden by the box"
    assert scored[:70].mean() > 0.9


def test_pictures_of_different_places_have_nothing_in_common() -> None:
    other = wall(3.0)
    other.rgb = np.ascontiguousarray(np.random.default_rng(5).integers(0, 255, other.rgb.shape).astype(np.uint8))
    assert correspond(wall(3.0), other) is None
    blind = wall(3.0)
    blind.depth = np.full_like(blind.depth, np.nan)
    assert correspond(wall(3.0), blind) is None


def test_places_between_pixels_and_depths_without_a_logarithm() -> None:
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    places = np.array([[0.5, 0.0], [1.0, 1.5], [3.0, 2.0]], np.float32)
    np.testing.assert_allclose(at_places(image, places), [0.5, 7.0, 11.0])
    assert list(nearest_to_places(image, places + 0.1)) == [1.0, 9.0, 11.0]
    many = np.tile(places, (5000, 1))
    np.testing.assert_allclose(at_places(image, many), np.tile([0.5, 7.0, 11.0], 5000))
    change = depth_change(np.array([1.0, 0.0, np.nan, 2.0]), np.array([2.0, 1.0, 1.0, -1.0]), np.zeros(4))
    assert change[0] == pytest.approx(np.log(2))
    assert np.isnan(change[1:]).all()


def test_edges_are_where_depth_jumps_and_not_where_it_slopes() -> None:
    depth = np.tile(np.linspace(2.0, 4.0, WIDTH, dtype=np.float32), (HEIGHT, 1))
    depth[:, WIDTH // 2 :] += 1.0
    depth[:20] = np.nan
    edges = depth_edges(depth)
    assert set(np.flatnonzero(edges[100])) == {WIDTH // 2 - 1, WIDTH // 2}
    assert not edges[:20].any()
    assert edge_band(depth)[100].sum() == 12


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 14 frames of the bundled clip, as a bag."""
    path, types = tmp_path_factory.mktemp("clip") / "short", get_typestore(Stores.ROS2_KILTED)
    with Reader(CLIP) as whole, Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as part:
        connections = {
            item.topic: part.add_connection(item.topic, item.msgtype, typestore=types)
            for item in whole.connections
            if item.topic.startswith("/camera")
        }
        for item, time, data in whole.messages():
            if item.topic in connections and time - whole.start_time < 14 / 15 * 1e9:
                part.write(connections[item.topic], time, data)
    return path


def test_the_filter_takes_flicker_away_and_leaves_the_edges(short_clip: Path) -> None:
    samples = list(BagDataset(short_clip))
    result = evaluate_video(samples, Estimator.load("onestep-s", "cpu", 1), "short", show=3)
    assert len(samples) == 14
    assert result.frames == result.pairs == sum(sample.stamp - samples[0].stamp >= SETTLING for sample in samples)
    assert result.interval == pytest.approx(1 / 15, rel=1e-3)
    assert result.noise < 0.003
    off, on = result.scores["off"], result.scores["on"]
    assert on["flicker_depth"] < 0.6 * off["flicker_depth"]
    assert on["flicker_classes"] < off["flicker_classes"]
    for score in ("absrel", "edge_absrel"):
        assert on[score] < 1.02 * off[score]
    assert len(result.shown) == 3
    assert "0.1" in result.notes[0]


def test_moving_things_are_scored_apart_and_sparse_frames_are_told(short_clip: Path) -> None:
    samples = list(itertools.islice(BagDataset(short_clip), 0, None, 5))

    def moving(sample: Sample) -> np.ndarray:
        mask = np.zeros(sample.rgb.shape[:2], bool)
        mask[200:300, 200:300] = True
        return mask

    result = evaluate_video(samples, Estimator.load("onestep-s", "cpu", 1), "sparse", moving=moving)
    assert {"moving_absrel", "around_absrel"} <= result.scores["on"].keys()
    assert any("sparse" in note for note in result.notes)


def test_a_clip_needs_depth_stamps_and_two_frames(short_clip: Path) -> None:
    model = Estimator.load("onestep-s", "cpu", 1)
    samples = list(BagDataset(short_clip))
    with pytest.raises(InputError, match="no two frames"):
        evaluate_video(samples[:1], model, "one")
    samples[0].depth = None
    with pytest.raises(InputError, match="has no depth"):
        evaluate_video(samples, model, "blind")


def test_evaluate_temporal_writes_table_json_and_pictures(
    short_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.json"
    arguments = ["--data", str(short_clip), "--backend", "cpu", "--json", str(out), "--report", str(tmp_path)]
    assert main(["evaluate", *arguments, "--temporal", "0.2"]) == 0
    assert "filter off" in capsys.readouterr().out
    result = json.loads(out.read_text())
    assert result["time_constant"] == 0.2
    assert set(result["scores"]) == {"off", "on"}
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/jpeg") == 5
    assert "Frame to frame" in page


def test_run_temporal_steadies_a_video_and_refuses_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, video, still = np.random.default_rng(0), tmp_path / "v.avi", tmp_path / "p.png"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 15, (WIDTH, HEIGHT))
    for _ in range(12):
        writer.write(cv2.convertScaleAbs(texture(), alpha=rng.uniform(0.8, 1.0)))
    writer.release()
    cv2.imwrite(str(still), texture())
    change = {}
    for name, extra in (("raw", []), ("steady", ["--temporal"])):
        arguments = [str(video), "-o", str(tmp_path / name), "--tasks", "depth", "--save", "npz", *extra]
        assert main(["run", *arguments]) == 0
        depths = [np.load(file)["depth_relative"] for file in sorted((tmp_path / name).glob("*.npz"))]
        assert len(depths) == 12
        change[name] = float(np.mean(np.abs(np.diff(np.log(np.maximum(depths, 1e-6)), axis=0))))
    assert change["steady"] < 0.6 * change["raw"]
    assert main(["run", str(still), "-o", str(tmp_path / "no"), "--temporal"]) == 2
    assert "is a picture without a time" in capsys.readouterr().err


def test_only_the_person_moves_in_the_rendered_clip() -> None:
    frames = list(render_crossing(seed=3, frames=3, rate=2.0, width=96, height=72))
    (first, walker), (last, _) = frames[0], frames[-1]
    masks = [sample.instances == walker for sample, _ in frames]
    assert min(mask.sum() for mask in masks) > 50
    assert set(first.semantic[masks[0]]) == {CLASS_ID["person"]}
    columns = [np.nonzero(mask)[1].mean() for mask in masks]
    assert columns[0] < columns[1] - 5 < columns[2] - 10
    still = ~(masks[0] | masks[-1])
    np.testing.assert_array_equal(first.depth[still], last.depth[still])
    assert [sample.stamp for sample, _ in frames] == [0.0, 0.5, 1.0]
