"""A small model to adapt, and a robot's images to adapt it to, made of toy rooms."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import yaml
from toy_rooms import toy_room, write_toy_shard

from diffusion_perception_ros.datasets.augment import flip_sample
from diffusion_perception_ros.inference.card import CARD_NAME, sha256_of
from diffusion_perception_ros.sample import Sample
from diffusion_perception_ros.training.checkpoint import read_checkpoint
from diffusion_perception_ros.training.config import load_config
from diffusion_perception_ros.training.network import OneStepNet
from diffusion_perception_ros.training.trainer import BEST, Trainer
from diffusion_perception_ros.training.weights import FILE, write_weights
from diffusion_perception_ros.world.labels import CLASS_ID


BUNDLED = Path(__file__).parents[1] / "models" / "onestep-s"
SIDE = 64


def train_on_rooms(folder: Path, steps: int) -> OneStepNet:
    """A network that has seen upright toy rooms."""
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


def upside_down_room(seed: int) -> Sample:
    """A room as a camera that hangs from the ceiling sees it: the floor is above."""
    sample = flip_sample(toy_room(seed, SIDE, SIDE))  # copies, and left and right change nothing
    for name in ("rgb", "depth", "normals", "semantic", "instances"):
        setattr(sample, name, np.ascontiguousarray(getattr(sample, name)[::-1]))
    sample.normals[..., 1] *= -1.0
    return sample


def write_robot_images(folder: Path, seeds: range) -> Path:
    """`rgb/` and `depth/` with holes, and intrinsics, as a robot records them."""
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    for seed in seeds:
        sample = upside_down_room(seed)
        depth = np.round(sample.depth * 1000)
        depth[np.random.default_rng(seed).random(depth.shape) < 0.2] = 0  # a sensor's holes
        cv2.imwrite(str(folder / "rgb" / f"{seed:04d}.png"), sample.rgb[..., ::-1])
        cv2.imwrite(str(folder / "depth" / f"{seed:04d}.png"), depth.astype(np.uint16))
    camera = {"width": SIDE, "height": SIDE, "fx": SIDE, "fy": SIDE, "cx": SIDE / 2, "cy": SIDE / 2}
    (folder / "intrinsics.json").write_text(json.dumps(camera))
    return folder


def write_masks(folder: Path, seeds: range, names: list[str]) -> Path:
    """PNG masks of upside-down rooms: the boxes and the wall, by the two names, and the rest unlabelled."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    (folder / "classes.json").write_text(json.dumps(names))
    for seed in seeds:
        sample = upside_down_room(seed)
        mask = np.full((SIDE, SIDE), 255, np.uint8)
        for number, name in enumerate(("box", "wall")):
            mask[sample.semantic == CLASS_ID[name]] = number
        cv2.imwrite(str(folder / "images" / f"{seed:04d}.png"), sample.rgb[..., ::-1])
        cv2.imwrite(str(folder / "masks" / f"{seed:04d}.png"), mask)
    return folder
