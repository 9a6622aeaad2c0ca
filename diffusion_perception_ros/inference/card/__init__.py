"""The model card: everything the numbers of a model folder need to mean something.

A model folder holds `model.yaml` (this card), the ONNX graphs and a README. Nothing about a model is known to the code
but what its card says; unknown, missing and contradictory fields are errors that name the field and the file. Every
field with an example: docs/model_card.md.
"""

from diffusion_perception_ros.inference.card.inputs import (
    ImageInput,
    InputSize,
    NoiseInput,
    Placement,
    PointsInput,
    PromptMaskInput,
    SecondImageInput,
)
from diffusion_perception_ros.inference.card.model_card import (
    NOISY_LATENT,
    SCHEMA_VERSION,
    LicenceTerms,
    ModelCard,
    Source,
)
from diffusion_perception_ros.inference.card.model_folder import (
    CARD_NAME,
    CardError,
    read_card,
    sha256_of,
    write_card,
)
from diffusion_perception_ros.inference.card.outputs import (
    AlphaOutput,
    Axis,
    ColorClustering,
    DepthOutput,
    FlowOutput,
    InstancesOutput,
    Joint,
    KeypointsOutput,
    Label,
    MaskOutput,
    NormalsOutput,
    Output,
    PictureOutput,
    Quantity,
    SemanticOutput,
)
from diffusion_perception_ros.inference.card.sampler import (
    DdimSampler,
    EulerFlowSampler,
    GraphRole,
    Graphs,
    LcmSampler,
    Sampler,
    changed_sampler,
)


__all__ = [
    "CARD_NAME",
    "NOISY_LATENT",
    "SCHEMA_VERSION",
    "AlphaOutput",
    "Axis",
    "CardError",
    "ColorClustering",
    "DdimSampler",
    "DepthOutput",
    "EulerFlowSampler",
    "FlowOutput",
    "GraphRole",
    "Graphs",
    "ImageInput",
    "InputSize",
    "InstancesOutput",
    "Joint",
    "KeypointsOutput",
    "Label",
    "LcmSampler",
    "LicenceTerms",
    "MaskOutput",
    "ModelCard",
    "NoiseInput",
    "NormalsOutput",
    "Output",
    "PictureOutput",
    "Placement",
    "PointsInput",
    "PromptMaskInput",
    "Quantity",
    "Sampler",
    "SecondImageInput",
    "SemanticOutput",
    "Source",
    "changed_sampler",
    "read_card",
    "sha256_of",
    "write_card",
]
