"""The one call of this package: `Estimator.load(model).predict(image)`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference import native
from diffusion_perception_ros.inference.backends import open_backend
from diffusion_perception_ros.inference.backends.backend import Backend, Report
from diffusion_perception_ros.inference.card import GraphRole, ModelCard, changed_sampler, read_card
from diffusion_perception_ros.inference.image_encodings import MAX_PIXELS
from diffusion_perception_ros.inference.memory import give_freed_memory_back
from diffusion_perception_ros.inference.models import find_model
from diffusion_perception_ros.inference.output_memory import OutputMemory
from diffusion_perception_ros.inference.preprocess import check_image, input_size_of
from diffusion_perception_ros.inference.prompts import Prompts, check_prompts
from diffusion_perception_ros.inference.runner import ModelRunner, Request, View
from diffusion_perception_ros.inference.sampling.noise import NoiseSource
from diffusion_perception_ros.inference.sampling.sampler import FusedNetwork, LatentNetwork, Network
from diffusion_perception_ros.inference.sampling.settings import Sampling, resolve_sampling
from diffusion_perception_ros.inference.streams import LastImage, Streams
from diffusion_perception_ros.inference.tiling import Tile, Window, predict_tiled
from diffusion_perception_ros.sample import Intrinsics, Prediction, UInt8Image


_LARGE = 8_000_000
"""Pixels. The memory of images above this is given back when much smaller ones come."""


@dataclass(frozen=True)
class Query:
    """An image and what is asked about it; the fields are those of `Estimator.predict`."""

    rgb: UInt8Image
    intrinsics: Intrinsics | None = None
    tasks: Collection[str] | None = None
    points: npt.ArrayLike | None = None
    prompt_mask: npt.ArrayLike | None = None
    steps: int | None = None
    ensemble_size: int | None = None
    noise_mode: str | None = None
    seed: int | None = None
    merging: str | None = None
    tile: Tile | None = None
    input_area: int | None = None
    output_size: tuple[int, int] | None = None
    memory: OutputMemory | None = None
    stream: str = ""


class Estimator:
    """A model folder, opened. Buffers are reused between calls: give every thread its own estimator."""

    def __init__(
        self,
        card: ModelCard,
        backends: Mapping[GraphRole, Backend],
        network: Network,
        tile: Tile | None = None,
        takes_batches: bool = False,
    ) -> None:
        """`load` is the usual way in."""
        self.card = card
        self.tile = tile
        self.takes_batches = takes_batches
        """`predict_batch` runs images together: a fused graph without noise, and with a free batch dimension."""
        self._backends = backends
        self._runner = ModelRunner(card, network, NoiseSource.for_card(card), native.load())
        self._streams = Streams(card)
        self._largest = 0
        """Pixels of the largest image since freed memory was given back."""

    @classmethod
    def load(
        cls,
        name_or_path: str | os.PathLike[str],
        backend: str = "auto",
        threads: int = 0,
        optimization: str = "all",
        tile: Tile | None = None,
        engine_precision: str = "fp16",
        sampler: Mapping[str, Any] | None = None,
        report: Report | None = None,
    ) -> Estimator:
        """Opens a model by name (`models.find_model`) or folder.

        Args:
            name_or_path: `onestep-m`, or a folder with a `model.yaml`.
            backend: `auto`, `cpu`, `cuda` or `tensorrt`; what does not run here falls back (`fallback_reason`).
            threads: CPU threads of the graph, 0 = all cores.
            optimization: Graph optimisation: `none`, `basic`, `extended` or `all`.
            tile: Images larger than this are predicted in tiles, None = never.
            engine_precision: Of TensorRT engines: `fp32`, `fp16` or `bf16`.
            sampler: Fields of the card's sampler that take other values than the card says.
            report: Told how far the build of an engine is, None = the log.

        Raises:
            InputError: no such model or backend, or a sampler that cannot be changed so.
            CardError: the model's card, files or graph are missing, altered or contradict each other.
        """
        folder = find_model(name_or_path)
        card = read_card(folder)
        if sampler:
            if card.sampler is None:
                raise InputError(f"model '{card.name}' predicts in one step: it has no sampler to change")
            card = card.model_copy(update={"sampler": changed_sampler(card.sampler, sampler)})
        backends = {
            role: open_backend(folder, card, backend, threads, optimization, role, engine_precision, report)
            for role in card.graph_files
        }
        if card.sampler is not None:
            names = {role: frozenset(node.name for node in opened.inputs) for role, opened in backends.items()}
            return cls(card, backends, LatentNetwork(card, backends, names), tile)
        is_free = all(not isinstance(node.shape[0], int) for node in backends["fused"].inputs)
        return cls(card, backends, FusedNetwork(card, backends["fused"]), tile, is_free and card.noise is None)

    @property
    def backend_name(self) -> str:
        """What runs the graphs, e.g. `onnxruntime-cpu`; several names if they differ."""
        return ", ".join(dict.fromkeys(backend.name for backend in self._backends.values()))

    @property
    def fallback_reason(self) -> str | None:
        """Why the backend is not the one asked for; None if it is."""
        reasons = dict.fromkeys(backend.fallback_reason for backend in self._backends.values())
        return "; ".join(reason for reason in reasons if reason) or None

    def check_sampling(
        self,
        steps: int | None = None,
        ensemble_size: int | None = None,
        noise_mode: str | None = None,
        seed: int | None = None,
        merging: str | None = None,
    ) -> Sampling:
        """The settings that `predict` would use with these arguments; None = what the card says.

        Raises:
            InputError: the model cannot sample so.
        """
        return resolve_sampling(self.card, steps, ensemble_size, noise_mode, seed, merging)

    def check_tasks(self, tasks: Collection[str] | None) -> set[str]:
        """The tasks that `predict` would compute.

        Raises:
            InputError: the model lacks one of them.
        """
        unknown = sorted(set(tasks or ()) - set(self.card.tasks))
        if unknown:
            raise InputError(
                f"model '{self.card.name}' has no task {', '.join(unknown)}; it has {', '.join(self.card.tasks)}"
            )
        return set(self.card.tasks if tasks is None else tasks)

    def forget(self, stream: str | None = None) -> None:
        """Forgets the last image of a stream (None = of all): the next one is the first of a new video."""
        self._streams.forget(stream)

    def warm_up(self, width: int = 640, height: int = 480) -> None:
        """Runs every graph on a grey image: allocations and the choice of GPU kernels happen now, not on a frame."""
        intrinsics = Intrinsics(width, height, width, width, 0.0, 0.0)
        points = [[width / 2, height / 2, 1.0]] if self.card.points else None
        mask = np.ones((height, width), np.uint8) if self.card.prompt_mask else None
        stream = "warm up"
        for _ in range(2 if self.card.second_image else 1):
            self.predict(
                np.full((height, width, 3), 127, np.uint8),
                intrinsics,
                points=points,
                prompt_mask=mask,
                steps=1,
                ensemble_size=1,
                stream=stream,
            )
        self.forget(stream)

    def predict(
        self,
        rgb: UInt8Image,
        intrinsics: Intrinsics | None = None,
        tasks: Collection[str] | None = None,
        *,
        points: npt.ArrayLike | None = None,
        prompt_mask: npt.ArrayLike | None = None,
        steps: int | None = None,
        ensemble_size: int | None = None,
        noise_mode: str | None = None,
        seed: int | None = None,
        merging: str | None = None,
        tile: Tile | None = None,
        input_area: int | None = None,
        output_size: tuple[int, int] | None = None,
        memory: OutputMemory | None = None,
        stream: str = "",
    ) -> Prediction:
        """Predicts on one image.

        Args:
            rgb: (H, W, 3) uint8, sRGB, any size up to `image_encodings.MAX_PIXELS`.
            intrinsics: Of this image. Models of canonical depth need them to give metres.
            tasks: Which of the card's tasks to compute, None = all. Graph outputs of the others are skipped.
            points: (N, 3): u and v in pixels of the image, 1 = inside the object, 0 = outside. Models whose card
                has `points` only; without them there is no `mask`.
            prompt_mask: (H, W), not 0 where the object can be seen. Models whose card has `prompt_mask` only; without
                it there is no `mask`.
            steps: Denoising steps. This and the next four: None = what the card says.
            ensemble_size: Predictions from different noise that are merged.
            noise_mode: One of `noise.NOISE_MODES`.
            seed: Of the noise.
            merging: How the depth of an ensemble is merged, one of `ensemble.MERGINGS`.
            tile: An image larger than this is predicted in tiles, None = as `load` was told.
            input_area: Pixels of the graph's input in place of the card's `input.size.area`: more is slower and sees
                smaller things, less is faster. None = the card's.
            output_size: Width and height of the maps, None = the image's; coordinates are in these pixels, too.
            memory: Where the maps are written, for callers that use the same memory again; None = new memory.
            stream: Name of the video, e.g. the camera, that the image belongs to. Models that look at the last
                image (`second_image`, noise mode `carry`) keep it here per stream. The first image of a stream,
                and one of another size than the last, has no `flow`.

        Returns:
            All maps in the image's size or `output_size`; what was not asked for is None. `depth` is set when it is
            metric, `depth_relative` when it is not, `depth_quantity` says what it is.

        Raises:
            InputError: not such an image, intrinsics of another size, a task that the model lacks, prompts or
                sampling that it cannot take.
            RuntimeError: the graph failed.
        """
        return self._answer(
            Query(
                rgb,
                intrinsics,
                tasks,
                points,
                prompt_mask,
                steps,
                ensemble_size,
                noise_mode,
                seed,
                merging,
                tile,
                input_area,
                output_size,
                memory,
                stream,
            )
        )

    def _answer(self, query: Query) -> Prediction:
        view, request = self._prepare(query)
        prediction, latents = self._runner(view, request)
        tile = query.tile or self.tile
        if tile is not None and _exceeds(query.rgb, tile) and request.tasks:
            prediction = self._predict_tiles(view, request, prediction, tile)
        self._streams.remember(query.stream, query.rgb, latents, request.sampling.noise_mode)
        pixels = query.rgb.shape[0] * query.rgb.shape[1]
        if 4 * pixels < self._largest and self._largest > _LARGE:
            give_freed_memory_back()
            self._largest = 0
        self._largest = max(self._largest, pixels)
        return prediction

    def predict_batch(self, queries: Sequence[Query]) -> list[Prediction]:
        """Predicts on images of different streams.

        What `takes_batches`, and is of one size for the graph, runs together; the rest one by one.

        Raises:
            InputError, RuntimeError: as `predict`; none of the images has an answer then.
        """
        prepared = [self._prepare(query) for query in queries]
        rule = self.card.input.size
        sizes = {(view.input_size or rule).size_for(view.rgb.shape[1], view.rgb.shape[0]) for view, _ in prepared}
        tiles = [(query.rgb, query.tile or self.tile) for query in queries]
        is_tiled = any(tile is not None and _exceeds(rgb, tile) for rgb, tile in tiles)
        if not self.takes_batches or len(sizes) != 1 or is_tiled:
            return [self._answer(query) for query in queries]
        predictions = self._runner.run_batch(prepared)
        for query, (_, request) in zip(queries, prepared, strict=True):
            self._streams.remember(query.stream, query.rgb, [], request.sampling.noise_mode)
        return predictions

    def _prepare(self, query: Query) -> tuple[View, Request]:
        """Checks what is asked."""
        rgb, intrinsics = query.rgb, query.intrinsics
        check_image(rgb)
        tasks = self.check_tasks(query.tasks)
        height, width = rgb.shape[:2]
        if intrinsics is not None and (intrinsics.width, intrinsics.height) != (width, height):
            raise InputError(
                f"the intrinsics belong to {intrinsics.width}x{intrinsics.height} pixels, "
                f"the image has {width}x{height}"
            )
        prompts = check_prompts(self.card, query.points, query.prompt_mask, width, height)
        sampling = self.check_sampling(query.steps, query.ensemble_size, query.noise_mode, query.seed, query.merging)
        last = self._streams.recall(query.stream, rgb)
        request = Request(tasks - self._unanswerable(prompts, last), sampling)
        memory = query.memory or OutputMemory()
        if query.output_size is not None:
            self._check_output_size(query, query.output_size)
        rule = input_size_of(self.card, query.input_area)
        view = View(rgb, intrinsics, last.image, prompts, rule, query.output_size, memory, last.latents)
        return view, request

    def _check_output_size(self, query: Query, size: tuple[int, int]) -> None:
        if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
            raise InputError(f"maps cannot have {size[0]}x{size[1]} pixels: 1 to {MAX_PIXELS} are possible")
        tile = query.tile or self.tile
        if tile is not None and _exceeds(query.rgb, tile):
            raise InputError("an image that is predicted in tiles has maps of its own size: take one of the two away")

    def _unanswerable(self, prompts: Prompts, last: LastImage) -> set[str]:
        """Tasks that lack what they ask about."""
        missing = set()
        if self.card.second_image is not None and last.image is None:
            missing.add("flow")
        if self.card.points is not None and prompts.points is None:
            missing.add("mask")
        if self.card.prompt_mask is not None and prompts.mask is None:
            missing.add("mask")
        return missing

    def _predict_tiles(self, view: View, request: Request, whole: Prediction, tile: Tile) -> Prediction:
        timings = dict(whole.timings)

        def predict(window: Window) -> Prediction:
            part, _ = self._runner(view.cropped(window), request)
            for stage, seconds in part.timings.items():
                timings[stage] += seconds
            return part

        blended = predict_tiled(view.rgb, tile, whole, predict)
        blended.timings = timings
        return blended


def _exceeds(rgb: UInt8Image, tile: Tile) -> bool:
    return max(rgb.shape[:2]) > tile.size
