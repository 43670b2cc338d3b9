"""Neighbours grouped by a field: the nearest groups, and the nearest pictures in each."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from index.conditions import scalars_of
from index.contract import MAX_K, Ids, Members, Scores
from index.ranking.resume import RankPosition, Search, ranked
from index.records import Scalar
from index.vectors import FIRST_FETCH, GROWTH


class Head(NamedTuple):
    """A group's nearest picture, and the position of the group's value."""

    position: RankPosition
    code: int


def order_of(value: Scalar) -> tuple[str, Scalar]:
    """The sort key of a value: booleans first, then numbers, then text."""
    if isinstance(value, bool):
        return "boolean", value
    return ("number", value) if isinstance(value, int | float) else ("text", value)


def members(entries: Mapping[int, Mapping[str, Any]], key: str) -> Members:
    """Group pictures by the field ``key``, a column or part of the payload.

    A picture with a list is in the group of each element; a picture without the field, or with
    null or an object in it, is in none. ``true`` is not 1, but 1 is 1.0, as in filters.
    """
    found: dict[tuple[str, Scalar], list[int]] = {}
    for entry_id, entry in entries.items():
        for value in scalars_of(entry, key):
            found.setdefault(order_of(value), []).append(entry_id)
    words = sorted(found)
    # A list may hold a value twice.
    ids = [np.unique(np.array(found[word], np.int64)) for word in words]
    empty = np.empty(0, np.int64)
    return Members(
        tuple(value for _, value in words),
        np.concatenate([empty, *ids]),
        np.repeat(np.arange(len(words), dtype=np.int64), [len(group) for group in ids]),
    )


def heads(
    search: Search, of: Members, wanted: int, without: Iterable[Scalar] = ()
) -> Iterator[Head]:
    """Yield the groups ordered by their nearest pictures, as brute force would find them.

    Groups with the same nearest picture are ordered by value.

    Args:
        search: queries the index; exact for allowed ids.
        of: which picture is in which group.
        wanted: about how many groups the caller will consume.
        without: values of groups to leave out.
    """
    known = {order_of(value) for value in without}
    left = np.array([order_of(value) not in known for value in of.values], bool)
    by_id = np.argsort(of.ids, kind="stable")  # codes ascend among equal ids
    fetch = min(max(FIRST_FETCH, GROWTH * wanted), MAX_K)
    while True:
        # A picture that is only in groups already seen cannot be the nearest of a new one.
        open_ids = np.unique(of.ids[left[of.codes]])
        if not len(open_ids):
            return
        scores, ids = ranked(search, fetch, open_ids)
        starts = np.searchsorted(of.ids, ids, "left", by_id)
        ends = np.searchsorted(of.ids, ids, "right", by_id)
        for score, found, start, end in zip(
            scores.tolist(), ids.tolist(), starts, ends, strict=True
        ):
            for code in of.codes[by_id[start:end]].tolist():
                if left[code]:
                    left[code] = False
                    yield Head(RankPosition(score, found), code)
        if len(ids) < fetch:
            return
        fetch = min(GROWTH * fetch, MAX_K)


def nearest_of(search: Search, of: Members, code: int, size: int) -> tuple[Scores, Ids]:
    """At most ``size`` nearest pictures of one group: scores (m,), ids (m,)."""
    return ranked(search, size, of.of(code))
