"""`lookalike train` and `lookalike evaluate`: the only commands that import `train`."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from torch import Tensor

from embed.architecture import Backbone
from embed.bundle import Bundle
from embed.classes.classifier import MIN_PER_CLASS
from embed.corpus import Corpus, FolderCorpus, find_corpus, open_corpus
from embed.encoder import Encoder
from embed.folders.options import FolderOptions
from embed.preprocess import Preprocess
from search_api.cli.on_store import FOLDER_NAMES, OnStore, on_store
from search_api.cli.options import (
    FOLDER,
    counted,
    data_options,
    json_option,
    print_json,
    progress_bar,
    say,
    say_skipped,
)
from search_api.file_modes import users_files
from search_api.service.engine import find_store_corpus
from search_api.stores.model_store import find_bundle
from search_api.stores.opening import has_store
from train import environment
from train.checkpoint import RECIPE, Epoch
from train.choice import choose_recipe, read_init
from train.data import Dataset, load_dataset
from train.evaluation.evaluate import Evaluation, evaluate, evaluate_search, summary
from train.evaluation.report import model_card, write_report
from train.extras.probe import learnable, reproject
from train.extras.shaping import shape, unshaped
from train.loop import train as run_training
from train.recipe import PHOTO_ENCODER, QUICK, Recipe, Shaping, read_recipe, recipe_of

METRICS = "metrics.json"
LARGE = 2.0
"""Gigabytes of pictures in memory from which the need is said."""
_STARTS = {"pretrained": "the shipped model", PHOTO_ENCODER: "the photo encoder"}


@click.command()
@data_options
@click.option(
    "--recipe",
    "recipe_name",
    help="Name of a recipe (probe, finetune, quick, best, best-taught, resnet18), or a JSON file"
    " with one. Default: probe for your own pictures and on imported networks, finetune with"
    " another --init, quick for CIFAR-10.",
)
@click.option(
    "--init",
    help="Start from a trained model: photo-encoder, pretrained for the model that ships, or the"
    " folder of a bundle, imported or trained; none for fresh weights even if the recipe starts"
    " from a model.",
)
@click.option(
    "--size",
    type=click.IntRange(32, 224),
    help="Side of the network's input in pixels; imported networks have their own.",
)
@click.option(
    "--print-recipe",
    is_flag=True,
    help="Print the recipe, for --data and --init if they are given, as JSON and exit.",
)
@click.option("--epochs", type=click.IntRange(1), help="Number of epochs. Default: the recipe's.")
@click.option("--batch-size", type=click.IntRange(2), help="Batch size. Default: the recipe's.")
@click.option("--lr", type=float, help="Peak learning rate. Default: the recipe's.")
@click.option("--dropout", type=float, help="Dropout rate. Default: the recipe's.")
@click.option(
    "--patience",
    type=click.IntRange(1),
    help="Stop after this many epochs without a lower validation loss. Default: the recipe's.",
)
@click.option("--seed", type=int, help="Random seed. Default: the recipe's.")
@click.option("--out", type=FOLDER, help="Folder of the run. Default: runs/<recipe>-<time>.")
@click.option(
    "--resume",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Resume the run in this folder from its last completed epoch.",
)
@json_option
def train(
    data: Path | None,
    folder_options: FolderOptions,
    recipe_name: str | None,
    init: str | None,
    print_recipe: bool,
    out: Path | None,
    resume: Path | None,
    as_json: bool,
    **changes: Any,
) -> None:
    """Train a model and write its bundle and report.

    On your own pictures, the recipe probe fits a classifier to the embedding of the photo encoder,
    or of the imported network in --init: a minute or two for 500 pictures on two cores, report
    included. Try it first.

    The recipe finetune goes on from there and trains the last layers too: five to fifteen minutes
    for 500 pictures. It pays where pictures are unlike photographs of everyday things and there
    are about a hundred of each class. If validation does not become better, the result is the
    probe.

    On CIFAR-10, the default recipe trains a small network from fresh weights to about 94 % in under
    half an hour. Each epoch is checkpointed: Ctrl-C loses at most one. docs/training.md has more.

    \b
    Examples:
      lookalike train --data ~/slides --out runs/slides
      lookalike train --data ~/slides --recipe finetune --out runs/slides-finetuned
      lookalike train --data ~/slides/labels.csv --init runs/convnext
      lookalike train --data ~/icons --init pretrained --size 64
      lookalike train --resume runs/slides-finetuned
    """
    changes = {name: value for name, value in changes.items() if value is not None}
    if resume is not None and (out is not None or recipe_name or init or changes):
        raise click.UsageError(
            "--resume uses the recipe and the folder of the run; leave out --out and the options"
            " that change the recipe"
        )
    if init is not None:
        changes["init"] = _absolute(init)
    if resume is not None:
        recipe = read_recipe(str(resume / RECIPE))
    else:
        # What LOOKALIKE_DATA holds does not change what is printed of a recipe.
        source = click.get_current_context().get_parameter_source("data")
        shown = None if print_recipe and source is ParameterSource.ENVIRONMENT else data
        recipe = choose_recipe(recipe_name, _are_photographs(shown), changes, say)
    if print_recipe:
        print_json(recipe.to_dict())
        return
    folder = resume or out or Path("runs") / f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if resume is None and folder.exists() and any(folder.iterdir()):
        raise click.UsageError(
            f"{folder} is not empty; resume its run with --resume {folder}, or choose another --out"
        )
    if recipe.layers == "classifier" and resume is not None:
        raise click.UsageError(
            f"the run in {resume} is a probe, which has no epochs to resume; start it again"
        )
    read_init(recipe.init)  # fail before reading the pictures
    evaluation = _train(
        recipe, find_corpus(data, say, options=folder_options), folder, resume is not None
    )
    if as_json:
        print_json(evaluation.to_dict())


@click.command(name="evaluate")
@on_store("data", *FOLDER_NAMES, "bundle")
@click.option(
    "--out",
    type=FOLDER,
    default=Path("reports"),
    show_default=True,
    help="Folder for metrics.json and report.html.",
)
@click.option(
    "--compare",
    multiple=True,
    metavar="NAME=FOLDER",
    help="Compare the search of another bundle; can be repeated.",
)
@click.option("--beside", "old_compare", multiple=True, hidden=True)  # its name before
@click.option(
    "--plain",
    is_flag=True,
    help="Compare the search of the same model without the shape of its embedding.",
)
@json_option
def evaluate_command(
    store: OnStore,
    out: Path,
    compare: tuple[str, ...],
    old_compare: tuple[str, ...],
    plain: bool,
    as_json: bool,
) -> None:
    """Evaluate a model: accuracy, confidence, search, and pictures to inspect.

    Without --data and --bundle, these are the pictures and the model of the store, if there is one.
    Uses the corpus's test split, or its validation split if it has no test split. The report
    includes a map of the embedding, made by t-SNE. Of an imported network whose own classes are not
    those of the pictures, the search alone is evaluated, by the pictures' labels.

    \b
    Example:
      lookalike evaluate --out reports/shipped --plain --compare best=runs/best/bundle
    """
    others = {name: Bundle.load(path) for name, path in map(_named_folder, compare + old_compare)}
    model = Bundle.load(find_bundle(store.bundle, store.location))
    if plain:
        if "plain" in others:
            raise click.UsageError(
                "--plain and --compare plain=FOLDER name the same column; give one of them"
            )
        others["plain"] = unshaped(model)
    corpus = _corpus_to_evaluate(store)
    dataset = load_for(model, corpus)
    with users_files():
        evaluation = _evaluate(model, dataset, out, others, corpus)
    if as_json:
        print_json(json.loads((out / METRICS).read_text()))
    else:
        click.echo(summary(evaluation))


def _corpus_to_evaluate(store: OnStore) -> Corpus:
    """The corpus that was named; else the store's, or with another model or no store CIFAR-10."""
    if store.data is None and store.bundle is None and has_store(store.location):
        return find_store_corpus(None, store.location, say, folder_options=store.folder_options)
    return find_corpus(store.data, say, options=store.folder_options)


def _named_folder(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    if not (name and separator and folder):
        raise click.UsageError(
            f"--compare is {text!r}; expected NAME=FOLDER, such as best=runs/best/bundle"
        )
    return name, Path(folder)


def train_default(corpus: Corpus, var: Path) -> Path:
    """Train with the default recipe if no model is shipped; returns the bundle's folder."""
    folder = var / "training"
    say(f"There is no trained model yet: training one on {corpus.name}. This happens only once.")
    _train(QUICK, corpus, folder, resume=(folder / RECIPE).exists(), bundle=var / "bundle")
    return var / "bundle"


def _train(
    recipe: Recipe, corpus: Corpus, folder: Path, resume: bool, bundle: Path | None = None
) -> Evaluation:
    environment.prepare()
    init = read_init(recipe.init)
    imported = init is not None and isinstance(init.architecture, Backbone)
    not_taken = {place: one.reason for place, one in corpus.scan().skipped.items()}
    dataset = load(corpus, init.preprocess if init and imported else recipe.size, recipe)
    if imported:
        dataset = _learnable(dataset, recipe)
    start = f"the model in {recipe.init}" if recipe.init else recipe.architecture
    start = _STARTS.get(recipe.init or "", start)
    if recipe.layers == "classifier":
        say(
            f"Training a classifier on the embedding of {start} with {_counted(dataset)};"
            f" writing to {folder}."
        )
    else:
        say(
            f"Training {start} with the recipe {recipe.name!r} on {_counted(dataset)}, validating"
            f" on {len(dataset.validation):,}; {recipe.epochs} epochs; writing to {folder}."
        )
    try:
        model = run_training(
            recipe,
            dataset,
            folder,
            resume=resume,
            report=print_epoch,
            steps=_embedding_bar if recipe.layers == "classifier" else _step_bar,
        )
    except KeyboardInterrupt:
        if recipe.layers != "classifier":
            say(f"\nStopped. Resume with: lookalike train --resume {folder}")
        raise
    if dataset.skipped:
        say(f"{counted(len(dataset.skipped))} could not be read; see {folder}/skipped.json.")
    if reasons := not_taken | dataset.skipped:
        (folder / "skipped.json").write_text(json.dumps(reasons, indent=1) + "\n")
    if recipe.shaping.likeness:
        model.save(folder / "plain")  # for comparisons
        model = shaped(model, dataset, recipe.shaping, recipe.seed)
    outcome = model.metrics.get("fine_tuning")
    if outcome and outcome["ships"] == "probe":
        say(
            "Fine-tuning did not improve on the probe that it started from by more than chance"
            " (validation accuracy"
            f" {outcome['validation_accuracy']:.2%}, the probe's"
            f" {outcome['probe_validation_accuracy']:.2%}; loss {outcome['validation_loss']:.4f},"
            f" the probe's {outcome['probe_validation_loss']:.4f}), so the model is the probe."
        )
    return evaluate_and_save(model, dataset, folder, bundle or folder / "bundle")


def _learnable(dataset: Dataset, recipe: Recipe) -> Dataset:
    dataset, few = learnable(dataset, validation=recipe.layers == "classifier")
    if few:
        named = ", ".join(f"{name} ({count})" for name, count in few.items())
        say(
            f"Left out, because a class needs {MIN_PER_CLASS} pictures besides those held out:"
            f" {named}."
        )
    return dataset


def evaluate_and_save(model: Bundle, dataset: Dataset, folder: Path, target: Path) -> Evaluation:
    """Evaluate the model; write the report to ``folder`` and the bundle to ``target``."""
    evaluation = _evaluate(model, dataset, folder)
    measured = {**model.metrics, **_headline(evaluation)}
    model = dataclasses.replace(model, metrics=measured)
    model.save(target, model_card(model, evaluation))
    click.echo(summary(evaluation), err=True)
    say(f"\nModel: {target}   Report: {folder / 'report.html'}")
    return evaluation


def shaped(model: Bundle, dataset: Dataset, shaping: Shaping, seed: int) -> Bundle:
    """``train.extras.shaping.shape`` with a progress bar; records ``shaping`` in the recipe."""

    model = shape(
        model,
        dataset.train.pictures,
        shaping,
        seed,
        lambda batches, total: _shown(batches, "shaping", "batch", total),
    )
    recipe = {**model.training.get("recipe", {}), "shaping": dataclasses.asdict(shaping)}
    return dataclasses.replace(model, training={**model.training, "recipe": recipe})


def reprojected(model: Bundle, dataset: Dataset, dimension: int, seed: int) -> Bundle:
    """``train.extras.probe.reproject`` with a progress bar."""
    return reproject(
        model,
        dataset,
        dimension,
        seed,
        lambda batches, total: _shown(batches, "embedding", "batch", total),
    )


def load(corpus: Corpus, size: int | Preprocess, recipe: Recipe) -> Dataset:
    """``train.data.load_dataset`` with a progress bar."""
    scan = corpus.scan()
    items = scan.items
    say_skipped(scan.skipped.values())
    unlabelled = sum(item.label is None for item in items)
    if unlabelled:
        say(f"Left out, because they are in no class's folder: {counted(unlabelled)}.")
    side = size if isinstance(size, int) else size.input_size
    gigabytes = 2 * 3 * side**2 * len(items) / 1e9
    if gigabytes > LARGE:
        say(
            f"{counted(len(items))} of {side} x {side} pixels need up to {gigabytes:.1f} GB of"
            " memory while they are read, and half of that afterwards."
        )
    with progress_bar(len(items), "reading", "picture", leave=False) as bar:

        def shown(items: Any) -> Iterator[Any]:
            for item in items:
                yield item
                bar.update()

        return load_dataset(corpus, size, recipe.validation, recipe.seed, shown, recipe.test)


def load_for(model: Bundle, corpus: Corpus, preprocess: Preprocess | None = None) -> Dataset:
    """The data of a trained model, with the splits of its recipe.

    Args:
        model: the model.
        corpus: the pictures.
        preprocess: how pictures become square; None for the model's.

    Raises:
        click.UsageError: the classes of the data are not the model's, which is not imported.
    """
    recipe = recipe_of(model)
    dataset = load(corpus, preprocess or model.preprocess, recipe)
    if isinstance(model.architecture, Backbone):
        if "recipe" in model.training and set(model.classes) < set(dataset.classes):
            dataset = _learnable(dataset, recipe)  # as when it was trained
    elif dataset.classes != model.classes:
        raise click.UsageError(
            f"the model has the classes {', '.join(model.classes)}, the data has"
            f" {', '.join(dataset.classes)}; give data with the model's classes with --data"
        )
    return dataset


def _counted(dataset: Dataset) -> str:
    counts = dataset.train.labels.bincount()
    fewest, most = int(counts.argmin()), int(counts.argmax())
    total = f"{len(dataset.train):,} pictures of {len(dataset.classes)} classes"
    if counts[fewest] == counts[most]:
        return total
    names = dataset.classes
    return f"{total} (from {counts[fewest]:,} {names[fewest]} to {counts[most]:,} {names[most]})"


def _absolute(init: str) -> str | None:
    """The value for the recipe, which does not depend on the current folder."""
    if init == "none":
        return None
    return init if init in _STARTS else str(Path(init).resolve())


def _are_photographs(data: Path | None) -> bool:
    """Whether the pictures are somebody's own; without --data they are CIFAR-10 or the sample."""
    return data is not None and isinstance(open_corpus(data), FolderCorpus)


def _evaluate(
    model: Bundle,
    dataset: Dataset,
    folder: Path,
    others: dict[str, Bundle] | None = None,
    corpus: Corpus | None = None,
) -> Evaluation:
    say("Evaluating accuracy, confidence and search (may take a few minutes).")
    evaluation = evaluate(Encoder(model), dataset)
    searches = {}
    for name, other in (others or {}).items():
        data = dataset
        if corpus is not None and not _same_input(model.preprocess, other.preprocess):
            data = load_for(model, corpus, other.preprocess)
        searches[name] = evaluate_search(Encoder(other), data)
    metrics = evaluation.to_dict() | {"beside": {n: q.to_dict() for n, q in searches.items()}}
    if "fine_tuning" in model.metrics:
        metrics["fine_tuning"] = model.metrics["fine_tuning"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / METRICS).write_text(json.dumps(metrics, indent=2) + "\n")
    write_report(evaluation, dataset, model, folder / "report.html", searches)
    return evaluation


def _same_input(a: Preprocess, b: Preprocess) -> bool:
    """Whether both models take the same pixels; they may normalise them differently."""
    return dataclasses.replace(a, mean=b.mean, std=b.std) == b


def _headline(evaluation: Evaluation) -> dict[str, Any]:
    values = evaluation.to_dict()
    return {
        "split": values["split"],
        "accuracy": values["accuracy"],
        "retrieval": values["retrieval"],
    }


def print_epoch(epoch: Epoch) -> None:
    """Print a line about a completed epoch."""
    say(
        f"epoch {epoch.epoch + 1:3d}  train loss {epoch.train_loss:.4f}"
        f"  val loss {epoch.validation_loss:.4f}  val accuracy {epoch.validation_accuracy:.4f}"
        f"  lr {epoch.lr:.4g}  {epoch.seconds / 60:.1f} min"
    )


def _step_bar(batches: Iterator[Tensor], epoch: int, total: int) -> Iterator[Tensor]:
    yield from _shown(batches, f"epoch {epoch + 1}", "step", total)


def _embedding_bar(batches: Iterator[Tensor], epoch: int, total: int) -> Iterator[Tensor]:
    yield from _shown(batches, "embedding", "batch", total)


def _shown(batches: Iterator[Tensor], title: str, unit: str, total: int) -> Iterator[Tensor]:
    with progress_bar(total, title, unit, leave=False) as bar:
        for batch in batches:
            yield batch
            bar.update()
