"""`lookalike search`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from annotated_types import Ge, Le

from embed.pictures import PictureError, read_file
from search_api.cli import remote
from search_api.cli.on_store import OnStore, on_store
from search_api.cli.options import (
    classes_option,
    json_option,
    together,
)
from search_api.cli.remote import server_options
from search_api.client import Client
from search_api.client.calls import PageOptions, Strategy
from search_api.schemas import (
    Classes,
    PageParams,
    PageQuery,
    Point,
    Points,
    Prediction,
    SearchResponse,
)
from search_api.text import displayed, parsed_json

if TYPE_CHECKING:
    # With --server neither torch nor FAISS is needed, so they are imported only for local work.
    from search_api.service.engine import SearchEngine
    from search_api.service.recommend import ExampleSet


class _Picture(click.ParamType[Path | int]):
    """A picture file or, if there is no such file, the id of a stored picture."""

    name = "picture"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | int:
        if isinstance(value, Path | int):
            return value
        path = Path(value)
        if path.is_dir():
            self.fail(
                f"{value!r} is a folder; expected a picture file or the id of a stored picture"
            )
        if path.exists():
            return path
        if value.isascii() and value.isdecimal() and int(value) < 2**63:
            return int(value)
        return self.fail(
            f"{value!r} does not exist; expected a picture file or the id of a stored picture"
        )


class _Filter(click.ParamType[dict[str, Any]]):
    """A JSON object."""

    name = "json"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        try:
            found = parsed_json(value)
        except ValueError as error:
            return self.fail(f"{value[:100]!r} is not JSON ({error})")
        return found if isinstance(found, dict) else self.fail(f"{value[:100]!r} is not an object")


@dataclass(frozen=True)
class _Query:
    """The query: files and ids of pictures that results should be like and unlike."""

    like: tuple[Path | int, ...]
    unlike: tuple[Path | int, ...]
    strategy: Strategy

    @property
    def one(self) -> Path | int | None:
        """The picture, if the query is a single one."""
        return self.like[0] if len(self.like) == 1 and not self.unlike else None


def _flag(name: str) -> str:
    return "--threshold" if name == "score_threshold" else f"--{name.replace('_', '-')}"


def _page_option(name: str) -> Callable[[Any], Any]:
    """The option for a parameter of `search_api.schemas.page.PageQuery`."""
    field = PageQuery.model_fields[name]
    kind = next(iter(get_args(field.annotation)), field.annotation)
    low = next((bound.ge for bound in field.metadata if isinstance(bound, Ge)), None)
    high = next((bound.le for bound in field.metadata if isinstance(bound, Le)), None)
    if low is not None:
        kind = click.FloatRange(low, high)  # type: ignore[arg-type]
    return click.option(
        _flag(name),
        name,
        type=kind,
        default=field.default,
        show_default=field.default is not None,
        help=field.description,
    )


page_options = together(
    *map(_page_option, PageParams.model_fields),
    click.option(
        "--filter",
        "where",
        type=_Filter(),
        help='Search only pictures that match, as JSON: \'{"must": [{"key": "label", "match":'
        ' {"value": "cat"}}]}\'.',
    ),
)


@click.command()
@click.argument("image", type=_Picture(), required=False)
@click.option(
    "--like",
    multiple=True,
    type=_Picture(),
    help="Find pictures like this file or stored id; can be repeated.",
)
@click.option(
    "--unlike",
    multiple=True,
    type=_Picture(),
    help="Avoid pictures like this file or stored id; can be repeated.",
)
@click.option(
    "--strategy",
    type=click.Choice(["average_vector", "best_score"]),
    default="average_vector",
    show_default=True,
    help="How to combine several examples into one ranking.",
)
@together(page_options, classes_option, on_store("data", "bundle"))
@together(server_options, json_option)
def search(
    image: Path | int | None,
    like: tuple[Path | int, ...],
    unlike: tuple[Path | int, ...],
    strategy: Strategy,
    classes: Classes,
    store: OnStore,
    server: str | None,
    api_key: str | None,
    as_json: bool,
    where: dict[str, Any] | None,
    **page: Any,
) -> None:
    """Show the class and the nearest neighbours of a picture.

    IMAGE is a file or the id of a stored picture.

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
            "no picture is given; expected IMAGE or --like, a file or the id of a stored picture"
        )
    query = _Query(positive, unlike, strategy)
    options: dict[str, Any] = {name: v for name, v in page.items() if v is not None}
    if server:
        with remote.connect(server, api_key) as client:
            given: Any = options if where is None else {**options, "filter": where}
            response = _search_on_server(client, query, classes, given)
    else:
        params = PageParams(**options)
        response = _search_locally(query, classes, params, where, store)
    if as_json:
        click.echo(response.model_dump_json(by_alias=True, indent=2))
    else:
        _print(response)


def _print(response: Points) -> None:
    if isinstance(response, SearchResponse):
        both = response.predictions
        shown = (response.prediction,) if both is None else (both.store, both.network)
        for prediction in filter(None, shown):
            click.echo(f"class  {_words(prediction)}")
    if response.vote:
        share = f"{response.vote.share:.0%} of the nearest neighbours"
        click.echo(f"vote   {displayed(response.vote.label)} ({share})")
    click.echo(f"\n{'score':>6}  {'id':>8}  {'label':<12} source")
    for point in response.points:
        _print_point(point)
    for group in response.groups or []:
        click.echo(f"{displayed(str(group.value))}:")
        for point in group.points:
            _print_point(point)


def _words(prediction: Prediction) -> str:
    of = "the store's classifier" if prediction.source == "store" else "the model's own classes"
    if prediction.label is None:
        return f"none of these; nearest {prediction.nearest_class} ({prediction.grade}; {of})"
    return f"{prediction.label} ({prediction.confidence:.1%}; {prediction.grade}; {of})"


def _print_point(point: Point) -> None:
    label, source = (point.payload.get(name) or "-" for name in ("label", "source"))
    click.echo(f"{point.score:6.3f}  {point.id:>8}  {displayed(label):<12} {displayed(source)}")


def _search_on_server(client: Client, query: _Query, classes: Classes, page: PageOptions) -> Points:
    if isinstance(query.one, Path):
        return client.search(query.one, classes=classes, **page)
    if query.one is not None:
        return client.similar(query.one, **page)
    return client.recommend_images(
        _files(query.like),
        _files(query.unlike),
        positive=_ids(query.like),
        negative=_ids(query.unlike),
        strategy=query.strategy,
        **page,
    )


def _search_locally(
    query: _Query,
    classes: Classes,
    params: PageParams,
    where: dict[str, Any] | None,
    store: OnStore,
) -> Points:
    from index.filters import parse_filter
    from search_api.api.responses import points, search_response
    from search_api.service.page import PageError, make_page
    from search_api.settings import Limits

    try:
        page = make_page(params, Limits(), None if where is None else parse_filter(where))
    except PageError as error:
        raise click.BadParameter(str(error), param_hint=[_flag(error.parameter)]) from None
    with store.engine() as engine:
        engine.load()
        if isinstance(query.one, Path):
            try:
                return search_response(engine.search(_read(query.one), page, classes))
            except PictureError as error:
                raise click.ClickException(f"{query.one}: {error}") from None
        like, unlike = (_examples(engine, side) for side in (query.like, query.unlike))
        return Points(**points(engine.recommend(like, unlike, query.strategy, page)))


def _examples(engine: SearchEngine, pictures: tuple[Path | int, ...]) -> ExampleSet:
    from search_api.service.recommend import ExampleSet
    from search_api.service.search import PictureQuery

    queries = []
    for file in _files(pictures):
        try:
            queries.append(PictureQuery(engine.read(_read(file)), None, classes=None))
        except PictureError as error:
            raise click.ClickException(f"{file}: {error}") from None
    answers = engine.search_batch(queries) if queries else []
    vectors = tuple(answer.vector for answer in answers if answer.vector is not None)
    return ExampleSet(_ids(pictures), vectors, answers[0].model if answers else None)


def _read(file: Path) -> bytes:
    try:
        return read_file(file)
    except PictureError as error:
        raise click.ClickException(f"{file}: {error}") from None


def _files(pictures: tuple[Path | int, ...]) -> list[Path]:
    return [picture for picture in pictures if isinstance(picture, Path)]


def _ids(pictures: tuple[Path | int, ...]) -> tuple[int, ...]:
    return tuple(picture for picture in pictures if isinstance(picture, int))
