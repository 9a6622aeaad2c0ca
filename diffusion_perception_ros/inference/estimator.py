"""The one call of this package: `Estimator.load(model).predict(picture)`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.backends import Backend, open_backend
from diffusion_perception_ros.inference.backends.graph_check import read_nodes
from diffusion_perception_ros.inference.card import GraphRole, ModelCard, changed_sampler, read_card
from diffusion_perception_ros.inference.models import find_model
from diffusion_perception_ros.inference.preprocess import check_picture
from diffusion_perception_ros.inference.prompts import Prompts, check_prompts
from diffusion_perception_ros.inference.runner import ModelRunner, Request, View
from diffusion_perception_ros.inference.sampling.ensemble import Merging
from diffusion_perception_ros.inference.sampling.noise import NoiseSource, check_noise_mode
from diffusion_perception_ros.inference.sampling.sampler import FusedNetwork, LatentNetwork, Network
from diffusion_perception_ros.inference.sampling.schedulers import make_scheduler
from diffusion_perception_ros.inference.streams import LastPicture, Streams
from diffusion_perception_ros.inference.tiling import Tile, Window, predict_tiled
from diffusion_perception_ros.sample import Intrinsics, Prediction, UInt8Image


@dataclass(frozen=True)
class Query:
    """A picture and what is asked about it; the fields are those of `Estimator.predict`."""

    rgb: UInt8Image
    intrinsics: Intrinsics | None = None
    tasks: Collection[str] | None = None
    points: npt.ArrayLike | None = None
    prompt_mask: npt.ArrayLike | None = None
    stream: str = ""


class Estimator:
    """A model folder, opened. Buffers are reused between calls: give every thread its own estimator.

    `steps`, `ensemble_size`, `noise_mode` and `noise_seed` start as the card says, and can be changed between calls.
    """

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
        """`predict_batch` runs pictures together: a fused graph without noise, and with a free batch dimension."""
        self.merging: Merging = "aligned_median"
        """How the depth of an ensemble is merged; may be changed between calls."""
        self._backends = backends
        self._noise = NoiseSource.for_card(card)
        self._runner = ModelRunner(card, network, self._noise)
        self._steps = card.sampler.num_inference_steps if card.sampler else 1
        self._ensemble_size = card.sampler.ensemble_size if card.sampler else 1
        self._noise_mode: str = card.noise.mode if card.noise else "fixed"
        self._streams = Streams(card)

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
    ) -> Estimator:
        """Opens a model by name (`models.find_model`) or folder.

        Args:
            name_or_path: `onestep-m`, or a folder with a `model.yaml`.
            backend: `auto`, `cpu`, `cuda` or `tensorrt`; what does not run here falls back (`fallback_reason`).
            threads: CPU threads of the graph, 0 = all cores.
            optimization: Graph optimisation: `none`, `basic`, `extended` or `all`.
            tile: Pictures larger than this are predicted in tiles, None = never.
            engine_precision: Of TensorRT engines: `fp32`, `fp16` or `bf16`.
            sampler: Fields of the card's sampler that take other values than the card says.

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
            role: open_backend(folder, card, backend, threads, optimization, role, engine_precision)
            for role in card.graph_files
        }
        nodes = {role: read_nodes(folder / file)[0] for role, file in card.graph_files.items()}
        if card.sampler is not None:
            names = {role: frozenset(node.name for node in inputs) for role, inputs in nodes.items()}
            return cls(card, backends, LatentNetwork(card, backends, names), tile)
        is_free = all(not isinstance(node.shape[0], int) for node in nodes["fused"])
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

    @property
    def steps(self) -> int:
        """Denoising steps of every prediction. Setting raises InputError if the model cannot."""
        return self._steps

    @steps.setter
    def steps(self, steps: int) -> None:
        self._steps, _ = self.check_sampling(steps=steps)

    @property
    def ensemble_size(self) -> int:
        """Predictions that are merged into one. Setting raises InputError if the model cannot."""
        return self._ensemble_size

    @ensemble_size.setter
    def ensemble_size(self, ensemble_size: int) -> None:
        _, self._ensemble_size = self.check_sampling(ensemble_size=ensemble_size)

    @property
    def noise_mode(self) -> str:
        """One of `noise.NOISE_MODES`. Setting raises InputError if it is not, or the model takes no noise."""
        return self._noise_mode

    @noise_mode.setter
    def noise_mode(self, mode: str) -> None:
        self._noise_mode = self.check_noise(mode)

    @property
    def noise_seed(self) -> int | None:
        """Seed of the noise of the modes `fixed` and `carry`; None for models that take no noise, which have none."""
        return None if self._noise is None else self._noise.seed

    @noise_seed.setter
    def noise_seed(self, seed: int) -> None:
        if self._noise is None:
            raise InputError(f"model '{self.card.name}' takes no noise: it has no seed")
        self._noise.seed = seed

    def check_noise(self, mode: str) -> str:
        """The noise mode.

        Raises:
            InputError: it is none of `noise.NOISE_MODES`, or the model takes no noise.
        """
        check_noise_mode(mode)
        if mode != "fixed" and (self._noise is None or self._noise.is_zero):
            raise InputError(f"model '{self.card.name}' takes no noise: there is no noise mode '{mode}'")
        if mode == "carry" and self.card.sampler is None and not (self.card.noise and self.card.noise.latent_tensor):
            raise InputError(f"model '{self.card.name}' does not tell its latent: there is no noise mode 'carry'")
        return mode

    def check_sampling(self, steps: int | None = None, ensemble_size: int | None = None) -> tuple[int, int]:
        """Steps and ensemble size that `predict` would use; None = the present setting.

        Raises:
            InputError: the model cannot sample so.
        """
        steps = self._steps if steps is None else steps
        ensemble_size = self._ensemble_size if ensemble_size is None else ensemble_size
        if self.card.sampler is not None:
            make_scheduler(self.card.sampler, steps)
        elif steps != 1:
            raise InputError(f"model '{self.card.name}' predicts in one step; export it with more to get {steps}")
        if ensemble_size < 1:
            raise InputError(f"the ensemble size must be at least 1, got {ensemble_size}")
        if ensemble_size > 1 and (self._noise is None or self._noise.is_zero):
            raise InputError(
                f"model '{self.card.name}' starts from no noise: all {ensemble_size} members of an ensemble "
                "would be equal"
            )
        return steps, ensemble_size

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
        """Forgets the last picture of a stream (None = of all): the next one is the first of a new video."""
        self._streams.forget(stream)

    def warm_up(self, width: int = 640, height: int = 480) -> None:
        """Runs every graph on a grey picture: allocations and the choice of GPU kernels happen now, not on a frame."""
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
        stream: str = "",
    ) -> Prediction:
        """Predicts on one picture.

        Args:
            rgb: (H, W, 3) uint8, sRGB, any size up to `image_encodings.MAX_PIXELS`.
            intrinsics: Of this picture. Models of canonical depth need them to give metres.
            tasks: Which of the card's tasks to compute, None = all. Graph outputs of the others are skipped.
            points: (N, 3): u and v in pixels of the picture, 1 = inside the object, 0 = outside. Models whose card
                has `points` only; without them there is no `mask`.
            prompt_mask: (H, W), not 0 where the object can be seen. Models whose card has `prompt_mask` only; without
                it there is no `mask`.
            steps: Denoising steps, None = `self.steps`.
            ensemble_size: Predictions to merge, None = `self.ensemble_size`.
            stream: Name of the video, e.g. the camera, that the picture belongs to. Models that look at the last
                picture (`second_image`, noise mode `carry`) keep it here per stream. The first picture of a stream,
                and one of another size than the last, has no `flow`.

        Returns:
            All maps in the picture's size; what was not asked for is None. `depth` is set when it is metric,
            `depth_relative` when it is not, `depth_quantity` says what it is.

        Raises:
            InputError: not such a picture, intrinsics of another size, a task that the model lacks, prompts or
                sampling that it cannot take.
            RuntimeError: the graph failed.
        """
        query = Query(rgb, intrinsics, tasks, points, prompt_mask, stream)
        view, request = self._prepare(query, steps, ensemble_size)
        prediction, latents = self._runner(view, request)
        if self.tile is not None and self._exceeds_tile(view) and request.tasks:
            prediction = self._predict_tiles(view, request, prediction, self.tile)
        self._streams.remember(stream, rgb, latents, self._noise_mode)
        return prediction

    def predict_batch(self, queries: Sequence[Query]) -> list[Prediction]:
        """Predicts on pictures of different streams, with the present `steps` and `ensemble_size`.

        What `takes_batches`, and is of one size for the graph, runs together; the rest one by one.

        Raises:
            InputError, RuntimeError: as `predict`; none of the pictures has an answer then.
        """
        prepared = [self._prepare(query, None, None) for query in queries]
        sizes = {self.card.input.size.size_for(view.rgb.shape[1], view.rgb.shape[0]) for view, _ in prepared}
        if not self.takes_batches or len(sizes) != 1 or any(self._exceeds_tile(view) for view, _ in prepared):
            return [self.predict(**vars(query)) for query in queries]
        predictions = self._runner.run_batch(prepared)
        for query in queries:
            self._streams.remember(query.stream, query.rgb, [], self._noise_mode)
        return predictions

    def _prepare(self, query: Query, steps: int | None, ensemble_size: int | None) -> tuple[View, Request]:
        """Checks what is asked."""
        rgb, intrinsics = query.rgb, query.intrinsics
        check_picture(rgb)
        wanted = self.check_tasks(query.tasks)
        height, width = rgb.shape[:2]
        if intrinsics is not None and (intrinsics.width, intrinsics.height) != (width, height):
            raise InputError(
                f"the intrinsics belong to {intrinsics.width}x{intrinsics.height} pixels, "
                f"the picture has {width}x{height}"
            )
        prompts = check_prompts(self.card, query.points, query.prompt_mask, width, height)
        steps, ensemble_size = self.check_sampling(steps, ensemble_size)
        last = self._streams.recall(query.stream, rgb)
        answerable = wanted - self._unanswerable(prompts, last)
        request = Request(answerable, steps, ensemble_size, self._noise_mode, self.merging)
        return View(rgb, intrinsics, last.picture, prompts, last.latents), request

    def _exceeds_tile(self, view: View) -> bool:
        return self.tile is not None and max(view.rgb.shape[:2]) > self.tile.size

    def _unanswerable(self, prompts: Prompts, last: LastPicture) -> set[str]:
        """Tasks that lack what they ask about."""
        missing = set()
        if self.card.second_image is not None and last.picture is None:
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
