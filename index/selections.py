"""What filters and groupings pick, kept while nothing is written.

Reading it from the catalogue walks through a large part of it, and pages of one ranking, or
searches of one kind, ask for the same again and again.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from index.filters import Filter
from index.grouping import Members
from index.neighbours import Ids
from index.reading import CatalogueReader

K = TypeVar("K")
T = TypeVar("T", Ids, Members)


class Selections:
    """The last few selections of a catalogue; safe to use from several threads.

    Every call looks at the catalogue's sequence number, so none is older than the call.
    """

    def __init__(self, catalogue: CatalogueReader, most: int) -> None:
        """Keep at most ``most`` of filters and groupings each; 8 and 16 bytes a picture."""
        self._catalogue = catalogue
        self._most = most
        self._lock = threading.Lock()
        self._sequence = -1
        self._ids: dict[Filter, Ids] = {}
        self._members: dict[tuple[str, Filter | None], Members] = {}

    def matching(self, where: Filter) -> Ids:
        """The ids that match, int64 (n,), ascending; not to be changed."""
        return self._kept(self._ids, where, lambda: self._catalogue.ids(where))

    def members(self, key: str, where: Filter | None = None) -> Members:
        """What matches, grouped by the field ``key``; see `CatalogueReader.members`."""
        return self._kept(self._members, (key, where), lambda: self._catalogue.members(key, where))

    def _kept(self, kept: "dict[K, T]", key: K, read: Callable[[], T]) -> T:
        sequence = self._catalogue.sequence()
        with self._lock:
            if sequence != self._sequence:
                self._ids.clear()
                self._members.clear()
                self._sequence = sequence
            found = kept.get(key)
        if found is None:
            found = read()
            with self._lock:
                # As old as the number at least, and whatever is younger is right as well, as long
                # as nobody has learnt of a later write meanwhile.
                if self._sequence == sequence:
                    while len(kept) >= max(self._most, 1):
                        del kept[next(iter(kept))]
                    kept[key] = found
        return found
