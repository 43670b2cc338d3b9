"""Searches for better settings of a recipe with Optuna, judged on the validation split.

It searches only what a short run can judge: learning rate, batch size, weight decay, dropout, label
smoothing and the strength of the augmentation. The test split is not used.
"""

from __future__ import annotations

import csv
import fcntl
import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from embed.bundle import BundleError
from train.checkpoint import CHECKPOINT, LOG, Epoch
from train.data import Dataset
from train.loop import train
from train.recipe import Augment, Recipe

STUDY, BASE, BEST = "study.db", "base.json", "best.json"
_LOCK, _NAME, _FOLDER = ".lock", "lookalike", "folder"
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)

PrunerName = Literal["median", "hyperband", "none"]


class TuneError(ValueError):
    """A study cannot be continued, or has no result yet."""


@dataclass(frozen=True)
class TuneSettings:
    """How a study searches.

    Attributes:
        trials: number of runs, including pruned ones.
        pruner: ``median`` stops a run whose validation accuracy is below the median of the others
            at the same epoch; ``hyperband`` gives all epochs to a few runs and fewer to the others
            (Li et al. 2018, arXiv:1603.06560); ``none`` completes every run.
        seed: of the search; the runs use their recipe's.
    """

    trials: int = 30
    pruner: PrunerName = "median"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"trials is {self.trials}; expected at least 1")
        if self.pruner not in ("median", "hyperband", "none"):
            raise ValueError(f"pruner is {self.pruner!r}; expected median, hyperband or none")


def defaults(base: Recipe) -> dict[str, Any]:
    """The settings of ``base`` itself, for the first trial, which the others must beat."""
    return {
        "lr": base.lr,
        "batch_size": base.batch_size,
        "weight_decay": min(max(base.weight_decay, 1e-5), 1e-1),
        "dropout": min(base.dropout, 0.5),
        "label_smoothing": min(base.label_smoothing, 0.3),
        "augmentation": 1.0,
    }


def suggested(trial: optuna.trial.BaseTrial, base: Recipe) -> Recipe:
    """The recipe of one trial: ``base`` with six settings drawn by the study."""
    batch_sizes = [max(base.batch_size // 2, 2), base.batch_size, base.batch_size * 2]
    return replace(
        base,
        lr=trial.suggest_float("lr", base.lr / 5, base.lr * 5, log=True),
        batch_size=int(trial.suggest_categorical("batch_size", batch_sizes)),
        weight_decay=trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True),
        dropout=trial.suggest_float("dropout", 0.0, 0.5),
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.3),
        augment=strengthened(base.augment, trial.suggest_float("augmentation", 0.0, 2.0)),
    )


def strengthened(augment: Augment, strength: float) -> Augment:
    """All changes except mirroring times ``strength``; brightness and contrast at most 1."""
    return replace(
        augment,
        translate=round(augment.translate * strength),
        rotate=augment.rotate * strength,
        brightness=min(augment.brightness * strength, 1.0),
        contrast=min(augment.contrast * strength, 1.0),
        cutout=round(augment.cutout * strength),
    )


def tune(
    base: Recipe,
    data: Dataset,
    folder: Path,
    settings: TuneSettings = TuneSettings(),
    *,
    report: Callable[[FrozenTrial], None] = lambda trial: None,
    epoch_done: Callable[[int, Epoch], None] = lambda number, epoch: None,
) -> optuna.Study:
    """Run trials until there are ``settings.trials``, counting those of earlier calls.

    ``folder`` holds ``study.db`` (SQLite), ``base.json`` and, once a trial has completed,
    ``best.json``, a recipe for ``lookalike train --recipe``. The next call continues an interrupted
    run from its last epoch.

    Args:
        base: the recipe to improve; each trial runs its number of epochs.
        data: what to train and validate on.
        folder: of the study; created if needed.
        settings: of the search.
        report: called after each trial.
        epoch_done: called after each epoch, with the trial's number.

    Returns:
        the study; the value of a trial is the validation accuracy of its best epoch.

    Raises:
        TuneError: the folder holds a study of another recipe, or another process is using it.
    """
    with _locked(folder):
        _check_base(base, folder)
        study = optuna.create_study(
            storage=f"sqlite:///{folder / STUDY}",
            study_name=_NAME,
            load_if_exists=True,
            direction="maximize",
            pruner=_pruner(settings, base.epochs),
        )
        # With an unchanged seed, a continued study would repeat its draws.
        study.sampler = optuna.samplers.TPESampler(seed=settings.seed + len(study.trials))
        if not study.trials:
            study.enqueue_trial(defaults(base))
        _requeue_interrupted(study)

        def objective(trial: Trial) -> float:
            return _run(trial, base, data, folder, epoch_done)

        def trial_done(study: optuna.Study, trial: FrozenTrial) -> None:
            if trial.state is TrialState.COMPLETE:
                _write_best(study, base, folder)
            report(trial)

        left = settings.trials - sum(trial.state in _DONE for trial in study.trials)
        if left > 0:
            study.optimize(objective, n_trials=left, callbacks=[trial_done])
        return study


def best_recipe(study: optuna.Study, base: Recipe) -> Recipe:
    """The recipe of the best trial.

    Raises:
        TuneError: no trial has completed.
    """
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    if not complete:
        raise TuneError("no trial has completed yet; continue with more --trials")
    fixed = optuna.trial.FixedTrial(study.best_trial.params)
    return replace(suggested(fixed, base), name=f"{base.name}-tuned")


def _run(
    trial: Trial,
    base: Recipe,
    data: Dataset,
    folder: Path,
    epoch_done: Callable[[int, Epoch], None],
) -> float:
    recipe = suggested(trial, base)
    name = trial.user_attrs.get(_FOLDER, f"trial-{trial.number:04}")
    trial.set_user_attr(_FOLDER, name)
    run_folder = folder / name

    def report(epoch: Epoch) -> None:
        epoch_done(trial.number, epoch)
        trial.set_user_attr("seconds", epoch.seconds)
        trial.report(epoch.validation_accuracy, epoch.epoch)
        if not math.isfinite(epoch.validation_loss) or trial.should_prune():
            raise optuna.TrialPruned

    resume = (run_folder / CHECKPOINT).is_file()
    if resume:
        for number, accuracy in _accuracies(run_folder / LOG):
            trial.report(accuracy, number)
    elif run_folder.exists():  # stopped within the first epoch
        shutil.rmtree(run_folder)
    try:
        bundle = train(recipe, data, run_folder, resume=resume, report=report)
    except BundleError as error:  # weights that are not numbers
        shutil.rmtree(run_folder)
        raise optuna.TrialPruned(str(error)) from error
    except optuna.TrialPruned:
        shutil.rmtree(run_folder)
        raise
    shutil.rmtree(run_folder)
    return float(bundle.metrics["validation_accuracy"])


def _accuracies(log: Path) -> list[tuple[int, float]]:
    with log.open(newline="") as file:
        return [
            (int(row["epoch"]), float(row["validation_accuracy"])) for row in csv.DictReader(file)
        ]


def _requeue_interrupted(study: optuna.Study) -> None:
    """Put interrupted trials first in the queue, with the folders of their runs."""
    trials = study.trials
    waiting = {trial.user_attrs.get(_FOLDER) for trial in trials if not trial.state.is_finished()}
    finished = {trial.user_attrs.get(_FOLDER) for trial in trials if trial.state in _DONE}
    for trial in trials:
        if trial.state is TrialState.RUNNING:  # its process was killed
            study.tell(trial.number, state=TrialState.FAIL)
            waiting.discard(trial.user_attrs.get(_FOLDER))
    for trial in study.trials:
        name = trial.user_attrs.get(_FOLDER)
        if trial.state is TrialState.FAIL and name not in waiting | finished:
            study.enqueue_trial(trial.params, user_attrs={_FOLDER: name} if name else None)
            waiting.add(name)


def _pruner(settings: TuneSettings, epochs: int) -> optuna.pruners.BasePruner:
    if settings.pruner == "median":
        # The first epochs, at a high learning rate, and fewer than four trials say little.
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(epochs // 4, 1))
    if settings.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(epochs // 9, 1), max_resource=epochs)
    return optuna.pruners.NopPruner()


def _check_base(base: Recipe, folder: Path) -> None:
    path = folder / BASE
    if path.exists():
        study_base = Recipe.from_dict(json.loads(path.read_text()))
        if study_base != base:
            raise TuneError(
                f"the study in {folder} is of the recipe {study_base}, but the recipe given is"
                f" {base}; continue with the same recipe, or choose another --out"
            )
    else:
        path.write_text(json.dumps(base.to_dict(), indent=2) + "\n")


def _write_best(study: optuna.Study, base: Recipe, folder: Path) -> None:
    temporary = folder / f".{BEST}"
    temporary.write_text(json.dumps(best_recipe(study, base).to_dict(), indent=2) + "\n")
    temporary.replace(folder / BEST)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TuneError(
                f"another process is using the study in {folder}; wait for it to end, or choose"
                " another --out"
            ) from None
        yield
