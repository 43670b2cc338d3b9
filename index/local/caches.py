"""Caches of what was read from the catalogue, invalidated by writes.

Reading an entry and verifying its checksum costs as much as a search, and a filter or grouping
reads a large part of the catalogue, while searches request the same ones again and again.
"""

import threading
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeVar

from index.conditions import Filter
from index.contract import Ids, Members
from index.local.catalogue import SqliteCatalogue
from index.local.history import Moment
from index.records import Entry

K = TypeVar("K")
T = TypeVar("T", Ids, Members)

_MAX_TOUCHED = 1000
_NEVER = Moment("", -1)


class EntryCache:
    """Implements `index.contract.Entries`: recently requested entries, always up to date.

    Every call reads the catalogue's present state, which takes some microseconds, and drops what
    any process has changed since the previous call. An entry is the same object until it changes.
    Thread-safe.
    """

    def __init__(self, catalogue: SqliteCatalogue, size: int) -> None:
        """Keep at most ``size`` entries of ``catalogue``; the oldest are dropped first."""
        self._catalogue = catalogue
        self._size = size
        self._lock = threading.Lock()
        self._moment = _NEVER
        self._entries: dict[int, Entry] = {}

    def cached(self, id_: int) -> Entry | None:
        return self._entries.get(id_) if self._catalogue.moment() == self._moment else None

    def get(self, ids: Sequence[int]) -> list[Entry]:
        moment = self._refresh()
        entries = self._entries
        found = {i: entries.get(i) for i in ids}
        missing = [i for i, entry in found.items() if entry is None]
        if missing:
            read = self._catalogue.get(missing)
            found.update({entry.id: entry for entry in read})
            with self._lock:
                # After a write that other threads have already seen, this may be outdated.
                if self._moment == moment:
                    self._entries.update({entry.id: entry for entry in read})
                    for i in list(islice(self._entries, max(len(self._entries) - self._size, 0))):
                        del self._entries[i]
        return [entry for i in ids if (entry := found[i]) is not None]

    def _refresh(self) -> Moment:
        """Drop what has changed; return the state of the catalogue in which the rest is valid."""
        moment = self._catalogue.moment()
        if moment == self._moment:
            return moment
        with self._lock:
            moment, touched = self._catalogue.touched(self._moment, _MAX_TOUCHED)
            if touched is None:
                self._entries = {}
            else:
                changed = set(touched)
                self._entries = {i: e for i, e in self._entries.items() if i not in changed}
            self._moment = moment
        return moment


class SelectionCache:
    """Implements `index.contract.Selections`: the latest selections, always up to date.

    Every call reads the catalogue's present state. Thread-safe.
    """

    def __init__(self, catalogue: SqliteCatalogue, size: int) -> None:
        """Keep at most ``size`` filters and groupings each, of 8 and 16 bytes per picture."""
        self._catalogue = catalogue
        self._size = size
        self._lock = threading.Lock()
        self._moment = _NEVER
        self._ids: dict[Filter, Ids] = {}
        self._members: dict[tuple[str, Filter | None], Members] = {}

    def matching(self, where: Filter) -> Ids:
        """The ids that match, int64 (n,), ascending; read-only by convention."""
        return self._cached(self._ids, where, lambda: self._catalogue.ids(where))

    def members(self, key: str, where: Filter | None = None) -> Members:
        return self._cached(
            self._members, (key, where), lambda: self._catalogue.members(key, where)
        )

    def _cached(self, cache: "dict[K, T]", key: K, read: Callable[[], T]) -> T:
        moment = self._catalogue.moment()
        with self._lock:
            if moment != self._moment:
                self._ids.clear()
                self._members.clear()
                self._moment = moment
            found = cache.get(key)
        if found is None:
            found = read()
            with self._lock:
                # It was read after this write or a later one; later is fine as long as no
                # thread has seen that later write.
                if self._moment == moment:
                    while len(cache) >= max(self._size, 1):
                        del cache[next(iter(cache))]
                    cache[key] = found
        return found
