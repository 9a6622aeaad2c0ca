"""DICEPTION's prompts, encoded once with the three text encoders of Stable Diffusion 3.

The prompts never change at run time: their embeddings become constants of the graph, so that the encoders, of which T5
alone has 4.7 billion parameters, need not be on the robot. Written from `encode_prompt` of the published
`models/Renderer.py`, which is Stable Diffusion 3's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families.checkpoint_files import CheckpointFiles
from diffusion_perception_ros.families.loading import load_network, load_tokenizer


EMPTY = ""
"""The prompt of classifier-free guidance's unconditional pass."""
T5_TOKENS = 256
_COCO = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, "
    "laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, "
    "scissors, teddy bear, hair drier, toothbrush"
)
COCO_CLASSES = tuple(_COCO.split(", "))
"""What `[[image2semantic]]` can ask for."""


@dataclass(frozen=True)
class EncodedPrompt:
    """What the transformer knows of a text."""

    tokens: Tensor
    """(1, 77 + 256, width): both CLIPs side by side, filled up with zeros, then T5."""
    pooled: Tensor
    """(1, pooled width): both CLIPs side by side."""


def encoded_prompts(base: CheckpointFiles, prompts: Sequence[str], cache: Path | None) -> list[EncodedPrompt]:
    """Prompts from a cache file, or encoded and added to it.

    Args:
        base: Stable Diffusion 3; asked only for prompts that the cache lacks.
        cache: A safetensors file, or where to write one; None = always encode.

    Raises:
        InputError: the cache cannot be read or written, or the base lacks encoders.
    """
    known = _read_cache(cache) if cache is not None and cache.exists() else {}
    missing = [prompt for prompt in prompts if prompt not in known]
    if missing:
        known |= dict(zip(missing, _encode(base, missing), strict=True))
        if cache is not None:
            _write_cache(cache, known)
    return [known[prompt] for prompt in prompts]


def _encode(base: CheckpointFiles, prompts: Sequence[str]) -> list[EncodedPrompt]:
    """One encoder after the other, since together they take 25 GB in float32."""
    clips = [_encode_clip(base, suffix, prompts) for suffix in ("", "_2")]
    t5 = _encode_t5(base, prompts)
    clip_tokens = torch.cat([tokens for tokens, _ in clips], dim=-1)
    padded = F.pad(clip_tokens, (0, t5.shape[-1] - clip_tokens.shape[-1]))
    tokens = torch.cat([padded, t5], dim=1)  # (N, 77 + 256, T5's width)
    pooled = torch.cat([pooled for _, pooled in clips], dim=-1)
    return [EncodedPrompt(tokens[i : i + 1].clone(), pooled[i : i + 1].clone()) for i in range(len(prompts))]


def _encode_clip(base: CheckpointFiles, suffix: str, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The last hidden state but one (N, 77, width), and the projected summary (N, projection)."""
    ids = _token_ids(base, f"tokenizer{suffix}", prompts, None)
    encoder = load_network(CLIPTextModelWithProjection, base, f"text_encoder{suffix}")
    with torch.no_grad():
        output = encoder(ids, output_hidden_states=True)
    return output.hidden_states[-2], output.text_embeds


def _encode_t5(base: CheckpointFiles, prompts: Sequence[str]) -> Tensor:
    """The last hidden state (N, 256, width)."""
    ids = _token_ids(base, "tokenizer_3", prompts, T5_TOKENS)
    encoder = load_network(T5EncoderModel, base, "text_encoder_3")
    with torch.no_grad():
        return encoder(ids)[0]  # type: ignore[no-any-return]


def _token_ids(base: CheckpointFiles, subfolder: str, prompts: Sequence[str], length: int | None) -> Tensor:
    tokenizer = load_tokenizer(base, subfolder)
    length = length or tokenizer.model_max_length
    return tokenizer(  # type: ignore[no-any-return]
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids


def _read_cache(path: Path) -> dict[str, EncodedPrompt]:
    try:
        tensors = load_file(path)
        names = {name.rpartition(".")[0] for name in tensors}
        return {name: EncodedPrompt(tensors[f"{name}.tokens"], tensors[f"{name}.pooled"]) for name in names}
    except (SafetensorError, OSError, KeyError) as error:
        raise InputError(
            f"{path} is not a cache of encoded prompts ({error}): delete it, or name another file"
        ) from error


def _write_cache(path: Path, prompts: dict[str, EncodedPrompt]) -> None:
    tensors = {f"{name}.tokens": prompt.tokens.contiguous() for name, prompt in prompts.items()}
    tensors |= {f"{name}.pooled": prompt.pooled.contiguous() for name, prompt in prompts.items()}
    unfinished = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, unfinished)
        unfinished.replace(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"the encoded prompts cannot be written to {path}: {error}") from error
