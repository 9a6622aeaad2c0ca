"""The papers' losses: the same number as their formulas, written down a second time without tensors' help.

Sources: GenPercept at 7cff083 (src/trainer/genpercept_trainer.py:717-806, genpercept/losses/), Lotus at b737e12
(train_lotus_d.py:905-1066), E2E-FT at 4ff5aad (training/train.py:500-556, training/util/loss.py), Marigold at b1dffaa
(src/util/multi_res_noise.py). The oracles are plain loops and least squares of NumPy in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from diffusion_perception_ros.training.diffusion.losses import end_to_end_losses, latent_loss, picture_losses
from diffusion_perception_ros.training.diffusion.objectives import (
    MARIGOLD_STRENGTH,
    MultiStep,
    make_diffusion_objective,
    multi_resolution_noise,
)
from diffusion_perception_ros.training.settings.objective import ObjectiveConfig


Array = np.ndarray[Any, np.dtype[np.float64]]


def example(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a network decoded, a depth annotation and where it is known. The second image runs against the truth."""
    generator = torch.Generator().manual_seed(seed)
    truth = (torch.rand(3, 1, 12, 10, generator=generator) * 2 - 1).expand(-1, 3, -1, -1)
    said = truth * 0.6 + 0.3 * torch.randn(3, 3, 12, 10, generator=generator)
    said[1] = -said[1]
    known = torch.rand(3, 1, 12, 10, generator=generator) > 0.2
    return said, truth, known


def genpercept_depth(said: Array, truth: Array, known: Array) -> dict[str, float]:
    depth, target = said.mean(1) + 2, truth[:, 0] + 2
    squares, differences, steps = [], [], []
    for one, other, mask in zip(depth, target, known[:, 0], strict=True):
        matrix = np.stack([one[mask], np.ones(mask.sum())], 1)
        (scale, shift), *_ = np.linalg.lstsq(matrix, other[mask], rcond=None)
        if scale <= 0:
            scale, shift = np.sort(other[mask])[(mask.sum() - 1) // 2] / np.sort(one[mask])[(mask.sum() - 1) // 2], 0.0
        for row in range(mask.shape[0]):
            for column in range(mask.shape[1]):
                if not mask[row, column]:
                    continue
                squares.append((one[row, column] - other[row, column]) ** 2)
                differences.append(abs(scale * one[row, column] + shift - other[row, column]))
                if row and mask[row - 1, column]:
                    here, above = (one[r, column] - other[r, column] for r in (row, row - 1))
                    steps.append(abs(here - above))
    return {
        "pixel": float(np.mean(squares)),
        "affine_invariant": 0.5 * float(np.mean(differences)),
        "gradient": 2 * float(np.sum(steps)) / known.sum(),
    }


@pytest.mark.parametrize("task", ["depth", "disparity"])
@pytest.mark.parametrize("seed", [0, 1])
def test_genpercepts_depth_losses_term_by_term(task: str, seed: int) -> None:
    said, truth, known = example(seed)
    expected = genpercept_depth(said.double().numpy(), truth.double().numpy(), known.numpy())
    terms = {name: term.item() for name, term in picture_losses(task, said, truth, known).items()}
    assert terms == pytest.approx(expected, rel=1e-5)
    assert min(expected.values()) > 0.05, "every term has its say"


def test_genpercepts_angular_loss() -> None:
    said, truth, known = example()
    vectors = torch.nn.functional.normalize(truth + torch.tensor([0.1, -0.2, 0.3])[:, None, None], dim=1)
    angles = [
        np.arccos(np.clip(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b), -1 + 1e-4, 1 - 1e-4))
        for a, b, mask in zip(
            said.permute(0, 2, 3, 1).reshape(-1, 3).double().numpy(),
            vectors.permute(0, 2, 3, 1).reshape(-1, 3).double().numpy(),
            known.reshape(-1).numpy(),
            strict=True,
        )
        if mask
    ]
    (term,) = picture_losses("normals", said, vectors, known).values()
    assert term.item() == pytest.approx(np.mean(angles), rel=1e-5)


def test_genpercepts_squared_error_of_one_channel_and_of_three() -> None:
    """Matting compares the mean of the decoded channels, segmentation every channel."""
    said, truth, known = example()
    mask = known[:, 0].numpy()
    one = np.mean((said.numpy().mean(1)[mask] - truth.numpy()[:, 0][mask]) ** 2)
    three = np.mean([(said.numpy()[:, c][mask] - truth.numpy()[:, c][mask]) ** 2 for c in range(3)])
    assert picture_losses("alpha", said, truth, known)["pixel"].item() == pytest.approx(one, rel=1e-5)
    assert picture_losses("semantic", said, truth, known)["pixel"].item() == pytest.approx(three, rel=1e-5)
    assert one < three


def test_gradients_reach_the_prediction_through_scale_and_median() -> None:
    said, truth, known = example()
    said.requires_grad_()
    torch.stack(list(picture_losses("depth", said, truth, known).values())).sum().backward()
    assert said.grad is not None
    assert torch.isfinite(said.grad).all()
    assert (said.grad.abs().amax((1, 2, 3)) > 0).all()


def test_an_image_without_ground_truth_costs_nothing() -> None:
    said, truth, known = example()
    known[2] = False
    some = picture_losses("depth", said, truth, known)
    expected = genpercept_depth(said[:2].double().numpy(), truth[:2].double().numpy(), known[:2].numpy())
    assert {name: term.item() for name, term in some.items()} == pytest.approx(expected, rel=1e-5)
    nothing = picture_losses("depth", said, truth, torch.zeros_like(known))
    assert {name: term.item() for name, term in nothing.items()} == dict.fromkeys(expected, 0.0)


def test_the_latent_loss_counts_cells_whose_pixels_are_all_known() -> None:
    """Lotus's, Marigold's and GenPercept's: the mean over the cells' channels."""
    generator = torch.Generator().manual_seed(3)
    said, target = torch.randn(2, 2, 4, 3, 5, generator=generator)
    known = torch.rand(2, 1, 24, 40, generator=generator) > 0.01
    squares = [
        (said[n, :, r, c] - target[n, :, r, c]).double().square().numpy()
        for n in range(2)
        for r in range(3)
        for c in range(5)
        if known[n, 0, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8].all()
    ]
    assert 2 < len(squares) < 28
    assert latent_loss(said, target, known).item() == pytest.approx(np.mean(squares), rel=1e-5)


def test_e2e_fts_loss_is_l1_in_metres_after_least_squares() -> None:
    said, truth, known = example()
    metres = 3.0 + 2.0 * truth[:, :1]
    errors = []
    for one, other, mask in zip(said.double().numpy(), metres.double().numpy(), known.numpy(), strict=True):
        depth, target = np.clip(one.mean(0), -1, 1)[mask[0]], other[0][mask[0]]
        matrix = np.stack([depth, np.ones(len(depth))], 1)
        solution, *_ = np.linalg.lstsq(matrix, target, rcond=None)  # a negative scale is allowed here
        errors += list(np.abs(matrix @ solution - target))
    (term,) = end_to_end_losses("depth", said, metres.masked_fill(~known, float("nan")), known).values()
    assert term.item() == pytest.approx(np.mean(errors), rel=1e-5)


def test_e2e_fts_angle() -> None:
    said, truth, known = example()
    vectors = torch.nn.functional.normalize(truth + torch.tensor([0.1, -0.2, 0.3])[:, None, None], dim=1)
    unit = said.double() / (said.double().norm(dim=1, keepdim=True) + 1e-5)
    angles = np.arccos(np.clip((unit * vectors).sum(1).numpy(), -1, 1))[known[:, 0].numpy()]
    (term,) = end_to_end_losses("normals", said, vectors, known).values()
    assert term.item() == pytest.approx(angles.mean(), rel=1e-5)


def test_multi_resolution_noise_has_unit_variance_and_more_of_the_coarse() -> None:
    """As strength falls to zero what is left is the noise itself, and a second one of the same grid."""
    noise = torch.randn(4, 4, 32, 48, generator=torch.Generator().manual_seed(0))

    def coarse_share(strength: float) -> float:
        drawn = multi_resolution_noise(noise, torch.full((4,), strength), torch.Generator().manual_seed(1))
        assert drawn.std().item() == pytest.approx(1.0, abs=1e-4)
        return torch.nn.functional.avg_pool2d(drawn, 16).var().item()

    assert coarse_share(0.0) < 0.02
    assert coarse_share(MARIGOLD_STRENGTH) > 0.1


@pytest.mark.parametrize(("in_pixels", "schedule"), [(True, "squaredcos_cap_v2"), (False, "scaled_linear")])
def test_the_schedule_fits_the_space(in_pixels: bool, schedule: str) -> None:
    objective = make_diffusion_objective(ObjectiveConfig(kind="multi_step"), in_pixels)
    assert isinstance(objective, MultiStep)
    config = objective.scheduler.config
    assert (config.beta_schedule, config.clip_sample) == (schedule, in_pixels)
    assert objective.scheduler.alphas_cumprod[-1] < 1e-8, "sampling starts from pure noise"


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("noise", ["normal", "multi_resolution"])
def test_what_is_learnt_gives_the_clean_latent_back(kind: Any, noise: Any) -> None:
    """From the noisy latent and the network's target, by the definitions of the three parameterisations."""
    settings = ObjectiveConfig(kind="multi_step", prediction_type=kind, noise=noise)
    objective = make_diffusion_objective(settings, in_pixels=True)
    assert isinstance(objective, MultiStep)
    clean = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1
    example = objective.noised(torch.zeros_like(clean), clean, torch.Generator().manual_seed(5))
    noisy = example.inputs[:, 3:]
    share = objective.scheduler.alphas_cumprod[example.timesteps][:, None, None, None]
    signal, spread = share.sqrt(), (1 - share).sqrt()
    found = {
        "sample": example.target,
        "epsilon": (noisy - spread * example.target) / signal,
        "v_prediction": signal * noisy - spread * example.target,
    }[kind]
    assert (found - clean).abs().max() < 1e-3


def test_a_perfect_network_is_sampled_to_the_truth() -> None:
    """Ten steps from noise with the cosine schedule, for a network that always knows the answer."""
    clean = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1
    for kind in ("epsilon", "v_prediction", "sample"):
        settings = ObjectiveConfig(kind="multi_step", prediction_type=kind)  # type: ignore[arg-type]
        objective = make_diffusion_objective(settings, in_pixels=True)
        assert isinstance(objective, MultiStep)
        shares = objective.scheduler.alphas_cumprod

        def answer(inputs: torch.Tensor, timesteps: torch.Tensor, kind: str = kind, shares: Any = shares) -> Any:
            share, noisy = shares[timesteps][:, None, None, None], inputs[:, 3:]
            noise = (noisy - share.sqrt() * clean) / (1 - share).sqrt()
            velocity = share.sqrt() * noise - (1 - share).sqrt() * clean
            return {"epsilon": noise, "v_prediction": velocity, "sample": clean}[kind]

        sampled = objective.sample(answer, torch.zeros_like(clean), torch.Generator().manual_seed(0))
        assert (sampled - clean).abs().max() < 0.02, kind
