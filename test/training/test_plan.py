"""`train --check` and `train --plan`: what is said of a run before it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.training.config import TrainingConfig
from diffusion_perception_ros.training.plan import plan_run


CONFIGS = Path(__file__).resolve().parents[2] / "config" / "train"
TINY = {"sample_size": 8, "block_out_channels": [32, 64], "layers_per_block": 1, "norm_num_groups": 8,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "attention_head_dim": 8,
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "cross_attention_dim": 16}  # fmt: skip


def config(batch: int = 1, **changes: object) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            "name": "tiny",
            "network": {"kind": "unet", "tasks": ["depth"], "pixels": 4, "config": TINY, **changes},
            "objective": {"kind": "lotus_d", "detail_preserver": False},
            "data": {"train": "shards", "validation": "shards", "sizes": [[64, 64]], "batch_size": batch},
            "run": {"max_steps": 1, "precision": "fp32"},
        }
    )


def kept_by_autograd() -> int:
    """Bytes that autograd really keeps for one image, besides the weights."""
    from diffusion_perception_ros.training.diffusion.backbones import new_backbone

    network = new_backbone("unet", TINY, 48, 48, 1)
    seen = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(torch.zeros(1, 48, 16, 16), torch.zeros(1), 0)
    assert output.shape == (1, 48, 16, 16)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in seen)


def activations(plan_config: TrainingConfig) -> int:
    return next(size for name, size in plan_run(plan_config).memory.items() if name.startswith("activations"))


def test_the_activations_are_what_autograd_keeps() -> None:
    assert activations(config()) == pytest.approx(kept_by_autograd(), rel=0.1)
    assert activations(config(batch=3)) == 3 * activations(config())
    assert activations(config(gradient_checkpointing=True)) < 0.7 * activations(config())


def test_parameters_and_moments_are_counted() -> None:
    plan = plan_run(config())
    assert plan.memory["moments of AdamW"] == 2 * plan.memory["gradients"] == 8 * plan.parameters
    assert plan.memory["weights, fp32"] == 4 * plan.parameters


def test_a_check_loads_no_torch(capsys: pytest.CaptureFixture[str]) -> None:
    script = (
        "import sys\nfrom diffusion_perception_ros.cli.main import main\n"
        f"code = main(['train', '--check', {str(CONFIGS / 'lotus_full.yaml')!r}])\n"
        "print(code, sorted({'torch', 'diffusers', 'transformers', 'onnx'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    said, loaded = result.stdout.splitlines()
    assert said.endswith("fine; lotus-full: unet, lotus_d, 20000 steps of 128 images a step")
    assert loaded == "0 []"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_of_the_repository_is_checked(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--check", str(path)]) == 0
    assert main(["train", "--check", str(path), "--set", "run.max_stepps=1"]) == 2
    assert "run.max_stepps: unknown key" in capsys.readouterr().err
