from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial, TrialState

from embed.bundle import Bundle, BundleError
from tests.train.helpers import QUICK, colours
from train import tune as tuning
from train.augment import Augment
from train.checkpoint import CHECKPOINT, LOG, Epoch
from train.recipe import Recipe, read_recipe
from train.tune import BEST, STUDY, Search, TuneError, best_recipe, defaults, strengthened, tune
from train.tune_report import dots, importances, ranked, write_tune_report

optuna.logging.set_verbosity(optuna.logging.WARNING)

BASE = dataclasses.replace(QUICK, epochs=3, low_share=0.0)
Accuracy = Callable[[Recipe, int], float]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Bundle) -> Callable[[Accuracy], None]:
    """Put a function of recipe and epoch in the place of training; it keeps a log likewise."""

    def put(accuracy: Accuracy) -> None:
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

    return put


def test_real_runs_make_a_recipe_that_trains(tmp_path: Path) -> None:
    study = tune(BASE, colours(), tmp_path, Search(trials=3, pruner="none"))
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


def test_a_study_goes_on(pretend: Any, tmp_path: Path) -> None:
    pretend(lambda recipe, epoch: 0.5)
    reported: list[int] = []
    tune(BASE, colours(), tmp_path, Search(2), report=lambda trial: reported.append(trial.number))
    assert reported == [0, 1]
    study = tune(
        BASE, colours(), tmp_path, Search(4), report=lambda trial: reported.append(trial.number)
    )
    assert reported == [0, 1, 2, 3]
    drawn = [trial.params["lr"] for trial in study.trials]
    assert len(set(drawn)) == 4
    tune(BASE, colours(), tmp_path, Search(4), report=lambda trial: reported.append(trial.number))
    assert reported == [0, 1, 2, 3]


def test_what_was_interrupted_goes_on_from_its_last_epoch(pretend: Any, tmp_path: Path) -> None:
    pretend(lambda recipe, epoch: 0.5 + 0.1 * epoch)
    seen: list[tuple[int, int]] = []

    def interrupt(number: int, epoch: Epoch) -> None:
        seen.append((number, epoch.epoch))
        if seen == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(BASE, colours(), tmp_path, Search(2, "none"), epoch_done=interrupt)
    study = tune(BASE, colours(), tmp_path, Search(2, "none"), epoch_done=interrupt)
    assert seen[5:] == [(2, 2)]
    _, stopped, resumed = study.trials
    assert (stopped.state, resumed.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert resumed.params == stopped.params
    # All epochs count, for the pruner and the report.
    assert resumed.intermediate_values == pytest.approx({0: 0.5, 1: 0.6, 2: 0.7})
    assert not list(tmp_path.glob("trial-*"))
    # Once: a second time there is nothing left of it.
    assert len(tune(BASE, colours(), tmp_path, Search(3, "none")).trials) == 4


def test_what_was_killed_is_run_again(pretend: Any, tmp_path: Path) -> None:
    pretend(lambda recipe, epoch: 0.5)
    study = tune(BASE, colours(), tmp_path, Search(1))
    killed = study.ask()
    tuning.suggested(killed, BASE)
    killed.set_user_attr("folder", "trial-0001")
    (tmp_path / "trial-0001").mkdir()  # stopped before its first epoch had ended
    study = tune(BASE, colours(), tmp_path, Search(2))
    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.COMPLETE,
    ]
    assert study.trials[2].params == study.trials[1].params


def test_poor_trials_are_pruned(pretend: Any, tmp_path: Path) -> None:
    # The first four as good as each other, all later ones worse.
    runs: list[float] = []

    def accuracy(recipe: Recipe, epoch: int) -> float:
        if recipe.lr not in runs:
            runs.append(recipe.lr)
        return 0.9 if runs.index(recipe.lr) < 4 else 0.2

    pretend(accuracy)
    base = dataclasses.replace(BASE, epochs=8)
    study = tune(base, colours(), tmp_path, Search(6))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4 + ["PRUNED"] * 2
    # After the two epochs in which nothing is pruned.
    assert list(study.trials[4].intermediate_values) == [0, 1, 2]
    assert not list(tmp_path.glob("trial-*"))


@pytest.mark.parametrize("pruner", ["hyperband", "none"])
def test_other_pruners(pretend: Any, tmp_path: Path, pruner: Any) -> None:
    pretend(lambda recipe, epoch: 0.5)
    study = tune(BASE, colours(), tmp_path, Search(2, pruner))
    assert len(study.trials) == 2


def test_a_run_that_diverges_is_pruned(
    pretend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(lambda recipe, epoch: -1.0)
    study = tune(BASE, colours(), tmp_path / "nan", Search(1))
    assert study.trials[0].state is TrialState.PRUNED
    assert not (tmp_path / "nan" / BEST).exists()
    with pytest.raises(TuneError, match="no trial has run to its end yet"):
        best_recipe(study, BASE)

    def overflow(recipe: Recipe, data: Any, folder: Path, **_: Any) -> Bundle:
        folder.mkdir()
        raise BundleError("temperature is nan")

    monkeypatch.setattr(tuning, "train", overflow)
    study = tune(BASE, colours(), tmp_path / "overflow", Search(1))
    assert study.trials[0].state is TrialState.PRUNED
    assert not list((tmp_path / "overflow").glob("trial-*"))


def test_other_recipes_and_other_processes(pretend: Any, tmp_path: Path) -> None:
    pretend(lambda recipe, epoch: 0.5)
    tune(BASE, colours(), tmp_path, Search(1))
    with pytest.raises(TuneError, match="go on with the same recipe, or name another --out"):
        tune(dataclasses.replace(BASE, seed=1), colours(), tmp_path, Search(1))

    def again(number: int, epoch: Epoch) -> None:
        tune(BASE, colours(), tmp_path, Search(2))

    with pytest.raises(TuneError, match="another process works on the study in"):
        tune(BASE, colours(), tmp_path, Search(2), epoch_done=again)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"trials": 0}, "trials is 0; expected"), ({"pruner": "best"}, "pruner is 'best'; expected")],
)
def test_search_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Search(**values)


@pytest.fixture
def ten(pretend: Any, tmp_path: Path) -> tuple[optuna.Study, Path]:
    """Ten complete trials, whose accuracy depends on the rate alone, and two pruned ones."""

    def accuracy(recipe: Recipe, epoch: int) -> float:
        return 0.9 - 0.1 * abs(math.log(recipe.lr / 0.3)) + 0.001 * epoch

    pretend(accuracy)
    tune(BASE, colours(), tmp_path, Search(10, "none"))
    pretend(lambda recipe, epoch: 0.1)
    return tune(BASE, colours(), tmp_path, Search(12, "median")), tmp_path


def test_report(ten: tuple[optuna.Study, Path]) -> None:
    study, folder = ten
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE] * 10 + [TrialState.PRUNED] * 2
    found = importances(study)
    assert next(iter(found)) == "lr"
    assert sum(found.values()) == pytest.approx(1.0)
    order = ranked(study)
    assert [trial.value for trial in order[:10]] == sorted(
        (trial.value for trial in study.trials[:10]), reverse=True
    )
    places = dots(study)
    assert len(places) == 12
    assert [place.pruned for place in places] == [False] * 10 + [True] * 2
    assert (min(p.y for p in places), max(p.y for p in places)) == (0.0, 240.0)

    write_tune_report(study, BASE, folder / "report.html")
    html = (folder / "report.html").read_text()
    for word in ("http:", "https:", "url(", "<script", "<link", "<img"):
        assert word not in html
    assert f">{study.best_value:.2%}<" in html
    assert "<dd>10, 2</dd>" in html
    assert html.count("<circle") == 12
    assert html.count('<tr class="pruned">') == 2
    rows = re.findall(r"<dt>([a-z ]+)</dt><dd><div class=\"bar\"", html)
    assert rows == [name.replace("_", " ") for name in found]
    best = json.loads((folder / BEST).read_text())
    assert f'<tr><th>lr</th><td class="n">0.17</td><td class="n">{best["lr"]:.4g}</td>' in html
    assert len(html) < 40_000


def test_report_of_few_trials(pretend: Any, tmp_path: Path) -> None:
    pretend(lambda recipe, epoch: 0.5)
    study = tune(BASE, colours(), tmp_path, Search(1))
    write_tune_report(study, BASE, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert "Too few trials" in html
    assert "no other trial did better" in html
    assert (tmp_path / STUDY).is_file()
