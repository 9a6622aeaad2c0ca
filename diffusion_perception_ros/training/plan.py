"""What a run will need, before it is started: memory by what it is for, and time from its arithmetic.

The network is built on PyTorch's meta device, where tensors have shapes but no numbers, and runs forward once. What
autograd would keep for the way back is added up layer by layer. No weights are read and no GPU is needed. Estimates:
kernels need workspace, allocators fragment, and under autocast some layers keep float32: count on a tenth more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from diffusion_perception_ros.training.config import DiffusionNetwork, OneStepNetwork, TrainingConfig
from diffusion_perception_ros.training.diffusion.backbones import Backbone, UNetBackbone, new_backbone, widen_input
from diffusion_perception_ros.training.diffusion.heads import HeadedUNet
from diffusion_perception_ros.training.diffusion.objectives import make_diffusion_objective
from diffusion_perception_ros.training.diffusion.prompts import CONDITIONED
from diffusion_perception_ros.training.lora import add_lora, plan_adapter
from diffusion_perception_ros.training.onestep.network import UNSHUFFLE, NetworkConfig, OneStepNet


STABLE_DIFFUSION_2: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
"""`unet/config.json` of Stable Diffusion 2, for a `pretrained` that is not on this disk."""
SD_AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 768,
}
GPUS = {"A100": 312e12, "H100": 989e12}
"""Dense bf16 operations a second, from NVIDIA's data sheets."""
UTILISATION = 0.4
"""Share of them that a training of such a network reaches; the figure that large trainings report."""
_ENCODER_MAPS = 3
"""Maps of the full size and first width that encoding an image holds at a time, in float32 and without autograd."""
_UNITS = (".resnets.", ".attentions.", "transformer_blocks.")
"""In the names of the modules that gradient checkpointing runs again on the way back."""


@dataclass(frozen=True)
class Plan:
    """Memory in bytes of one process, and arithmetic of one optimiser step."""

    memory: dict[str, int]
    layers: dict[str, int]
    """Bytes that autograd keeps of one batch without checkpointing, by block of the network."""
    parameters: int
    trained: int
    flops: float
    images: int
    """Of one optimiser step."""

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(self.memory.values())

    def seconds(self, gpu: str) -> float:
        """Of one optimiser step on a GPU of `GPUS`."""
        return self.flops / (GPUS[gpu] * UTILISATION)


def plan_run(config: TrainingConfig) -> Plan:
    """The plan of a run, for the largest of its image sizes."""
    width, height = max(config.data.all_sizes, key=prod)
    batch = config.data.batch_size
    dtype = torch.float32 if config.run.precision == "fp32" else torch.bfloat16
    decoded, decoding, encoding = _Tape(), 0.0, 0.0
    with torch.device("meta"), _attention_without_matrix() as attended:
        network, inputs, passes = _build(config, width, height)
        vae = _autoencoder(config.network)
        if config.adaptation is not None:
            add_lora(network, plan_adapter(network, config.adaptation.share))
        parameters = sum(parameter.numel() for parameter in network.parameters())
        trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        tape = _Tape()
        output, forward = tape.run(network.to(dtype), [tensor.to(dtype) for tensor in inputs], attended)
        if vae is not None:
            encoding = _Tape().run(_Encoder(vae), [torch.zeros(1, 3, height, width)], attended)[1]
            if _sees_decoded(config):
                latent = output.detach().float().requires_grad_()
                decoding = decoded.run(_Decoder(vae), [latent], attended)[1]
    checkpointed = isinstance(config.network, DiffusionNetwork) and config.network.gradient_checkpointing
    kept = (tape.kept_by_checkpoints if checkpointed else tape.total) * passes + decoded.total
    memory = {
        "weights, fp32": 4 * parameters,
        "weights, bf16 copies of autocast": 2 * parameters if dtype is torch.bfloat16 else 0,
        "gradients": 4 * trained,
        "moments of AdamW": 8 * trained,
        "averaged weights": 4 * parameters,
        f"activations of {batch} image(s) of {width}x{height}": kept * batch,
    }
    if vae is not None:
        memory["autoencoder"] = 4 * sum(parameter.numel() for parameter in vae.parameters())
        channels = int(vae.config["block_out_channels"][0])
        memory["autoencoder encoding"] = _ENCODER_MAPS * 4 * batch * width * height * channels
    per_image = forward * passes * (4 if checkpointed else 3) + 2 * decoding + 2 * encoding
    return Plan(
        memory=memory,
        layers={name: size * batch * passes for name, size in tape.by_block().items()},
        parameters=parameters,
        trained=trained,
        flops=per_image * batch * config.optimiser.accumulation,
        images=batch * config.optimiser.accumulation,
    )


def _sees_decoded(config: TrainingConfig) -> bool:
    """Gradients pass through the decoder of an autoencoder."""
    objective, settings = config.objective, config.network
    is_decoded = isinstance(settings, DiffusionNetwork) and settings.head == "autoencoder"
    return is_decoded and (objective.kind == "e2e_ft" or (objective.kind, objective.loss) == ("genpercept", "picture"))


def _build(config: TrainingConfig, width: int, height: int) -> tuple[nn.Module, list[Tensor], int]:
    """The network, its inputs for one image, and how often it runs per batch."""
    settings, objective = config.network, config.objective
    if not isinstance(settings, DiffusionNetwork):
        channels = objective.noise_channels if objective.kind == "lotus_g" else 0
        noise = [torch.zeros(1, channels, height // UNSHUFFLE, width // UNSHUFFLE)] if channels else []
        network = OneStepNet(
            NetworkConfig(size=settings.size, noise_channels=channels, classes=len(config.data.classes))
        )
        return network.train(), [torch.zeros(1, 3, height, width), *noise], 1
    in_pixels = settings.pretrained is None
    channels, downscale = (3 * settings.pixels**2, settings.pixels) if in_pixels else (4, 8)
    seen = 1 + bool(CONDITIONED & set(settings.tasks))
    seen += 1 if objective.kind == "joint" else make_diffusion_objective(objective, in_pixels).sees_noise
    backbone = _backbone(settings, channels, channels * seen)
    inputs = [torch.zeros(1, channels * seen, height // downscale, width // downscale), torch.zeros(1)]
    preserves = objective.kind in ("lotus_d", "lotus_g") and objective.detail_preserver
    return _OneTask(backbone.train()), inputs, 2 if preserves else 1


def _autoencoder(settings: OneStepNetwork | DiffusionNetwork) -> AutoencoderKL | None:
    """Of a `pretrained`, frozen."""
    if not isinstance(settings, DiffusionNetwork) or settings.pretrained is None:
        return None
    vae: AutoencoderKL = AutoencoderKL.from_config(_stored_config(settings.pretrained, "vae") or SD_AUTOENCODER)
    return vae.requires_grad_(False)


def _backbone(settings: DiffusionNetwork, channels: int, inputs: int) -> Backbone:
    tasks = len(settings.tasks)
    if settings.pretrained is None:
        return new_backbone(settings.kind, settings.config, inputs, channels, tasks)
    fields = _stored_config(settings.pretrained, "unet") or STABLE_DIFFUSION_2
    switch = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2 * (tasks + 1)}
    unet = UNet2DConditionModel.from_config(dict(fields) | switch)
    widen_input(unet, inputs)
    text = torch.zeros(2, int(unet.config["cross_attention_dim"]))
    if settings.head == "dpt":
        return HeadedUNet(unet, tasks, text, settings.head_width)
    return UNetBackbone(unet, tasks, text)


def _stored_config(pretrained: str | None, part: str) -> dict[str, Any] | None:
    """The config of a checkpoint on this disk."""
    folder = Path(str(pretrained)) / part
    if not (folder / "config.json").is_file():
        return None
    kind = UNet2DConditionModel if part == "unet" else AutoencoderKL
    return dict(kind.load_config(folder))


class _OneTask(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs: Tensor, timesteps: Tensor) -> Tensor:
        said: Tensor = self.backbone(inputs, timesteps, torch.zeros(1, dtype=torch.long))
        return said


class _Encoder(nn.Module):
    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, image: Tensor) -> Tensor:
        latent: Tensor = self.vae.encode(image).latent_dist.mode()
        return latent


class _Decoder(nn.Module):
    """What a loss on the decoded annotation looks through."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent: Tensor) -> Tensor:
        decoded: Tensor = self.vae.decode(latent).sample
        return decoded


class _Tape:
    """Bytes of the tensors that autograd keeps, each counted once, by the module that it was at work in."""

    def __init__(self) -> None:
        self._saved: dict[str, int] = {}
        self._inputs: dict[str, int] = {}
        self._seen: set[int] = set()
        self._at: list[str] = [""]

    def run(self, network: nn.Module, inputs: list[Tensor], attended: list[float]) -> tuple[Tensor, float]:
        """Output and floating point operations of one forward pass."""
        self._seen |= {_identity(tensor) for tensor in (*network.parameters(), *network.buffers())}
        handles = []
        for name, module in network.named_modules():
            if name:
                handles.append(module.register_forward_pre_hook(self._enter(name)))
                handles.append(module.register_forward_hook(lambda *_: self._at.pop() and None))
        attended.clear()
        with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(self._pack, _same):
            output = network(*inputs)
        for handle in handles:
            handle.remove()
        return output, counter.get_total_flops() + sum(attended)

    @property
    def total(self) -> int:
        """Without checkpointing."""
        return sum(self._saved.values())

    @property
    def kept_by_checkpoints(self) -> int:
        """The inputs of all units, what is outside of them, and the largest unit, which is run again."""
        units = {name: size for name, size in self._saved.items() if self._unit(name)}
        inside: dict[str, int] = {}
        for name, size in units.items():
            inside[self._unit(name)] = inside.get(self._unit(name), 0) + size
        outside = self.total - sum(units.values())
        return outside + sum(self._inputs.get(unit, 0) for unit in inside) + max(inside.values(), default=0)

    def by_block(self) -> dict[str, int]:
        """By the network's outer blocks."""
        blocks: dict[str, int] = {}
        for name, size in self._saved.items():
            parts = name.removeprefix("backbone.").removeprefix("unet.").removeprefix("transformer.").split(".")
            block = ".".join(parts[:2] if len(parts) > 1 and parts[1].isdecimal() else parts[:1]) or "network"
            blocks[block] = blocks.get(block, 0) + size
        return blocks

    @staticmethod
    def _unit(name: str) -> str:
        """The name of the checkpointed module that a module belongs to, "" for none."""
        for mark in _UNITS:
            before, found, after = name.partition(mark)
            if found:
                return before + mark + after.split(".")[0]
        return ""

    def _enter(self, name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._at.append(name)
            if self._unit(name) == name:
                tensors = [value for value in inputs if isinstance(value, Tensor)]
                self._inputs[name] = sum(tensor.numel() * tensor.element_size() for tensor in tensors)

        return hook

    def _pack(self, tensor: Tensor) -> Tensor:
        if (key := _identity(tensor)) not in self._seen:
            self._seen.add(key)
            storage = tensor.untyped_storage()
            self._saved[self._at[-1]] = self._saved.get(self._at[-1], 0) + storage.nbytes()
            self._kept = [*getattr(self, "_kept", []), tensor]  # so that no other takes its identity
        return tensor


def _identity(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _same(tensor: Tensor) -> Tensor:
    return tensor


class _Attention(torch.autograd.Function):
    """What a fused kernel keeps: queries, keys, values and the result, but no matrix of all pairs. Forward only."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = torch.empty_like(query[..., : value.shape[-1]])
        ctx.save_for_backward(query, key, value, result)
        return result


@contextmanager
def _attention_without_matrix() -> Iterator[list[float]]:
    """Replaces attention, which on the meta device takes memory that no GPU takes; yields its operations."""
    operations: list[float] = []
    original = F.scaled_dot_product_attention

    def attend(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        operations.append(4.0 * query.numel() * key.shape[-2])
        result: Tensor = _Attention.apply(query, key, value)  # type: ignore[no-untyped-call]
        return result

    F.scaled_dot_product_attention = attend
    try:
        yield operations
    finally:
        F.scaled_dot_product_attention = original
