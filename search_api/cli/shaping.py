"""`lookalike shape`: shapes the embedding of a trained model to keep likeness within a class."""

from __future__ import annotations

from pathlib import Path

import click

from embed.architecture import Backbone
from embed.bundle import Bundle
from embed.corpus import find_corpus
from embed.folders.options import FolderOptions
from embed.imported.fitting import DIMENSION
from search_api.cli.options import FOLDER, data_options, say
from search_api.cli.training import evaluate_and_save, load_for, reprojected, shaped
from train.recipe import Shaping

LIKENESS = 256
"""Dimensions for likeness within a class that are usual."""


@click.command(name="shape")
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@data_options
@click.option(
    "--likeness",
    type=click.IntRange(1),
    help="Dimensions for likeness within a class, in addition to one for each class."
    f" Default: {LIKENESS}.",
)
@click.option(
    "--weight",
    type=click.FloatRange(0, min_open=True),
    help=f"Weight of these dimensions relative to those of the class. Default: {Shaping.weight}.",
)
@click.option(
    "--dimension",
    type=click.IntRange(1),
    help=f"Dimensions of the embedding of an imported network. Default: {DIMENSION}.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@click.option("--out", type=FOLDER, required=True, help="Folder to write the run to.")
def shape_command(
    bundle: Path,
    data: Path | None,
    folder_options: FolderOptions,
    likeness: int | None,
    weight: float | None,
    dimension: int | None,
    seed: int,
    out: Path,
) -> None:
    """Shape the embedding of a trained model.

    BUNDLE is a trained model, such as RUN/bundle of `lookalike train`, or an imported one; an
    existing shape is replaced.

    Searches with a whitened-resnet then find pictures that are also similar within the class; the
    predicted classes stay the same. Recipes with a shaping do this at the end of training.

    The embedding of an imported network is centred on the training pictures and reduced to the
    directions in which they differ most. It needs less memory and disk, and usually finds better. A
    classifier that reads the embedding is fitted again.

    \b
    Examples:
      lookalike shape runs/best/bundle --weight 1.2 --out runs/best-shaped
      lookalike shape runs/convnext --data ~/slides --dimension 128 --out runs/convnext-slides
    """
    model = Bundle.load(bundle)
    imported = isinstance(model.architecture, Backbone)
    wrong = {"--likeness": likeness, "--weight": weight} if imported else {"--dimension": dimension}
    if unused := [name for name, value in wrong.items() if value is not None]:
        raise click.UsageError(
            f"{' and '.join(unused)} cannot shape {model.architecture.name}; use"
            f" {'--dimension' if imported else '--likeness and --weight'}"
        )
    dataset = load_for(model, find_corpus(data, say, options=folder_options))
    try:
        if imported:
            model = reprojected(model, dataset, dimension or DIMENSION, seed)
        else:
            shaping = Shaping(likeness or LIKENESS, weight or Shaping.weight)
            model = shaped(model, dataset, shaping, seed)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    evaluate_and_save(model, dataset, out, out / "bundle")
