"""Entries kept in memory: reading one from the catalogue, and its checksum, costs a search dear."""

import threading
from collections.abc import Sequence
from itertools import islice

from index.reading import CatalogueReader
from index.records import Entry

_MOST_TOUCHED = 1000


class EntryCache:
    """The entries that were asked for last, as of the catalogue's present state.

    Every call looks at the catalogue's sequence number, some microseconds, and forgets what any
    process has changed since the call before. The same object is given for an entry as long as it
    does not change. Safe to use from several threads.
    """

    def __init__(self, catalogue: CatalogueReader, most: int) -> None:
        """Keep at most ``most`` entries of ``catalogue``; those kept longest go first."""
        self._catalogue = catalogue
        self._most = most
        self._lock = threading.Lock()
        self._sequence = -1
        self._known: dict[int, Entry] = {}

    def known(self, id_: int) -> Entry | None:
        """The entry as it is now if it is in memory and nothing has changed; never waits long."""
        return self._known.get(id_) if self._catalogue.sequence() == self._sequence else None

    def get(self, ids: Sequence[int]) -> list[Entry]:
        """The entries in the order given. Raises UnknownIdError that names the missing ids."""
        sequence = self._follow()
        known = self._known
        found = {i: known.get(i) for i in ids}
        missing = [i for i, entry in found.items() if entry is None]
        if missing:
            read = self._catalogue.get(missing)
            found.update({entry.id: entry for entry in read})
            with self._lock:
                # What was read before a write that others know of already may be older than it.
                if self._sequence == sequence:
                    self._known.update({entry.id: entry for entry in read})
                    for i in list(islice(self._known, max(len(self._known) - self._most, 0))):
                        del self._known[i]
        return [entry for i in ids if (entry := found[i]) is not None]

    def _follow(self) -> int:
        """Forget what has changed; the sequence number as of which the rest is good."""
        sequence = self._catalogue.sequence()
        if sequence == self._sequence:
            return sequence
        with self._lock:
            after = self._sequence
            sequence, touched = self._catalogue.touched(after, _MOST_TOUCHED)
            # A number below the last one: the file was put back from a backup.
            if touched is None or sequence < after:
                self._known = {}
            else:
                gone = set(touched)
                self._known = {i: e for i, e in self._known.items() if i not in gone}
            self._sequence = sequence
        return sequence
