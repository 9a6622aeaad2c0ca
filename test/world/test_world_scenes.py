"""Scenes: a seed gives one scene, every kind of scene is sound, and catalogues are read for what they are."""

from __future__ import annotations

import zipfile
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import JOINTS
from diffusion_perception_ros.world.assets import load_assets
from diffusion_perception_ros.world.builder import SceneBuilder
from diffusion_perception_ros.world.config import OutdoorConfig, SceneMixture, WorldConfig, load_config
from diffusion_perception_ros.world.items import makers
from diffusion_perception_ros.world.items.kitchens import base_row, kitchen_style
from diffusion_perception_ros.world.items.people import person
from diffusion_perception_ros.world.labels import CLASS_ID, LABELS
from diffusion_perception_ros.world.meshes.catalogue import classify
from diffusion_perception_ros.world.meshes.library import MeshLibrary
from diffusion_perception_ros.world.sampling import sample_clip, sample_scene
from diffusion_perception_ros.world.scene import Scene
from diffusion_perception_ros.world.scenes.parcels import parcel


KINDS = tuple(SceneMixture().weights())
SEEDS_PER_KIND = 3


def only(kind: str, **changes: object) -> WorldConfig:
    """A configuration that draws one kind of scene."""
    return WorldConfig(mixture=SceneMixture(**{name: float(name == kind) for name in KINDS}), **changes)


def nearest_surface(scene: Scene) -> float:
    """Distance from the camera to the nearest triangle, metres."""
    eye = scene.camera.world_from_camera[:3, 3]
    a, b, c = (scene.triangles.positions[:, i].astype(float) - eye for i in range(3))
    weights = np.array([(i, j, 8 - i - j) for i in range(9) for j in range(9 - i)]) / 8
    return min(float(np.linalg.norm(u * a + v * b + w * c, axis=-1).min()) for u, v, w in weights)


@pytest.mark.parametrize("kind", KINDS)
def test_scenes_of_every_kind_are_sound(kind: str) -> None:
    config = only(kind)
    for seed in range(SEEDS_PER_KIND):
        scene = sample_scene(seed, config, 64, 48)
        triangles = scene.triangles
        assert scene.tags[0] == kind
        assert 100 < len(triangles) <= config.max_triangles
        assert np.isfinite(triangles.positions).all()
        assert np.isfinite(triangles.uvs).all()
        assert np.linalg.norm(triangles.normals, axis=-1) == pytest.approx(1, abs=1e-3)
        assert triangles.albedo.min() >= 0
        assert triangles.albedo.max() <= 1
        assert triangles.texture.min() >= -1
        assert triangles.texture.max() < len(scene.textures)
        assert 1 <= len(scene.lights) <= 4
        assert scene.is_outdoor == (kind in ("street", "nature", "rough"))
        assert scene.camera.intrinsics.width == 64


@pytest.mark.parametrize("kind", KINDS)
def test_things_have_one_class_and_stuff_has_no_instance(kind: str) -> None:
    triangles = sample_scene(3, only(kind), 64, 48).triangles
    is_thing = np.array([label.is_thing for label in LABELS])[triangles.semantic]
    assert (triangles.instance[~is_thing] == 0).all()
    assert (triangles.instance[is_thing] > 0).all()
    pairs = np.unique(np.stack([triangles.instance, triangles.semantic])[:, is_thing], axis=1)
    assert len(np.unique(pairs[0])) == pairs.shape[1]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("street", "nature", "rough")])
def test_indoor_cameras_are_inside_the_room_and_outside_of_things(kind: str) -> None:
    too_near = 0
    for seed in range(SEEDS_PER_KIND):
        scene = sample_scene(seed, only(kind), 64, 48)
        floor = scene.triangles.positions[scene.triangles.semantic == CLASS_ID["wall"]].reshape(-1, 3)
        eye = scene.camera.world_from_camera[:3, 3]
        assert (eye > floor.min(axis=0)).all()
        assert (eye < floor.max(axis=0)).all()
        too_near += nearest_surface(scene) < 0.05
    assert too_near <= 1


def test_low_cameras_are_low_and_lenses_as_configured() -> None:
    config = only("low_camera", camera={"hfov_deg": (60, 60), "low_height_m": (0.1, 0.2)})
    for seed in range(6):
        camera = sample_scene(seed, config, 320, 240).camera
        assert 0.1 <= camera.world_from_camera[2, 3] <= 0.2
        assert camera.intrinsics.fx == pytest.approx(160 / np.tan(np.radians(30)))


def roll_deg(scene: Scene) -> float:
    """Angle between the camera's x axis and the horizon."""
    return float(np.degrees(np.arcsin(-scene.camera.world_from_camera[2, 0])))


def test_cameras_held_askew_roll_further_and_only_where_configured() -> None:
    upright = only("parcels")
    askew = only("parcels", camera={"askew_share": 1.0, "askew_roll_deg": (20, 25)})
    for seed in range(4):
        assert abs(roll_deg(sample_scene(seed, upright, 64, 48))) <= 5
        assert abs(roll_deg(sample_scene(seed, askew, 64, 48))) > 10  # the more it looks down, the less x leaves it


def test_kitchens_are_seen_from_a_hand_and_desks_obliquely_from_near() -> None:
    for seed in range(6):
        kitchen, desk = (sample_scene(seed, only(kind), 64, 48) for kind in ("kitchen", "desk"))
        assert 0.9 <= kitchen.camera.world_from_camera[2, 3] <= 2.2
        assert {"cabinet", "floor"} <= {LABELS[index].name for index in np.unique(kitchen.triangles.semantic)}
        assert nearest_surface(desk) < 1.5


def test_a_row_of_kitchen_units_is_as_long_as_asked_and_stands_on_the_floor() -> None:
    config = WorldConfig()
    labels = set()
    for seed in range(8):
        builder = SceneBuilder(np.random.default_rng(seed), load_assets(config), config, makers.make)
        style = kitchen_style(builder)
        (label, cabinet), *others = base_row(builder, style, 2.9)
        assert label == "cabinet"
        labels |= {name for name, _ in others}
        points = np.concatenate([part.shape.positions.reshape(-1, 3) for part in cabinet])
        low, high = points.min(axis=0), points.max(axis=0)
        assert high[0] - low[0] == pytest.approx(2.9, abs=0.01)
        assert low[2] == pytest.approx(0, abs=1e-4)
        assert high[2] == pytest.approx(style.height, abs=1e-4)
        assert style.depth <= high[1] - low[1] < style.depth + 0.1
    assert labels == {"appliance", "sanitary"}


def test_the_inside_of_an_open_parcel_is_empty_above_what_is_packed() -> None:
    config = WorldConfig()
    builder = SceneBuilder(np.random.default_rng(2), load_assets(config), config, makers.make)
    items = [parcel(builder) for _ in range(30)]
    opened = [item for item in items if item.top_height == 0]
    assert 4 < len(opened) < 20
    assert all(item.label == "box" for item in items)
    for item in opened:
        centers = np.concatenate([part.shape.positions.mean(axis=1) for part in item.parts])
        lid = (np.abs(centers[:, :2]) < 0.02).all(axis=1) & (centers[:, 2] > 0.95 * item.size[2])
        assert not lid.any()


def test_the_training_mixture_is_half_homes_seen_from_near() -> None:
    config = load_config(Path(__file__).parents[2] / "config/world/training.yaml")
    weights = config.mixture.weights()
    near = sum(weights[kind] for kind in ("kitchen", "dining", "desk", "parcels"))
    assert 0.45 < near / sum(weights.values()) < 0.6
    assert config.meshes is None


def test_the_places_mixture_draws_every_kind_of_robot_scene() -> None:
    config = load_config(Path(__file__).parents[2] / "config/world/places.yaml")
    weights = config.mixture.weights()
    assert {kind for kind, weight in weights.items() if weight == 0} == {"portrait"}
    assert config.views_per_scene > 1
    assert config.meshes is None


def test_nights_are_dark_but_for_lamps_near_the_camera() -> None:
    config = only("street", outdoor=OutdoorConfig(night_share=1.0, hills_share=1.0))
    by_day = only("street")
    for seed in range(3):
        night, day = sample_scene(seed, config, 64, 48), sample_scene(seed, by_day, 64, 48)
        assert "night" in night.tags
        assert "night" not in day.tags
        assert max(night.ambient) < min(day.ambient)
        eye = night.camera.world_from_camera[:3, 3]
        assert all(np.linalg.norm(np.subtract(light.position, eye)) < 50 for light in night.lights)
        farthest = np.abs(night.triangles.positions).max()
        assert farthest > 300 > np.abs(day.triangles.positions).max()


def test_a_seed_gives_the_same_scene_and_another_seed_another() -> None:
    config = WorldConfig()
    for seed in (0, 7):
        first, second = (sample_scene(seed, config, 64, 48) for _ in range(2))
        for name in first.triangles.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(first.triangles, name), getattr(second.triangles, name))
        np.testing.assert_array_equal(first.camera.world_from_camera, second.camera.world_from_camera)
        assert first.lights == second.lights
        assert first.textures is second.textures
    other = sample_scene(1, config, 64, 48)
    assert not np.array_equal(other.camera.world_from_camera, sample_scene(0, config, 64, 48).camera.world_from_camera)


def test_the_mixture_decides_how_often_kinds_are_drawn() -> None:
    config = WorldConfig(mixture=SceneMixture(**dict.fromkeys(KINDS, 0.0) | {"corridor": 1.0, "street": 3.0}))
    kinds = [sample_scene(seed, config, 32, 24).tags[0] for seed in range(24)]
    assert set(kinds) == {"corridor", "street"}
    assert kinds.count("street") > kinds.count("corridor")


@pytest.mark.parametrize(
    ("label", "placement"),
    [(label.name, "floor") for label in LABELS if label.is_thing or label.name == "vegetation"]
    + [("lamp", "ceiling"), ("lamp", "outdoor"), ("appliance", "wall"), ("object", "wall"), ("screen", "top")],
)
def test_procedural_items_stand_on_their_base_and_have_the_size_they_say(label: str, placement: str) -> None:
    config = WorldConfig()
    for seed in range(5):
        builder = SceneBuilder(np.random.default_rng(seed), load_assets(config), config, makers.make)
        item = makers.make(builder, label, (placement,))
        builder.place(item, (0, 0, 0))
        triangles = builder.build()
        low, high = triangles.positions.min(axis=(0, 1)), triangles.positions.max(axis=(0, 1))
        assert -0.1 < low[2] < 0.1 or placement == "ceiling"
        assert high - low == pytest.approx(item.size, abs=0.1)
        assert 0.02 < max(item.size) < 16
        assert np.linalg.norm(triangles.normals, axis=-1) == pytest.approx(1, abs=1e-3)
        if label not in ("object", "container"):
            assert item.label == label


def test_people_know_where_their_joints_are() -> None:
    config = WorldConfig()
    for seed in range(6):
        builder = SceneBuilder(np.random.default_rng(seed), load_assets(config), config, makers.make)
        somebody = person(builder)
        points = np.concatenate([part.shape.positions.reshape(-1, 3) for part in somebody.parts])
        assert somebody.joints.shape == (17, 3)
        for joint in somebody.joints:  # every joint lies inside the body, so something of it is near
            assert np.linalg.norm(points - joint, axis=-1).min() < 0.15
        height = dict(zip(JOINTS, somebody.joints[:, 2], strict=True))
        assert height["nose"] > height["left_shoulder"] > height["left_hip"] > height["left_ankle"] > 0


def test_a_clip_moves_smoothly_through_free_space() -> None:
    frames, fps = 40, 10.0
    scene, poses = sample_clip(3, WorldConfig(), 64, 48, frames, fps)
    steps = np.linalg.norm(np.diff([pose[:3, 3] for pose in poses], axis=0), axis=-1)
    turns = [np.degrees(np.arccos(np.clip(a[:3, 2] @ b[:3, 2], -1, 1))) for a, b in pairwise(poses)]
    assert len(poses) == frames
    assert 0.1 < steps.sum() < 4
    assert steps.max() < 0.15
    assert max(turns) < 4
    for pose in poses[::8]:
        scene.camera.world_from_camera[:] = pose
        assert nearest_surface(scene) > 0.05


def test_a_clip_of_one_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="two frames"):
        sample_clip(0, WorldConfig(), 64, 48, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"colour": 1},
        {"camera": {"hfov_deg": (90, 45)}},
        {"mixture": dict.fromkeys(KINDS, 0)},
        {"room": {"density": 2}},
    ],
)
def test_wrong_configurations_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        WorldConfig.model_validate(fields)


@pytest.mark.parametrize(
    ("name", "category", "label"),
    [
        ("Sink cabinet", "Kitchen", "cabinet"),
        ("Sink", "Kitchen", "sanitary"),
        ("Desk lamp", "Lights", "lamp"),
        ("Desk", "Office", "table"),
        ("Armchair", "Living room", "chair"),
        ("Seat Leon", "Vehicles", "car"),
        ("Class seat", "Office", "chair"),
        ("Sliding window", "Doors and windows", "window"),
        ("Siamese cat", "Characters", "animal"),
        ("Sitting girl", "Characters", "person"),
        ("Chest freezer", "Kitchen", "appliance"),
        ("Palm tree", "Exterior", "vegetation"),
        ("Abacus", "Office", "object"),
    ],
)
def test_catalogue_names_become_labels(name: str, category: str, label: str) -> None:
    assert classify(name, category) == label


CATALOGUE = """\
id#1=Test#table
name#1=Little table
category#1=Living room
model#1=/things/table.obj
width#1=120
depth#1=60
height#1=75
movable#1=true
id#2=Test#broken
name#2=Broken
category#2=Living room
model#2=/things/broken.obj
width#2=10
depth#2=10
height#2=10
id#3=Test#light
name#3=White light source
category#3=Lights
model#3=/things/table.obj
width#3=10
depth#3=10
height#3=10
"""
# One red upright square facing the viewer (+z in the file), one textured top; y is up, lengths are arbitrary.
OBJ = """\
mtllib table.mtl
v 0 0 1
v 2 0 1
v 2 4 1
v 0 4 1
v 0 4 0
v 2 4 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl front
f 1 2 3 4
usemtl top
f 4/1 3/2 6/3 5/4
usemtl pane
f 1 2 6
"""
MTL = "newmtl front\nKd 1 0 0\nnewmtl top\nKd 0.2 0.2 0.2\nmap_Kd wood.png\nnewmtl pane\nd 0.1\n"


@pytest.fixture
def catalogue_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one small catalogue; its cache stays below `tmp_path`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "meshes"
    folder.mkdir()
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:2] = (0, 0, 255)  # BGR: the upper half is red
    with zipfile.ZipFile(folder / "tiny.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", CATALOGUE)
        archive.writestr("things/table.obj", OBJ)
        archive.writestr("things/table.mtl", MTL)
        archive.writestr("things/wood.png", cv2.imencode(".png", picture)[1].tobytes())
        archive.writestr("things/broken.obj", "f 1 2 3\n")
    return folder


def test_a_catalogue_becomes_meshes_in_metres_with_z_up(catalogue_folder: Path, tmp_path: Path) -> None:
    library = MeshLibrary.load(catalogue_folder)
    assert [mesh.name for mesh in library.meshes] == ["Little table"]  # broken and invisible ones are left out
    mesh = library.meshes[0]
    assert LABELS[mesh.class_id].name == "table"
    assert mesh.placement == "floor"
    assert mesh.size == (1.2, 0.6, 0.75)
    low, high = library.positions.min(axis=(0, 1)), library.positions.max(axis=(0, 1))
    np.testing.assert_allclose(low, (-0.6, -0.3, 0), atol=1e-5)
    np.testing.assert_allclose(high, (0.6, 0.3, 0.75), atol=1e-5)
    assert len(library.positions) == 4  # the transparent pane is dropped
    front = library.texture < 0
    np.testing.assert_allclose(library.positions[front][..., 1], -0.3, atol=1e-5)  # it looks along -y
    np.testing.assert_array_equal(library.albedo[front], [[255, 0, 0]] * 2)
    assert (np.abs(library.normals[front]) == (0, 127, 0)).all()
    assert library.textures.shape == (1, 128, 128, 4)
    np.testing.assert_array_equal(library.textures[0, [10, 118], 64], [(255, 0, 0, 255), (0, 0, 0, 255)])
    back = library.positions[~front][..., 1] > 0  # the far edge of the top carries the upper edge of the picture
    np.testing.assert_allclose(library.uvs[~front][back][:, 1], 0, atol=1e-3)
    assert list((tmp_path / "cache").rglob("*.npz"))
    assert MeshLibrary.load(catalogue_folder).meshes == library.meshes


def test_catalogue_meshes_are_used_in_scenes(catalogue_folder: Path) -> None:
    config = only("tabletop", meshes=catalogue_folder)
    assets = load_assets(config)
    assert assets.catalogue == {("table", "floor"): [0]}
    scene = sample_scene(0, config, 64, 48)
    assert len(scene.textures) == len(load_assets(WorldConfig()).textures) + 1
    builder = SceneBuilder(np.random.default_rng(0), assets, config, makers.make)
    assert builder.pick("table", "floor").size == (1.2, 0.6, 0.75)
    assert builder.pick("chair", "floor").label == "chair"  # no mesh of it: procedural


def test_a_folder_without_catalogues_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no furniture catalogue"):
        sample_scene(0, WorldConfig(meshes=tmp_path), 64, 48)


def test_a_damaged_catalogue_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.sh3f").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match=r"cut\.sh3f"):
        sample_scene(0, WorldConfig(meshes=tmp_path), 64, 48)
