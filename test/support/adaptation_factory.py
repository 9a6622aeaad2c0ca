"""A small model that has seen toy rooms, and the images of a robot that looks down on a floor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import yaml
from toy_rooms import write_toy_shard

from diffusion_perception_ros.inference.card import CARD_NAME, sha256_of
from diffusion_perception_ros.sample import Intrinsics, Sample
from diffusion_perception_ros.training.checkpoint import read_checkpoint
from diffusion_perception_ros.training.config import load_config
from diffusion_perception_ros.training.onestep.network import OneStepNet
from diffusion_perception_ros.training.onestep.weights import FILE, write_weights
from diffusion_perception_ros.training.trainer import BEST, Trainer


BUNDLED = Path(__file__).parents[2] / "models" / "onestep-s"
SIDE = 64


def train_on_rooms(folder: Path, steps: int) -> OneStepNet:
    """A network that has seen toy rooms."""
    write_toy_shard(folder / "rooms", range(160), SIDE, SIDE)
    rooms = str(folder / "rooms")
    fields = {
        "name": "toy",
        "data": {"train": rooms, "validation": rooms, "sizes": [[SIDE, SIDE]], "batch_size": 8},
        "optimiser": {"warmup_steps": 10, "ema": 0.9},
        "run": {"threads": 1, "validation_samples": 4, "max_steps": steps},
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(fields))
    Trainer(load_config(folder / "toy.yaml"), folder / "run").train()
    return read_checkpoint(folder / "run" / BEST).averaged_network()


def write_base_model(folder: Path, network: OneStepNet) -> Path:
    """The bundled model's card with other weights, for pictures of `SIDE` pixels square."""
    folder.mkdir(parents=True)
    card = yaml.safe_load((BUNDLED / CARD_NAME).read_text())
    graph = folder / card["graph"]
    shutil.copyfile(BUNDLED / card["graph"], graph)
    write_weights(network, folder / FILE)
    card["name"] = "toy"
    card["input"]["size"]["area"] = SIDE**2
    card["files"] = {path.name: sha256_of(path) for path in (graph, folder / FILE)}
    (folder / CARD_NAME).write_text(yaml.safe_dump(card))
    return folder


def floor_view(seed: int) -> Sample:
    """What a camera sees that looks down on a tiled floor with a red mark: near below, far above, as in no room."""
    rng = np.random.default_rng(seed)
    camera = Intrinsics(SIDE, SIDE, SIDE, SIDE, (SIDE - 1) / 2, (SIDE - 1) / 2)
    pitch, height = np.radians(rng.uniform(38, 50)), rng.uniform(0.5, 1.0)
    x, y = np.meshgrid((np.arange(SIDE) - camera.cx) / SIDE, (np.arange(SIDE) - camera.cy) / SIDE)
    depth = height / (np.cos(pitch) * y + np.sin(pitch))  # n . (x, y, 1) z = height, n = (0, cos pitch, sin pitch)
    along = (np.cos(pitch) - np.sin(pitch) * y) * depth
    tiles = (np.floor(4 * x * depth + rng.uniform(0, 1)) + np.floor(4 * along)) % 2
    grey = (rng.uniform(60, 110) + rng.uniform(30, 60) * tiles)[..., None] * np.ones(3)
    left, top = rng.integers(4, 28, 2)
    mark = np.zeros((SIDE, SIDE), bool)
    mark[top : top + 28, left : left + 28] = True
    rgb = np.where(mark[..., None], (220, 40, 40), grey) + rng.normal(0, 4, (SIDE, SIDE, 3))
    return Sample(
        rgb=np.clip(rgb, 0, 255).astype(np.uint8),
        depth=depth.astype(np.float32),
        semantic=(~mark).astype(np.uint8),
        intrinsics=camera,
    )


def write_robot_images(folder: Path, seeds: range) -> Path:
    """`rgb/` and `depth/` with holes, and intrinsics, as a robot records them."""
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    for seed in seeds:
        sample = floor_view(seed)
        depth = np.round(sample.depth * 1000)
        depth[np.random.default_rng(seed).random(depth.shape) < 0.2] = 0  # a sensor's holes
        cv2.imwrite(str(folder / "rgb" / f"{seed:04d}.png"), sample.rgb[..., ::-1])
        cv2.imwrite(str(folder / "depth" / f"{seed:04d}.png"), depth.astype(np.uint16))
    camera = {"width": SIDE, "height": SIDE, "fx": SIDE, "fy": SIDE, "cx": SIDE / 2, "cy": SIDE / 2}
    (folder / "intrinsics.json").write_text(json.dumps(camera))
    return folder


def write_masks(folder: Path, seeds: range, names: list[str]) -> Path:
    """Views with PNG masks: the mark has the first name, the floor the second; a strip on the left is unlabelled."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    (folder / "classes.json").write_text(json.dumps(names))
    for seed in seeds:
        sample = floor_view(seed)
        sample.semantic[:, :3] = 255
        cv2.imwrite(str(folder / "images" / f"{seed:04d}.png"), sample.rgb[..., ::-1])
        cv2.imwrite(str(folder / "masks" / f"{seed:04d}.png"), sample.semantic)
    return folder
