"""`lookalike train` and `lookalike evaluate`: the only commands that import `train`."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from torch import Tensor

from embed.bundle import Bundle
from embed.corpus import Corpus, find_corpus
from embed.encoder import Encoder
from search_api.commands.open import find_bundle
from search_api.commands.options import (
    FOLDER,
    bundle_option,
    data_option,
    json_option,
    print_json,
    progress_bar,
    say,
    together,
    var_option,
)
from train import environment
from train.checkpoint import RECIPE, Epoch
from train.data import Dataset, load_dataset
from train.evaluate import Evaluation, evaluate, search_of, summary
from train.initial import read_init
from train.loop import train as run_training
from train.recipe import QUICK, Recipe, read_recipe
from train.report import model_card, write_report
from train.shaping import Shaping, shape, unshaped

METRICS = "metrics.json"


@click.command()
@data_option
@click.option(
    "--recipe",
    "recipe_name",
    help="Name of a recipe (quick, best, best-taught, finetune, resnet18), or a JSON file with one."
    " Default: quick; finetune with --init.",
)
@click.option(
    "--init",
    help="Start from a trained model: pretrained, the one that ships, or the folder of a bundle;"
    " none for fresh weights where the recipe would start from one.",
)
@click.option("--size", type=click.IntRange(32, 224), help="Side of the network's input, pixels.")
@click.option("--print-recipe", is_flag=True, help="Print the recipe as JSON, to edit, and stop.")
@click.option("--epochs", type=click.IntRange(1), help="Instead of the recipe's.")
@click.option("--batch-size", type=click.IntRange(2), help="Instead of the recipe's.")
@click.option("--lr", type=float, help="Peak learning rate, instead of the recipe's.")
@click.option("--dropout", type=float, help="Instead of the recipe's.")
@click.option("--patience", type=click.IntRange(1), help="Stop after so many epochs in vain.")
@click.option("--seed", type=int, help="Instead of the recipe's.")
@click.option("--out", type=FOLDER, help="Folder of the run. Default: runs/<recipe>-<time>.")
@click.option(
    "--resume",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Go on with the run in this folder, exactly where its last epoch ended.",
)
@json_option
def train(
    data: Path | None,
    recipe_name: str | None,
    init: str | None,
    print_recipe: bool,
    out: Path | None,
    resume: Path | None,
    as_json: bool,
    **changes: Any,
) -> None:
    """Train a model and write its bundle, log and report.

    The default recipe reaches about 94 % on CIFAR-10 in under half an hour on two cores; the
    README has the figures. Pictures of your own need far fewer when the training starts from a
    trained model: --init pretrained. Each epoch is checkpointed: Ctrl-C loses at most one.

    \b
    Examples:
      lookalike train
      lookalike train --data ~/slides --init pretrained --out runs/slides
      lookalike train --data ~/slides/labels.csv --init pretrained --size 64
      lookalike train --resume runs/slides
      tensorboard --logdir runs
    """
    changes = {name: value for name, value in changes.items() if value is not None}
    if resume is not None and (out is not None or recipe_name or init or changes):
        raise click.UsageError(
            "--resume goes on with the recipe and folder of the run; leave out --out and the"
            " options that change the recipe"
        )
    if init is not None:
        changes["init"] = _absolute(init)
    name = recipe_name or ("finetune" if changes.get("init") else "quick")
    recipe = dataclasses.replace(read_recipe(str(resume / RECIPE) if resume else name), **changes)
    if print_recipe:
        print_json(recipe.to_dict())
        return
    folder = resume or out or Path("runs") / f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if resume is None and folder.exists() and any(folder.iterdir()):
        raise click.UsageError(
            f"{folder} is not empty; go on with its run by --resume {folder}, or name another --out"
        )
    read_init(recipe.init)  # a wrong name should not wait until all pictures are read
    evaluation = _train(recipe, find_corpus(data, say), folder, resume is not None)
    if as_json:
        print_json(evaluation.to_dict())


@click.command(name="evaluate")
@together(data_option, var_option, bundle_option)
@click.option(
    "--out",
    type=FOLDER,
    default=Path("reports"),
    show_default=True,
    help="Folder for metrics.json and report.html.",
)
@click.option(
    "--beside",
    multiple=True,
    metavar="NAME=FOLDER",
    help="Another bundle, whose search is measured too and stands beside; may be given again.",
)
@click.option(
    "--plain",
    is_flag=True,
    help="The same model without the shape of its embedding stands beside it.",
)
@json_option
def evaluate_command(
    data: Path | None,
    var: Path,
    bundle: Path | None,
    out: Path,
    beside: tuple[str, ...],
    plain: bool,
    as_json: bool,
) -> None:
    """Measure a model: accuracy, confidence, search, and the pictures that are worth a look.

    On the corpus's test split, or its validation split where it has no test split. The report has
    a map of the embedding, made by t-SNE where scikit-learn is installed (`lookalike[map]`).

    \b
    Example:
      lookalike evaluate --out reports/shipped --plain --beside best=runs/best/bundle
    """
    others = {name: Bundle.load(folder) for name, folder in map(_named_folder, beside)}
    model = Bundle.load(find_bundle(bundle, var))
    if plain:
        if "plain" in others:
            raise click.UsageError("--plain and --beside plain=FOLDER; expected one of them")
        others["plain"] = unshaped(model)
    dataset = load_for(model, data)
    evaluation = _evaluate(model, dataset, out, others)
    if as_json:
        print_json(json.loads((out / METRICS).read_text()))
    else:
        click.echo(summary(evaluation))


def _named_folder(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    if not (name and separator and folder):
        raise click.UsageError(f"--beside is {text!r}; expected NAME=FOLDER, as plain=runs/plain")
    return name, Path(folder)


def train_default(corpus: Corpus, var: Path) -> Path:
    """Train with the default recipe where no model ships, and return the bundle's folder."""
    folder = var / "training"
    say(f"No trained model is here yet: training one on {corpus.name}. This happens once.")
    _train(QUICK, corpus, folder, resume=(folder / RECIPE).exists(), bundle=var / "bundle")
    return var / "bundle"


def _train(
    recipe: Recipe, corpus: Corpus, folder: Path, resume: bool, bundle: Path | None = None
) -> Evaluation:
    environment.prepare()
    dataset = load(corpus, recipe.size, recipe)
    start = f"the model in {recipe.init}" if recipe.init else recipe.architecture
    start = "the model that ships" if recipe.init == "pretrained" else start
    say(
        f"Training {start} by the recipe {recipe.name!r} on {_counted(dataset)}, validating on"
        f" {len(dataset.validation):,}; {recipe.epochs} epochs; writing to {folder}."
    )
    try:
        model = run_training(
            recipe, dataset, folder, resume=resume, report=print_epoch, steps=_step_bar
        )
    except KeyboardInterrupt:
        say(f"\nStopped. Go on with: lookalike train --resume {folder}")
        raise
    if dataset.skipped:
        say(f"{len(dataset.skipped):,} pictures could not be read; {folder}/skipped.json says why.")
        (folder / "skipped.json").write_text(json.dumps(dataset.skipped, indent=1) + "\n")
    if recipe.shaping.likeness:
        model.save(folder / "plain")  # for comparisons
        model = shaped(model, dataset, recipe.shaping, recipe.seed)
    return evaluate_and_save(model, dataset, folder, bundle or folder / "bundle")


def evaluate_and_save(model: Bundle, dataset: Dataset, folder: Path, target: Path) -> Evaluation:
    """Measure the model; write the report to ``folder`` and the bundle to ``target``."""
    evaluation = _evaluate(model, dataset, folder)
    measured = {**model.metrics, **_headline(evaluation)}
    model = dataclasses.replace(model, metrics=measured)
    model.save(target, model_card(model, evaluation))
    click.echo(summary(evaluation), err=True)
    say(f"\nModel: {target}   Report: {folder / 'report.html'}")
    return evaluation


def shaped(model: Bundle, dataset: Dataset, shaping: Shaping, seed: int) -> Bundle:
    """``train.shaping.shape`` with a progress bar; the bundle's recipe says how."""

    def shown(batches: Iterator[Tensor], total: int) -> Iterator[Tensor]:
        with progress_bar(total, "shaping", "batch", leave=False) as bar:
            for batch in batches:
                yield batch
                bar.update()

    model = shape(model, dataset.train.pictures, shaping, seed, shown)
    recipe = {**_recipe_of(model), "shaping": dataclasses.asdict(shaping)}
    return dataclasses.replace(model, training={**model.training, "recipe": recipe})


def load(corpus: Corpus, size: int, recipe: Recipe) -> Dataset:
    """``train.data.load_dataset`` with a progress bar."""
    with progress_bar(len(corpus.items), "reading", "picture", leave=False) as bar:

        def shown(items: Any) -> Iterator[Any]:
            for item in items:
                yield item
                bar.update()

        return load_dataset(corpus, size, recipe.validation, recipe.seed, shown, recipe.test)


def load_for(model: Bundle, data: Path | None) -> Dataset:
    """The data of a trained model, split as its recipe says.

    Raises:
        click.UsageError: its classes are not the model's.
    """
    recipe = Recipe.from_dict(_recipe_of(model))
    dataset = load(find_corpus(data, say), model.preprocess.input_size, recipe)
    if dataset.classes != model.classes:
        raise click.UsageError(
            f"the model knows the classes {', '.join(model.classes)}, the data has"
            f" {', '.join(dataset.classes)}; give data with the model's classes by --data"
        )
    return dataset


def _counted(dataset: Dataset) -> str:
    counts = dataset.train.labels.bincount()
    fewest, most = int(counts.argmin()), int(counts.argmax())
    found = f"{len(dataset.train):,} pictures of {len(dataset.classes)} classes"
    if counts[fewest] == counts[most]:
        return found
    names = dataset.classes
    return f"{found} (from {counts[fewest]:,} {names[fewest]} to {counts[most]:,} {names[most]})"


def _absolute(init: str) -> str | None:
    """As the recipe keeps it, to be found again from any folder."""
    if init == "none":
        return None
    return init if init == "pretrained" else str(Path(init).resolve())


def _evaluate(
    model: Bundle, dataset: Dataset, folder: Path, beside: dict[str, Bundle] | None = None
) -> Evaluation:
    say("Evaluating: accuracy, confidence, and all that is searched for (some minutes at most).")
    evaluation = evaluate(Encoder(model), dataset)
    others = {}
    for name, other in (beside or {}).items():
        if other.preprocess.input_size != model.preprocess.input_size:
            raise click.UsageError(
                f"{name} takes pictures of {other.preprocess.input_size} pixels, the model of"
                f" {model.preprocess.input_size}; they cannot stand beside each other"
            )
        others[name] = search_of(Encoder(other), dataset)
    found = evaluation.to_dict() | {"beside": {n: asdict(q) for n, q in others.items()}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / METRICS).write_text(json.dumps(found, indent=2) + "\n")
    write_report(evaluation, dataset, model, folder / "report.html", others)
    return evaluation


def _headline(evaluation: Evaluation) -> dict[str, Any]:
    values = evaluation.to_dict()
    return {
        "split": values["split"],
        "accuracy": values["accuracy"],
        "retrieval": values["retrieval"],
    }


def _recipe_of(model: Bundle) -> dict[str, Any]:
    recipe: dict[str, Any] = model.training.get("recipe", {})
    return recipe


def print_epoch(epoch: Epoch) -> None:
    """A line of the training log, for people."""
    say(
        f"epoch {epoch.epoch + 1:3d}  train loss {epoch.train_loss:.4f}"
        f"  val loss {epoch.validation_loss:.4f}  val accuracy {epoch.validation_accuracy:.4f}"
        f"  lr {epoch.lr:.4g}  {epoch.seconds / 60:.1f} min"
    )


def _step_bar(batches: Iterator[Tensor], epoch: int, total: int) -> Iterator[Tensor]:
    with progress_bar(total, f"epoch {epoch + 1}", "step", leave=False) as bar:
        for batch in batches:
            yield batch
            bar.update()
