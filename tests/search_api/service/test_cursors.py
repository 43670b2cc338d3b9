"""Cursors as text: the round trip, what is refused, and damaged ones."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from index.ranking.resume import RankPosition
from index.sorting import SortPosition, SortValue
from search_api.service.cursors import (
    Cursor,
    CursorError,
    CursorModelError,
    ListCursor,
    parse_cursor,
    parse_list_cursor,
)

VECTORS = np.array([[0.6, 0.8], [1, 0]], np.float32)
CURSOR = Cursor(RankPosition(0.25, 7), 12, None, "sha256:model", "request", VECTORS)


def same(a: Cursor, b: Cursor) -> bool:
    np.testing.assert_array_equal(a.vectors, b.vectors)
    assert a.vectors.dtype == b.vectors.dtype == np.float32
    return replace(a, vectors=VECTORS).__dict__ == replace(b, vectors=VECTORS).__dict__


@pytest.mark.parametrize(
    "cursor",
    [
        CURSOR,
        replace(CURSOR, groups=("cat", 3, 2.5, True)),
        replace(CURSOR, vectors=np.empty((0, 0), np.float32)),
        replace(CURSOR, position=RankPosition(-1.0000001, 2**63 - 1), seen=0),
    ],
)
def test_the_text_is_read_back(cursor: Cursor) -> None:
    text = cursor.text()
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert same(parse_cursor(text), cursor)


def test_it_fits_its_own_request() -> None:
    CURSOR.check("request", "sha256:model", VECTORS)
    # Embedded again in another batch, the last bits may differ.
    CURSOR.check("request", "sha256:model", VECTORS * np.float32(1 - 1e-6))


def test_another_request_is_refused() -> None:
    for request, vectors in (
        ("other", VECTORS),
        ("request", VECTORS[:1]),
        ("request", VECTORS[::-1]),  # cosine 0.6 to the pictures it was made with
    ):
        with pytest.raises(CursorError, match="another request"):
            CURSOR.check(request, "sha256:model", vectors)


def test_another_model_is_refused_with_both_names() -> None:
    with pytest.raises(CursorModelError, match="sha256:model, but sha256:new is in use"):
        CURSOR.check("request", "sha256:new", VECTORS)


def changed(**fields: Any) -> str:
    data = base64.urlsafe_b64decode(CURSOR.text() + "==")
    head, _, body = data.partition(b"\n")
    data = json.dumps({**json.loads(head), **fields}).encode() + b"\n" + body
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def test_only_the_changed_field_makes_it_unreadable() -> None:
    assert same(parse_cursor(changed()), CURSOR)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", 2),
        ("score", None),
        ("score", float("nan")),
        ("score", 1e300),
        ("id", -1),
        ("id", True),
        ("id", 1.0),
        ("seen", 2**64),
        ("shape", [9, 9]),
        ("shape", [-1, 3]),
        ("groups", 5),
        ("groups", [None]),
        ("groups", [["a"]]),
        ("model", 3),
        ("request", None),
    ],
)
def test_a_damaged_cursor_is_refused(field: str, value: object) -> None:
    with pytest.raises(CursorError, match="cannot be read"):
        parse_cursor(changed(**{field: value}))


def test_vectors_that_are_not_finite_are_refused() -> None:
    vectors = np.array([[np.nan, 0]], np.float32)
    with pytest.raises(CursorError, match="not finite"):
        parse_cursor(replace(CURSOR, vectors=vectors).text())


@pytest.mark.parametrize("text", ["x", "", "ä", "e30", "W10", "bnVsbA", "A" * 101, "[" * 400])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(CursorError, match="cannot be read"):
        parse_cursor(text)


@pytest.mark.parametrize("value", [None, True, False, 0, 2**63 - 1, -0.1, 1e308, "", "1zoë", "\n"])
def test_a_listing_is_continued_from_any_value(value: SortValue) -> None:
    cursor = ListCursor(SortPosition(value, 7), "request")
    found = parse_list_cursor(cursor.text())
    assert found == cursor
    assert type(found.position.value) is type(value)
    found.check("request")
    with pytest.raises(CursorError, match="belongs to another listing"):
        found.check("other")


@pytest.mark.parametrize(
    "words",
    [
        5,
        [],
        {"a": 1, "b": 2, "c": 3, "d": 4},
        ["list 2", None, 1, "r"],
        ["list 1", [], 1, "r"],
        ["list 1", 2**63, 1, "r"],
        ["list 1", float("nan"), 1, "r"],
        ["list 1", "\x00", 1, "r"],
        ["list 1", "\ud800", 1, "r"],
        ["list 1", None, -1, "r"],
        ["list 1", None, True, "r"],
        ["list 1", None, 1, None],
    ],
)
def test_what_is_no_cursor_of_a_listing(words: Any) -> None:
    text = base64.urlsafe_b64encode(json.dumps(words).encode()).decode().rstrip("=")
    with pytest.raises(CursorError, match="cannot be read"):
        parse_list_cursor(text)
    for other in (CURSOR.text(), "a", "é", "bm90IEpTT04"):
        with pytest.raises(CursorError, match="cannot be read"):
            parse_list_cursor(other)
    with pytest.raises(CursorError, match="cannot be read"):
        parse_cursor(ListCursor(SortPosition(None, 1), "r").text())
