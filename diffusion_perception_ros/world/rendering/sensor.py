"""The simulated camera: from rendered light to the 8-bit image that a robot's camera would give."""

from __future__ import annotations

import cv2
import numpy as np

from diffusion_perception_ros.sample import FloatImage, Intrinsics, Sample, UInt8Image
from diffusion_perception_ros.world.config import SensorConfig
from diffusion_perception_ros.world.rendering.image import RenderedImage


REFERENCE_WIDTH = 320
"""Blur widths of the config are for images this wide and grow with the image."""
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
BRIGHT_LIMIT = 1.3
"""The brightest tenth of an image is kept around saturation, however dark the rest is."""
MAX_GAIN = 60.0
"""The automatic exposure makes nothing brighter than this."""


def capture(
    image: RenderedImage,
    intrinsics: Intrinsics,
    rng: np.random.Generator,
    config: SensorConfig,
    *,
    stamp: float | None = None,
    frame_id: str = "",
    name: str = "",
) -> Sample:
    """What the camera gives of a rendered view: its image (see `develop`) with the ground truth of the renderer.

    Args:
        rng: the only source of randomness.
        stamp: seconds.
    """
    rgb = develop(image.radiance, rng, config)
    if config.rolling_shutter_share > 0 and rng.random() < config.rolling_shutter_share:
        rgb, image = _sheared(rgb, image, rng.uniform(*config.rolling_shutter))
    return Sample(
        rgb=rgb,
        depth=image.depth,
        normals=image.normals,
        semantic=image.semantic,
        instances=image.instances,
        intrinsics=intrinsics,
        stamp=stamp,
        frame_id=frame_id,
        name=name,
    )


def _sheared(rgb: UInt8Image, image: RenderedImage, share: float) -> tuple[UInt8Image, RenderedImage]:
    """The rows of image and ground truth moved sideways, the more the lower; the edges are drawn out."""
    height, width = image.depth.shape
    shift = np.round(share * width * np.linspace(-0.5, 0.5, height)).astype(int)
    columns = np.clip(np.arange(width) + shift[:, None], 0, width - 1)
    rows = np.arange(height)[:, None]
    moved = {name: getattr(image, name)[rows, columns] for name in RenderedImage.__dataclass_fields__}
    return rgb[rows, columns], RenderedImage(**moved)


def develop(radiance: FloatImage, rng: np.random.Generator, config: SensorConfig) -> UInt8Image:
    """Takes a photograph: optics, exposure, noise, transfer curve, compression, each drawn at random from the config.

    Args:
        radiance: (H, W, 3), linear light of any scale.
        rng: the only source of randomness.

    Returns:
        (H, W, 3) sRGB.
    """
    light = np.clip(np.nan_to_num(radiance, posinf=1e3), 0.0, 1e3).astype(np.float32)
    light = _through_the_lens(light, rng, config)
    light, noise = _expose(light, rng, config)
    light = _add_noise(light, noise, rng)
    if config.bayer_share > 0 and rng.random() < config.bayer_share:
        light = _through_a_mosaic(light)
    image = np.round(np.clip(_transfer(light, rng, config), 0.0, 1.0) * 255.0).astype(np.uint8)
    if rng.random() < config.jpeg_share:
        image = _compress(image, int(rng.integers(config.jpeg_quality[0], config.jpeg_quality[1] + 1)))
    return image


def _through_the_lens(light: FloatImage, rng: np.random.Generator, config: SensorConfig) -> FloatImage:
    """Blur, motion blur, bloom and vignetting."""
    height, width = light.shape[:2]
    scale = width / REFERENCE_WIDTH
    sigma = rng.uniform(*config.blur_px) * scale
    if sigma > 0.3:  # narrower than this changes nothing
        light = np.asarray(cv2.GaussianBlur(light, (0, 0), sigma), np.float32)
    if rng.random() < config.motion_blur_share:
        kernel = _line_kernel(rng.uniform(*config.motion_blur_px) * scale, rng.uniform(0.0, np.pi))
        light = np.asarray(cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REPLICATE), np.float32)
    strength = rng.uniform(*config.bloom)
    if strength > 0.0:
        bright = cv2.resize(np.maximum(light - 4.0 * float(light.mean()), 0.0), None, fx=0.25, fy=0.25)
        glow = cv2.GaussianBlur(bright, (0, 0), 1.5 * scale)  # as wide as 6 pixels, at a quarter of the size
        light = light + strength * cv2.resize(glow, (width, height))
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None]
    if config.glare_share > 0 and rng.random() < config.glare_share:
        away = np.hypot(x - rng.uniform(-0.7, 0.7), y - rng.uniform(-0.8, 0.2))
        veil = float(light.mean()) * rng.uniform(0.2, 3.0) * np.exp(-away / rng.uniform(0.1, 0.8))
        light = light + (veil[..., None] * rng.uniform(0.8, 1.0, 3)).astype(np.float32)
    falloff = 1.0 - np.float32(rng.uniform(*config.vignetting)) * 2.0 * (x * x + y * y)
    return np.asarray(light * np.maximum(falloff, 0.0)[..., None])


def _line_kernel(length: float, angle: float) -> FloatImage:
    """Normalised kernel of a line of this length in pixels."""
    size = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((size, size), np.float32)
    steps = np.linspace(-length / 2, length / 2, 8 * size)
    columns, rows = steps * np.cos(angle) + size // 2, steps * np.sin(angle) + size // 2
    np.add.at(kernel, (np.round(rows).astype(int), np.round(columns).astype(int)), 1.0)
    return np.asarray(kernel / kernel.sum())


def _expose(light: FloatImage, rng: np.random.Generator, config: SensorConfig) -> tuple[FloatImage, float]:
    """Automatic exposure and white balance; also gives the shot noise that goes with the gain."""
    luminance = np.asarray(cv2.transform(light, LUMINANCE[None]), np.float32)
    log_mean = float(np.exp(np.mean(np.asarray(cv2.log(luminance + np.float32(1e-4)), np.float32))))
    bright = float(np.percentile(luminance[::4, ::4], 90))
    gain = min(rng.uniform(*config.exposure) / max(log_mean, 1e-4), BRIGHT_LIMIT / max(bright, 1e-4), MAX_GAIN)
    noise = rng.uniform(*config.noise)
    if rng.random() < config.low_light_share:
        gain /= rng.uniform(4.0, 8.0)
        noise = max(noise, config.noise[1]) * rng.uniform(1.0, 2.0)
    balance = rng.uniform(*config.white_balance, 3).astype(np.float32)
    return light * (np.float32(gain) * balance), noise


def _add_noise(light: FloatImage, noise: float, rng: np.random.Generator) -> FloatImage:
    """Shot noise grows with the root of the light; a small part is left in the dark (read noise)."""
    grain = rng.standard_normal(light.shape, dtype=np.float32)
    spread = np.float32(noise) * np.sqrt(np.minimum(light, 1.0) + np.float32(0.02))
    return np.asarray(np.maximum(light + grain * spread, 0.0), np.float32)


def _through_a_mosaic(light: FloatImage) -> FloatImage:
    """One colour per pixel (rows of R G and G B), and the two others back from the neighbours, as cameras do it."""
    raw = light[..., 1].copy()
    raw[::2, ::2], raw[1::2, 1::2] = light[::2, ::2, 0], light[1::2, 1::2, 2]
    counts = np.round(np.clip(raw, 0.0, 2.0) * 16383.0).astype(np.uint16)  # 14 bits and one of headroom
    return np.asarray(cv2.cvtColor(counts, cv2.COLOR_BayerBG2RGB), np.float32) / np.float32(16383.0)


def _transfer(light: FloatImage, rng: np.random.Generator, config: SensorConfig) -> FloatImage:
    """Highlights, gamma, contrast and colourfulness: linear light to display values, about [0, 1]."""
    if rng.random() < config.filmic_share:
        white = np.float32(rng.uniform(*config.filmic_white))
        light = light * (1.0 + light / (white * white)) / (1.0 + light) * np.float32(1.0 + 0.5 / white)
    exponent, contrast = 1.0 / rng.uniform(*config.gamma), rng.uniform(*config.contrast)
    saturation = 0.0 if rng.random() < config.grey_share else rng.uniform(*config.saturation)
    image = np.asarray(cv2.pow(np.clip(light, 0.0, 1.0), exponent), np.float32)
    # Contrast about middle grey, then colourfulness about the luminance, as one affine map of the channels.
    mixing = contrast * (saturation * np.eye(3) + (1.0 - saturation) * LUMINANCE)
    offset = np.full((3, 1), 0.5 * (1.0 - contrast))
    return np.asarray(cv2.transform(image, np.hstack([mixing, offset]).astype(np.float32)))


def _compress(image: UInt8Image, quality: int) -> UInt8Image:
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(decoded[..., ::-1])
