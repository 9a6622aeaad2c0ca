"""Writes predictions to a folder: pictures for eyes, NumPy archives for programs. Every file appears whole or not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.files import whole_file
from diffusion_perception_ros.inference import visualization
from diffusion_perception_ros.inference.card import ModelCard, PictureOutput
from diffusion_perception_ros.sample import Prediction, UInt8Image


ARCHIVE_FIELDS = (
    "depth",
    "depth_relative",
    "depth_quantity",
    "confidence",
    "normals",
    "normals_confidence",
    "semantic",
    "semantic_confidence",
    "instances",
    "flow",
    "alpha",
    "mask",
    "keypoints",
    "albedo",
    "shading",
    "residual",
    "material",
)
"""Fields of `Prediction` that a `.npz` holds, under the same names; those that are None are left out."""

_PANEL_WIDTH = 640


class PredictionWriter:
    """Names and writes what is made of each frame: `<stem>.png` with everything side by side, `<stem>_depth.png`, …

    Args:
        folder: Where; made if it does not exist.
        card: Of the model, for the legend.
        archives: Write `<stem>.npz` too.

    Raises:
        InputError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, card: ModelCard, archives: bool) -> None:
        self._folder = folder
        self._card = card
        self._archives = archives
        self._taken: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with whole_file(folder / ".writable") as probe:
                probe.touch()
            (folder / ".writable").unlink()
        except OSError as error:
            raise InputError(f"the output folder {folder} cannot be written to: {error.strerror}") from error

    def write(self, stem: str, rgb: UInt8Image, prediction: Prediction) -> list[Path]:
        """Writes the files of one frame.

        Args:
            stem: Wanted stem; a number is added if it, or a file of it, is taken by an earlier frame.
            rgb: (H, W, 3), the picture.
            prediction: What the model says about it.

        Returns:
            The files written.

        Raises:
            InputError: a file cannot be written, for example because the disk is full.
        """
        pictures = self._pictures(rgb, prediction)
        suffixes = [f"{suffix}.png" for suffix in pictures] + [".npz"] * self._archives
        stem = self._claim(stem, suffixes)
        paths = [self._folder / f"{stem}{suffix}" for suffix in suffixes]
        path = paths[0]
        try:
            for path, picture in zip(paths, pictures.values(), strict=False):
                with whole_file(path) as temporary:
                    encoded = cv2.imencode(".png", picture[..., ::-1])[1]
                    temporary.write_bytes(encoded.tobytes())
            if self._archives:
                path = paths[-1]
                fields = {name: getattr(prediction, name) for name in ARCHIVE_FIELDS}
                with whole_file(path) as temporary, temporary.open("wb") as stream:
                    np.savez(stream, **{name: value for name, value in fields.items() if value is not None})
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
        return paths

    def _claim(self, stem: str, suffixes: list[str]) -> str:
        """`stem`, or the first of `stem-2`, `stem-3`, … whose files are all new in this run."""
        candidate, number = stem, 1
        while any(f"{candidate}{suffix}" in self._taken for suffix in suffixes):
            number += 1
            candidate = f"{stem}-{number}"
        self._taken.update(f"{candidate}{suffix}" for suffix in suffixes)
        return candidate

    def _pictures(self, rgb: UInt8Image, prediction: Prediction) -> dict[str, UInt8Image]:
        """Pictures by the suffix of their stem, the overview first."""
        pictures: dict[str, UInt8Image] = {}
        cells = [_panel(rgb)]
        height = len(cells[0])
        depth = prediction.depth if prediction.depth is not None else prediction.depth_relative
        if depth is not None:
            is_disparity = prediction.depth_quantity == "relative_disparity"
            unit = "m" if prediction.depth_quantity == "metric_depth" else ""
            low, high = visualization.depth_limits(depth)
            pictures["_depth"] = visualization.colorize_depth(depth, low, high, near_is_high=is_disparity)
            bar = visualization.scale_bar(low, high, unit, height, near_is_high=is_disparity)
            cells.append(np.hstack([_panel(pictures["_depth"]), bar]))
        if prediction.normals is not None:
            pictures["_normals"] = visualization.colorize_normals(prediction.normals)
            cells.append(_panel(pictures["_normals"]))
        if prediction.semantic is not None:
            pictures["_semantic"] = visualization.colorize_labels(prediction.semantic, self._card.labels)
            shown = visualization.present_labels(prediction.semantic, self._card.labels)
            blended = _panel(visualization.overlay(rgb, pictures["_semantic"], 0.6))
            cells.append(np.hstack([blended, visualization.legend(shown, height)]))
        if prediction.instances is not None:
            pictures["_instances"] = visualization.colorize_instances(prediction.instances)
            cells.append(_panel(visualization.overlay(rgb, pictures["_instances"], 0.6)))
        others = self._other_pictures(rgb, prediction)
        return {"": _grid([*cells, *map(_panel, others.values())]), **pictures, **others}

    def _other_pictures(self, rgb: UInt8Image, prediction: Prediction) -> dict[str, UInt8Image]:
        """Pictures that need no legend, by the suffix of their stem."""
        pictures: dict[str, UInt8Image] = {}
        if prediction.flow is not None:
            pictures["_flow"] = visualization.colorize_flow(prediction.flow)
        if prediction.alpha is not None:
            pictures["_alpha"] = visualization.grey_image(prediction.alpha)
        if prediction.mask is not None:
            pictures["_mask"] = visualization.draw_mask(rgb, prediction.mask)
        if prediction.keypoints is not None:
            pictures["_keypoints"] = visualization.draw_keypoints(rgb, prediction.keypoints)
        for output in self._card.outputs:
            values = getattr(prediction, output.task, None)
            if isinstance(output, PictureOutput) and values is not None:
                pictures[f"_{output.task}"] = visualization.property_image(values, output.prediction_space)
        return pictures


def _panel(picture: UInt8Image) -> UInt8Image:
    """The picture at the size of the overview: never wider than a panel."""
    height, width = picture.shape[:2]
    if width <= _PANEL_WIDTH:
        return picture
    size = (_PANEL_WIDTH, max(1, round(height * _PANEL_WIDTH / width)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _grid(cells: list[UInt8Image]) -> UInt8Image:
    """Cells of equal height in rows of three, on white."""
    height = len(cells[0])
    width = max(cell.shape[1] for cell in cells)
    columns = min(3, len(cells))
    grid = np.full((-(-len(cells) // columns) * height, columns * width, 3), 255, np.uint8)
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        grid[row * height :, column * width :][:height, : cell.shape[1]] = cell
    return grid
