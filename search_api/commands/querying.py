"""`lookalike search`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embed.pictures import PictureError, read_file
from search_api.client import Client
from search_api.client.calls import PageOptions, Strategy
from search_api.commands import remote
from search_api.commands.options import (
    bundle_option,
    data_option,
    json_option,
    together,
    var_option,
)
from search_api.commands.remote import server_options
from search_api.schemas import Point, Points, SearchResponse, points
from search_api.schemas import Prediction as PredictionSchema

if TYPE_CHECKING:
    # Torch and FAISS are imported only where the work is done here: with --server they are not
    # needed.
    from search_api.engine import SearchEngine
    from search_api.recommending import Examples


class _Picture(click.ParamType[Path | int]):
    """A picture's file, or the id of a stored one where there is no such file."""

    name = "picture"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | int:
        if isinstance(value, Path | int):
            return value
        path = Path(value)
        if path.is_dir():
            self.fail(f"{value!r} is a folder; expected a picture or the id of a stored one")
        if path.exists():
            return path
        if value.isascii() and value.isdecimal() and int(value) < 2**63:
            return int(value)
        return self.fail(f"{value!r} does not exist; expected a picture or the id of a stored one")


class _Filter(click.ParamType[dict[str, Any]]):
    """JSON."""

    name = "json"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        try:
            found = json.loads(value)
        except (ValueError, RecursionError) as error:
            return self.fail(f"{value[:100]!r} is not JSON ({error})")
        return found if isinstance(found, dict) else self.fail(f"{value[:100]!r} is no object")


@dataclass(frozen=True)
class _Asked:
    """What is looked for: pictures' files and ids of stored ones, like and unlike."""

    like: tuple[Path | int, ...]
    unlike: tuple[Path | int, ...]
    strategy: Strategy

    @property
    def one(self) -> Path | int | None:
        """The picture, where there is one alone."""
        return self.like[0] if len(self.like) == 1 and not self.unlike else None


page_options = together(
    click.option(
        "--limit",
        type=click.IntRange(1, 1000),
        default=12,
        show_default=True,
        help="Neighbours, or groups.",
    ),
    click.option("--offset", type=click.IntRange(0), default=0, help="Leave out so many first."),
    click.option(
        "--threshold", "score_threshold", type=click.FloatRange(-1, 1), help="Least score, -1..1."
    ),
    click.option(
        "--filter",
        "where",
        type=_Filter(),
        help='Which pictures may be answers: \'{"must": [{"key": "label", "match": {"value":'
        ' "cat"}}]}\'.',
    ),
    click.option(
        "--diversity",
        type=click.FloatRange(0, 1),
        help="Vary the answer: 0 keeps the ranking, 1 looks at variety alone.",
    ),
    click.option("--candidates", type=int, help="How many of the best --diversity chooses from."),
    click.option("--group-by", help="Payload field: show the nearest of each value of it."),
    click.option("--group-size", type=int, help="Most neighbours in a group; 3."),
)


@click.command()
@click.argument("image", type=_Picture(), required=False)
@click.option(
    "--like", multiple=True, type=_Picture(), help="Also like this file or stored id; repeatable."
)
@click.option(
    "--unlike", multiple=True, type=_Picture(), help="Unlike this file or stored id; repeatable."
)
@click.option(
    "--strategy",
    type=click.Choice(["average_vector", "best_score"]),
    default="average_vector",
    show_default=True,
    help="How several examples make one ranking.",
)
@together(page_options, data_option, var_option, bundle_option, server_options, json_option)
def search(
    image: Path | int | None,
    like: tuple[Path | int, ...],
    unlike: tuple[Path | int, ...],
    strategy: Strategy,
    data: Path | None,
    var: Path,
    bundle: Path | None,
    server: str | None,
    api_key: str | None,
    as_json: bool,
    where: dict[str, Any] | None,
    **page: Any,
) -> None:
    """Class and nearest neighbours of the picture IMAGE: a file, or the id of a stored picture.

    \b
    Examples:
      lookalike search cat.jpg --limit 5
      lookalike search 123 --diversity 0.5
      lookalike search cat.jpg --like 123 --unlike dog.jpg --group-by label
      lookalike search cat.jpg --server http://127.0.0.1:8000
    """
    positive = (*(() if image is None else (image,)), *like)
    if not positive:
        raise click.UsageError(
            "Missing argument 'IMAGE', or --like: expected a picture to look for"
        )
    asked = _Asked(positive, unlike, strategy)
    options: dict[str, Any] = {name: v for name, v in page.items() if v is not None}
    if server:
        with remote.connect(server, api_key) as client:
            given: Any = options if where is None else {**options, "filter": where}
            response = _search_there(client, asked, given)
    else:
        response = _search_here(asked, {**options, "where": where}, data, var, bundle)
    if as_json:
        click.echo(response.model_dump_json(by_alias=True, indent=2))
    else:
        _print(response)


def _print(response: Points) -> None:
    if isinstance(response, SearchResponse):
        click.echo(f"class  {response.prediction.label} ({response.prediction.confidence:.1%})")
    if response.vote:
        share = f"{response.vote.share:.0%} of the nearest neighbours"
        click.echo(f"vote   {response.vote.label} ({share})")
    click.echo(f"\n{'score':>6}  {'id':>8}  {'label':<12} source")
    for point in response.points:
        _print_point(point)
    for group in response.groups or []:
        click.echo(f"{group.value}:")
        for point in group.points:
            _print_point(point)


def _print_point(point: Point) -> None:
    label, source = (point.payload.get(name) or "-" for name in ("label", "source"))
    click.echo(f"{point.score:6.3f}  {point.id:>8}  {label:<12} {source}")


def _search_there(client: Client, asked: _Asked, page: PageOptions) -> Points:
    if isinstance(asked.one, Path):
        return client.search(asked.one, **page)
    if asked.one is not None:
        return client.similar(asked.one, **page)
    return client.recommend_images(
        _files(asked.like),
        _files(asked.unlike),
        positive=_ids(asked.like),
        negative=_ids(asked.unlike),
        strategy=asked.strategy,
        **page,
    )


def _search_here(
    asked: _Asked, page: dict[str, Any], data: Path | None, var: Path, bundle: Path | None
) -> Points:
    from index.filters import parse_filter
    from search_api.commands.open import open_engine
    from search_api.errors import Problem
    from search_api.pages import make_page
    from search_api.settings import Limits

    where = page["where"]
    try:
        wanted = make_page(
            Limits(), **{**page, "where": None if where is None else parse_filter(where)}
        )
    except Problem as problem:
        raise click.UsageError(problem.detail) from None
    with open_engine(data, var, bundle) as engine:
        engine.check_corpus()
        engine.load()
        if isinstance(asked.one, Path):
            try:
                result = engine.search(_read(asked.one), wanted)
            except PictureError as error:
                raise click.ClickException(f"{asked.one}: {error}") from None
            assert result.prediction is not None
            return SearchResponse(
                prediction=PredictionSchema.of(result.prediction), **points(result)
            )
        like, unlike = (_examples(engine, side) for side in (asked.like, asked.unlike))
        return Points(**points(engine.recommend(like, unlike, asked.strategy, wanted)))


def _examples(engine: SearchEngine, pictures: tuple[Path | int, ...]) -> Examples:
    from search_api.answering import PictureQuery
    from search_api.recommending import Examples

    queries = []
    for file in _files(pictures):
        try:
            queries.append(PictureQuery(engine.read(_read(file)), None))
        except PictureError as error:
            raise click.ClickException(f"{file}: {error}") from None
    answers = engine.answer(queries) if queries else []
    vectors = tuple(answer.vector for answer in answers if answer.vector is not None)
    return Examples(_ids(pictures), vectors, answers[0].model if answers else None)


def _read(file: Path) -> bytes:
    try:
        return read_file(file)
    except PictureError as error:
        raise click.ClickException(f"{file}: {error}") from None


def _files(pictures: tuple[Path | int, ...]) -> list[Path]:
    return [picture for picture in pictures if isinstance(picture, Path)]


def _ids(pictures: tuple[Path | int, ...]) -> tuple[int, ...]:
    return tuple(picture for picture in pictures if isinstance(picture, int))
