"""The one call of this package: `Estimator.load(model).predict(picture)`."""

from __future__ import annotations

import os
import time
from collections.abc import Collection

import numpy as np

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.backends import Backend, FloatTensor, open_backend
from diffusion_perception_ros.inference.card import CardError, ModelCard, read_card
from diffusion_perception_ros.inference.decoder import Decoder
from diffusion_perception_ros.inference.models import find_model
from diffusion_perception_ros.inference.preprocess import NoiseSource, Preprocessor, check_picture
from diffusion_perception_ros.sample import Intrinsics, Prediction, UInt8Image


class Estimator:
    """A model folder, opened. Buffers are reused between calls: give every thread its own estimator."""

    def __init__(self, card: ModelCard, backend: Backend) -> None:
        """`load` is the usual way in."""
        self.card = card
        self._backend = backend
        self._preprocess = Preprocessor(card.input)
        self._noise = NoiseSource(card.noise) if card.noise else None
        self._decoder = Decoder(card)

    @classmethod
    def load(
        cls,
        name_or_path: str | os.PathLike[str],
        backend: str = "auto",
        threads: int = 0,
        optimization: str = "all",
    ) -> Estimator:
        """Opens a model by name (`models.find_model`) or folder.

        Args:
            name_or_path: `onestep-s`, or a folder with a `model.yaml`.
            backend: `auto`, `cpu`, `cuda` or `tensorrt`; what does not run here falls back (`fallback_reason`).
            threads: CPU threads of the graph, 0 = all cores.
            optimization: Graph optimisation: `none`, `basic`, `extended` or `all`.

        Raises:
            InputError: no such model or backend.
            CardError: the model's card, files or graph are missing, altered or contradict each other.
        """
        folder = find_model(name_or_path)
        card = read_card(folder)
        return cls(card, open_backend(folder, card, backend, threads, optimization))

    @property
    def backend_name(self) -> str:
        """What runs the graph, e.g. `onnxruntime-cpu`."""
        return self._backend.name

    @property
    def fallback_reason(self) -> str | None:
        """Why the backend is not the one asked for; None if it is."""
        return self._backend.fallback_reason

    def warm_up(self, width: int = 640, height: int = 480) -> None:
        """Runs once on a grey picture: allocations and, on a GPU, kernel selection happen now and not on a frame."""
        self.predict(np.full((height, width, 3), 127, np.uint8), Intrinsics(width, height, width, width, 0.0, 0.0))

    def predict(
        self, rgb: UInt8Image, intrinsics: Intrinsics | None = None, tasks: Collection[str] | None = None
    ) -> Prediction:
        """Predicts on one picture.

        Args:
            rgb: (H, W, 3) uint8, sRGB, any size up to `image_encodings.MAX_PIXELS`.
            intrinsics: Of this picture. Models of canonical depth need them to give metres.
            tasks: Which of the card's tasks to compute, None = all. Graph outputs of the others are skipped.

        Returns:
            All maps in the picture's size; what was not asked for is None. `depth` is set when it is metric,
            `depth_relative` when it is not, `depth_quantity` says what it is.

        Raises:
            InputError: not such a picture, intrinsics of another size, a task that the model lacks.
            RuntimeError: the graph failed.
        """
        start = time.perf_counter()
        check_picture(rgb)
        wanted = self.check_tasks(tasks)
        size = rgb.shape[1], rgb.shape[0]
        if intrinsics is not None and (intrinsics.width, intrinsics.height) != size:
            raise InputError(
                f"the intrinsics belong to {intrinsics.width}x{intrinsics.height} pixels, "
                f"the picture has {size[0]}x{size[1]}"
            )
        image = self._preprocess(rgb)
        preprocessed = time.perf_counter()
        tensors = self._infer(image, wanted)
        inferred = time.perf_counter()
        input_size = image.shape[3], image.shape[2]
        prediction = self._decoder(tensors, wanted, size, input_size, intrinsics)
        prediction.timings = {
            "preprocess": preprocessed - start,
            "inference": inferred - preprocessed,
            "postprocess": time.perf_counter() - inferred,
        }
        return prediction

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

    def _infer(self, image: FloatTensor, tasks: set[str]) -> dict[str, FloatTensor]:
        """Runs the graph for the outputs that `tasks` need; (C, h, w) per tensor name."""
        inputs = {self.card.input.tensor: image}
        if self.card.noise and self._noise:
            inputs[self.card.noise.tensor] = self._noise(image.shape[3], image.shape[2])
        names = self._decoder.tensors_for(tasks)
        if not names:
            return {}
        outputs = dict(zip(names, self._backend.run(inputs, names), strict=True))
        for name, tensor in outputs.items():
            if tensor.ndim != 4 or tensor.shape[0] != 1:
                raise CardError(f"output '{name}' of model '{self.card.name}' has {tensor.shape}, not (1, C, h, w)")
        return {name: tensor[0] for name, tensor in outputs.items()}
