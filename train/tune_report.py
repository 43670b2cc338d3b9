"""A study for people: one HTML file with its trials, its best recipe and what mattered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from train.recipe import Recipe
from train.tune import best_recipe

ENOUGH = 8
"""Complete trials from which on importances are estimated."""
_WIDTH, _HEIGHT = 640, 240


@dataclass(frozen=True)
class Dot:
    """A trial in the plot: its place in pixels, and what is told of it."""

    x: float
    y: float
    pruned: bool
    title: str


def write_tune_report(study: optuna.Study, base: Recipe, path: Path) -> None:
    """Write one self-contained HTML file that asks nothing of the network.

    Args:
        study: as ``train.tune.tune`` returns it.
        base: the recipe that it set out from.
        path: the file to write.

    Raises:
        TuneError: no trial has run to its end yet.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{share:.2%}"
    environment.filters["setting"] = _setting
    recipe = best_recipe(study, base)
    own = next((t for t in study.trials if t.number == 0 and t.value is not None), None)
    html = environment.get_template("tune.html").render(
        base=base,
        best=study.best_trial,
        own=own,
        changed=_changed(base, recipe),
        trials=ranked(study),
        counts=_counts(study),
        importances=importances(study),
        enough=ENOUGH,
        names=list(study.best_trial.params),
        dots=dots(study),
        width=_WIDTH,
        height=_HEIGHT,
        minutes=sum(t.user_attrs.get("seconds", 0.0) for t in study.trials) / 60,
    )
    path.write_text(html, encoding="utf-8")


def importances(study: optuna.Study) -> dict[str, float]:
    """How much of the trials' differences each setting explains, largest first; they sum to 1.

    Functional analysis of variance over a random forest (Hutter et al. 2014, "An efficient approach
    for assessing hyperparameter importance"). Empty below ``ENOUGH`` complete trials.
    """
    complete = [t for t in study.trials if t.state is TrialState.COMPLETE]
    if len(complete) < ENOUGH or len({t.value for t in complete}) < 2:
        return {}
    found: dict[str, float] = get_param_importances(
        study, evaluator=FanovaImportanceEvaluator(seed=0), normalize=True
    )
    return found


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Complete trials, best first, then pruned ones, the longest first."""
    complete = [t for t in study.trials if t.state is TrialState.COMPLETE]
    pruned = [t for t in study.trials if t.state is TrialState.PRUNED]
    return [
        *sorted(complete, key=lambda t: -(t.value or 0.0)),
        *sorted(pruned, key=lambda t: (-len(t.intermediate_values), t.number)),
    ]


def dots(study: optuna.Study) -> list[Dot]:
    """Each trial's last validation accuracy, by its number, for a plot of 640 x 240 pixels."""
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
