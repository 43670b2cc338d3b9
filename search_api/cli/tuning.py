"""`lookalike tune`: searches for better settings of a recipe."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import click

from embed.corpus import find_corpus
from embed.folders.options import FolderOptions
from search_api.cli.options import FOLDER, data_options, json_option, print_json, say
from search_api.cli.training import load, print_epoch
from train import environment
from train.checkpoint import Epoch
from train.choice import read_init
from train.data import Dataset, stratified
from train.recipe import read_recipe


@click.command()
@data_options
@click.option(
    "--recipe", "recipe_name", default="quick", show_default=True, help="Recipe to improve."
)
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="Number of runs, including pruned ones and those of earlier calls.",
)
@click.option("--epochs", type=click.IntRange(1), help="Epochs of each run. Default: the recipe's.")
@click.option(
    "--pictures",
    type=click.IntRange(2),
    help="Train on this many pictures only, the same share of each class.",
)
@click.option(
    "--pruner",
    type=click.Choice(["median", "hyperband", "none"]),
    default="median",
    show_default=True,
    help="Rule for stopping runs early.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed of the search.")
@click.option(
    "--out",
    type=FOLDER,
    default=Path("runs/tune"),
    show_default=True,
    help="Folder of the study; an existing study is continued.",
)
@json_option
def tune(
    data: Path | None,
    folder_options: FolderOptions,
    recipe_name: str,
    trials: int,
    epochs: int | None,
    pictures: int | None,
    pruner: Any,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Search for better settings of a recipe.

    Tries learning rates, batch sizes, weight decays, dropout rates and so on. Settings are compared
    by accuracy on the validation split; poor runs are stopped early. The study is kept in a SQLite
    file: Ctrl-C loses at most one epoch, and the same command continues it. The best trial becomes
    a recipe file, and report.html shows which settings mattered. Recipes of networks that are
    trained here can be tuned, not those on top of imported networks: finetune stands for the one
    that starts from the model that ships.

    \b
    Example:
      lookalike tune --data ~/slides --recipe finetune --trials 20 --out runs/tune
      lookalike train --data ~/slides --recipe runs/tune/best.json
    """
    if importlib.util.find_spec("optuna") is None:
        raise click.UsageError(
            "tuning needs Optuna, which is not installed: pip install 'lookalike[tune]'"
        )
    import optuna

    from train.tuning import tune as tuning
    from train.tuning.report import write_tune_report

    recipe = read_recipe(recipe_name)
    if epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=epochs)
    if recipe.imported:
        raise click.UsageError(
            f"the recipe {recipe.name!r} trains on top of an imported network, which is not tuned:"
            " a probe chooses its own settings, and each trial of a fine-tuning would take as long"
            " as a training; use lookalike train, or tune quick or finetune, which train a small"
            " network"
        )
    read_init(recipe.init)
    environment.prepare()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    dataset = load(find_corpus(data, say, options=folder_options), recipe.size, recipe)
    if pictures is not None:
        dataset = fewer(dataset, pictures, recipe.seed)
    say(
        f"Tuning {recipe.name!r} on {len(dataset.train):,} pictures, validating on"
        f" {len(dataset.validation):,}; up to {trials} trials of {recipe.epochs} epochs in {out}."
    )

    def trial_done(trial: optuna.trial.FrozenTrial) -> None:
        settings = ", ".join(
            f"{name.replace('_', ' ')} {value:.4g}" for name, value in trial.params.items()
        )
        value = "" if trial.value is None else f" {trial.value:.2%}"
        say(f"trial {trial.number}: {trial.state.name.lower()}{value} ({settings})")

    def epoch_done(number: int, epoch: Epoch) -> None:
        print_epoch(epoch)

    try:
        study = tuning.tune(
            recipe,
            dataset,
            out,
            tuning.TuneSettings(trials, pruner, seed),
            report=trial_done,
            epoch_done=epoch_done,
        )
    except KeyboardInterrupt:
        say("\nStopped. Run the same command to continue.")
        raise
    best = tuning.best_recipe(study, recipe)
    write_tune_report(study, recipe, out / "report.html")
    if as_json:
        print_json({"value": study.best_value, "trial": study.best_trial.number,
                    "recipe": best.to_dict()})  # fmt: skip
    say(
        f"Best: {study.best_value:.2%} validation accuracy (trial {study.best_trial.number})."
        f" Recipe: {out / tuning.BEST}   Report: {out / 'report.html'}"
    )


def fewer(data: Dataset, pictures: int, seed: int) -> Dataset:
    """The data with at most ``pictures`` training pictures, the same share of each class."""
    share = pictures / len(data.train)
    if share >= 1:
        return data
    return dataclasses.replace(data, train=data.train[stratified(data.train.labels, share, seed)])
