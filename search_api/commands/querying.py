"""`lookalike search` and `lookalike classify`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from embed.pictures import RGB, SUFFIXES, PictureError, decode, read_file
from search_api.commands.open import find_bundle, load_encoder, open_engine
from search_api.commands.options import (
    bundle_option,
    data_option,
    json_option,
    progress_bar,
    say,
    together,
    var_option,
)
from search_api.results import Page, Prediction
from search_api.schemas import Prediction as PredictionSchema
from search_api.schemas import SearchResponse, points

_BATCH = 256
_PICTURE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("image", type=_PICTURE)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=12, show_default=True, help="Neighbours."
)
@together(data_option, var_option, bundle_option, json_option)
def search(
    image: Path, limit: int, data: Path | None, var: Path, bundle: Path | None, as_json: bool
) -> None:
    """Class and nearest neighbours of the picture IMAGE.

    \b
    Example:
      lookalike search cat.jpg --limit 5
    """
    with open_engine(data, var, bundle) as engine:
        engine.check_corpus()
        engine.load()
        try:
            result = engine.search(read_file(image), Page(limit))
        except PictureError as error:
            raise click.ClickException(f"{image}: {error}") from None
    assert result.prediction is not None
    if as_json:
        response = SearchResponse(
            prediction=PredictionSchema.of(result.prediction), **points(result)
        )
        click.echo(response.model_dump_json(by_alias=True, indent=2))
        return
    click.echo(f"class  {result.prediction.label} ({result.prediction.confidence:.1%})")
    if result.vote:
        click.echo(f"vote   {result.vote[0]} ({result.vote[1]:.0%} of the nearest neighbours)")
    click.echo(f"\n{'score':>6}  {'id':>8}  {'label':<12} source")
    for point in result.points:
        entry = point.entry
        click.echo(f"{point.score:6.3f}  {entry.id:>8}  {entry.label or '-':<12} {entry.source}")


@click.command()
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@together(var_option, bundle_option)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, for programs.")
@click.pass_context
def classify(
    context: click.Context, paths: Sequence[Path], var: Path, bundle: Path | None, as_json: bool
) -> None:
    """Classes of pictures: files, or folders with all pictures below them.

    Prints the class, its confidence and the path, separated by tabs. A picture that cannot be
    used gets a line on stderr, and the exit code is 1; the others are classified all the same.

    \b
    Examples:
      lookalike classify cat.jpg dog.png
      lookalike classify ~/Pictures --json > classes.jsonl
    """
    files = list(_files(paths))
    if not files:
        raise click.UsageError(
            f"no pictures in {', '.join(map(str, paths))}; expected files ending in"
            f" {', '.join(SUFFIXES)}"
        )
    encoder = load_encoder(find_bundle(bundle, var))
    failed = 0
    long = len(files) > _BATCH
    with progress_bar(len(files), "classifying", "picture", leave=False, show=long) as bar:
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            good: list[tuple[Path, RGB]] = []
            for file in batch:
                try:
                    good.append(
                        (file, encoder.fit(decode(read_file(file), at_least=encoder.input_size)))
                    )
                except (PictureError, OSError) as error:
                    failed += 1
                    _print_error(file, error, as_json)
            if good:
                rows = encoder.encode([picture for _, picture in good]).probabilities
                for (file, _), row in zip(good, rows, strict=True):
                    _print(file, Prediction.of(encoder.classes, row), as_json)
            bar.update(len(batch))
    if failed:
        context.exit(1)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise click.UsageError(f"{path} does not exist; expected a picture or a folder")
        if not path.is_dir():
            yield path
            continue
        for folder, names, files in os.walk(path):
            names.sort()
            yield from (
                Path(folder, file) for file in sorted(files) if file.lower().endswith(SUFFIXES)
            )


def _print(file: Path, prediction: Prediction, as_json: bool) -> None:
    if as_json:
        value = {
            "path": str(file),
            "class": prediction.label,
            "confidence": round(prediction.confidence, 6),
            "probabilities": {k: round(v, 6) for k, v in prediction.probabilities.items()},
        }
        click.echo(json.dumps(value, ensure_ascii=False))
    else:
        click.echo(f"{prediction.label}\t{prediction.confidence:.4f}\t{file}")


def _print_error(file: Path, error: Exception, as_json: bool) -> None:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if as_json:
        click.echo(json.dumps({"path": str(file), "error": why}, ensure_ascii=False))
    say(f"{file}: {why}")
