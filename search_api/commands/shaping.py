"""`lookalike shape`: the embedding of a trained model made to keep what is alike inside a class."""

from __future__ import annotations

from pathlib import Path

import click

from embed.bundle import Bundle
from search_api.commands.options import FOLDER, data_option
from search_api.commands.training import evaluate_and_save, load_for, shaped
from train.shaping import Shaping


@click.command(name="shape")
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@data_option
@click.option(
    "--likeness",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Dimensions for what is alike inside a class, added to one for each class.",
)
@click.option(
    "--weight",
    type=click.FloatRange(0, min_open=True),
    default=Shaping.weight,
    show_default=True,
    help="How much these count, where the class counts 1.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the pictures chosen.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the run that is written.")
def shape_command(
    bundle: Path, data: Path | None, likeness: int, weight: float, seed: int, out: Path
) -> None:
    """Shape the embedding of a trained model.

    BUNDLE is a trained model, such as `lookalike train` leaves in RUN/bundle; a shape that it has
    is made anew. The predicted classes stay what they were; what is found becomes alike beyond the
    class. Recipes that ask for it do this by themselves at the end.

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
