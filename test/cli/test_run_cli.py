"""`diffusion-perception run` on real files: pictures, folders, videos, bags, and what can be wrong with them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from model_factory import write_model
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sampled_model_factory import write_prompted_model, write_sampled_model

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.cli.prediction_sheet import CAPTION, CELL, GAP
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.picture_files import read_picture


METRIC = {"quantity": "metric_depth", "unit": "m", "focal_scale": 0.05}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def metric_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "metric"
    return str(write_model(folder, tasks=["depth"], depth="brightness", depth_card=METRIC))


def write_picture(path: Path, width: int = 64, height: int = 48, color: tuple[int, int, int] = (200, 30, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((height, width, 3), color[::-1], np.uint8)
    picture[: height // 2] //= 2
    assert cv2.imwrite(str(path), picture)
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_picture_becomes_pictures(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = write_picture(tmp_path / "in" / "room.jpg")
    assert main(["run", str(picture), "-o", str(tmp_path / "out"), "--model", model]) == 0
    suffixes = ("", "_depth", "_normals", "_semantic", "_instances")
    assert names(tmp_path / "out") == {f"room{suffix}.png" for suffix in suffixes}
    for suffix in suffixes[1:]:
        assert read_picture(tmp_path / "out" / f"room{suffix}.png").shape == (48, 64, 3)
    assert "1 pictures predicted with tiny on onnxruntime-" in capsys.readouterr().err


def test_archives_hold_the_prediction(model: str, tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "room.png", 70, 50)
    assert main(["run", str(picture), "-o", str(tmp_path / "out"), "--model", model, "--save", "npz"]) == 0
    with np.load(tmp_path / "out" / "room.npz", allow_pickle=False) as archive:
        fields = dict(archive)
    assert fields.keys() == {
        "depth_relative",
        "depth_quantity",
        "confidence",
        "normals",
        "semantic",
        "semantic_confidence",
        "instances",
    }
    assert fields["depth_quantity"] == "relative_depth"
    assert fields["depth_relative"].shape == (50, 70)
    assert fields["normals"].shape == (50, 70, 3)
    assert fields["instances"].dtype == np.uint16


def test_only_the_tasks_asked_for(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(write_picture(tmp_path / "room.png"))
    assert main(["run", picture, "-o", str(tmp_path / "out"), "--model", model, "--tasks", "normals"]) == 0
    assert names(tmp_path / "out") == {"room.png", "room_normals.png"}
    assert main(["run", picture, "-o", str(tmp_path / "two"), "--model", model, "--tasks", "flow"]) == 2
    assert "no task flow" in capsys.readouterr().err
    assert not (tmp_path / "two").exists()


def test_a_sheet_shows_all_predictions(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colors = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}
    for name, color in colors.items():
        write_picture(tmp_path / "in" / f"{name}.png", 64, 48, color)
    arguments = [
        "run",
        str(tmp_path / "in"),
        "-o",
        str(tmp_path / "out"),
        "--model",
        model,
        "--tasks",
        "depth,normals",
    ]
    assert main([*arguments, "--sheet", str(tmp_path / "with.png")]) == 0
    sheet = read_picture(tmp_path / "with.png")
    width = 3 * CELL[0] + GAP
    assert sheet.shape == (CELL[1] + CAPTION + GAP, 3 * width, 3)
    lower = sheet[3 * CELL[1] // 4]  # the upper half of every input is darker
    for column, name in enumerate(sorted(colors)):
        np.testing.assert_array_equal(lower[column * width + CELL[0] // 2], colors[name])
        shown = sheet[: CELL[1], column * width + CELL[0] :][:, : CELL[0]]
        depth = read_picture(tmp_path / "out" / f"{name}_depth.png")
        np.testing.assert_allclose(shown.mean((0, 1)), depth.mean((0, 1)), atol=1.0)
    assert main([*arguments, "--sheet", str(tmp_path / "without.png"), "--sheet-without-input"]) == 0
    assert read_picture(tmp_path / "without.png").shape == (sheet.shape[0], 3 * (width - CELL[0]), 3)
    assert main([*arguments, "--sheet", str(tmp_path / "sheet.txt")]) == 2
    assert "a contact sheet is a .png or .jpg" in capsys.readouterr().err


def test_bad_pictures_are_named_and_the_rest_goes_on(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    for name in ("a.jpg", "d.png", "f.jpg"):
        write_picture(folder / name, 320, 240)
    whole = (folder / "a.jpg").read_bytes()
    (folder / "b.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "c.png").write_bytes((folder / "d.png").read_bytes()[:-20])
    (folder / "e.jpg").write_bytes(b"")
    (folder / "g.png").write_bytes(b"not a picture")
    assert main(["run", str(folder), "-o", str(tmp_path / "out"), "--model", model, "--json"]) == 1
    output = capsys.readouterr()
    for words in ("b.jpg is a truncated JPEG", "c.png is a truncated PNG", "e.jpg is empty", "g.png is not an image"):
        assert words in output.err
    assert {f"{stem}_depth.png" for stem in "adf"} < names(tmp_path / "out")
    assert len(names(tmp_path / "out")) == 15
    result = json.loads(output.out)
    assert [Path(entry["input"]).name for entry in result["predictions"]] == ["a.jpg", "d.png", "f.jpg"]
    assert len(result["problems"]) == 4
    assert result["predictions"][0]["milliseconds"].keys() == {"preprocess", "inference", "postprocess"}
    assert all(Path(file).is_file() for entry in result["predictions"] for file in entry["files"])


def test_only_bad_pictures_is_failure(model: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert main(["run", str(tmp_path / "a.jpg"), "-o", str(tmp_path / "out"), "--model", model]) == 2


def test_a_jpeg_may_have_a_tail_and_a_thumbnail(tmp_path: Path) -> None:
    """Phones append films; a cut-off picture may hold the end marker of its thumbnail."""
    data = write_picture(tmp_path / "a.jpg", 320, 240).read_bytes()
    (tmp_path / "tail.jpg").write_bytes(data + b"\0" * 100 + b"film")
    assert read_picture(tmp_path / "tail.jpg").shape == (240, 320, 3)
    thumbnail = write_picture(tmp_path / "thumb.jpg", 16, 16).read_bytes()
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    (tmp_path / "cut.jpg").write_bytes(data[:2] + segment + data[2 : len(data) // 2])
    with pytest.raises(InputError, match="truncated"):
        read_picture(tmp_path / "cut.jpg")


def test_equal_names_from_different_folders_are_kept_apart(model: str, tmp_path: Path) -> None:
    for place in ("x/left/0001.png", "x/right/0001.png", "x/left/0002.png", "y/0001_depth.png"):
        write_picture(tmp_path / place)
    inputs = [str(tmp_path / place) for place in ("x/left", "x/right", "y")]
    assert main(["run", *inputs, "-o", str(tmp_path / "out"), "--model", model, "--tasks", "depth"]) == 0
    assert names(tmp_path / "out") == {
        f"{stem}{suffix}.png"
        for stem in ("left_0001", "right_0001", "0002", "0001_depth")
        for suffix in ("", "_depth")
    }


def test_a_stem_that_is_taken_gets_a_number(model: str, tmp_path: Path) -> None:
    """`a_depth.png` is both what is made of `a` and the overview of the picture `a_depth`."""
    for name in ("a.png", "a_depth.png", "a.jpg"):
        write_picture(tmp_path / "in" / name)
    assert main(["run", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", model, "--tasks", "depth"]) == 0
    assert names(tmp_path / "out") == {
        *("a.png", "a_depth.png", "a-2.png", "a-2_depth.png", "a_depth-2.png", "a_depth-2_depth.png")
    }


def test_inputs_are_never_overwritten(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = write_picture(tmp_path / "a.png")
    before = picture.read_bytes()
    assert main(["run", str(picture), "-o", str(tmp_path), "--model", model]) == 2
    assert "choose another folder" in capsys.readouterr().err
    assert picture.read_bytes() == before


def test_an_unwritable_folder_ends_before_any_work(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(write_picture(tmp_path / "a.png"))
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/1/out")):
        assert main(["run", picture, "-o", str(folder), "--model", model]) == 2
        assert f"output folder {folder} cannot be written to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("inputs", "words"),
    [(["absent.png"], "no file or folder"), (["empty"], "has no pictures"), (["text.txt"], "neither a picture")],
)
def test_nothing_to_read(
    model: str, tmp_path: Path, inputs: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("words")
    paths = [str(tmp_path / name) for name in inputs]
    assert main(["run", *paths, "-o", str(tmp_path / "out"), "--model", model]) == 2
    assert words in capfd.readouterr().err


def test_one_missing_input_among_good_ones(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = write_picture(tmp_path / "a.png")
    arguments = ["run", str(tmp_path / "absent.png"), str(picture), "-o", str(tmp_path / "out"), "--model", model]
    assert main(arguments) == 1
    assert "absent.png" in capsys.readouterr().err
    assert "a.png" in names(tmp_path / "out")


def test_camera_info_gives_metres(metric_model: str, tmp_path: Path) -> None:
    picture = str(write_picture(tmp_path / "grey.png", 640, 480, (102, 102, 102)))
    calibration = tmp_path / "camera.yaml"
    calibration.write_text(
        "image_width: 1280\nimage_height: 960\ncamera_name: test\n"
        "camera_matrix:\n  rows: 3\n  cols: 3\n  data: [1000, 0, 640, 0, 1000, 480, 0, 0, 1]\n"
    )
    for index, camera in enumerate((str(calibration), "500,500,320,240")):
        out = tmp_path / f"out{index}"
        common = ["--model", metric_model, "--save", "npz", "--camera-info", camera]
        assert main(["run", picture, "-o", str(out), *common]) == 0
        with np.load(out / "grey.npz") as archive:
            assert archive["depth_quantity"] == "metric_depth"
            # 500 pixels of the picture are 100 of the graph's input, which is a fifth of it.
            assert archive["depth"][400, 300] == pytest.approx(0.4 * 0.05 * 100, rel=1e-4)
    out = tmp_path / "without"
    assert main(["run", picture, "-o", str(out), "--model", metric_model, "--save", "npz"]) == 0
    with np.load(out / "grey.npz") as archive:
        assert archive["depth_quantity"] == "relative_depth"
        assert "depth" not in archive


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("width: 640", "needs camera_matrix.data"),
        ("{", "is not YAML"),
        ("k: [0,0,0,0,0,0,0,0,1]\nwidth: 64\nheight: 48", "is uncalibrated"),
        ("k: [500,0,320,0,500,180,0,0,1]\nwidth: 640\nheight: 360", "another aspect ratio"),
    ],
)
def test_bad_camera_info(
    metric_model: str, tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(write_picture(tmp_path / "a.png"))
    (tmp_path / "camera.yaml").write_text(text)
    common = ["-o", str(tmp_path / "out"), "--model", metric_model, "--camera-info", str(tmp_path / "camera.yaml")]
    assert main(["run", picture, *common]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "camera.yaml" in error


def test_a_video_becomes_frames(model: str, tmp_path: Path) -> None:
    video = str(tmp_path / "clip.avi")
    writer = cv2.VideoWriter(video, cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for level in (50, 100, 150):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    assert main(["run", video, "-o", str(tmp_path / "out"), "--model", model, "--tasks", "depth"]) == 0
    assert names(tmp_path / "out") == {
        f"clip_{index:06d}{suffix}.png" for index in range(3) for suffix in ("", "_depth")
    }


def test_a_truncated_video_gives_what_it_has(model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    video = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    noise = np.random.default_rng(0)
    for _ in range(20):
        writer.write(noise.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    writer.release()
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    assert main(["run", str(video), "-o", str(tmp_path / "out"), "--model", model, "--tasks", "depth"]) == 1
    assert "clip.avi is damaged: it ends after" in capfd.readouterr().err
    assert "clip_000003_depth.png" in names(tmp_path / "out")


def write_bag(path: Path, greys: list[int], damaged: int | None = None, scale: int = 1) -> Path:
    """A bag with one raw colour topic and its camera_info, recorded before the pictures."""
    store = get_typestore(Stores.LATEST)
    header_type, time_type = store.types["std_msgs/msg/Header"], store.types["builtin_interfaces/msg/Time"]
    image_type, info_type = store.types["sensor_msgs/msg/Image"], store.types["sensor_msgs/msg/CameraInfo"]
    width, height = 64 * scale, 48 * scale
    region = store.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        images = writer.add_connection("/camera/image_raw", image_type.__msgtype__, typestore=store)
        infos = writer.add_connection("/camera/camera_info", info_type.__msgtype__, typestore=store)
        for index, grey in enumerate(greys):
            header = header_type(time_type(index, 0), "camera_optical")
            k = np.array([50.0, 0, 32, 0, 50, 24, 0, 0, 1 / scale]) * scale
            camera = info_type(
                header, height, width, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), np.zeros(12), 0, 0, region
            )
            data = np.full(height * width * 3, grey, np.uint8)
            image = image_type(header, height, width, "rgb8", 0, 3 * width, data[:100] if index == damaged else data)
            writer.write(infos, index * 10**9, store.serialize_cdr(camera, info_type.__msgtype__))
            writer.write(images, index * 10**9, store.serialize_cdr(image, image_type.__msgtype__))
    return path


def test_a_bag_brings_its_intrinsics(metric_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_bag(tmp_path / "drive", [102, 51, 204], damaged=1)
    common = ["-o", str(tmp_path / "out"), "--model", metric_model, "--save", "npz"]
    assert main(["run", str(bag), *common]) == 1
    assert "/camera/image_raw frame 1" in capsys.readouterr().err
    for index, value in ((0, 0.4), (2, 0.8)):
        with np.load(tmp_path / "out" / f"drive_{index:06d}.npz") as archive:
            np.testing.assert_allclose(archive["depth"], value * 0.05 * 100, rtol=1e-4)  # 64 wide becomes 128
    assert main(["run", str(bag), "-o", str(tmp_path / "two"), "--model", metric_model, "--image-topic", "/x"]) == 2
    assert "has no images on /x; its image topics: /camera/image_raw" in capsys.readouterr().err


def test_a_truncated_bag_gives_what_it_has(
    metric_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(tmp_path / "drive", [102] * 40, scale=4)
    (storage,) = bag.glob("*.mcap")
    data = storage.read_bytes()
    storage.write_bytes(data[: len(data) * 2 // 3])
    common = ["-o", str(tmp_path / "out"), "--model", metric_model, "--image-topic", "/camera/image_raw"]
    assert main(["run", str(bag), *common]) == 1
    assert "drive" in capsys.readouterr().err
    assert len(names(tmp_path / "out")) > 20


def test_interrupted_runs_keep_what_is_whole(model: str, tmp_path: Path) -> None:
    """SIGINT in the middle of a long run: exit code 130, and every file there can be read."""
    picture = write_picture(tmp_path / "in" / "000.png", 640, 480)
    for index in range(1, 1000):  # far more than are done before the signal comes, also on a busy machine
        (tmp_path / "in" / f"{index:03d}.png").hardlink_to(picture)
    command = [sys.executable, "-m", "diffusion_perception_ros.cli.main", "run", str(tmp_path / "in"), "--save", "npz"]
    out = tmp_path / "out"
    process = subprocess.Popen([*command, "-o", str(out), "--model", model], stderr=subprocess.PIPE)
    while process.poll() is None and not (out.is_dir() and len(names(out)) > 8):
        time.sleep(0.01)
    process.send_signal(2)
    process.communicate(timeout=60)
    assert process.returncode == 130
    files = [path for path in out.iterdir() if not path.name.startswith(".")]
    assert files
    for path in files:
        if path.suffix == ".npz":
            with np.load(path) as archive:
                assert archive["depth_relative"].shape == (480, 640)
        else:
            read_picture(path)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_the_bundled_model_runs_by_default(tmp_path: Path) -> None:
    picture = str(write_picture(tmp_path / "a.png", 320, 240))
    assert main(["run", picture, "-o", str(tmp_path / "out"), "--threads", "2"]) == 0
    assert "a_instances.png" in names(tmp_path / "out")


def test_steps_ensembles_and_tiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(write_sampled_model(tmp_path / "sampled"))
    picture = str(write_picture(tmp_path / "room.png", 200, 150))
    options = ["--steps", "3", "--ensemble-size", "2", "--tile", "128/32", "--save", "npz"]
    assert main(["run", picture, "-o", str(tmp_path / "out"), "--model", model, *options]) == 0
    with np.load(tmp_path / "out" / "room.npz", allow_pickle=False) as archive:
        assert {"depth_relative", "confidence", "normals", "normals_confidence"} <= set(archive.files)
        assert archive["confidence"].shape == (150, 200)
    capsys.readouterr()
    for wrong, words in [
        (["--steps", "0"], "steps must be 1 to 1000"),
        (["--ensemble-size", "0"], "ensemble size must be at least 1"),
        (["--tile", "10/2"], "tiles need a size of at least 64 pixels"),
        (["--point", "3,4"], "takes no point prompts"),
    ]:
        assert main(["run", picture, "-o", str(tmp_path / "two"), "--model", model, *wrong]) == 2
        assert words in capsys.readouterr().err


def test_the_object_that_points_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(write_prompted_model(tmp_path / "prompted", ["mask"], prompts=["points"]))
    picture = str(write_picture(tmp_path / "room.png", 64, 48))
    assert main(["run", picture, "-o", str(tmp_path / "out"), "--model", model]) == 2
    assert "give --point U,V" in capsys.readouterr().err
    points = ["--point", "47.5,20", "--point", "3,4,0", "--save", "npz"]
    assert main(["run", picture, "-o", str(tmp_path / "out"), "--model", model, *points]) == 0
    assert {"room.png", "room_mask.png", "room.npz"} == names(tmp_path / "out")
    with np.load(tmp_path / "out" / "room.npz", allow_pickle=False) as archive:
        np.testing.assert_allclose(archive["mask"], 0.75, atol=1e-5)


@pytest.mark.parametrize("point", ["3", "3,x", "1,2,1,1"])
def test_what_is_no_point(model: str, tmp_path: Path, point: str, capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(write_picture(tmp_path / "room.png"))
    assert main(["run", picture, "-o", str(tmp_path / "out"), "--model", model, "--point", point]) == 2
    assert f"a point is U,V or U,V,LABEL in pixels, got '{point}'" in capsys.readouterr().err


def test_a_mask_that_asks_for_the_whole_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = [{"task": "mask", "tensor": "hint", "range": [0.0, 1.0]}]
    model = str(
        write_prompted_model(tmp_path / "amodal", ["mask"], prompts=["prompt_mask"], card={"outputs": outputs})
    )
    picture, visible = str(write_picture(tmp_path / "room.png", 128, 96)), tmp_path / "visible.png"
    cv2.imwrite(str(visible), np.pad(np.full((40, 50), 255, np.uint8), ((20, 36), (30, 48))))
    assert main(["run", picture, "-o", str(tmp_path / "out"), "--model", model]) == 2
    assert "give --prompt-mask FILE" in capsys.readouterr().err
    options = ["--prompt-mask", str(visible), "--save", "npz"]
    assert main(["run", picture, "-o", str(tmp_path / "out"), "--model", model, *options]) == 0
    with np.load(tmp_path / "out" / "room.npz", allow_pickle=False) as archive:
        assert archive["mask"].sum() == 40 * 50


def test_everything_that_can_be_drawn(tmp_path: Path) -> None:
    tasks = ["semantic", "instances", "keypoints", "albedo", "shading", "alpha", "flow"]
    model = str(write_prompted_model(tmp_path / "drawing", tasks, prompts=["second_image"]))
    pictures = [str(write_picture(tmp_path / "in" / name, color=(200, 30, 30))) for name in ("a.png", "b.png")]
    folder = str(Path(pictures[0]).parent)
    assert main(["run", folder, "-o", str(tmp_path / "out"), "--model", model, "--save", "npz"]) == 0
    assert {"a.png", *(f"a_{task}.png" for task in tasks[:-1]), "b_flow.png"} <= names(tmp_path / "out")
    assert "a_flow.png" not in names(tmp_path / "out")  # nothing to compare the first picture with
    with np.load(tmp_path / "out" / "b.npz", allow_pickle=False) as archive:
        assert set(tasks) <= set(archive.files)
