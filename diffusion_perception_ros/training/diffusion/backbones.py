"""Diffusers' networks as the papers change them: more input channels, a task embedding, a constant text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DiTTransformer2DModel, UNet2DConditionModel
from torch import Tensor, nn

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.training.diffusion.pretrained import load_network


class UNetBackbone(nn.Module):
    """`UNet2DConditionModel` with Lotus's task switch: sine and cosine of the one-hot task as class embedding.

    Class `tasks` (one more than there are tasks) stands for the reconstruction of the picture.
    """

    text: Tensor

    def __init__(self, unet: UNet2DConditionModel, tasks: int, text: Tensor) -> None:
        """
        Args:
            text: (tokens, width) the constant encoder states that every forward pass is given.
        """
        super().__init__()
        self.unet = unet
        self._classes = tasks + 1
        self.register_buffer("text", text, persistent=False)

    @property
    def denoiser(self) -> UNet2DConditionModel:
        """The network as diffusers has it."""
        return self.unet

    def forward(self, inputs: Tensor, timesteps: Tensor, task: int | Tensor) -> Tensor:
        """(N, C, h, w), (N,) and the number of the task, or (N,) numbers → (N, C', h, w)."""
        switch = task_switch(task, self._classes, inputs)
        text = self.text.to(inputs.dtype).expand(inputs.shape[0], -1, -1)
        answer: Any = self.unet(inputs, timesteps, text, class_labels=switch)
        said: Tensor = answer.sample
        return said


def task_switch(task: int | Tensor, classes: int, like: Tensor) -> Tensor:
    """(N, 2 classes): sine, then cosine of the one-hot task (Lotus, train_lotus_g.py; two classes there).

    Args:
        task: one number for all, or (N,).
        like: N of anything.
    """
    numbers = torch.as_tensor(task, device=like.device).expand(like.shape[0])
    one_hot = F.one_hot(numbers, classes).to(like.dtype)
    return torch.cat([one_hot.sin(), one_hot.cos()], 1)


class DiTBackbone(nn.Module):
    """`DiTTransformer2DModel` with tasks as classes. Its inputs are square, of the size that it was made for."""

    def __init__(self, transformer: DiTTransformer2DModel) -> None:
        super().__init__()
        self.transformer = transformer
        for module in transformer.modules():
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0  # diffusers drops classes at random, for guidance; ours say what to do

    @property
    def denoiser(self) -> DiTTransformer2DModel:
        """The network as diffusers has it."""
        return self.transformer

    def forward(self, inputs: Tensor, timesteps: Tensor, task: int | Tensor) -> Tensor:
        """(N, C, h, w), (N,) and the number of the task, or (N,) numbers → (N, C', h, w)."""
        labels = torch.as_tensor(task, device=inputs.device).expand(inputs.shape[0])
        said: Tensor = self.transformer(inputs, timestep=timesteps, class_labels=labels).sample
        return said


Backbone = UNetBackbone | DiTBackbone


def check_sizes(backbone: Backbone, sizes: Sequence[tuple[int, int]], downscale: int) -> None:
    """That the network takes pictures of these (width, height).

    Args:
        downscale: pixels per position of its input.

    Raises:
        InputError: it does not.
    """
    if not isinstance(backbone, DiTBackbone):
        return
    side = int(backbone.denoiser.config["sample_size"])
    for width, height in sizes:
        if {width, height} != {side * downscale}:
            raise InputError(
                f"data.sizes: a DiT takes {side * downscale} pixels square (sample_size {side}, {downscale} pixels "
                f"each), not {width}x{height}"
            )


def save_backbone(backbone: Backbone, pipeline: Path) -> None:
    """Writes the network into a folder in the diffusers layout.

    Raises:
        OSError: it could not be written.
    """
    backbone.denoiser.save_pretrained(pipeline / ("unet" if isinstance(backbone, UNetBackbone) else "transformer"))


def new_backbone(kind: str, fields: dict[str, Any], inputs: int, outputs: int, tasks: int) -> Backbone:
    """A network with random weights.

    Args:
        kind: `unet` or `dit`.
        fields: diffusers' config of it; channels and task embedding are set here.

    Raises:
        InputError: fields that diffusers does not know or cannot build.
    """
    channels = {"in_channels": inputs, "out_channels": outputs}
    try:
        if kind == "dit":
            return DiTBackbone(DiTTransformer2DModel(**fields, **channels, num_embeds_ada_norm=tasks + 1))
        switch = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2 * (tasks + 1)}
        unet = UNet2DConditionModel(**fields, **channels, **switch)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"network.config is no {kind} that diffusers can build: {error}") from error
    return UNetBackbone(unet, tasks, torch.zeros(1, int(unet.config.cross_attention_dim)))


def pretrained_unet(pretrained: str, inputs: int, tasks: int, text: Tensor) -> UNetBackbone:
    """A published U-Net, its first convolution widened and a task embedding added where it has none.

    Args:
        pretrained: folder or hub id in the diffusers layout, with `unet`.
        inputs: channels that it has to take; a multiple of its own.

    Raises:
        InputError: it cannot be loaded, or has more input channels or another number of tasks.
    """
    unet, loading = load_network(
        UNet2DConditionModel,
        pretrained,
        "unet",
        f"U-Net for {tasks} task(s)",
        class_embed_type="projection",
        projection_class_embeddings_input_dim=2 * (tasks + 1),
        low_cpu_mem_usage=False,
        device_map=None,
        output_loading_info=True,
    )
    missing = set(loading["missing_keys"])
    if missing and not all(name.startswith("class_embedding.") for name in missing):
        raise InputError(f"the U-Net of {pretrained} lacks weights: {', '.join(sorted(missing)[:3])} …")
    if missing:  # the task embedding is new, and loading leaves its memory as it was found
        for module in unet.class_embedding.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
    widen_input(unet, inputs)
    return UNetBackbone(unet, tasks, text)


def widen_input(unet: UNet2DConditionModel, inputs: int) -> None:
    """Repeats the first convolution's weights over the new channels and divides them, so that its output keeps its
    size (Lotus, train_lotus_g.py; Marigold, Sec. 3.2). The bias stays.

    Raises:
        InputError: `inputs` is no multiple of what the network takes.
    """
    old = unet.conv_in
    if inputs == old.in_channels:
        return
    if inputs % old.in_channels:
        raise InputError(f"the U-Net takes {old.in_channels} channels, which cannot be widened to {inputs}")
    times = inputs // old.in_channels
    new = nn.Conv2d(inputs, old.out_channels, old.kernel_size, padding=old.padding)
    with torch.no_grad():
        new.weight.copy_(old.weight.repeat(1, times, 1, 1) / times)
        assert new.bias is not None
        assert old.bias is not None
        new.bias.copy_(old.bias)
    unet.conv_in = new
    unet.register_to_config(in_channels=inputs)


def empty_prompt(pretrained: str) -> Tensor:
    """(2, width) the states of the empty prompt, BOS and EOS only, as Marigold, Lotus and GenPercept v2 have it.

    Raises:
        InputError: the checkpoint has no text encoder or tokenizer.
    """
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        tokenizer: Any = CLIPTokenizer.from_pretrained(pretrained, subfolder="tokenizer")
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{pretrained} has no tokenizer that can be loaded (subfolder 'tokenizer'): {error}"
        ) from error
    encoder = load_network(CLIPTextModel, pretrained, "text_encoder", "text encoder")
    tokens = tokenizer("", padding="do_not_pad", max_length=tokenizer.model_max_length, return_tensors="pt").input_ids
    with torch.no_grad():
        states: Tensor = encoder(tokens)[0][0]
    return states
