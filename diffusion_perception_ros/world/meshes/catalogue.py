"""Reads furniture catalogues of Sweet Home 3D (`.sh3f` files and the program's own jar) and names what is in them."""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from diffusion_perception_ros.errors import InputError


CATALOGUE_FILES = ("PluginFurnitureCatalog.properties", "com/eteks/sweethome3d/io/DefaultFurnitureCatalog.properties")
SUFFIXES = (".sh3f", ".jar")

_PROPERTY = re.compile(r"^\s*([A-Za-z]+)#(\d+)\s*[=:]\s*(.*?)\s*$")

# Name patterns in order, the first hit wins: "sink cabinet" is a cabinet, "bed lamp" a lamp.
_LABEL_PATTERNS: tuple[tuple[str, str], ...] = tuple(
    (label, rf"\b(?:{pattern})")
    for label, pattern in (
        ("window", r"windows?\b|service hatch"),
        ("curtain", r"curtains?\b|(venetian |window )?blind\b|window shutter"),
        ("door", r"(\w+ )?doors?( frame| with panes)?$|elevator"),
        ("stairs", r"(\w+ )?staircase|escalator"),
        ("lamp", r".*\b(lamp|lamppost|light|lights|chandelier|candle|uplight|spotlight|lantern|strip)\b|flashlight"),
        ("object", r"table (fan|tennis bat)|park trashcan|towel|doll house|house|.*\bscale\b|kitchen knife|medicine"),
        ("object", r"toilet (brush|paper)|car model|toy|football goal|basketball net"),
        ("container", r".*\b(trash ?can|bin|dustbin|basket|bowl|tray|bucket|barrel|penbox)\b"),
        (
            "chair",
            r".*\b(chairs?|armchair|stool|seat(?! leon)|bench|puff|ottoman|lounge|wheelchair)\b|wood bank|little bank",
        ),
        ("appliance", r"chest freezer"),
        ("sanitary", r"island bath"),
        ("plant", r"bonsai"),
        ("sofa", r".*\b(sofa|couch)\b"),
        ("bed", r".*\b(bed|futon|crib|hammock|mattress)\b"),
        ("shelf", r".*\b(bookcase|shelves|spice tower|wall hanger|clothes rack)\b"),
        ("cabinet", r".*\b(cabinets?|wardrobe|cupboard|dresser|drawers|chest|vanity|locker|safe|island|unit with)\b"),
        ("cabinet", r"bedside table|tv (stand|unit)|changing table|wooden cabinet|island extension|.*\bpiano\b"),
        ("appliance", r".*\b(fridge|refrigerator|freezer|oven|stove|cooker|cooktop|hood|washer|microwave|boiler)\b"),
        ("appliance", r".*\b(washing machine|dishwasher|dryer machine|heater|radiator|furnace|water cooler)\b"),
        ("appliance", r"air conditioning|fireplace"),
        ("table", r".*\b(table|desk|workbench|flipper)\b"),
        ("screen", r"(flat |wall flat )?tv\b(?! remote)|screen$|apple i(mac|book)|laptop|tablet"),
        ("sanitary", r"toilets? unit|urinal|bidet|potty|.*\b(washbasin|sink|lavatory|basin|bath|bathtub|shower)\b"),
        ("sanitary", r"jacuzzi"),
        ("picture", r"frame|.*\b(white board|calendar|dart game|emergency sign)\b"),
        ("vegetation", r".*\b(tree|acacia|pine|palm|cypress|poplar|beech|maple|blossom|bush|hedge)\b"),
        ("plant", r".*\b(plant|cactus|flowers?|tulips|lily|orchids|bamboo|ficus|yucca|spathiphyllum|flower box)\b"),
        ("container", r".*\b(bottle|glass|cup|mug|vase|jar|pot|flacon|milk|teapot|creamer|pan|pottery|kettle)\b"),
        ("container", r"aquarium|ashtray|hashtray|oval plate|plate|backpack|handbag|shipping container"),
        ("box", r".*\b(box|crate|pallet|suitcase|trunck|gift|briefcase)\b|book$|butter|card game|soap|sponge"),
        ("truck", r".*\b(bus|truck|fork lift)\b"),
        ("cycle", r".*\b(bicycle|bike|tricycle|motorbike|scooter|yamaha)\b"),
        ("car", r"chevrolet|concept sedan|ford|peugeot|renault|suv\b|seat leon|smart car|vw|van$"),
    )
)
_ANIMALS = re.compile(r"\b(bulldog|cat|chicken|dog|horse|rabbit)\b")

# Flat markings, scenes in one mesh, invisible light sources, and things that make no sense in a room or a street.
_USELESS = re.compile(
    r"light source|parking slot|^arrow|pedestrian crossing|rail crossing|^rails|swimming pool|diving board|sandpit|"
    r"contemporary living room|carpet|rug$|bathmat|doormat|tatami|concrete sidewalk|triangle|^round window|"
    r"cylinder|^cone$|^ring$|snow|lying|rowboat|barnum|rigged fan|hanging clothes|locker|door frame|service hatch"
)
_HANGING = re.compile(r"chandelier|pendant|ceiling|hanging light|fluorescent|track lights|smoke detector")
_ON_WALL = re.compile(
    r"\bwall\b|switch|plug|socket|radiator|clock$|dart game|hood|upper|frame|white board|calendar|sign|heater|"
    r"air conditioning - internal|towel rack|intercom|thermometer|hanger|porch light|cctv|surveillance|extinguisher"
)


@dataclass(frozen=True)
class CatalogueEntry:
    """One mesh of a catalogue; lengths in metres."""

    archive: Path
    model: str
    """Path of the OBJ file in the archive."""
    name: str
    label: str
    """Class name of `world.labels`."""
    placement: str
    """Where it belongs: `floor`, `top` (on furniture), `wall`, `ceiling` or `outdoor`."""
    size: tuple[float, float, float]
    """Width (x), depth (y) and height (z)."""
    elevation: float
    """Height of the base above the floor where it is usually mounted."""
    top_height: float
    """Height of the surface that carries things."""
    rotation: tuple[float, ...] | None
    """Row-major 3x3 matrix to apply to the model (y up), if any."""


def classify(name: str, category: str) -> str:
    """Class name for a catalogue's English object name; what no pattern knows is an `object`."""
    name = name.lower()
    if category == "Characters":
        return "animal" if _ANIMALS.search(name) else "person"
    return next((label for label, pattern in _LABEL_PATTERNS if re.search(pattern, name)), "object")


def find_archives(folder: Path) -> list[Path]:
    """The catalogue archives below a folder, sorted.

    Raises:
        InputError: there are none.
    """
    archives = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and _catalogue_file(path))
    if not archives:
        raise InputError(
            f"{folder}: no furniture catalogue (.sh3f) below this folder; unpack Debian's sweethome3d-furniture there"
        )
    return archives


def read_catalogue(archive: Path) -> list[CatalogueEntry]:
    """The usable entries of one archive, in the catalogue's order.

    Raises:
        InputError: the archive is damaged or has no catalogue.
    """
    catalogue = _catalogue_file(archive)
    if catalogue is None:
        raise InputError(f"{archive}: no furniture catalogue inside; a .sh3f file of Sweet Home 3D is expected")
    with zipfile.ZipFile(archive) as file:
        text = file.read(catalogue).decode("latin-1")
        members = set(file.namelist())
    properties: dict[int, dict[str, str]] = defaultdict(dict)
    for line in text.splitlines():
        match = _PROPERTY.match(line)
        if match:
            properties[int(match[2])][match[1]] = match[3]
    entries = (_entry(archive, fields) for fields in properties.values())
    return [entry for entry in entries if entry and entry.model in members and not _USELESS.search(entry.name.lower())]


def _entry(archive: Path, fields: dict[str, str]) -> CatalogueEntry | None:
    try:
        size = tuple(float(fields[key]) / 100 for key in ("width", "depth", "height"))
        name, model = fields["name"], fields["model"].lstrip("/")
    except (KeyError, ValueError):
        return None  # other people's catalogues hold incomplete entries; the rest is still good
    category = fields.get("category", "")
    label = classify(name, category)
    elevation = float(fields.get("elevation", 0)) / 100
    top = float(fields.get("dropOnTopElevation", -1)) / 100
    rotation = tuple(float(value) for value in fields["modelRotation"].split()) if "modelRotation" in fields else None
    return CatalogueEntry(
        archive,
        model,
        name,
        label,
        _placement(name.lower(), label, category, size, elevation),
        (size[0], size[1], size[2]),
        elevation,
        top if top > 0 else size[2],
        rotation,
    )


def _placement(name: str, label: str, category: str, size: tuple[float, ...], elevation: float) -> str:
    if _HANGING.search(name):
        return "ceiling"
    if _ON_WALL.search(name) and label not in ("car", "person"):
        return "wall"
    is_outdoor_lamp = label == "lamp" and re.search(r"lamppost|street|park|outdoor", name)
    if category in ("Vehicles", "Exterior") or label == "vegetation" or is_outdoor_lamp:
        return "outdoor"
    if label in ("picture", "window", "door", "curtain"):
        return "wall"
    if max(size) < (0.7 if label in ("lamp", "plant", "screen") else 0.5) and label not in ("animal", "chair"):
        return "top"
    return "wall" if elevation > 0.4 and label in ("screen", "appliance", "cabinet", "shelf") else "floor"


def _catalogue_file(path: Path) -> str | None:
    """The archive's catalogue, None if it is some other archive."""
    try:
        with zipfile.ZipFile(path) as file:
            members = set(file.namelist())
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: not a zip archive ({error}); copy it again") from error
    return next((name for name in CATALOGUE_FILES if name in members), None)
