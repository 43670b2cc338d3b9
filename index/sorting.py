"""Listings sorted by a field: what a picture is sorted by, and where a page ended."""

import heapq
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from index.conditions import scalars_of
from index.dates import instant
from index.records import Entry, Scalar

SortValue: TypeAlias = bool | int | float | str | None
"""A number, a text made by `sort_text`, a boolean, or None for a picture without the field."""

CHARS = 256


@dataclass(frozen=True)
class OrderBy:
    """Sort by the field ``key``: numbers, then dates, then texts, then booleans.

    Texts are compared by their first 256 characters, whatever their case. A list counts as its
    smallest element or, ``descending``, as its largest. Pictures without the field come last in
    both directions; equal ones are sorted by ascending id.
    """

    key: str
    descending: bool = False


class SortPosition(NamedTuple):
    """Where a page ended: what its last picture was sorted by, and its id."""

    value: SortValue
    id: int


class Sorted(NamedTuple):
    """A picture and its position in a listing."""

    position: SortPosition
    entry: Entry


def sort_text(text: str) -> str:
    """What a text is sorted by: dates as instants, before all other texts."""
    # Most texts are told from dates by their first characters.
    date = instant(text) if text[:4].isdecimal() else None
    return f"0{date}" if date is not None else f"1{_plain(text[:CHARS])}"


def _plain(text: str) -> str:
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def sort_value(entry: Mapping[str, Any], order: OrderBy) -> SortValue:
    """What an entry is sorted by; ``entry`` is a mapping as in `index.conditions`."""
    if order.key == "id":
        return int(entry["id"])
    values = [_value(found) for found in scalars_of(entry, order.key)]
    if not values:
        return None
    return (max if order.descending else min)(values, key=_rank)


def first_of(
    entries: Iterable[tuple[SortValue, Entry]],
    order: OrderBy,
    limit: int,
    after: SortPosition | None = None,
) -> list[Sorted]:
    """The first ``limit`` after a position, of entries that come with what they are sorted by."""
    missing: list[Entry] = []

    def present() -> Iterator[tuple[SortValue, Entry]]:
        for value, entry in entries:
            if after is not None and not _follows(SortPosition(value, entry.id), after, order):
                continue
            if value is None:
                missing.append(entry)
            else:
                yield value, entry

    if order.descending:
        best = heapq.nlargest(limit, present(), key=lambda one: (_rank(one[0]), -one[1].id))
    else:
        best = heapq.nsmallest(limit, present(), key=lambda one: (_rank(one[0]), one[1].id))
    found = [Sorted(SortPosition(value, entry.id), entry) for value, entry in best]
    rest = heapq.nsmallest(limit - len(found), missing, key=lambda entry: entry.id)
    return found + [Sorted(SortPosition(None, entry.id), entry) for entry in rest]


def _follows(position: SortPosition, after: SortPosition, order: OrderBy) -> bool:
    if position.value is None or after.value is None:
        if (position.value is None) != (after.value is None):
            return position.value is None
        return position.id > after.id
    here, there = _rank(position.value), _rank(after.value)
    return position.id > after.id if here == there else (here > there) != order.descending


def _value(found: Scalar) -> SortValue:
    return sort_text(found) if isinstance(found, str) else found


def _rank(value: SortValue) -> tuple[int, Any]:
    """A key by which values of all types compare."""
    if isinstance(value, bool):
        return 2, value
    return (1, value) if isinstance(value, str) else (0, value)
