"""`lookalike shape`: shapes the embedding of a trained model to keep likeness within a class."""

from __future__ import annotations

from pathlib import Path

import click

from embed.bundle import Bundle
from search_api.cli.options import FOLDER, data_option
from search_api.cli.training import evaluate_and_save, load_for, shaped
from train.recipe import Shaping


@click.command(name="shape")
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@data_option
@click.option(
    "--likeness",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Dimensions for likeness within a class, in addition to one for each class.",
)
@click.option(
    "--weight",
    type=click.FloatRange(0, min_open=True),
    default=Shaping.weight,
    show_default=True,
    help="Weight of these dimensions relative to those of the class.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@click.option("--out", type=FOLDER, required=True, help="Folder to write the run to.")
def shape_command(
    bundle: Path, data: Path | None, likeness: int, weight: float, seed: int, out: Path
) -> None:
    """Shape the embedding of a trained model.

    BUNDLE is a trained model, such as RUN/bundle of `lookalike train`; an existing shape is
    replaced. The predicted classes stay the same, but searches find pictures that are also similar
    within the class. Recipes with a shaping do this at the end of training.

    \b
    Examples:
      lookalike shape runs/best/bundle --weight 1.2 --out runs/best-shaped
      lookalike shape runs/slides/bundle --data ~/slides --out runs/slides-shaped
    """
    model = Bundle.load(bundle)
    dataset = load_for(model, data)
    shaping = Shaping(likeness, weight)
    try:
        model = shaped(model, dataset, shaping, seed)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    evaluate_and_save(model, dataset, out, out / "bundle")
