"""A stand-in for training."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from embed.bundle import Bundle
from train.checkpoint import CHECKPOINT, LOG, Epoch
from train.recipe import Recipe
from train.tuning import tune as tuning

optuna.logging.set_verbosity(optuna.logging.WARNING)

Accuracy = Callable[[Recipe, int], float]


@pytest.fixture
def fake_training(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Bundle
) -> Callable[[Accuracy], None]:
    """Replaces training with a function of recipe and epoch, which also writes a log."""

    def replace(accuracy: Accuracy) -> None:
        def train(
            recipe: Recipe, data: Any, folder: Path, resume: bool, report: Callable[[Epoch], None]
        ) -> Bundle:
            folder.mkdir(parents=True, exist_ok=True)
            first = 0
            if resume:
                with (folder / LOG).open() as file:
                    first = sum(1 for _ in csv.DictReader(file))
            for epoch in range(first, recipe.epochs):
                value = accuracy(recipe, epoch)
                done = Epoch(epoch, 1.0, 1.0 if value >= 0 else math.nan, value, 0.1, 60.0)
                with (folder / LOG).open("a", newline="") as file:
                    writer = csv.DictWriter(file, list(dataclasses.asdict(done)))
                    if epoch == 0:
                        writer.writeheader()
                    writer.writerow(dataclasses.asdict(done))
                (folder / CHECKPOINT).touch()
                report(done)
            return dataclasses.replace(
                tiny_bundle, metrics={"validation_accuracy": accuracy(recipe, recipe.epochs - 1)}
            )

        monkeypatch.setattr(tuning, "train", train)

    return replace
