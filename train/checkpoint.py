"""The progress of a training run, and the checkpoint that it resumes from."""

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
    """A run cannot be resumed."""


@dataclass(frozen=True)
class Epoch:
    """One line of the training log. Losses are cross-entropy in nats; accuracies are 0..1.

    ``train_loss`` is on augmented pictures with label smoothing, ``validation_loss`` without;
    ``seconds`` is the time spent on training and validation since the start of the run, without
    interruptions.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    lr: float
    seconds: float


@dataclass
class Run:
    """A training run in progress, in the folder that holds its checkpoint."""

    recipe: Recipe
    folder: Path
    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = -1
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or ``patience`` epochs brought no lower validation loss."""
        patience = self.recipe.patience
        done = len(self.history)
        waited = done - 1 - self.best_epoch
        return done >= self.recipe.epochs or (patience is not None and waited >= patience)


def save_checkpoint(run: Run, network: torch.nn.Module, others: list[Any]) -> None:
    """Write the run, its network and ``others``, objects with a ``state_dict``, atomically."""
    path = run.folder / CHECKPOINT
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(
            {
                "recipe": run.recipe.to_dict(),
                "history": [asdict(epoch) for epoch in run.history],
                "best_epoch": run.best_epoch,
                "best_weights": run.best_weights,
                "network": network.state_dict(),
                "others": [other.state_dict() for other in others],
            },
            file,
        )
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(run: Run, network: torch.nn.Module, others: list[Any]) -> None:
    """Restore what ``save_checkpoint`` wrote; ``others`` in the same order.

    Raises:
        ResumeError: no checkpoint in the run's folder, an unreadable one, or another recipe's.
        RecipeError: the checkpoint's recipe is one that this version cannot train.
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
    saved_recipe = Recipe.from_dict(state["recipe"])
    if saved_recipe != run.recipe:
        raise ResumeError(
            f"{path} belongs to the recipe {saved_recipe}, but the recipe to resume is"
            f" {run.recipe}; resume with the recipe of the checkpoint"
        )
    network.load_state_dict(state["network"])
    for other, saved in zip(others, state["others"], strict=True):
        other.load_state_dict(saved)
    run.history = [Epoch(**values) for values in state["history"]]
    run.best_epoch = state["best_epoch"]
    run.best_weights = state["best_weights"]


def write_log(run: Run) -> None:
    """Write the history so far as CSV, one line per epoch."""
    with (run.folder / LOG).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(run.history[0])))
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in run.history)
