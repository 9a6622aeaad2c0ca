"""Depth to PointCloud2: organised like the image, coloured, with class and confidence where the model gives them."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CameraInfo, PointCloud2, PointField
from std_msgs.msg import Header

from diffusion_perception_ros.inference import native
from diffusion_perception_ros.inference.camera_model import Distortion, distortion_of
from diffusion_perception_ros.ros.message_memory import MessageMemory
from diffusion_perception_ros.sample import UNLABELLED, FloatImage, Intrinsics, Prediction, UInt8Image


_FIELD_TYPES = {"f4": PointField.FLOAT32, "u4": PointField.UINT32}

Rays = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""x / z and y / z of the pixels, broadcastable to (H, W)."""


class PointCloudBuilder:
    """Builds clouds and remembers the pixel rays, which only change with the camera."""

    def __init__(self, with_label: bool, with_confidence: bool) -> None:
        """Every cloud of one model has the same fields: x, y, z, rgb, then `confidence` and `label` if it has them."""
        fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")]
        fields += [("confidence", "<f4")] if with_confidence else []
        fields += [("label", "<u4")] if with_label else []
        self._point = np.dtype(fields)
        self._camera: tuple[object, ...] = ()
        self._rays: Rays | None = None

    def build(
        self,
        header: Header,
        depth: FloatImage,
        rgb: UInt8Image,
        prediction: Prediction,
        intrinsics: Intrinsics,
        info: CameraInfo | None,
        decimation: int = 1,
        edge_filter: float = 0.0,
        memory: MessageMemory | None = None,
    ) -> PointCloud2:
        """The cloud of one frame, ceil(H / decimation) x ceil(W / decimation) points.

        Args:
            header: of the image; points are in its optical frame.
            depth: (H, W) metres; points without a finite depth are NaN.
            rgb: (H, W, 3), colour of the points.
            prediction: gives `semantic` and `confidence`.
            intrinsics: of the image.
            info: its lens distortion is undone, None if there is none (rectified images).
            decimation: take every n-th row and column.
            edge_filter: jump of depth, as `at_jumps`, from which points are NaN; 0 = keep all.
            memory: keeps the bytes of the message, None = new memory.
        """
        memory = memory or MessageMemory()
        x, y = self._rays_of(intrinsics, info)
        if edge_filter > 0:
            depth = np.where(at_jumps(depth, edge_filter), np.float32(np.nan), depth)
        shape = -(-depth.shape[0] // decimation), -(-depth.shape[1] // decimation)
        points = memory.allocate("points", shape, self._point, PointCloud2)
        library, confidence, labels = native.load(), prediction.confidence, prediction.semantic
        is_plain = rgb.strides[1:] == (3, 1) and rgb.shape[:2] == depth.shape
        if library is not None and is_plain and native.is_plain(depth, confidence, labels):
            rays = (x, y) if native.is_plain(x, y) else (x[0].copy(), y[:, 0].copy())
            library.write_points(depth, rgb, rays, confidence, labels, decimation, points)
        else:
            self._fill(points, depth, (x, y), rgb, prediction, decimation)
        return self._message(header, points, memory)

    def _fill(
        self,
        points: npt.NDArray[np.void],
        depth: FloatImage,
        rays: Rays,
        rgb: UInt8Image,
        prediction: Prediction,
        decimation: int,
    ) -> None:
        """What `Native.write_points` does, with NumPy."""
        x, y = rays
        every = np.s_[::decimation, ::decimation]
        z = np.where(np.isfinite(depth[every]), depth[every], np.float32(np.nan))
        points["x"], points["y"], points["z"] = x[every] * z, y[every] * z, z
        color = rgb[every].astype(np.uint32)
        points["rgb"] = color[..., 0] << 16 | color[..., 1] << 8 | color[..., 2]
        names = self._point.names or ()
        if "confidence" in names:
            points["confidence"] = np.nan if prediction.confidence is None else prediction.confidence[every]
        if "label" in names:
            points["label"] = UNLABELLED if prediction.semantic is None else prediction.semantic[every]

    def _rays_of(self, intrinsics: Intrinsics, info: CameraInfo | None) -> Rays:
        lens = None if info is None else distortion_of(info)
        camera = (intrinsics, lens and (lens.is_fisheye, *lens.coefficients))
        if self._rays is None or camera != self._camera:
            self._rays = _pixel_rays(intrinsics, lens)
            self._camera = camera
        return self._rays

    def _message(self, header: Header, points: npt.NDArray[np.void], memory: MessageMemory) -> PointCloud2:
        height, width = points.shape
        cloud: PointCloud2 = memory.message_of("points", points, PointCloud2)
        cloud.header, cloud.height, cloud.width = header, height, width
        cloud.is_bigendian = cloud.is_dense = False
        cloud.point_step = self._point.itemsize
        cloud.row_step = width * self._point.itemsize
        fields = []
        for name, layout in (self._point.fields or {}).items():
            kind, offset = layout[:2]
            # By convention `rgb` is declared as a float that carries the three bytes.
            datatype = PointField.FLOAT32 if name == "rgb" else _FIELD_TYPES[kind.str[1:]]
            fields.append(PointField(name=name, offset=offset, datatype=datatype, count=1))
        cloud.fields = fields
        return cloud


def at_jumps(depth: FloatImage, threshold: float) -> npt.NDArray[np.bool_]:
    """(H, W): where points fly between two surfaces, or may: the depths of a pixel and its eight neighbours differ.

    A network draws an edge as a ramp of a few pixels, whose points belong to neither side. Nearest and farthest of the
    3 x 3 pixels may differ by `threshold` times the nearest; pixels without depth do not count.
    """
    around = np.ones((3, 3), np.uint8)
    known = np.isfinite(depth) & (depth > 0)
    far = cv2.dilate(np.where(known, depth, np.float32(0.0)), around)
    near = cv2.erode(np.where(known, depth, np.float32(np.inf)), around)
    with np.errstate(over="ignore"):
        return np.asarray(far > np.float32(1.0 + threshold) * near)


def _pixel_rays(camera: Intrinsics, lens: Distortion | None) -> Rays:
    u = np.arange(camera.width, dtype=np.float32)[None, :]
    v = np.arange(camera.height, dtype=np.float32)[:, None]
    if lens is None:
        x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
        shape = (camera.height, camera.width)
        return np.broadcast_to(x.astype(np.float32), shape), np.broadcast_to(y.astype(np.float32), shape)
    pixels = np.stack(np.broadcast_arrays(u, v), axis=-1).reshape(-1, 1, 2).astype(np.float64)
    undistort = cv2.fisheye.undistortPoints if lens.is_fisheye else cv2.undistortPoints
    rays = (
        undistort(pixels, camera.matrix, lens.coefficients).reshape(camera.height, camera.width, 2).astype(np.float32)
    )
    return np.ascontiguousarray(rays[..., 0]), np.ascontiguousarray(rays[..., 1])
