"""Layouts of published ONNX exports: what their inputs and outputs are called and shaped, and what that means.

| layout | input | outputs |
|---|---|---|
| Depth Anything V2 | (1, 3, H, W) | one map (1, H, W) or (1, 1, H, W); relative and metric weights look alike |
| Depth Anything 3 | (1, views, 3, H, W) | depth (1, views, H, W) and its confidence |
| MoGe 1 and 2 | (1, 3, H, W) in [0, 1], a number of tokens | points (1, H, W, 3), normal, mask |
| Metric3D v2 | (1, 3, H, W) | depth and normals of a canonical camera of 1000 pixels |
| UniDepth v2 | (1, 3, H, W) | points (1, 3, H, W) in metres |
| MiDaS | (1, 3, H, W) | one map (1, H, W), disparity |
| SegFormer and the like | (1, 3, H, W) | logits (1, classes, h, w) |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
UNIT = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
FLOAT, FLOAT16 = 1, 10
"""ONNX's numbers of element types."""
Side = int | str | None


class TensorFacts(NamedTuple):
    """An input or output of a graph."""

    name: str
    shape: tuple[Side, ...]
    kind: int
    """ONNX's number of the element type."""

    @property
    def is_half(self) -> bool:
        """Half precision."""
        return self.kind == FLOAT16

    @property
    def is_image(self) -> bool:
        """A colour image, or several."""
        return self.kind in (FLOAT, FLOAT16) and (
            (len(self.shape) == 4 and 3 in (self.shape[1], self.shape[3]))
            or (len(self.shape) == 5 and self.shape[2] == 3)
        )

    @property
    def channels_last(self) -> bool:
        """(1, H, W, 3)."""
        return len(self.shape) == 4 and self.shape[3] == 3 and self.shape[1] != 3

    @property
    def sides(self) -> tuple[Side, Side]:
        """Height and width of an image."""
        return self.shape[1:3] if self.channels_last else self.shape[-2:]  # type: ignore[return-value]


class GraphFacts(NamedTuple):
    """What a graph shows of itself."""

    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    operators: frozenset[str]

    def input(self, name: str) -> TensorFacts:
        """The input of a name."""
        return next(value for value in self.inputs if value.name == name)

    def output(self, name: str) -> TensorFacts:
        """The output of a name."""
        return next(value for value in self.outputs if value.name == name)

    def describe(self) -> str:
        """Names and shapes, for people."""
        parts = [
            f"{title} {', '.join(f'{value.name} {list(value.shape)}' for value in values)}"
            for title, values in (("inputs", self.inputs), ("outputs", self.outputs))
        ]
        return "; ".join(parts)


@dataclass(frozen=True)
class Layout:
    """What a graph was recognised as."""

    family: str
    title: str
    image: str
    """Name of the image input."""
    depth: str | None = None
    depth_channel: int | None = None
    """Of a point map: which channel is depth."""
    normals: str | None = None
    semantic: str | None = None
    quantity: str | None = None
    """Of the depth; None where the graph cannot tell."""
    focal_scale: float | None = None
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]] = IMAGENET
    multiple_of: int = 14
    side: int = 518
    """Pixels of a square image that the model was trained at."""
    constants: tuple[tuple[str, float], ...] = ()
    """Inputs that are the same for every image."""
    range: tuple[float, float] | None = None


def recognise(facts: GraphFacts) -> Layout | None:
    """The layout of a graph, None for one that is not known."""
    images = [value for value in facts.inputs if value.is_image]
    if len(images) != 1:
        return None
    for find in (_moge, _metric3d, _unidepth, _depth_anything_3, _segmentation, _one_map):
        layout = find(facts, images[0])
        if layout is not None:
            return layout
    return None


def _named(facts: GraphFacts, *parts: str) -> TensorFacts | None:
    return next((value for value in facts.outputs if any(part in value.name.lower() for part in parts)), None)


def _moge(facts: GraphFacts, image: TensorFacts) -> Layout | None:
    points = next(
        (value for value in facts.outputs if len(value.shape) == 4 and value.shape[3] == 3 and "point" in value.name),
        None,
    )
    if points is None:
        return None
    normals = _named(facts, "normal")
    tokens = tuple((value.name, 1800.0) for value in facts.inputs if "token" in value.name)
    return Layout(
        "moge",
        "MoGe",
        image.name,
        points.name,
        2,
        normals and normals.name,
        quantity="relative_depth",
        normalisation=UNIT,
        constants=tokens,
    )


def _metric3d(facts: GraphFacts, image: TensorFacts) -> Layout | None:
    depth, normals = _named(facts, "depth"), _named(facts, "normal")
    is_it = depth is not None and normals is not None and len(normals.shape) == 4 and normals.shape[1] in (3, 4)
    if not is_it or depth is None or normals is None or len(depth.shape) != 4:
        return None
    return Layout(
        "metric3d",
        "Metric3D v2",
        image.name,
        depth.name,
        normals=normals.name,
        quantity="metric_depth",
        focal_scale=0.001,
        multiple_of=28,
        side=812,
        range=(0.0, 200.0),
    )


def _unidepth(facts: GraphFacts, image: TensorFacts) -> Layout | None:
    points = next(
        (
            value
            for value in facts.outputs
            if len(value.shape) == 4 and value.shape[1] == 3 and "p" in value.name.lower()[:3]
        ),
        None,
    )
    if points is None or _named(facts, "normal", "logits") is not None or not _is_points(points.name):
        return None
    return Layout("unidepth", "UniDepth v2", image.name, points.name, 2, quantity="metric_depth", range=(0.0, 100.0))


def _is_points(name: str) -> bool:
    return any(part in name.lower() for part in ("pts", "point", "xyz"))


def _depth_anything_3(facts: GraphFacts, image: TensorFacts) -> Layout | None:
    depth = _named(facts, "depth")
    if len(image.shape) != 5 or depth is None:
        return None
    return Layout("depth_anything_3", "Depth Anything 3", image.name, depth.name, side=504)


def _segmentation(facts: GraphFacts, image: TensorFacts) -> Layout | None:
    logits = next((value for value in facts.outputs if len(value.shape) == 4 and _several(value.shape[1])), None)
    if logits is None or logits.shape[3] == 1 or (logits.shape[1] == 3 and "logit" not in logits.name):
        return None
    return Layout("segmentation", "Segmentation", image.name, semantic=logits.name, multiple_of=32, side=512)


def _several(channels: Any) -> bool:
    return isinstance(channels, int) and channels > 1


def _is_map(shape: tuple[Side, ...]) -> bool:
    return len(shape) == 3 or (len(shape) == 4 and 1 in (shape[1], shape[3]))


def _one_map(facts: GraphFacts, image: TensorFacts) -> Layout | None:
    maps = [value for value in facts.outputs if _is_map(value.shape)]
    if len(maps) != 1 or len(image.shape) != 4:
        return None
    sides = [side for side in image.sides if isinstance(side, int)]
    has_names = any("depth" in value.name.lower() for value in maps) or image.name == "pixel_values"
    if sides and all(side % 14 == 0 for side in sides):
        has_names = True
    if has_names:
        return Layout("depth_anything_2", "Depth Anything V2", image.name, maps[0].name)
    normalisation = HALF if "Softmax" in facts.operators else IMAGENET  # the transformers of MiDaS 3 against 2.1
    return Layout(
        "midas",
        "MiDaS",
        image.name,
        maps[0].name,
        quantity="relative_disparity",
        normalisation=normalisation,
        multiple_of=32,
        side=384,
    )
