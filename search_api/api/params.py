"""Parameters that several routes share, checked against the limits."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query
from starlette.concurrency import run_in_threadpool

from index.conditions import Filter
from index.filters import parse_filter
from search_api.api.context import Ctx
from search_api.api.errors import Problem
from search_api.schemas import Classes, PageQuery
from search_api.schemas.search import CLASSES_HELP
from search_api.service.page import Page, make_page
from search_api.settings import Limits
from search_api.text import parsed_json

ImageId = Annotated[int, Path(ge=0, le=2**63 - 1, description="The picture's id.")]
ListLimit = Annotated[
    int, Query(ge=1, description="Maximum number of pictures to return, 1 to 1000.")
]
AfterId = Annotated[int, Query(ge=-1, le=2**63 - 1, description="Return ids above this one.")]


def check_images(limits: Limits, number: int) -> None:
    """Refuse too many pictures in one request.

    Raises:
        Problem: 413 with the number and the limit.
    """
    if number > limits.max_images:
        raise Problem(
            413,
            "too-many-images",
            f"{number} pictures in one request; send at most {limits.max_images}",
        )


def check_examples(limits: Limits, name: str, number: int) -> None:
    """Refuse too many examples.

    Raises:
        Problem: 422 with the field, the number and the limit.
    """
    if number > limits.max_examples:
        raise Problem(
            422, name, f"{name} has {number} examples; send at most {limits.max_examples}"
        )


def filter_from_text(text: str | None, limits: Limits) -> Filter | None:
    """Parse the `filter` of a query string.

    Raises:
        Problem: 422 if it is too long or not JSON.
        FilterError: it is not a valid filter.
    """
    longest = limits.max_filter_chars
    if text is not None and len(text) > longest:
        raise Problem(
            422,
            "filter",
            f"filter has {len(text):,} characters; expected at most {longest:,}. The JSON body of"
            " POST /v1/recommend may contain a longer one",
        )
    if text is None:
        return None
    try:
        value = parsed_json(text)
    except ValueError as error:
        raise Problem(
            422,
            "filter",
            f"filter is not JSON ({error}); expected an object such as"
            ' {"must": [{"key": "label", "match": {"value": "cat"}}]}',
        ) from error
    return parse_filter(value, limits.filter_bounds)


async def filter_param(
    context: Ctx,
    text: Annotated[
        str | None,
        Query(
            alias="filter",
            description=PageQuery.model_fields["filter"].description,
            examples=PageQuery.model_fields["filter"].examples,
        ),
    ] = None,
) -> Filter | None:
    """The `filter` query parameter of routes without the parameters of a page."""
    return filter_from_text(text, context.limits)


async def page_params(context: Ctx, query: Annotated[PageQuery, Query()]) -> Page:
    """The query parameters that all searches share."""
    limits = context.limits
    return make_page(query, limits, filter_from_text(query.filter, limits))


async def classes_param(
    context: Ctx, classes: Annotated[Classes, Query(description=CLASSES_HELP)] = "auto"
) -> Classes:
    """The `classes` query parameter of routes that classify pictures.

    Raises:
        NoClassesError: there are none of these.
    """
    if classes != "auto":
        # In a thread, because it may read the store.
        await run_in_threadpool(context.engine.classes.check, classes, context.engine.encoder)
    return classes


ClassesParam = Annotated[Classes, Depends(classes_param)]
FilterParam = Annotated[Filter | None, Depends(filter_param)]
PageParam = Annotated[Page, Depends(page_params)]
