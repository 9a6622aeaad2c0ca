"""Picture and annotations diffused together: one network that perceives, and that creates labelled pairs.

The latents of the picture and of its annotations are one thing to be denoised. With a timestep for each of the two as
UniDiffuser has them (F. Bao et al., arXiv:2303.06555, Sec. 3), a single network covers both uses that Diff-2-in-1
(arXiv:2411.05005) makes of a diffusion model:

| | t of the picture | t of the annotations | what is denoised |
|---|---|---|---|
| perceive | 0 | T | the annotations, in one step, from nothing (as Lotus-D: at T the noise says nothing) |
| create | t | t | both, from pure noise or from a real pair noised to a part of T |

The network learns the clean latents (x0). It is told which of the two is wanted by the task switch of `backbones`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.training.batches import Batch
from diffusion_perception_ros.training.diffusion.annotations import Annotation, annotate
from diffusion_perception_ros.training.diffusion.codec import Codec, PixelCodec
from diffusion_perception_ros.training.diffusion.objectives import TRAIN_STEPS
from diffusion_perception_ros.training.settings.names import PAIR_TASKS


TASKS = PAIR_TASKS
"""Annotations that a labelled pair can have."""
NEAREST, FARTHEST = 0.1, 100.0
"""Metres that the darkest and the brightest finite depth stand for, of a camera whose focal length is the width of its
picture. Others see the same picture of things that are farther or nearer in proportion to their focal length."""
_SKY, _BRIGHTEST = 1.0, 0.9
_PERCEIVE, _CREATE = 0, 1

Network = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(N, C, h, w) noisy latents, (N,) timesteps, (N,) what is wanted → (N, C, h, w) clean latents."""


class Pairs(NamedTuple):
    """N pictures and their annotations as latents."""

    picture: Tensor
    """(N, c, h, w)"""
    annotations: Tensor
    """(N, tasks c, h, w)"""
    known: Tensor
    """(N, tasks, H, W) bool, pixels with ground truth."""

    def rows(self, index: Tensor) -> Pairs:
        """Some of them, by number."""
        return Pairs(*(value[index] for value in self))


class Example(NamedTuple):
    """What the network is given."""

    inputs: Tensor
    timesteps: Tensor
    wanted: Tensor
    """(N,) 0 = perceive, 1 = create."""


class JointSpace:
    """Between batches and latents.

    Depth is metric, so that a created pair is a sample like any other: the logarithm of the depth that a camera of
    focal length 1 (in widths of its picture) would see this picture at. The sky is white, and grey in the normals.
    """

    def __init__(self, codec: Codec, tasks: tuple[str, ...]) -> None:
        self._codec, self.tasks = codec, tasks

    def encode(self, batch: Batch) -> Pairs:
        """Latents of a batch.

        Raises:
            InputError: not one of its samples has ground truth of a task.
        """
        found = [_annotation(task, batch) for task in self.tasks]
        for task, annotation in zip(self.tasks, found, strict=True):
            if not annotation.known.any():
                raise InputError(
                    f"the samples {', '.join(batch.names)} have no ground truth of '{task}': take samples that have "
                    "it, such as those of `diffusion-perception world`, or leave it out of network.tasks"
                )
        latents = [self._codec.encode(annotation.picture) for annotation in found]
        known = torch.cat([annotation.known for annotation in found], 1)
        return Pairs(self._codec.encode(batch.image), torch.cat(latents, 1), known)

    def decode(self, latents: Tensor) -> list[Tensor]:
        """Pictures (N, 3, H, W), in [-1, 1] but for the network's error, of the latents that are stacked here."""
        count = latents.shape[1] // self._codec.channels
        return [self._codec.decode(part) for part in latents.float().chunk(count, 1)]


def _annotation(task: str, batch: Batch) -> Annotation:
    sky = torch.isposinf(batch.depth)
    if task == "normals":
        picture, known = annotate(task, batch)
        return Annotation(picture, known | sky[:, None])
    if task != "depth":
        return annotate(task, batch)
    known = torch.isfinite(batch.depth) & (batch.depth > 0)
    metres = torch.where(known, batch.depth, 1.0) / relative_focal(batch)[:, None, None]
    share = torch.log(metres / NEAREST) / math.log(FARTHEST / NEAREST)
    level = share.clamp(0.0, 1.0) * (1.0 + _BRIGHTEST) - 1.0
    pictures = torch.where(sky, _SKY, torch.where(known, level, 0.0))
    return Annotation(pictures[:, None].expand(-1, 3, -1, -1), (known | sky)[:, None])


def relative_focal(batch: Batch) -> Tensor:
    """(N,) focal length in widths of the picture; 1 where it is unknown."""
    return (batch.focal / batch.image.shape[-1]).nan_to_num(1.0)


def depth_of(pictures: Tensor) -> Tensor:
    """(N, H, W) metres of a camera of focal length 1, +Inf in the sky, from decoded depth pictures (N, 3, H, W)."""
    level = pictures.mean(1)
    share = ((level + 1.0) / (1.0 + _BRIGHTEST)).clamp(0.0, 1.0)
    metres = NEAREST * torch.exp(share * math.log(FARTHEST / NEAREST))
    return torch.where(level > (_SKY + _BRIGHTEST) / 2, math.inf, metres)


class JointDiffusion:
    """Noise, one step of perception and several of creation. The schedule ends in pure noise, as Lotus's does.

    It is the cosine (A. Nichol and P. Dhariwal, arXiv:2102.09672). Stable Diffusion's leaves too little of a picture
    of few pixels: the fewer show a thing, the less noise hides it (E. Hoogeboom et al., arXiv:2301.11093). At 0.6 T,
    0.6 of the amplitude is left here, 0.4 there.
    """

    def __init__(self, codec: Codec) -> None:
        self._scheduler: Any = DDIMScheduler(
            num_train_timesteps=TRAIN_STEPS,
            beta_schedule="squaredcos_cap_v2",
            prediction_type="sample",
            timestep_spacing="trailing",
            rescale_betas_zero_snr=True,
            clip_sample=isinstance(codec, PixelCodec),
        )

    def example(self, pairs: Pairs, perceives: Tensor, generator: torch.Generator) -> Example:
        """Training inputs: creation at a random timestep, perception for the rows (N,) bool that say so."""
        clean = torch.cat([pairs.picture, pairs.annotations], 1)
        steps = torch.randint(0, TRAIN_STEPS, (len(clean),), generator=generator).to(clean.device)
        noisy = self._scheduler.add_noise(clean, _noise(clean, generator), steps)
        asked = perception(pairs.picture, pairs.annotations.shape[1])
        rows = perceives.to(clean.device)
        return Example(
            torch.where(rows[:, None, None, None], asked.inputs, noisy),
            torch.where(rows, asked.timesteps, steps),
            torch.where(rows, asked.wanted, _CREATE),
        )

    def perceive(self, network: Network, picture: Tensor, channels: int) -> Tensor:
        """(N, channels, h, w) the annotations of pictures (N, c, h, w), in one step."""
        return network(*perception(picture, channels))[:, picture.shape[1] :].float()

    def create(
        self, network: Network, clean: Tensor, noise_level: float, steps: int, generator: torch.Generator
    ) -> Tensor:
        """New pairs, by DDIM.

        Args:
            clean: (N, C, h, w) latents of real pairs, picture first; of 1.0 noise only the shape matters.
            noise_level: share of T to which these are noised (Diff-2-in-1: 0.6); 1 starts from pure noise.
            steps: from pure noise; less noise takes the same share of them, at least one.
        """
        self._scheduler.set_timesteps(steps)
        left = self._scheduler.timesteps[steps - max(1, round(noise_level * steps)) :]
        start = left[:1].expand(len(clean)).to(clean.device)
        noisy: Tensor = self._scheduler.add_noise(clean, _noise(clean, generator), start)
        wanted = torch.full((len(clean),), _CREATE, device=clean.device)
        for step in left:
            said = network(noisy, step.to(clean.device).expand(len(clean)), wanted)
            noisy = self._scheduler.step(said.float(), int(step), noisy).prev_sample
        return noisy


def perception(picture: Tensor, channels: int) -> Example:
    """What the network is given to perceive `channels` channels of annotations in pictures (N, c, h, w)."""
    nothing = picture.new_zeros(len(picture), channels, *picture.shape[2:])
    last = torch.full((len(picture),), TRAIN_STEPS - 1, device=picture.device)
    return Example(torch.cat([picture, nothing], 1), last, torch.full_like(last, _PERCEIVE))


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """From the CPU's generator: the same on every device."""
    return torch.randn(like.shape, generator=generator).to(like.device, like.dtype)
