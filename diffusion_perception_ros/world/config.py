"""What a synthetic world is made of: every range that scenes are drawn from, as one validated document."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.safe_files import read_yaml


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"a range is [low, high], got {list(value)}")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


Target = Literal["flow", "alpha", "amodal", "keypoints"]
TARGETS: tuple[Target, ...] = get_args(Target)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SceneMixture(_Section):
    """How often each kind of scene is drawn; weights need not sum to one."""

    room: Weight = 0.33
    """Furnished rooms of a home or an office, seen from eye, hand or robot height."""
    corridor: Weight = 0.06
    """Long and narrow, with doors, lockers and ceiling lights."""
    hall: Weight = 0.05
    """Large rooms: classrooms, canteens, stores with rows of shelves."""
    tabletop: Weight = 0.19
    """A table fills the image at 0.4–1.8 m, cluttered or almost empty."""
    bin: Weight = 0.06
    """Into a bin or tray from above, as a picking robot sees it."""
    shelf: Weight = 0.05
    """The front of a filled shelf or cabinet at arm's length."""
    low_camera: Weight = 0.11
    """A small robot's view, 8–45 cm above the floor."""
    street: Weight = 0.10
    """Roads between façades, parked cars, pavements, trees."""
    nature: Weight = 0.05
    """Parks, tracks, slopes and yards with trees and rocks."""
    portrait: Weight = 0.0
    """People from a few steps away, for opacity and human pose."""
    kitchen: Weight = 0.0
    """Rows of kitchen units from near, at times over a table; by default none, so that seeds keep their scenes."""
    dining: Weight = 0.0
    """A dining table with chairs all round, often in dim light."""
    desk: Weight = 0.0
    """A long plain table that fills the image from 0.5–1.4 m, looking down 20–55°, a few things on it."""
    parcels: Weight = 0.0
    """Cardboard boxes on the floor from near: open, taped, tilted, stacked."""
    bare_top: Weight = 0.0
    """A large, mostly bright and empty table top from 0.35–1.6 m: nothing but its edges and what lies behind."""
    arm: Weight = 0.0
    """A table as the camera on a robot's wrist sees it, 15–60 cm from the things, the gripper in view."""
    crowd: Weight = 0.0
    """Stations, canteens and shopping centres with many people, rows of seats and counters."""
    rough: Weight = 0.0
    """Uneven ground from near: stones, steps, tufts of grass, logs, slopes, seen by a low robot looking down."""

    @model_validator(mode="after")
    def _some_weight(self) -> SceneMixture:
        if not any(self.weights().values()):
            raise ValueError("at least one kind of scene needs a weight above zero")
        return self

    def weights(self) -> dict[str, float]:
        """Kind to weight, in the order of the fields."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class CameraConfig(_Section):
    """Pinhole cameras; the pose depends on the kind of scene."""

    hfov_deg: Range = (45.0, 100.0)
    """Horizontal field of view, degrees."""
    roll_deg: Range = (-5.0, 5.0)
    """Rotation about the optical axis, degrees."""
    askew_share: Share = 0.0
    """Images of a camera held askew in a hand, with this roll instead:"""
    askew_roll_deg: Range = (-25.0, 25.0)
    """Rotation about the optical axis, degrees."""
    center_jitter: Share = 0.02
    """Largest offset of the principal point from the middle, as a share of the image's width."""
    height_m: Range = (0.35, 1.9)
    """Above the floor or the ground, for scenes that do not set it by their nature."""
    low_height_m: Range = (0.08, 0.45)
    """For `low_camera` scenes."""
    clearance_m: Annotated[float, Field(ge=0)] = 0.2
    """Distance kept from walls and furniture."""


class RoomConfig(_Section):
    """Indoor scenes."""

    side_m: Range = (2.4, 7.5)
    """Width and depth of a room."""
    height_m: Range = (2.2, 3.3)
    """Floor to ceiling."""
    density: Range = (0.7, 2.2)
    """Pieces of furniture, relative to a sparsely furnished room."""
    dark_share: Share = 0.22
    """Rooms with dark, saturated surfaces and little light."""
    dim_dining_share: Share = 0.6
    """Dining rooms lit by one or two weak lamps and what comes through the curtains."""
    glossy_floor_share: Share = 0.3
    """Floors that reflect the lamps."""
    people_share: Share = 0.22
    """Rooms with somebody in them."""


class OutdoorConfig(_Section):
    """Streets and nature."""

    night_share: Share = 0.0
    """Scenes without sun, lit by lamps along the way and by the robot's own light."""
    hills_share: Share = 0.0
    """Scenes with hills or house fronts far away, 120–450 m."""


class LightConfig(_Section):
    """Lamps and sun; intensities are relative, as the simulated sensor sets its own exposure."""

    lamps: Annotated[tuple[int, int], AfterValidator(_ordered)] = (1, 3)
    """Number of lamps in a room (at most four lights are rendered)."""
    ambient: Range = (0.12, 0.55)
    """Light from everywhere, relative to the lamps'."""
    sun_elevation_deg: Range = (10.0, 75.0)
    """Height of the sun over the horizon."""


class SensorConfig(_Section):
    """The simulated camera, from light to an 8-bit image; blur widths are for an image 320 pixels wide."""

    exposure: Range = (0.10, 0.36)
    """Log-mean brightness that the automatic exposure aims at, 1 = saturation."""
    low_light_share: Share = 0.1
    """Images exposed too short, four to eight times darker, with the noise of high gain."""
    white_balance: Range = (0.86, 1.14)
    """Gain error of each colour channel."""
    vignetting: Range = (0.0, 0.6)
    """Light lost in the corners."""
    bloom: Range = (0.0, 0.12)
    """Strength of the glow around saturated places."""
    blur_px: Range = (0.0, 0.9)
    """Standard deviation of the lens blur, pixels."""
    motion_blur_share: Share = 0.15
    """Images blurred along a line."""
    motion_blur_px: Range = (1.5, 6.0)
    """Length of that line, pixels."""
    noise: Range = (0.0, 0.03)
    """Shot noise at saturation, standard deviation."""
    gamma: Range = (1.9, 2.5)
    """Exponent of the transfer curve."""
    filmic_share: Share = 0.6
    """Images whose highlights are rolled off instead of clipped."""
    filmic_white: Range = (1.0, 2.5)
    """Light that just saturates in those images."""
    contrast: Range = (0.8, 1.2)
    """Gain about middle grey after the transfer curve."""
    saturation: Range = (0.4, 1.3)
    """Colourfulness, 1 = as it is."""
    glare_share: Share = 0.0
    """Images veiled by stray light from a lamp or the sun in or beside the view."""
    bayer_share: Share = 0.0
    """Images read through a Bayer mosaic: colour fringes and soft detail, noise that is not independent."""
    rolling_shutter_share: Share = 0.0
    """Images whose rows are sheared by a turning camera, with their ground truth."""
    rolling_shutter: Range = (-0.04, 0.04)
    """Shift of the last row against the first, as a share of the width."""
    grey_share: Share = 0.03
    """Images of monochrome cameras."""
    jpeg_share: Share = 0.5
    """Images that went through JPEG."""
    jpeg_quality: Annotated[tuple[int, int], AfterValidator(_ordered)] = (35, 95)
    """Quality of that JPEG."""


class WorldConfig(_Section):
    """Everything that `sample_scene` needs besides the seed."""

    meshes: Path | None = None
    """Folder with Sweet Home 3D catalogues (.sh3f, .jar); without it all objects are procedural."""
    mesh_split: Literal["all", "train", "held_out"] = "all"
    """Every tenth mesh is `held_out`, to score models on objects they have never seen."""
    procedural_share: Share = 0.0
    """Share of furniture built by our own code where catalogue meshes exist as well."""
    targets: tuple[Target, ...] = ()
    """Ground truth beyond depth, normals, classes and instances, each at a cost: `flow` with the image before this
    one, `alpha`, `amodal`, `keypoints` (people are then procedural: catalogue meshes have no joints)."""
    views_per_scene: Annotated[int, Field(ge=1)] = 1
    """Samples from one scene, each with a camera, light and exposure of its own: building a scene costs more
    than a view of it. Seeds that follow each other share a scene."""
    max_triangles: Annotated[int, Field(gt=10_000)] = 300_000
    """Scenes above this are thinned out."""
    mixture: SceneMixture = SceneMixture()
    camera: CameraConfig = CameraConfig()
    room: RoomConfig = RoomConfig()
    outdoor: OutdoorConfig = OutdoorConfig()
    light: LightConfig = LightConfig()
    sensor: SensorConfig = SensorConfig()


def load_config(path: Path) -> WorldConfig:
    """Reads a YAML file with any of the fields above; the others keep their defaults.

    Raises:
        InputError: the file cannot be read, is no YAML mapping, or has an unknown or wrong field.
    """
    try:
        return WorldConfig.model_validate(read_yaml(path, f"the world config {path}") or {})
    except FileNotFoundError as error:
        raise InputError(f"the world config {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        fields = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise InputError(f"{path} is not a world config: {fields}.") from error
