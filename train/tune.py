"""A search for better settings of a recipe: Optuna's, on the validation split, pruned, resumable.

Only what a short run can tell is searched: learning rate, batch size, weight decay, dropout, label
smoothing and the strength of the augmentation. The test split is not looked at.
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
from train.augment import Augment
from train.checkpoint import CHECKPOINT, LOG, Epoch
from train.data import Dataset
from train.loop import train
from train.recipe import Recipe

STUDY, BASE, BEST = "study.db", "base.json", "best.json"
_LOCK, _NAME, _FOLDER = ".lock", "lookalike", "folder"
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)

PrunerName = Literal["median", "hyperband", "none"]


class TuneError(ValueError):
    """A study cannot be gone on with as asked."""


@dataclass(frozen=True)
class Search:
    """How a study searches.

    Attributes:
        trials: how many runs, pruned ones included.
        pruner: ``median`` stops a run whose validation accuracy is below the median of the others
            at the same epoch; ``hyperband`` gives few runs all epochs and many only some (Li et
            al. 2018, arXiv:1603.06560); ``none`` lets all of them end.
        seed: of the search; the runs have their recipe's.
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
    """The recipe's own place in the search space: the first trial, which the others must beat."""
    return {
        "lr": base.lr,
        "batch_size": base.batch_size,
        "weight_decay": min(max(base.weight_decay, 1e-5), 1e-1),
        "dropout": min(base.dropout, 0.5),
        "label_smoothing": min(base.label_smoothing, 0.3),
        "augmentation": 1.0,
    }


def suggested(trial: optuna.trial.BaseTrial, base: Recipe) -> Recipe:
    """The recipe of one trial: ``base`` with six of its settings drawn by the study."""
    halves = [max(base.batch_size // 2, 2), base.batch_size, base.batch_size * 2]
    return replace(
        base,
        lr=trial.suggest_float("lr", base.lr / 5, base.lr * 5, log=True),
        batch_size=int(trial.suggest_categorical("batch_size", halves)),
        weight_decay=trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True),
        dropout=trial.suggest_float("dropout", 0.0, 0.5),
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.3),
        augment=strengthened(base.augment, trial.suggest_float("augmentation", 0.0, 2.0)),
    )


def strengthened(augment: Augment, strength: float) -> Augment:
    """All random changes but the mirroring, times ``strength``; light stays within its range."""
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
    search: Search = Search(),
    *,
    report: Callable[[FrozenTrial], None] = lambda trial: None,
    epoch_done: Callable[[int, Epoch], None] = lambda number, epoch: None,
) -> optuna.Study:
    """Run trials until there are ``search.trials``; those of an earlier call count.

    ``folder`` holds ``study.db`` (SQLite), ``base.json`` and, once a trial has ended,
    ``best.json``, a recipe that ``lookalike train --recipe`` takes. A run that is interrupted goes
    on from its last epoch with the next call.

    Args:
        base: the recipe to improve; its epochs are those of each trial.
        data: what to learn from and to choose by.
        folder: of the study, made if needed.
        search: how.
        report: called after each trial.
        epoch_done: called after each epoch, with the trial's number.

    Returns:
        the study; the value of a trial is its validation accuracy, of the epoch that is kept.

    Raises:
        TuneError: the folder holds a study of another recipe, or another process works on it.
    """
    with _alone(folder):
        _same_base(base, folder)
        study = optuna.create_study(
            storage=f"sqlite:///{folder / STUDY}",
            study_name=_NAME,
            load_if_exists=True,
            direction="maximize",
            pruner=_pruner(search, base.epochs),
        )
        # With the same seed again, a study that is gone on with would repeat its draws.
        study.sampler = optuna.samplers.TPESampler(seed=search.seed + len(study.trials))
        if not study.trials:
            study.enqueue_trial(defaults(base))
        _take_up(study)

        def objective(trial: Trial) -> float:
            return _run(trial, base, data, folder, epoch_done)

        def ended(study: optuna.Study, trial: FrozenTrial) -> None:
            if trial.state is TrialState.COMPLETE:
                _write_best(study, base, folder)
            report(trial)

        left = search.trials - sum(trial.state in _DONE for trial in study.trials)
        if left > 0:
            study.optimize(objective, n_trials=left, callbacks=[ended])
        return study


def best_recipe(study: optuna.Study, base: Recipe) -> Recipe:
    """The recipe of the best trial.

    Raises:
        TuneError: no trial has ended yet.
    """
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    if not complete:
        raise TuneError("no trial has run to its end yet; go on with more --trials")
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
    place = folder / name

    def seen(epoch: Epoch) -> None:
        epoch_done(trial.number, epoch)
        trial.set_user_attr("seconds", epoch.seconds)
        trial.report(epoch.validation_accuracy, epoch.epoch)
        if not math.isfinite(epoch.validation_loss) or trial.should_prune():
            raise optuna.TrialPruned

    resume = (place / CHECKPOINT).is_file()
    if resume:
        for number, accuracy in _accuracies(place / LOG):
            trial.report(accuracy, number)
    elif place.exists():  # stopped within the first epoch
        shutil.rmtree(place)
    try:
        bundle = train(recipe, data, place, resume=resume, report=seen)
    except BundleError as error:  # weights that are not numbers
        shutil.rmtree(place)
        raise optuna.TrialPruned(str(error)) from error
    except optuna.TrialPruned:
        shutil.rmtree(place)
        raise
    shutil.rmtree(place)
    return float(bundle.metrics["validation_accuracy"])


def _accuracies(log: Path) -> list[tuple[int, float]]:
    with log.open(newline="") as file:
        return [
            (int(row["epoch"]), float(row["validation_accuracy"])) for row in csv.DictReader(file)
        ]


def _take_up(study: optuna.Study) -> None:
    """Put what was interrupted first in the queue, with the folder that it had got to."""
    waiting = {trial.user_attrs.get(_FOLDER) for trial in study.trials if not _ended(trial)}
    finished = {trial.user_attrs.get(_FOLDER) for trial in study.trials if trial.state in _DONE}
    for trial in study.trials:
        if trial.state is TrialState.RUNNING:  # killed: nothing could be written down
            study.tell(trial.number, state=TrialState.FAIL)
            waiting.discard(trial.user_attrs.get(_FOLDER))
    for trial in study.trials:
        name = trial.user_attrs.get(_FOLDER)
        if trial.state is TrialState.FAIL and name not in waiting | finished:
            study.enqueue_trial(trial.params, user_attrs={_FOLDER: name} if name else None)
            waiting.add(name)


def _ended(trial: FrozenTrial) -> bool:
    return trial.state.is_finished()


def _pruner(search: Search, epochs: int) -> optuna.pruners.BasePruner:
    if search.pruner == "median":
        # The first epochs, at a high rate, tell little; nor do fewer than four others.
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(epochs // 4, 1))
    if search.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(epochs // 9, 1), max_resource=epochs)
    return optuna.pruners.NopPruner()


def _same_base(base: Recipe, folder: Path) -> None:
    path = folder / BASE
    if path.exists():
        theirs = Recipe.from_dict(json.loads(path.read_text()))
        if theirs != base:
            raise TuneError(
                f"the study in {folder} is of the recipe {theirs}, asked for is {base}; go on with"
                " the same recipe, or name another --out"
            )
    else:
        path.write_text(json.dumps(base.to_dict(), indent=2) + "\n")


def _write_best(study: optuna.Study, base: Recipe, folder: Path) -> None:
    temporary = folder / f".{BEST}"
    temporary.write_text(json.dumps(best_recipe(study, base).to_dict(), indent=2) + "\n")
    temporary.replace(folder / BEST)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TuneError(
                f"another process works on the study in {folder}; wait for it, or name another"
                " --out"
            ) from None
        yield
