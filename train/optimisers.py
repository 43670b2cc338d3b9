"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from embed.precision import has_bfloat16
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

    The quintic's coefficients are Muon's: steepest at zero, so that singular values end anywhere in
    about 0.7..1.2. Computed in bfloat16 where the hardware has it.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = matrix.bfloat16() if has_bfloat16(matrix.device.type) else matrix.float()
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.T if tall else x).to(matrix.dtype)
    return result


def make_optimisers(network: nn.Module, recipe: Recipe, batch_size: int) -> list[Optimizer]:
    """The optimisers of a run; together they hold every trainable parameter once.

    ``batch_size`` is the number of pictures in a step, which may be less than the recipe's.
    """
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    if recipe.optimiser == "muon":
        return _muon(named, recipe, batch_size)
    old_lr = recipe.lr * _old_rate(recipe)

    def fresh(name: str) -> bool:
        """Whether the parameter has fresh weights even if the run starts from a trained model."""
        return name.startswith("head") and not recipe.distil

    groups = [
        {"params": group, "weight_decay": decay, "lr": lr}
        for group, decay, lr in (
            ([p for n, p in named if p.ndim > 1 and not fresh(n)], recipe.weight_decay, old_lr),
            ([p for n, p in named if p.ndim <= 1 and not fresh(n)], 0.0, old_lr),
            ([p for n, p in named if p.ndim > 1 and fresh(n)], recipe.weight_decay, recipe.lr),
            ([p for n, p in named if p.ndim <= 1 and fresh(n)], 0.0, recipe.lr),
        )
        if group
    ]
    if recipe.optimiser == "adamw":
        return [torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999))]
    return [torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=True)]


def _old_rate(recipe: Recipe) -> float:
    return recipe.old_rate if recipe.init else 1.0


def _muon(named: Sequence[tuple[str, Tensor]], recipe: Recipe, batch_size: int) -> list[Optimizer]:
    # airbench94's rates are for a loss summed over the batch; ours is a mean, so its rates are
    # multiplied by the batch size. The recipe's weight decay is relative to airbench94's, 2e-6 per
    # example and step.
    decay = 2e-6 * batch_size * recipe.weight_decay / 5e-4
    old = _old_rate(recipe)
    bias_lr, head_lr = 0.053 * batch_size, 0.67 * batch_size
    head_rate = head_lr * (old if recipe.distil else 1.0)
    filters = [p for _, p in named if p.ndim == 4]
    head = [p for name, p in named if name.startswith("head") and p.ndim == 2]
    biases = [p for _, p in named if p.ndim <= 1]
    sgd = torch.optim.SGD(
        [
            {"params": biases, "lr": bias_lr * old, "weight_decay": decay / bias_lr},
            {"params": head, "lr": head_rate, "weight_decay": decay / head_lr},
        ],
        momentum=0.85,
        nesterov=True,
    )
    return [Muon(filters, recipe.lr * old, recipe.momentum), sgd]


class Schedule:
    """Sets an optimiser's learning rates from the progress of the run, in epochs."""

    def __init__(self, optimiser: Optimizer, recipe: Recipe) -> None:
        self._optimiser = optimiser
        self._recipe = recipe
        self._peaks = [float(group["lr"]) for group in optimiser.param_groups]

    @property
    def last_lr(self) -> float:
        """The current learning rate of the first parameter group."""
        return float(self._optimiser.param_groups[0]["lr"])

    def step(self, epoch: float) -> None:
        """Set the rates for ``epoch``, 0..epochs, which may have a fraction."""
        factor = lr_factor(epoch / self._recipe.epochs, self._recipe)
        for group, peak in zip(self._optimiser.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor


def make_schedules(optimisers: list[Optimizer], recipe: Recipe) -> list[Schedule]:
    """One schedule for each optimiser, to step before every batch."""
    return [Schedule(optimiser, recipe) for optimiser in optimisers]


def lr_factor(progress: float, recipe: Recipe) -> float:
    """The learning rate relative to its peak, at ``progress`` 0..1 of the run."""
    if progress < recipe.warmup:
        # Not from zero, or the first step would change nothing.
        return max(progress / recipe.warmup, 0.05)
    left = (1 - progress) / (1 - recipe.warmup)
    if recipe.schedule == "linear":
        return left
    return 0.5 * (1 - math.cos(math.pi * left))
