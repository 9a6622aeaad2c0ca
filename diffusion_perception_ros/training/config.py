"""The training config: one YAML file says everything that a run depends on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from diffusion_perception_ros.datasets.augment import AugmentationConfig
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.safe_files import parse_yaml, read_yaml
from diffusion_perception_ros.training.self_improvement import SelfImprovementConfig
from diffusion_perception_ros.training.settings.names import MULTIPLE, PAIR_TASKS, EncoderName, Task
from diffusion_perception_ros.training.settings.objective import ObjectiveConfig
from diffusion_perception_ros.training.settings.parts import AdaptationConfig, ExpertsConfig, LossWeights
from diffusion_perception_ros.training.settings.sources import Sources
from diffusion_perception_ros.world.labels import CLASS_ID


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Strict):
    """What is learnt from, and at which size."""

    train: Sources
    """One source or a list of them (`training/sources.py`); a bare path is a folder with shards."""
    validation: Sources
    """Other scenes: they choose the best checkpoint."""
    real: Sources | None = None
    """Real pictures with depth that are scored beside the validation scenes, and never choose anything."""
    sizes: tuple[tuple[int, int], ...] = Field(default=((256, 192),), min_length=1)
    """(width, height) of the network's input; every batch draws one, validation uses the first. Multiples of 32."""
    batch_size: int = Field(default=16, gt=0)
    """Per process and step."""
    classes: tuple[str, ...] = Field(default=tuple(CLASS_ID), min_length=1, max_length=255)
    """Names of the class ids in the data; others than the world's only for shards written by `adapt`."""
    minimum_samples: int = Field(default=1, gt=0)
    """Fewer training samples than this are an error."""

    @property
    def all_sizes(self) -> tuple[tuple[int, int], ...]:
        """Those of sources that have one of their own, too."""
        return (*self.sizes, *(source.size for source in self.train if source.size is not None))

    @field_validator("sizes")
    @classmethod
    def _multiples(cls, sizes: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        for size in sizes:
            if any(side <= 0 or side % MULTIPLE for side in size):
                raise ValueError(f"sides must be multiples of {MULTIPLE}, got {size[0]}x{size[1]}")
        return sizes

    @model_validator(mode="after")
    def _multiples_of_sources(self) -> DataConfig:
        self._multiples(self.all_sizes)
        return self


class OptimiserConfig(_Strict):
    """Linear warm-up, then decay."""

    kind: Literal["adamw", "muon"] = "adamw"
    """`muon`: see `training/muon.py`; learns more from the same pictures, at some percent more time per step."""
    learning_rate: float = Field(default=1.6e-3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    """Of AdamW, which `muon` uses for biases and norms."""
    warmup_steps: int = Field(default=100, ge=0)
    decay: Literal["cosine", "exponential", "constant"] = "cosine"
    """Of the learning rate: `cosine` to nearly nothing at the end of the budget, `exponential` to a hundredth,
    `constant`: none."""
    decay_steps: int | None = Field(default=None, gt=0)
    """Of `exponential`: steps after which the hundredth is reached and kept; default: at the end."""
    clip_norm: float = Field(default=3.0, gt=0)
    accumulation: int = Field(default=1, gt=0)
    """Batches per optimiser step."""
    ema: float = Field(default=0.998, ge=0, lt=1)
    """Decay of the averaged weights, which are the ones that are validated and exported. 0: no average, those of the
    last step."""
    rates: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Beginning of parameter names → factor of the learning rate; the longest beginning that fits counts. 0: frozen.
    Those of a pre-trained encoder begin with `pretrained.stages.N`, N from 0 (stem) to 7."""

    def rate_of(self, name: str) -> float:
        """The factor for a parameter, by its name."""
        fitting = [prefix for prefix in self.rates if name == prefix or name.startswith(f"{prefix}.")]
        return self.rates[max(fitting, key=len)] if fitting else 1.0


class RunConfig(_Strict):
    """How long, and how often something is written. Exactly one of `max_steps` and `max_minutes`."""

    max_steps: int | None = Field(default=None, gt=0)
    max_minutes: float | None = Field(default=None, gt=0)
    """Time budget of the training steps, validation included; the cosine then follows the clock."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the network; losses are always fp32. `auto`: bf16 where the processor has it, fp32 elsewhere (where bf16 is
    emulated and ten times slower)."""
    compile: bool = False
    """`torch.compile` the network, once per size of picture: minutes at the start, a quarter less time afterwards."""
    fully_shard: bool = False
    """Several processes share one copy of parameters, gradients and moments (FSDP2), for full-size networks. One
    process has all of them, and this changes nothing."""
    threads: int = Field(default=0, ge=0)
    """CPU threads; 0 = all cores."""
    checkpoint_minutes: float = Field(default=3.0, gt=0)
    validate_minutes: float = Field(default=6.0, gt=0)
    validation_samples: int = Field(default=300, gt=0)
    score: Literal["abs_rel", "normals_mean", "miou", "tasks"] = "abs_rel"
    """Which score of the validation scenes chooses the best checkpoint; `tasks`: the mean error of all tasks."""
    log_steps: int = Field(default=50, gt=0)

    @model_validator(mode="after")
    def _one_budget(self) -> RunConfig:
        if (self.max_steps is None) == (self.max_minutes is None):
            raise ValueError("give either 'max_steps' or 'max_minutes'")
        return self


class OneStepNetwork(_Strict):
    """The small pixel-space network: all tasks in one pass."""

    kind: Literal["onestep"] = "onestep"
    size: Literal["S", "M", "L"] = "S"
    """See `training.onestep.network.SIZES`."""
    encoder: Literal["plain"] | EncoderName = "plain"
    """`plain`: from random weights. Others: pre-trained on ImageNet, read from the package that holds the weights."""
    join: Literal["add", "replace"] = "add"
    """Whether the features of a pre-trained encoder are added to those of the plain one, or take their place."""
    encoder_norm: Literal["frozen", "batch"] = "frozen"
    """Statistics of the pre-trained encoder's BatchNorm: as they came, or those of the batches."""


class DiffusionNetwork(_Strict):
    """A diffusers backbone that answers with an annotation picture, one task at a time."""

    kind: Literal["unet", "dit"]
    tasks: tuple[Task, ...] = Field(min_length=1)
    pretrained: str | None = None
    """Folder or hub id in the diffusers layout, to fine-tune its U-Net in the space of its autoencoder."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Without `pretrained`: diffusers' config of a network that starts from random weights."""
    pixels: int = Field(default=4, ge=1, le=16)
    """Without `pretrained`: there is no autoencoder, the network sees blocks of this many pixels square."""
    experts: ExpertsConfig | None = None
    """The MLPs of a DiT become mixtures of experts."""
    head: Literal["autoencoder", "dpt"] = "autoencoder"
    """What makes the picture: the autoencoder's decoder (without `pretrained`: the blocks of pixels), or a DPT head on
    the features of a U-Net of four blocks, from random weights (GenPercept, arXiv:2403.06090, Sec. 3.4)."""
    head_width: int = Field(default=256, ge=4, multiple_of=2)
    """Channels of the `dpt` head."""
    posterior: Literal["mean", "sample"] = "mean"
    """With `pretrained`, in training: what is taken of the autoencoder's posterior; `sample` as Lotus does."""
    gradient_checkpointing: bool = False
    """Less memory for more time."""

    @model_validator(mode="after")
    def _one_origin(self) -> DiffusionNetwork:
        if self.pretrained and self.config:
            raise ValueError("give either 'pretrained' or 'config'")
        if self.pretrained and self.kind == "dit":
            raise ValueError("'pretrained' is for U-Nets; a DiT starts from 'config'")
        if self.experts is not None and self.kind != "dit":
            raise ValueError("'experts' are for 'kind: dit'")
        if self.head == "dpt" and self.kind != "unet":
            raise ValueError("'head: dpt' is for 'kind: unet'")
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"a task appears twice in {list(self.tasks)}")
        return self


def _onestep_by_default(value: Any) -> Any:
    return {"kind": "onestep", **value} if isinstance(value, dict) else value


NetworkSettings = Annotated[
    OneStepNetwork | DiffusionNetwork, Field(discriminator="kind"), BeforeValidator(_onestep_by_default)
]


class TrainingConfig(_Strict):
    """A whole training run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Also the default name of the exported model."""
    seed: int = Field(default=0, ge=0)
    network: NetworkSettings = OneStepNetwork()
    init_from: Path | None = None
    """Weights of the same network to start from: a safetensors file, such as `ema.safetensors` of a checkpoint, or the
    folder of a model that comes with its weights, such as `models/onestep-s`."""
    adaptation: AdaptationConfig | None = None
    """Learn only a small share of the parameters (LoRA); the others stay as `init_from` or `pretrained` has them."""
    objective: ObjectiveConfig = ObjectiveConfig()
    self_improvement: SelfImprovementConfig | None = None
    """Of `joint`: learn from pairs that the averaged network creates, too. Starts from `init_from`."""
    data: DataConfig
    augmentation: AugmentationConfig = AugmentationConfig()
    losses: LossWeights = LossWeights()
    optimiser: OptimiserConfig = OptimiserConfig()
    run: RunConfig

    @model_validator(mode="after")
    def _objective_fits_network(self) -> TrainingConfig:
        if self.network.kind == "onestep" and self.objective.kind not in ("lotus_d", "lotus_g"):
            raise ValueError(f"objective '{self.objective.kind}' needs a diffusion backbone ('network.kind: unet')")
        headed = self.network.kind != "onestep" and self.network.head != "autoencoder"
        if headed and (self.objective.kind != "genpercept" or self.objective.loss != "picture"):
            raise ValueError("'network.head' has no latent: it needs 'objective: {kind: genpercept}' on pictures")
        if self.objective.kind == "e2e_ft" and self.network.kind != "onestep":
            others = [task for task in self.network.tasks if task not in ("depth", "disparity", "normals")]
            if others:
                raise ValueError(f"'e2e_ft' knows the tasks depth, disparity and normals, not {others[0]}")
        if self.run.fully_shard and self.optimiser.kind == "muon":
            raise ValueError("'optimiser.kind: muon' needs whole matrices, which 'run.fully_shard' takes apart")
        return self

    @model_validator(mode="after")
    def _joint_settings_fit(self) -> TrainingConfig:
        network = self.network
        if self.objective.kind != "joint":
            if self.self_improvement is not None:
                raise ValueError("'self_improvement' needs a network that creates ('objective.kind: joint')")
            return self
        assert isinstance(network, DiffusionNetwork)
        others = [task for task in network.tasks if task not in PAIR_TASKS]
        if others:
            raise ValueError(f"'joint' knows the tasks {', '.join(PAIR_TASKS)}, not {', '.join(others)}")
        for name, value in (("network.pretrained", network.pretrained), ("network.experts", network.experts)):
            if value is not None:
                raise ValueError(f"'{name}' has no meaning for 'joint', which starts from 'network.config'")
        if self.adaptation is not None:
            raise ValueError("'adaptation' has no meaning for 'joint'")
        if self.self_improvement is not None and self.init_from is None:
            raise ValueError("'self_improvement' needs 'init_from', the weights of a network that creates already")
        if self.self_improvement is not None and self.run.fully_shard:
            raise ValueError("'self_improvement' needs the whole averaged network, not 'run.fully_shard'")
        if self.self_improvement is not None and self.data.batch_size < 2:
            raise ValueError("'self_improvement' needs batches of at least 2: real and created pictures")
        return self

    @model_validator(mode="after")
    def _adaptation_fits_network(self) -> TrainingConfig:
        settings, onestep = self.adaptation, self.network.kind == "onestep"
        if settings is None:
            return self
        if onestep and not settings.tasks:
            raise ValueError("'adaptation.tasks' must say what the data has labels for")
        if not onestep and (settings.tasks or settings.new_classes):
            raise ValueError("a diffusion network adapts to 'network.tasks': leave out the tasks of 'adaptation'")
        if self.init_from is None and (onestep or not self.network.pretrained):  # type: ignore[union-attr]
            raise ValueError("'adaptation' needs 'init_from', the weights that it starts from")
        return self


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Reads a YAML config and applies overrides such as `run.max_steps=100` (values are YAML).

    Raises:
        InputError: the file cannot be read, or a key is unknown, missing or wrong; names the key and the file.
    """
    fields = read_fields(path, overrides)
    try:
        return TrainingConfig.model_validate(fields)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'config'}: {_message(problem)}"
            for problem in error.errors()
        )
        raise InputError(f"{path}: {problems}") from error


def read_fields(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The settings of a YAML config with overrides, not checked yet.

    Raises:
        InputError: the file cannot be read, or an override is not `key=value`.
    """
    try:
        fields = read_yaml(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(fields, dict):
        raise InputError(f"{path} must hold a mapping of settings, such as config/train/onestep_s.yaml")
    for override in overrides:
        _apply(fields, override)
    return fields


def _apply(fields: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator:
        raise InputError(f"--set wants key=value, got '{override}'")
    *parents, last = key.split(".")
    for parent in parents:
        child = fields.setdefault(parent, {})
        if not isinstance(child, dict):
            raise InputError(f"--set {override}: '{parent}' is a value, not a section")
        fields = child
    fields[last] = parse_yaml(value, f"--set {override}: the value")


def _message(problem: Any) -> str:
    return "unknown key" if problem["type"] == "extra_forbidden" else str(problem["msg"])
