"""Wrapped third-party graphs run in the node: every layout answers an image on the topics of its tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness import RELIABLE, Ros, camera_info, pixels, rgb_image
from sensor_msgs.msg import CameraInfo, Image
from third_party_graphs import CLASSES, GRAPHS

from diffusion_perception_ros.cli.main import main


WIDTH, HEIGHT = 160, 120
TOPICS = {
    "depth_anything_2": ["depth_relative/image"],
    "moge": ["depth_relative/image", "normals/image"],
    "metric3d": ["depth/image", "normals/image"],
    "unidepth": ["depth/image"],
    "segmentation": ["segmentation/mask"],
}


def test_five_layouts_in_the_node(ros: Ros, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    images = ros.node.create_publisher(Image, "/wrapped/image", RELIABLE)
    infos = ros.node.create_publisher(CameraInfo, "/wrapped/camera_info", RELIABLE)
    rgb = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    for number, (family, topics) in enumerate(TOPICS.items()):
        write, options, _ = GRAPHS[family]
        file = write(tmp_path / f"{family}.onnx")
        assert main(["models", "wrap", str(file), "-o", family, "--licence", "MIT", *options]) == 0
        collected = [ros.collect(Image, f"/{family}/{topic}") for topic in topics]
        settings = ("-p", f"model:={tmp_path / family}", "-p", "threads:=1", "-p", "warm_up:=false")
        remaps = ("-r", f"__ns:=/{family}", "-r", "image:=/wrapped/image", "-r", "camera_info:=/wrapped/camera_info")
        node = ros.start("perception_node", *settings, *remaps)
        stamp = float(7000 + number)

        def publish(stamp: float = stamp) -> None:
            infos.publish(camera_info(stamp, WIDTH, HEIGHT, 150.0))
            images.publish(rgb_image(rgb, stamp))

        ros.repeat_until(publish, lambda c=collected, s=stamp: all(one.at(s) for one in c), f"answers of {family}")
        for one in collected:
            values = pixels(one.at(stamp))
            assert values.shape[:2] == (HEIGHT, WIDTH)
            assert np.isfinite(values).all()
            one.close()
        assert node.is_running
        node.stop()
