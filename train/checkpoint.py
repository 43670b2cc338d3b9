"""A training run between epochs: its history, and the checkpoint that it resumes from."""

from __future__ import annotations

import csv
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train.recipe import Recipe

CHECKPOINT = "checkpoint.pt"
RECIPE = "recipe.json"
LOG = "log.csv"


class ResumeError(ValueError):
    """A run cannot be resumed as asked."""


@dataclass(frozen=True)
class Epoch:
    """One line of the training log. Losses are cross-entropy in nats; accuracies are 0..1.

    ``train_loss`` is on augmented pictures with label smoothing, ``validation_loss`` without;
    ``seconds`` counts training and validation since the run's start, pauses left out.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    lr: float
    seconds: float


@dataclass
class Run:
    """A training run in progress: what a checkpoint holds, and the folder that it lies in.

    ``losses`` float32 ``(n,)`` holds each training picture's last loss.
    """

    recipe: Recipe
    folder: Path
    losses: Tensor
    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = -1
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """All epochs done, or no progress on validation for ``patience`` epochs."""
        patience = self.recipe.patience
        done = len(self.history)
        waited = done - 1 - self.best_epoch
        return done >= self.recipe.epochs or (patience is not None and waited >= patience)


def save_checkpoint(run: Run, network: torch.nn.Module, others: list[Any]) -> None:
    """Write the run as a whole; ``others`` are the optimisers, in order."""
    path = run.folder / CHECKPOINT
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(
            {
                "recipe": run.recipe.to_dict(),
                "history": [asdict(epoch) for epoch in run.history],
                "best_epoch": run.best_epoch,
                "best_weights": run.best_weights,
                "losses": run.losses,
                "network": network.state_dict(),
                "others": [other.state_dict() for other in others],
            },
            file,
        )
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(run: Run, network: torch.nn.Module, others: list[Any]) -> None:
    """Bring everything back to where ``save_checkpoint`` left it.

    Raises:
        ResumeError: no checkpoint in the run's folder, an unreadable one, or another recipe's.
    """
    path = run.folder / CHECKPOINT
    try:
        # weights_only: a checkpoint from a stranger cannot run code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ResumeError(
            f"no {CHECKPOINT} in {run.folder}: nothing to resume; start without --resume"
        ) from None
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ResumeError(f"{path} cannot be read: {reason}") from error
    theirs = Recipe.from_dict(state["recipe"])
    if theirs != run.recipe:
        raise ResumeError(
            f"{path} belongs to the recipe {theirs}, asked for is {run.recipe};"
            " resume with the same recipe"
        )
    network.load_state_dict(state["network"])
    for other, saved in zip(others, state["others"], strict=True):
        other.load_state_dict(saved)
    run.history = [Epoch(**values) for values in state["history"]]
    run.losses = state["losses"]
    run.best_epoch = state["best_epoch"]
    run.best_weights = state["best_weights"]


def write_log(run: Run) -> None:
    """The history so far as CSV, one line an epoch."""
    with (run.folder / LOG).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(run.history[0])))
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in run.history)
