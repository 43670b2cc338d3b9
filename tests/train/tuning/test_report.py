from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tests.train.helpers import QUICK, colours
from train.recipe import Recipe
from train.tuning.report import dots, importances, ranked, write_tune_report
from train.tuning.tune import BEST, STUDY, TuneSettings, tune

pytestmark = pytest.mark.slow

BASE = dataclasses.replace(QUICK, epochs=3, low_share=0.0)


@pytest.fixture
def ten(fake_training: Any, tmp_path: Path) -> tuple[optuna.Study, Path]:
    """Ten complete trials, whose accuracy depends on the rate alone, and two pruned ones."""

    def accuracy(recipe: Recipe, epoch: int) -> float:
        return 0.9 - 0.1 * abs(math.log(recipe.lr / 0.3)) + 0.001 * epoch

    fake_training(accuracy)
    tune(BASE, colours(), tmp_path, TuneSettings(10, "none"))
    fake_training(lambda recipe, epoch: 0.1)
    return tune(BASE, colours(), tmp_path, TuneSettings(12, "median")), tmp_path


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
    plotted = dots(study)
    assert len(plotted) == 12
    assert [dot.pruned for dot in plotted] == [False] * 10 + [True] * 2
    assert (min(dot.y for dot in plotted), max(dot.y for dot in plotted)) == (0.0, 240.0)

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


def test_report_of_few_trials(fake_training: Any, tmp_path: Path) -> None:
    fake_training(lambda recipe, epoch: 0.5)
    study = tune(BASE, colours(), tmp_path, TuneSettings(1))
    write_tune_report(study, BASE, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert "Too few trials" in html
    assert "no other trial did better" in html
    assert (tmp_path / STUDY).is_file()
