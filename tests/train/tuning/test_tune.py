from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FixedTrial, TrialState

from embed.bundle import Bundle, BundleError
from tests.train.helpers import QUICK, colours
from train.checkpoint import Epoch
from train.recipe import Augment, Recipe, read_recipe
from train.tuning import tune as tuning
from train.tuning.tune import (
    BEST,
    TuneError,
    TuneSettings,
    best_recipe,
    defaults,
    strengthened,
    tune,
)

pytestmark = pytest.mark.slow

BASE = dataclasses.replace(QUICK, epochs=3, low_share=0.0)


def test_real_runs_make_a_recipe_that_trains(tmp_path: Path) -> None:
    study = tune(BASE, colours(), tmp_path, TuneSettings(trials=3, pruner="none"))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    assert study.trials[0].params == defaults(BASE)
    assert study.trials[1].params != study.trials[2].params
    assert all(len(trial.intermediate_values) == 3 for trial in study.trials)
    best = read_recipe(str(tmp_path / BEST))
    assert best == best_recipe(study, BASE)
    assert best.name == "test-tuned"
    assert best.lr == study.best_trial.params["lr"]
    # What the study does not search stays.
    assert (best.widths, best.epochs, best.seed) == (BASE.widths, BASE.epochs, BASE.seed)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        "base.json",
        "best.json",
        "study.db",
    ]


def test_defaults_give_the_base_recipe() -> None:
    made = tuning.suggested(FixedTrial(defaults(BASE)), BASE)
    assert made == BASE


def test_strength_of_the_augmentation() -> None:
    augment = Augment(flip="random", translate=3, rotate=10, brightness=0.6, cutout=5)
    assert strengthened(augment, 1.0) == augment
    assert strengthened(augment, 0.0) == Augment(flip="random", translate=0)
    assert strengthened(augment, 2.0) == Augment(
        flip="random", translate=6, rotate=20, brightness=1.0, cutout=10
    )


def test_a_study_continues(fake_training: Any, tmp_path: Path) -> None:
    fake_training(lambda recipe, epoch: 0.5)
    reported: list[int] = []
    tune(
        BASE,
        colours(),
        tmp_path,
        TuneSettings(2),
        report=lambda trial: reported.append(trial.number),
    )
    assert reported == [0, 1]
    study = tune(
        BASE,
        colours(),
        tmp_path,
        TuneSettings(4),
        report=lambda trial: reported.append(trial.number),
    )
    assert reported == [0, 1, 2, 3]
    drawn = [trial.params["lr"] for trial in study.trials]
    assert len(set(drawn)) == 4
    tune(
        BASE,
        colours(),
        tmp_path,
        TuneSettings(4),
        report=lambda trial: reported.append(trial.number),
    )
    assert reported == [0, 1, 2, 3]


def test_an_interrupted_trial_continues_from_its_last_epoch(
    fake_training: Any, tmp_path: Path
) -> None:
    fake_training(lambda recipe, epoch: 0.5 + 0.1 * epoch)
    seen: list[tuple[int, int]] = []

    def interrupt(number: int, epoch: Epoch) -> None:
        seen.append((number, epoch.epoch))
        if seen == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(BASE, colours(), tmp_path, TuneSettings(2, "none"), epoch_done=interrupt)
    study = tune(BASE, colours(), tmp_path, TuneSettings(2, "none"), epoch_done=interrupt)
    assert seen[5:] == [(2, 2)]
    _, stopped, resumed = study.trials
    assert (stopped.state, resumed.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert resumed.params == stopped.params
    # All epochs count, for the pruner and the report.
    assert resumed.intermediate_values == pytest.approx({0: 0.5, 1: 0.6, 2: 0.7})
    assert not list(tmp_path.glob("trial-*"))
    # Once: a second time there is nothing left of it.
    assert len(tune(BASE, colours(), tmp_path, TuneSettings(3, "none")).trials) == 4


def test_a_killed_trial_is_run_again(fake_training: Any, tmp_path: Path) -> None:
    fake_training(lambda recipe, epoch: 0.5)
    study = tune(BASE, colours(), tmp_path, TuneSettings(1))
    killed = study.ask()
    tuning.suggested(killed, BASE)
    killed.set_user_attr("folder", "trial-0001")
    (tmp_path / "trial-0001").mkdir()  # stopped before its first epoch had ended
    study = tune(BASE, colours(), tmp_path, TuneSettings(2))
    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.COMPLETE,
    ]
    assert study.trials[2].params == study.trials[1].params


def test_poor_trials_are_pruned(fake_training: Any, tmp_path: Path) -> None:
    # The first four as good as each other, all later ones worse.
    runs: list[float] = []

    def accuracy(recipe: Recipe, epoch: int) -> float:
        if recipe.lr not in runs:
            runs.append(recipe.lr)
        return 0.9 if runs.index(recipe.lr) < 4 else 0.2

    fake_training(accuracy)
    base = dataclasses.replace(BASE, epochs=8)
    study = tune(base, colours(), tmp_path, TuneSettings(6))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4 + ["PRUNED"] * 2
    # After the two epochs in which nothing is pruned.
    assert list(study.trials[4].intermediate_values) == [0, 1, 2]
    assert not list(tmp_path.glob("trial-*"))


@pytest.mark.parametrize("pruner", ["hyperband", "none"])
def test_other_pruners(fake_training: Any, tmp_path: Path, pruner: Any) -> None:
    fake_training(lambda recipe, epoch: 0.5)
    study = tune(BASE, colours(), tmp_path, TuneSettings(2, pruner))
    assert len(study.trials) == 2


def test_a_run_that_diverges_is_pruned(
    fake_training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_training(lambda recipe, epoch: -1.0)
    study = tune(BASE, colours(), tmp_path / "nan", TuneSettings(1))
    assert study.trials[0].state is TrialState.PRUNED
    assert not (tmp_path / "nan" / BEST).exists()
    with pytest.raises(TuneError, match="no trial has completed yet"):
        best_recipe(study, BASE)

    def overflow(recipe: Recipe, data: Any, folder: Path, **_: Any) -> Bundle:
        folder.mkdir()
        raise BundleError("temperature is nan")

    monkeypatch.setattr(tuning, "train", overflow)
    study = tune(BASE, colours(), tmp_path / "overflow", TuneSettings(1))
    assert study.trials[0].state is TrialState.PRUNED
    assert not list((tmp_path / "overflow").glob("trial-*"))


def test_other_recipes_and_other_processes(fake_training: Any, tmp_path: Path) -> None:
    fake_training(lambda recipe, epoch: 0.5)
    tune(BASE, colours(), tmp_path, TuneSettings(1))
    with pytest.raises(TuneError, match="continue with the same recipe, or choose another --out"):
        tune(dataclasses.replace(BASE, seed=1), colours(), tmp_path, TuneSettings(1))

    def again(number: int, epoch: Epoch) -> None:
        tune(BASE, colours(), tmp_path, TuneSettings(2))

    with pytest.raises(TuneError, match="another process is using the study in"):
        tune(BASE, colours(), tmp_path, TuneSettings(2), epoch_done=again)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"trials": 0}, "trials is 0; expected"), ({"pruner": "best"}, "pruner is 'best'; expected")],
)
def test_settings_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TuneSettings(**values)
