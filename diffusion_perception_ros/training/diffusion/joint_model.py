"""A network that perceives and creates (`joint`) as the exporter wants it: the one step of perception, all tasks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families.recipe import Recipe
from diffusion_perception_ros.inference.card import DepthOutput, LicenceTerms, Output
from diffusion_perception_ros.training.checkpoint import Checkpoint
from diffusion_perception_ros.training.config import TrainingConfig
from diffusion_perception_ros.training.diffusion.joint import FARTHEST, NEAREST, depth_of, perception
from diffusion_perception_ros.training.diffusion.joint_learner import JointLearner, load_learner
from diffusion_perception_ros.training.diffusion.trained_model import NativeModel, card_output, native_recipe


class JointModel(NativeModel):
    """One pass for all tasks; the latents of the annotations are stacked on the channel axis."""

    steps = 1

    def __init__(self, recipe: Recipe, learner: JointLearner) -> None:
        super().__init__(recipe, learner.network, learner.codec)
        self._tasks = learner.tasks

    @property
    def image_latent_channels(self) -> int:
        """See `FamilyModel`."""
        return self.codec.channels

    def denoise(self, image_latent: Tensor, noisy_latent: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
        """See `FamilyModel`: at T the noise says nothing, the network is given none."""
        said: Tensor = self.network(*perception(image_latent, self.recipe.latent_channels))
        return said[:, self.codec.channels :]

    def decode(self, latent: Tensor) -> tuple[Tensor, ...]:
        """See `FamilyModel`; the sky is as far as depth goes."""
        parts = dict(zip(self._tasks, latent.chunk(len(self._tasks), dim=1), strict=True))
        return tuple(_read(task, self.codec.decode(part)) for task, part in parts.items())


def _read(task: str, picture: Tensor) -> Tensor:
    if task == "depth":
        return depth_of(picture).clamp(max=FARTHEST)[:, None]
    return (picture + 1.0) / 2.0 if task == "semantic" else picture


def load_joint(checkpoint: Checkpoint, tasks: Sequence[str] = ()) -> JointModel:
    """The averaged weights of a checkpoint: of a self-improving run, the creation copy.

    Args:
        tasks: must be none or all of the network's, which it answers together.

    Raises:
        InputError: some of its tasks only, or weights are missing.
    """
    learner, config = load_learner(checkpoint)
    if tasks and set(tasks) != set(learner.tasks):
        raise InputError(f"{checkpoint.folder} answers {', '.join(learner.tasks)} in one pass: leave --tasks out")
    return JointModel(_recipe(config, learner, checkpoint), learner).eval()


def _card_output(task: str) -> Output:
    if task == "depth":
        return DepthOutput(quantity="relative_depth", tensor=task, range=(NEAREST, FARTHEST))
    return card_output(task)


def _recipe(config: TrainingConfig, learner: JointLearner, checkpoint: Checkpoint) -> Recipe:
    return native_recipe(
        checkpoint,
        learner.network,
        learner.codec,
        config.data.sizes[0],
        {task: _card_output(task) for task in learner.tasks},
        licence=LicenceTerms(spdx="Apache-2.0"),
        caveat="trained to perceive and to create labelled pairs",
    )
