"""`lookalike search` and `lookalike classify`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from embed.pictures import RGB, SUFFIXES, PictureError, decode, read_file
from search_api.commands import remote
from search_api.commands.options import (
    bundle_option,
    data_option,
    json_option,
    progress_bar,
    say,
    together,
    var_option,
)
from search_api.commands.remote import server_options
from search_api.results import Page, Prediction
from search_api.schemas import Prediction as PredictionSchema
from search_api.schemas import SearchResponse, points

# Torch and FAISS are imported only where the work is done here: with --server they are not needed.

_BATCH = 256
_PICTURE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("image", type=_PICTURE)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=12, show_default=True, help="Neighbours."
)
@together(data_option, var_option, bundle_option, server_options, json_option)
def search(
    image: Path,
    limit: int,
    data: Path | None,
    var: Path,
    bundle: Path | None,
    server: str | None,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Class and nearest neighbours of the picture IMAGE.

    \b
    Examples:
      lookalike search cat.jpg --limit 5
      lookalike search cat.jpg --server http://127.0.0.1:8000
    """
    if server:
        with remote.connect(server, api_key) as client:
            response = client.search(image, limit=limit)
    else:
        response = _search_here(image, Page(limit), data, var, bundle)
    if as_json:
        click.echo(response.model_dump_json(by_alias=True, indent=2))
        return
    click.echo(f"class  {response.prediction.label} ({response.prediction.confidence:.1%})")
    if response.vote:
        share = f"{response.vote.share:.0%} of the nearest neighbours"
        click.echo(f"vote   {response.vote.label} ({share})")
    click.echo(f"\n{'score':>6}  {'id':>8}  {'label':<12} source")
    for point in response.points:
        label, source = (point.payload.get(name) or "-" for name in ("label", "source"))
        click.echo(f"{point.score:6.3f}  {point.id:>8}  {label:<12} {source}")


def _search_here(
    image: Path, page: Page, data: Path | None, var: Path, bundle: Path | None
) -> SearchResponse:
    from search_api.commands.open import open_engine

    with open_engine(data, var, bundle) as engine:
        engine.check_corpus()
        engine.load()
        try:
            result = engine.search(read_file(image), page)
        except PictureError as error:
            raise click.ClickException(f"{image}: {error}") from None
    assert result.prediction is not None
    return SearchResponse(prediction=PredictionSchema.of(result.prediction), **points(result))


@click.command()
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@together(var_option, bundle_option, server_options)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, for programs.")
@click.pass_context
def classify(
    context: click.Context,
    paths: Sequence[Path],
    var: Path,
    bundle: Path | None,
    server: str | None,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Classes of pictures: files, or folders with all pictures below them.

    Prints the class, its confidence and the path, separated by tabs. A picture that cannot be
    used gets a line on stderr, and the exit code is 1; the others are classified all the same.

    \b
    Examples:
      lookalike classify cat.jpg dog.png
      lookalike classify ~/Pictures --json > classes.jsonl
      lookalike classify ~/Pictures --server http://127.0.0.1:8000
    """
    files = list(_files(paths))
    if not files:
        raise click.UsageError(
            f"no pictures in {', '.join(map(str, paths))}; expected files ending in"
            f" {', '.join(SUFFIXES)}"
        )
    if server:
        failed = _classify_there(files, server, api_key, as_json)
    else:
        failed = _classify_here(files, var, bundle, as_json)
    if failed:
        context.exit(1)


def _classify_there(files: Sequence[Path], server: str, api_key: str | None, as_json: bool) -> int:
    failed = 0
    long = len(files) > _BATCH
    with (
        remote.connect(server, api_key) as client,
        progress_bar(len(files), "classifying", "picture", leave=False, show=long) as bar,
    ):
        for batch in remote.classify(client, files):
            for file, answer in batch:
                if answer.prediction is None:
                    failed += 1
                    _print_error(file, answer.error.detail if answer.error else "", as_json)
                else:
                    _print(file, answer.prediction, as_json)
            bar.update(len(batch))
    return failed


def _classify_here(files: Sequence[Path], var: Path, bundle: Path | None, as_json: bool) -> int:
    from search_api.commands.open import find_bundle, open_model

    encoder = open_model(find_bundle(bundle, var))
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
                    _print_error(file, getattr(error, "strerror", None) or str(error), as_json)
            if good:
                rows = encoder.encode([picture for _, picture in good]).probabilities
                for (file, _), row in zip(good, rows, strict=True):
                    prediction = Prediction.of(encoder.classes, row)
                    _print(file, PredictionSchema.of(prediction), as_json)
            bar.update(len(batch))
    return failed


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


def _print(file: Path, prediction: PredictionSchema, as_json: bool) -> None:
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


def _print_error(file: Path, why: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"path": str(file), "error": why}, ensure_ascii=False))
    say(f"{file}: {why}")
