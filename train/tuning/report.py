"""Presents a study to people: an HTML report of its trials, best recipe and importances."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from train.page import render
from train.recipe import Recipe
from train.tuning.tune import best_recipe

MINIMUM_TRIALS = 8
"""Minimum number of completed trials for estimating importances."""
_WIDTH, _HEIGHT = 640, 240


@dataclass(frozen=True)
class Dot:
    """A trial in the plot: its position in pixels, and its tooltip."""

    x: float
    y: float
    pruned: bool
    title: str


def write_tune_report(study: optuna.Study, base: Recipe, path: Path) -> None:
    """Write one self-contained HTML file, which loads nothing over the network.

    Args:
        study: the result of ``train.tuning.tune.tune``.
        base: the recipe that it started from.
        path: the file to write.

    Raises:
        TuneError: no trial has completed.
    """
    html = render(
        Path(__file__).parent / "templates" / "tune.html",
        base=base,
        best=study.best_trial,
        original=next((t for t in study.trials if t.number == 0 and t.value is not None), None),
        changed=_changed(base, best_recipe(study, base)),
        trials=ranked(study),
        counts=_counts(study),
        importances=importances(study),
        minimum_trials=MINIMUM_TRIALS,
        names=list(study.best_trial.params),
        dots=dots(study),
        width=_WIDTH,
        height=_HEIGHT,
        setting=_setting,
        minutes=sum(t.user_attrs.get("seconds", 0.0) for t in study.trials) / 60,
    )
    path.write_text(html, encoding="utf-8")


def importances(study: optuna.Study) -> dict[str, float]:
    """The share of the variance between trials that each setting explains, largest first.

    Functional analysis of variance over a random forest (Hutter et al. 2014, "An efficient approach
    for assessing hyperparameter importance"). The shares sum to 1; empty for fewer than
    ``MINIMUM_TRIALS`` completed trials or equal values.
    """
    complete = [t for t in study.trials if t.state is TrialState.COMPLETE]
    if len(complete) < MINIMUM_TRIALS or len({t.value for t in complete}) < 2:
        return {}
    shares: dict[str, float] = get_param_importances(
        study, evaluator=FanovaImportanceEvaluator(seed=0), normalize=True
    )
    return shares


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Completed trials, best first, then pruned ones, longest first."""
    complete = [t for t in study.trials if t.state is TrialState.COMPLETE]
    pruned = [t for t in study.trials if t.state is TrialState.PRUNED]
    return [
        *sorted(complete, key=lambda t: -(t.value or 0.0)),
        *sorted(pruned, key=lambda t: (-len(t.intermediate_values), t.number)),
    ]


def dots(study: optuna.Study) -> list[Dot]:
    """The last validation accuracy of each trial over its number, for a plot of 640 x 240."""
    shown = [(t, _last(t)) for t in ranked(study)]
    shown = [(t, value) for t, value in shown if value is not None]
    values = [value for _, value in shown if value is not None]
    low, high = min(values), max(values)
    most = max(max(t.number for t, _ in shown), 1)
    return [
        Dot(
            x=round(_WIDTH * t.number / most, 1),
            y=round(_HEIGHT * (high - value) / ((high - low) or 1.0), 1),
            pruned=t.state is TrialState.PRUNED,
            title=f"trial {t.number}: {value:.2%}"
            f"{', pruned' if t.state is TrialState.PRUNED else ''}",
        )
        for t, value in shown
        if value is not None
    ]


def _last(trial: FrozenTrial) -> float | None:
    if trial.state is TrialState.COMPLETE:
        return trial.value
    values = trial.intermediate_values
    return values[max(values)] if values else None


def _counts(study: optuna.Study) -> dict[str, int]:
    return {
        name: sum(t.state is state for t in study.trials)
        for name, state in (("complete", TrialState.COMPLETE), ("pruned", TrialState.PRUNED))
    }


def _changed(base: Recipe, recipe: Recipe) -> list[tuple[str, Any, Any]]:
    old, new = base.to_dict(), recipe.to_dict()
    old |= {f"augment: {k}": v for k, v in old.pop("augment").items()}
    new |= {f"augment: {k}": v for k, v in new.pop("augment").items()}
    return [
        (name.replace("_", " "), old[name], new[name])
        for name in new
        if new[name] != old[name] and name != "name"
    ]


def _setting(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
