"""Procedural people and animals: a skeleton of joints, dressed in capsules."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.sample import JOINTS
from diffusion_perception_ros.world.builder import Item, Material, Part, Person, SceneBuilder, item_of
from diffusion_perception_ros.world.items.finishes import cloth, plastic
from diffusion_perception_ros.world.items.shapes import Shape, box, capsule, join, sphere


Vector = npt.NDArray[np.float64]


def person(builder: SceneBuilder, pose: str | None = None) -> Person:
    """Somebody facing -y; the pose is `stand`, `walk` or `sit`, by default one of the first two."""
    rng = builder.rng
    height = rng.normal(1.7, 0.1) if rng.random() < 0.85 else rng.uniform(1.0, 1.5)
    joints = _pose(rng, pose or builder.choice(("stand", "stand", "walk"))) * height
    named = dict(zip(JOINTS, joints, strict=True))
    build = height * rng.uniform(0.9, 1.15)
    skin = Material(np.array([0.75, 0.48, 0.34]) * rng.uniform(0.12, 1.0))
    hair = Material(np.array([0.25, 0.15, 0.07]) * rng.uniform(0.05, 1.6))
    top, trousers, shoes = cloth(builder), cloth(builder), plastic(builder)
    bare_arms, bare_legs = rng.random() < 0.4, rng.random() < 0.2
    head = (named["left_ear"] + named["right_ear"]) / 2
    neck = (named["left_shoulder"] + named["right_shoulder"]) / 2
    hips = (named["left_hip"] + named["right_hip"]) / 2
    parts = [
        Part(
            join(
                sphere((0.046 * height, 0.056 * height, 0.068 * height), head, 16), capsule(neck, head, 0.032 * build)
            ),
            skin,
        ),
        Part(
            sphere((0.051 * height, 0.058 * height, 0.062 * height), head + np.array([0, 0.012, 0.02]) * height, 16),
            hair,
        ),
        Part(sphere(0.012 * height, named["nose"], 8), skin),
        Part(_torso(named, neck, hips, build), top),
    ]
    for side in ("left", "right"):
        shoulder, elbow, wrist = (named[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist"))
        hip, knee, ankle = (named[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle"))
        hand = wrist + (wrist - elbow) * 0.3
        parts += [
            Part(capsule(shoulder, elbow, 0.03 * build, 0.024 * build), top),
            Part(capsule(elbow, wrist, 0.025 * build, 0.018 * build), skin if bare_arms else top),
            Part(capsule(wrist, hand, 0.02 * build, 0.018 * build), skin),
            Part(capsule(hip, knee, 0.052 * build, 0.036 * build), trousers),
            Part(capsule(knee, ankle, 0.035 * build, 0.025 * build), skin if bare_legs else trousers),
            Part(
                capsule(
                    ankle + np.array([0, 0.02, -0.025]) * height,
                    ankle + np.array([0, -0.1, -0.028]) * height,
                    0.022 * build,
                ),
                shoes,
            ),
        ]
    item = item_of("person", parts)
    return Person("person", item.size, parts, joints=joints)


def _torso(named: dict[str, Vector], neck: Vector, hips: Vector, build: float) -> Shape:
    chest = neck + 0.12 * (hips - neck)
    pieces = [capsule(hips, chest, 0.07 * build, 0.066 * build)]
    for side in ("left", "right"):
        hip, shoulder = named[f"{side}_hip"], named[f"{side}_shoulder"]
        pieces.append(capsule(hip, 0.6 * shoulder + 0.4 * chest, 0.058 * build, 0.05 * build))
        pieces.append(capsule(chest, shoulder, 0.05 * build, 0.033 * build))
    return join(*pieces)


def _pose(rng: np.random.Generator, kind: str) -> Vector:
    """Joints (17, 3) of a body of height 1 that faces -y, feet at z = 0."""
    hip_z = 0.28 if kind == "sit" else 0.53
    lean = rng.uniform(-0.03, 0.08)
    turn = rng.uniform(-0.7, 0.7)
    out: dict[str, Vector] = {}
    chest = np.array([0, -lean, hip_z + 0.29])
    head = chest + np.array([0, -0.02 - 0.5 * lean, 0.12])
    c, s = np.cos(turn), np.sin(turn)
    face = {
        "nose": (0, -0.06, -0.005),
        "left_eye": (0.02, -0.05, 0.015),
        "right_eye": (-0.02, -0.05, 0.015),
        "left_ear": (0.045, 0, 0),
        "right_ear": (-0.045, 0, 0),
    }
    for name, (x, y, z) in face.items():
        out[name] = head + np.array([c * x - s * y, s * x + c * y, z])
    stride = rng.uniform(0.1, 0.5) if kind == "walk" else 0.0
    for sign, side in ((1, "left"), (-1, "right")):
        shoulder = chest + np.array([sign * 0.105, 0, 0])
        raise_angle = sign * stride + rng.normal(0.1, 0.25 if kind != "sit" else 0.4)
        spread = abs(rng.normal(0.12, 0.12))
        elbow = shoulder + 0.17 * _limb(raise_angle, sign * spread)
        wrist = elbow + 0.15 * _limb(raise_angle + rng.uniform(0.1, 1.5), sign * spread * 0.3)
        hip = np.array([sign * 0.055, 0, hip_z])
        swing = 1.45 if kind == "sit" else -sign * stride + rng.normal(0, 0.06)
        knee = hip + 0.245 * _limb(swing, sign * (0.05 if kind != "sit" else rng.uniform(0, 0.3)))
        bend = rng.uniform(0, 0.15) + (stride if swing < 0 else 0)
        ankle = knee + 0.245 * _limb(rng.uniform(-0.3, 0.2) if kind == "sit" else swing - bend, sign * 0.02)
        for name, joint in zip(
            ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
            (shoulder, elbow, wrist, hip, knee, ankle),
            strict=True,
        ):
            out[f"{side}_{name}"] = joint
    joints = np.stack([out[name] for name in JOINTS])
    joints[:, 2] += 0.045 - min(out["left_ankle"][2], out["right_ankle"][2])
    return joints


def _limb(forward: float, outward: float) -> Vector:
    """Unit vector of a limb that hangs down, swung forward (-y) and outward (x), radians."""
    return np.array([np.sin(outward), -np.sin(forward) * np.cos(outward), -np.cos(forward) * np.cos(outward)])


def animal(builder: SceneBuilder) -> Item:
    """A cat or dog on four legs."""
    rng = builder.rng
    size = rng.uniform(0.25, 0.6)
    fur = Material(np.array([0.5, 0.35, 0.2]) * rng.uniform(0.05, 1.6), builder.texture("plaster"))
    girth = size * rng.uniform(0.16, 0.24)
    rump, breast = np.array([0, 0.45, 0.72]) * size, np.array([0, -0.4, 0.75]) * size
    head = breast + np.array([0, -0.25, 0.32]) * size
    pieces = [capsule(rump, breast, girth, girth * 1.05), capsule(breast, head, girth * 0.6, girth * 0.5)]
    pieces += [
        sphere((girth * 0.75, girth * 0.85, girth * 0.75), head, 12),
        capsule(head, head + np.array([0, -0.22, -0.05]) * size, girth * 0.4),
    ]
    pieces.append(capsule(rump, rump + np.array([0, 0.4, rng.uniform(-0.3, 0.5)]) * size, girth * 0.2, girth * 0.08))
    for x in (-1, 1):
        pieces.append(box((0.08 * size, 0.04 * size, 0.14 * size), head + np.array([x * 0.1 * size, 0, girth * 0.8])))
        for hip in (rump, breast):
            top = hip + np.array([x * girth * 0.5, 0, -girth * 0.4])
            pieces.append(
                capsule(top, (top[0], top[1] + rng.uniform(-0.1, 0.1) * size, 0.04 * size), girth * 0.35, girth * 0.25)
            )
    return item_of("animal", [Part(join(*pieces), fur)])
