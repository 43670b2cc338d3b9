"""The parameters of a page of results, checked against the limits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from index.conditions import Filter
from index.filters import check_key
from search_api.schemas.page import PageParams
from search_api.service.cursors import Cursor, parse_cursor
from search_api.settings import Limits


class PageError(ValueError):
    """A parameter of a page is invalid; ``parameter`` names it."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


@dataclass(frozen=True)
class Page:
    """`search_api.schemas.page.PageParams`, checked and parsed.

    Attributes:
        limit: maximum number of points, or of groups with ``group_by``.
        offset: how many of the best points or groups to skip.
        score_threshold: minimum cosine similarity, -1..1, or None.
        filter: which pictures to search, or None for all.
        diversity: 0..1 to reorder the best ``candidates`` by maximal marginal relevance, or None.
        candidates: how many of the best points ``diversity`` chooses from.
        group_by: the field to group by, or None.
        group_size: maximum number of points in each group.
        cursor: where to resume, in which case ``offset`` is 0.
    """

    limit: int = 12
    offset: int = 0
    score_threshold: float | None = None
    filter: Filter | None = None
    diversity: float | None = None
    candidates: int = 200
    group_by: str | None = None
    group_size: int = 3
    cursor: Cursor | None = None

    @property
    def plain(self) -> bool:
        """Whether this is an unmodified ranking from its start; such pages can share a scan."""
        return self.diversity is None and self.group_by is None and self.cursor is None


def make_page(params: PageParams, limits: Limits, where: Filter | None = None) -> Page:
    """Check ``params``; the page is of the pictures that match ``where``, or of all.

    Raises:
        PageError: a parameter is invalid.
        FilterError: ``group_by`` is not the name of a field.
        CursorError: ``cursor`` cannot be read.
    """
    p = params
    check_limit(p.limit, limits)
    if not 0 <= p.offset <= limits.max_offset:
        raise PageError(
            "offset",
            f"offset is {p.offset}; expected 0 to {limits.max_offset}; continue with `next_cursor`,"
            " or narrow the search with a filter",
        )
    if p.diversity is not None and (p.group_by is not None or p.cursor is not None):
        other = "group_by" if p.group_by is not None else "cursor"
        raise PageError("diversity", f"diversity and {other} cannot be combined; send one of them")
    if p.cursor is not None and p.offset:
        raise PageError(
            "cursor",
            f"offset is {p.offset}; expected 0 with a cursor, which already says where to resume",
        )
    if p.cursor is not None:
        check_cursor_length(p.cursor, limits)
    return Page(
        limit=p.limit,
        offset=p.offset,
        score_threshold=p.score_threshold,
        filter=where,
        diversity=p.diversity,
        candidates=_candidates(p, limits),
        group_by=None if p.group_by is None else check_key(p.group_by, "group_by"),
        group_size=_group_size(p, limits),
        cursor=None if p.cursor is None else parse_cursor(p.cursor),
    )


def check_cursor_length(cursor: str, limits: Limits) -> None:
    """Check the length of a ``cursor``. Raises PageError."""
    if len(cursor) > limits.max_cursor_chars:
        raise PageError(
            "cursor",
            f"cursor has {len(cursor):,} characters; expected at most"
            f" {limits.max_cursor_chars:,}; send `next_cursor` unchanged",
        )


def check_limit(limit: int, limits: Limits) -> None:
    """Check a ``limit``. Raises PageError."""
    if not 1 <= limit <= limits.max_limit:
        raise PageError(
            "limit",
            f"limit is {limit}; expected 1 to {limits.max_limit}; get further pages with offset or"
            " cursor",
        )


def fingerprint(query: object, page: Page) -> str:
    """Identifies what must stay the same from page to page: the query and its ranking.

    ``query`` describes the examples and must have a stable ``repr``. ``limit`` and
    ``score_threshold`` may differ, as they only determine where a page ends.
    """
    if query == "picture" and page.filter is None and page.group_by is None:
        return _OF_PICTURES
    return _digest(repr((query, page.filter, page.group_by)))


def _digest(words: str) -> str:
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:32]


_OF_PICTURES = _digest(repr(("picture", None, None)))


def _candidates(p: PageParams, limits: Limits) -> int:
    default = min(Page.candidates, limits.max_candidates)
    if p.diversity is None:
        if p.candidates is not None:
            raise PageError(
                "candidates",
                f"candidates is {p.candidates} without diversity; send both or neither",
            )
        return default
    if p.candidates is not None and not 1 <= p.candidates <= limits.max_candidates:
        raise PageError(
            "candidates",
            f"candidates is {p.candidates}; expected 1 to {limits.max_candidates}",
        )
    pool = p.candidates or default
    if p.offset + p.limit > pool:
        raise PageError(
            "candidates",
            f"offset + limit is {p.offset + p.limit}, more than the {pool} candidates that"
            f" diversity chooses from; send larger candidates, at most {limits.max_candidates}",
        )
    return pool


def _group_size(p: PageParams, limits: Limits) -> int:
    if p.group_by is None:
        if p.group_size is not None:
            raise PageError(
                "group_size", f"group_size is {p.group_size} without group_by; send both or neither"
            )
        return Page.group_size
    size = Page.group_size if p.group_size is None else p.group_size
    # All groups together may have no more points than an ungrouped search.
    if size < 1 or (size > 1 and size * p.limit > limits.max_limit):
        raise PageError(
            "group_size",
            f"group_size is {size} and limit {p.limit}; expected a group_size of at least 1, and at"
            f" most {limits.max_limit} points in all groups together",
        )
    return size
