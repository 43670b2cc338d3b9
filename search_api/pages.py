"""The parameters that all searches share, checked against the limits."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from index.filters import Filter, check_key
from search_api.context import Ctx, FilterParam
from search_api.cursors import parse_cursor
from search_api.errors import Problem
from search_api.results import Page
from search_api.settings import Limits


def check_limit(limits: Limits, limit: int) -> None:
    """Refuse a ``limit`` out of bounds.

    Raises:
        Problem: 422 naming the value, its bound and what to do.
    """
    if not 1 <= limit <= limits.max_limit:
        raise Problem(
            422,
            "limit",
            f"limit is {limit}; expected 1 to {limits.max_limit}, page with offset or cursor",
        )


def make_page(
    limits: Limits,
    limit: int,
    offset: int = 0,
    score_threshold: float | None = None,
    where: Filter | None = None,
    diversity: float | None = None,
    candidates: int | None = None,
    group_by: str | None = None,
    group_size: int | None = None,
    cursor: str | None = None,
) -> Page:
    """A page within the limits; None stands for what was not asked for.

    Raises:
        Problem: 422 naming the value, its bound and what to do.
        FilterError: ``group_by`` cannot name a field.
        CursorError: ``cursor`` cannot be read.
    """
    check_limit(limits, limit)
    if not 0 <= offset <= limits.max_offset:
        raise Problem(
            422,
            "offset",
            f"offset is {offset}; expected 0 to {limits.max_offset}, go on with `next_cursor` or"
            " narrow the search by a filter",
        )
    page = Page(limit, offset, score_threshold, where)
    fields = {
        "candidates": _candidates(limits, page, diversity, candidates),
        "group_size": _group_size(limits, page, group_by, group_size),
    }
    if diversity is not None and (group_by is not None or cursor is not None):
        other = "group_by" if group_by is not None else "cursor"
        raise Problem(
            422, "diversity", f"diversity and {other} cannot be combined; send one of them"
        )
    if cursor is not None and offset:
        raise Problem(
            422, "cursor", f"offset is {offset} with a cursor, which goes on by itself; leave it 0"
        )
    if cursor is not None and len(cursor) > limits.max_cursor_chars:
        raise Problem(
            422,
            "cursor",
            f"cursor has {len(cursor):,} characters; expected at most {limits.max_cursor_chars:,},"
            " send `next_cursor` as it was",
        )
    return Page(
        limit,
        offset,
        score_threshold,
        where,
        diversity=diversity,
        group_by=None if group_by is None else check_key(group_by, "group_by"),
        cursor=None if cursor is None else parse_cursor(cursor),
        **fields,
    )


def _candidates(limits: Limits, page: Page, diversity: float | None, candidates: int | None) -> int:
    default = min(page.candidates, limits.max_candidates)
    if diversity is None:
        if candidates is not None:
            raise Problem(
                422, "candidates", f"candidates is {candidates} without diversity; send both"
            )
        return default
    if candidates is not None and not 1 <= candidates <= limits.max_candidates:
        raise Problem(
            422, "candidates", f"candidates is {candidates}; expected 1 to {limits.max_candidates}"
        )
    pool = candidates or default
    if page.offset + page.limit > pool:
        raise Problem(
            422,
            "candidates",
            f"offset + limit is {page.offset + page.limit}, more than the {pool} candidates that"
            f" diversity chooses from; send larger candidates, at most {limits.max_candidates}",
        )
    return pool


def _group_size(limits: Limits, page: Page, group_by: str | None, group_size: int | None) -> int:
    if group_by is None:
        if group_size is not None:
            raise Problem(
                422, "group_size", f"group_size is {group_size} without group_by; send both"
            )
        return page.group_size
    size = page.group_size if group_size is None else group_size
    # All groups together hold no more points than a search without groups may.
    if size < 1 or (size > 1 and size * page.limit > limits.max_limit):
        raise Problem(
            422,
            "group_size",
            f"group_size is {size} and limit {page.limit}; expected group_size of 1 or more, and"
            f" at most {limits.max_limit} points in all groups together",
        )
    return size


async def page_params(
    context: Ctx,
    where: FilterParam,
    limit: Annotated[int, Query(description="Most points, or groups, to return, 1 to 1000.")] = 12,
    offset: Annotated[int, Query(description="Points or groups to leave out first.")] = 0,
    score_threshold: Annotated[
        float | None,
        Query(description="Least cosine similarity, -1..1.", ge=-1, le=1, allow_inf_nan=False),
    ] = None,
    diversity: Annotated[
        float | None,
        Query(
            description="Reorder by maximal marginal relevance: 0 keeps the ranking, 1 looks at"
            " variety alone.",
            ge=0,
            le=1,
            allow_inf_nan=False,
        ),
    ] = None,
    candidates: Annotated[
        int | None, Query(description="How many of the best `diversity` chooses from; 200.")
    ] = None,
    group_by: Annotated[
        str | None,
        Query(description="Payload field to group by: `groups` has the nearest values of it."),
    ] = None,
    group_size: Annotated[int | None, Query(description="Most points in a group; 3.")] = None,
    cursor: Annotated[
        str | None,
        Query(description="`next_cursor` of the page before, to go on after its last point."),
    ] = None,
) -> Page:
    """The query parameters that all searches share."""
    return make_page(
        context.limits,
        limit,
        offset,
        score_threshold,
        where,
        diversity,
        candidates,
        group_by,
        group_size,
        cursor,
    )


PageParams = Annotated[Page, Depends(page_params)]
