"""`lookalike search`."""

from __future__ import annotations

from pathlib import Path

import click

from embed.pictures import PictureError, read_file
from search_api.commands import remote
from search_api.commands.options import (
    bundle_option,
    data_option,
    json_option,
    together,
    var_option,
)
from search_api.commands.remote import server_options
from search_api.results import Page
from search_api.schemas import Prediction as PredictionSchema
from search_api.schemas import SearchResponse, points

# Torch and FAISS are imported only where the work is done here: with --server they are not needed.

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
