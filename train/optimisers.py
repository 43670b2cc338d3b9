"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from train.recipe import Recipe


class Muon(Optimizer):
    """Muon for convolutions: Nesterov momentum, orthogonalised.

    Each filter bank is viewed as a matrix ``(out, in * h * w)`` and its update replaced by the
    nearest matrix with singular values near one. Before each step the weights are rescaled to
    norm ``sqrt(out)``: batch normalisation follows, so only their direction matters.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon, and airbench94_muon.
    ``torch.optim.Muon`` takes matrices only, and does not rescale.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all parameters from their gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(p.grad)
                buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(p.grad)
                update = p.grad.add(buffer, alpha=group["momentum"])
                p.mul_(len(p) ** 0.5 / p.norm())
                update = orthogonalise(update.reshape(len(p), -1)).view_as(p)
                p.add_(update, alpha=-group["lr"])


def orthogonalise(matrix: Tensor, steps: int = 3) -> Tensor:
    """Bring the singular values of ``matrix (m, n)`` near one by Newton-Schulz iteration.

    The quintic's coefficients are Muon's: steepest at zero, at the price of values that end
    anywhere in about 0.7..1.2. Computed in bfloat16.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = matrix.bfloat16()
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.T if tall else x).to(matrix.dtype)
    return result


def make_optimisers(network: nn.Module, recipe: Recipe) -> list[Optimizer]:
    """The optimisers of a run; together they hold every trainable parameter once."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    if recipe.optimiser == "muon":
        return _muon(named, recipe)
    groups = [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimiser == "adamw":
        return [torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999))]
    return [torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=True)]


def _muon(named: Sequence[tuple[str, Tensor]], recipe: Recipe) -> list[Optimizer]:
    # airbench94's rates are for a loss summed over the batch; ours is a mean, so its rates are
    # multiplied by the batch size. Its decay of 2e-6 an example and step is divided likewise.
    decay = 2e-6 * recipe.batch_size
    bias_lr, head_lr = 0.053 * recipe.batch_size, 0.67 * recipe.batch_size
    filters = [p for _, p in named if p.ndim == 4]
    head = [p for name, p in named if name.startswith("head") and p.ndim == 2]
    biases = [p for _, p in named if p.ndim <= 1]
    rest = torch.optim.SGD(
        [
            {"params": biases, "lr": bias_lr, "weight_decay": decay / bias_lr},
            {"params": head, "lr": head_lr, "weight_decay": decay / head_lr},
        ],
        momentum=0.85,
        nesterov=True,
    )
    return [Muon(filters, recipe.lr, recipe.momentum), rest]


def make_schedules(
    optimisers: list[Optimizer], recipe: Recipe, steps_per_epoch: int
) -> list[LambdaLR]:
    """One schedule for each optimiser, to be stepped after every batch."""
    total = recipe.epochs * steps_per_epoch

    def factor(step: int) -> float:
        return lr_factor(step / total, recipe)

    return [LambdaLR(optimiser, factor) for optimiser in optimisers]


def lr_factor(progress: float, recipe: Recipe) -> float:
    """The learning rate as a share of its peak, at ``progress`` 0..1 through the run."""
    if progress < recipe.warmup:
        # Not from zero: the first step should move too.
        return max(progress / recipe.warmup, 0.05)
    left = (1 - progress) / (1 - recipe.warmup)
    if recipe.schedule == "linear":
        return left
    return 0.5 * (1 - math.cos(math.pi * left))
