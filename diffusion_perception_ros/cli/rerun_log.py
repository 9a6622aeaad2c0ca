"""Predictions as a Rerun recording (`.rrd`): image, maps and cloud on one timeline. rerun-sdk is optional."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.inference.visualization import colorize_instances, colorize_normals
from diffusion_perception_ros.sample import Intrinsics, Prediction, UInt8Image


TIMELINE = "time"
CLOUD_STEP = 4
"""Every n-th row and column becomes a point."""


class RerunLog:
    """Writes one file; closed by `close`.

    Raises:
        InputError: rerun-sdk is missing, or the file cannot be written.
    """

    def __init__(self, path: Path, card: ModelCard) -> None:
        try:
            import rerun
        except ImportError as error:
            raise InputError("--rerun needs rerun-sdk: pip install rerun-sdk") from error
        self._rerun: Any = rerun
        self._stream = rerun.RecordingStream(f"diffusion_perception_{card.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream.save(str(path))
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path} cannot be written: {error}") from error
        labels = [(label.id, label.name, label.color) for label in card.labels]
        if labels:
            self._stream.log("camera", rerun.AnnotationContext(labels), static=True)
        self._stream.log("camera", rerun.ViewCoordinates.RDF, static=True)
        self._count = 0

    def add(self, rgb: UInt8Image, prediction: Prediction, intrinsics: Intrinsics | None, stamp: float | None) -> None:
        """One image and what was predicted of it; images without a time are one second apart."""
        rerun, stream = self._rerun, self._stream
        stream.set_time(TIMELINE, timestamp=float(self._count if stamp is None else stamp))
        self._count += 1
        if intrinsics is not None:
            size = intrinsics.width, intrinsics.height
            stream.log("camera/image", rerun.Pinhole(image_from_camera=intrinsics.matrix, resolution=size))
        stream.log("camera/image", rerun.Image(rgb).compress(jpeg_quality=90))
        depth = prediction.depth if prediction.depth is not None else prediction.depth_relative
        if depth is not None:
            per_unit = 1000.0 if prediction.depth is not None else 65535.0  # millimetres, or shares of the range
            stored = np.clip(np.where(np.isfinite(depth), depth, 0) * per_unit, 0, 65535).astype(np.uint16)
            stream.log("camera/image/depth", rerun.DepthImage(stored, meter=per_unit))
        if prediction.normals is not None:
            stream.log(
                "camera/image/normals", rerun.Image(colorize_normals(prediction.normals)).compress(jpeg_quality=90)
            )
        if prediction.semantic is not None:
            stream.log("camera/image/classes", rerun.SegmentationImage(prediction.semantic))
        if prediction.instances is not None:
            stream.log("camera/image/instances", rerun.Image(colorize_instances(prediction.instances)))
        if prediction.depth is not None and intrinsics is not None:
            self._log_cloud(rgb, prediction.depth, intrinsics)

    def close(self) -> None:
        """Finishes the file."""
        self._stream.flush()
        self._stream.disconnect()

    def _log_cloud(self, rgb: UInt8Image, depth: Any, camera: Intrinsics) -> None:
        """Points of metric depth in the optical frame: x right, y down, z forward, metres."""
        every = np.s_[::CLOUD_STEP, ::CLOUD_STEP]
        v, u = (grid[every] for grid in np.mgrid[: depth.shape[0], : depth.shape[1]])
        z = depth[every]
        valid = np.isfinite(z)
        points = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], axis=-1)[valid]
        self._stream.log("camera/points", self._rerun.Points3D(points, colors=rgb[every][valid]))
