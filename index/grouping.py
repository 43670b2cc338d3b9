"""Neighbours grouped by a field: the nearest groups, and the nearest pictures of each."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.conditions import scalars_of
from index.continuation import Place, Search, ranked
from index.neighbours import MAX_K, Ids, Scores
from index.payload import Scalar

_FIRST_FETCH = 64
_GROWTH = 4


class Members(NamedTuple):
    """Which picture is in which group.

    ``values``: the groups' values in their fixed order; ``ids`` int64 (m,) and ``codes`` int64
    (m,), the position of a value, one pair for each membership, by code and then by id.
    """

    values: tuple[Scalar, ...]
    ids: Ids
    codes: NDArray[np.int64]

    def of(self, code: int) -> Ids:
        """The ids in one group, ascending."""
        start, end = np.searchsorted(self.codes, (code, code + 1))
        return self.ids[start:end]


class Head(NamedTuple):
    """A group's nearest picture, and the position of the group's value."""

    place: Place
    code: int


def order_of(value: Scalar) -> tuple[str, Scalar]:
    """What values are sorted by: booleans, then numbers, then text."""
    if isinstance(value, bool):
        return "boolean", value
    return ("number", value) if isinstance(value, int | float) else ("text", value)


def members(entries: Mapping[int, Mapping[str, Any]], key: str) -> Members:
    """Group pictures by the field ``key``, from its column or payload.

    A list puts its picture into the group of each element; pictures without the field, or with
    null or an object there, are in none. ``true`` is not 1, but 1 is 1.0, as in filters.
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
    """The groups, nearest first: each by its nearest picture, as brute force would find it.

    Groups with the same nearest picture come in the order of their values.

    Args:
        search: asks the index; exact for allowed ids.
        of: which picture is in which group.
        wanted: about how many groups will be asked for.
        without: values of groups to leave out.
    """
    known = {order_of(value) for value in without}
    left = np.array([order_of(value) not in known for value in of.values], bool)
    by_id = np.argsort(of.ids, kind="stable")  # codes ascend among equal ids
    fetch = min(max(_FIRST_FETCH, _GROWTH * wanted), MAX_K)
    while True:
        # What is only in groups that are known already cannot be the nearest of another.
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
                    yield Head(Place(score, found), code)
        if len(ids) < fetch:
            return
        fetch = min(_GROWTH * fetch, MAX_K)


def nearest_of(search: Search, of: Members, code: int, size: int) -> tuple[Scores, Ids]:
    """The at most ``size`` nearest pictures of one group: scores (m,), ids (m,)."""
    return ranked(search, size, of.of(code))
