"""The parameters of a page: defaults, bounds, combinations, and the fingerprint of a request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from index.contract import FilterError
from index.filters import parse_filter
from index.ranking.resume import RankPosition
from search_api.schemas.page import PageParams
from search_api.service.cursors import Cursor, CursorError
from search_api.service.page import Page, PageError, check_limit, fingerprint, make_page
from search_api.settings import Limits

RED = parse_filter({"must": [{"key": "label", "match": {"value": "red"}}]})
CURSOR = Cursor(RankPosition(0.5, 3), 12, None, "sha256:m", "r", np.empty((0, 0), np.float32))


def made(limits: Limits = Limits(), **params: Any) -> Page:
    return make_page(PageParams(**params), limits)


def test_the_defaults_are_those_of_a_page() -> None:
    assert made() == Page()
    assert make_page(PageParams(), Limits(), RED) == Page(filter=RED)


def test_every_parameter_arrives() -> None:
    assert made(limit=5, offset=3, score_threshold=0.5) == Page(5, 3, 0.5)
    page = made(limit=5, offset=3, diversity=0.25, candidates=8)
    assert (page.diversity, page.candidates) == (0.25, 8)
    page = made(group_by="label", group_size=2)
    assert (page.group_by, page.group_size) == ("label", 2)
    page = made(cursor=CURSOR.text())
    assert page.cursor is not None
    assert (page.cursor.position, page.cursor.seen) == (RankPosition(0.5, 3), 12)


@pytest.mark.parametrize(
    ("params", "parameter", "words"),
    [
        ({"limit": 0}, "limit", "limit is 0; expected 1 to 1000"),
        ({"limit": 1001}, "limit", "limit is 1001"),
        ({"offset": -1}, "offset", "offset is -1; expected 0 to 10000"),
        ({"offset": 10_001}, "offset", "offset is 10001"),
        ({"diversity": 0.5, "candidates": 0}, "candidates", "candidates is 0; expected 1 to 2000"),
        ({"diversity": 0.5, "candidates": 2001}, "candidates", "is 2001; expected 1 to 2000"),
        ({"diversity": 0.5, "candidates": 5, "limit": 6}, "candidates", "is 6, more than the 5"),
        ({"diversity": 0.5, "limit": 200, "offset": 1}, "candidates", "201, more than the 200"),
        ({"candidates": 10}, "candidates", "without diversity"),
        ({"diversity": 0.5, "group_by": "label"}, "diversity", "group_by cannot be combined"),
        ({"diversity": 0.5, "cursor": CURSOR.text()}, "diversity", "cursor cannot be combined"),
        ({"group_size": 2}, "group_size", "without group_by"),
        ({"group_by": "label", "group_size": 0}, "group_size", "group_size is 0"),
        (
            {"group_by": "label", "group_size": 100, "limit": 11},
            "group_size",
            "at most 1000 points",
        ),
        ({"cursor": CURSOR.text(), "offset": 1}, "cursor", "offset is 1; expected 0"),
        ({"cursor": "A" * 16_385}, "cursor", "cursor has 16,385 characters"),
    ],
)
def test_out_of_bounds(params: dict[str, Any], parameter: str, words: str) -> None:
    with pytest.raises(PageError) as error:
        made(**params)
    assert error.value.parameter == parameter
    assert words in str(error.value)


@pytest.mark.parametrize(
    "params",
    [
        {"limit": 1000, "offset": 10_000},
        {"diversity": 0.5, "limit": 200},
        {"diversity": 0.5, "candidates": 2000, "limit": 1000, "offset": 1000},
        {"group_by": "label", "limit": 1000, "group_size": 1},
        {"group_by": "label", "limit": 10, "group_size": 100},
    ],
)
def test_the_bounds_themselves_are_allowed(params: dict[str, Any]) -> None:
    made(**params)


def test_limits_are_settings() -> None:
    limits = Limits(max_limit=5, max_candidates=7)
    check_limit(5, limits)
    with pytest.raises(PageError, match="expected 1 to 5"):
        check_limit(6, limits)
    assert made(limits, limit=1, diversity=0.5).candidates == 7
    with pytest.raises(PageError, match="expected 1 to 7"):
        made(limits, limit=1, diversity=0.5, candidates=8)


@pytest.mark.parametrize("name", ["a..b", ".".join("abcdefghi"), ""])
def test_a_group_must_be_the_name_of_a_field(name: str) -> None:
    with pytest.raises(FilterError, match="group_by"):
        made(group_by=name)


def test_an_unreadable_cursor() -> None:
    with pytest.raises(CursorError, match="cannot be read"):
        made(cursor="x")


def test_which_pages_are_plain() -> None:
    assert Page(5, 3, 0.5, RED).plain
    for other in ({"diversity": 0.0}, {"group_by": "label"}, {"cursor": CURSOR}):
        assert not replace(Page(), **other).plain


def test_the_fingerprint_is_of_query_filter_and_grouping() -> None:
    page = Page(12, 0, None, RED, group_by="label")
    known = fingerprint("picture", page)
    assert known == fingerprint("picture", replace(page, limit=3, score_threshold=0.5, offset=2))
    others = [
        fingerprint("other", page),
        fingerprint("picture", replace(page, filter=None)),
        fingerprint("picture", replace(page, group_by="split")),
    ]
    assert len({known, *others}) == 4
    assert len(known) == 32
    fingerprint("\ud800", page)  # text that is not valid Unicode
