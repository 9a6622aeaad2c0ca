"""Muon: momentum whose update of every weight matrix is made orthogonal, so that all its directions are learnt alike.

K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; with the scale of J. Liu et al.,
"Muon is scalable for LLM training", 2025 (arXiv:2502.16982, Sec. 2.2), under which AdamW's learning rates and weight
decay carry over. `torch.optim.Muon` takes matrices only and computes in bfloat16, which is emulated on many CPUs; here
a convolution counts as the matrix (output channels, the rest), in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


_COEFFICIENTS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""Of x → a x + b x³ + c x⁵, one triple per iteration: drives all singular values in (0, 1] close to 1 (J. Cesista
et al., "Squeezing 1-2% efficiency gains out of Muon by optimizing the Newton-Schulz coefficients", 2025)."""
_RMS_OF_ADAMW = 0.2
"""Typical root mean square of AdamW's update over the learning rate (arXiv:2502.16982)."""


class Muon(torch.optim.Optimizer):
    """Muon for the matrices and convolutions among the parameters, AdamW for the others (biases, norms, depthwise
    convolutions, whose channels do not mix).

    Args:
        parameters: all to be trained, or groups of them as every optimiser of PyTorch takes them.
        lr: learning rate, of both.
        momentum: of Muon (Nesterov).
        betas, eps: of AdamW.
        weight_decay: decoupled, of the matrices only.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.02,
    ) -> None:
        entries = list(parameters)
        given: list[dict[str, Any]] = [e for e in entries if isinstance(e, dict)] or [{"params": entries}]
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        groups = [
            kind | {**group, "params": [p for p in group["params"] if _is_matrix(p) == kind["matrices"]]}
            for group in given
            for kind in ({"matrices": True}, {"matrices": False, "weight_decay": 0.0})
        ]
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; `closure` recomputes the loss, as in every optimiser of PyTorch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            update = self._update_matrix if group["matrices"] else self._update_vector
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update(parameter, group)
        return loss

    def _update_matrix(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        average = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(average, group["momentum"]).reshape(len(parameter), -1)
        scale = _RMS_OF_ADAMW * max(direction.shape) ** 0.5
        parameter.sub_(orthogonal(direction).reshape(parameter.shape), alpha=group["lr"] * scale)

    def _update_vector(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        beta1, beta2 = group["betas"]
        state["step"] += 1
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].lerp_(gradient.square(), 1 - beta2)
        step = state["step"].item()
        mean = state["exp_avg"] / (1 - beta1**step)
        spread = (state["exp_avg_sq"] / (1 - beta2**step)).sqrt().add_(group["eps"])
        parameter.addcdiv_(mean, spread, value=-group["lr"])


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and parameter.shape[1] > 1


def orthogonal(matrix: Tensor) -> Tensor:
    """About U Vᵀ of the singular value decomposition U S Vᵀ, of any (m, n) matrix, by five Newton-Schulz steps."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x: Tensor = (wide / (wide.norm() * 1.01 + 1e-7)).contiguous()  # singular values at most 1
    for a, b, c in _COEFFICIENTS:
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide is matrix else x.T
