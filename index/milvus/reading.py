"""What the record in Milvus can be asked; `index.milvus.record` writes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from index.conditions import COLUMNS
from index.filters import Filter, check_key
from index.grouping import Members, members
from index.milvus.connection import WINDOW, Connection, Row
from index.milvus.expressions import listed
from index.milvus.generations import Generation, Generations
from index.milvus.ledger import Ledger
from index.milvus.matching import Matching
from index.milvus.paging import VECTORS_AT_ONCE, in_parts, scan
from index.milvus.rows import as_mapping, entry_of, vectors_of
from index.milvus.search import EMBEDDED
from index.neighbours import Ids, IdsLike, IndexInputError, UnknownIdError, Vectors, as_ids
from index.payload import check_number
from index.reading import SAME
from index.records import Entry, Origin
from index.stores import StateGoneError

_TRIES = 5
_KEPT_TIMES = 20
FORGOTTEN = "forgotten"
META = "meta"
Answer = TypeVar("Answer")


class MilvusReader:
    """Reads one store; see `index.stores.RecordOfAll`. Before the first write it is empty."""

    def __init__(self, connection: Connection, ledger: Ledger, generations: Generations) -> None:
        self._connection = connection
        self._ledger = ledger
        self._generations = generations
        self._counting = threading.Lock()
        self._counted: tuple[str, float, dict[str, dict[str, int]]] | None = None

    def known(self, id_: int) -> Entry | None:
        """Nothing: Milvus is asked each time."""
        return None

    def get(self, ids: IdsLike) -> list[Entry]:
        """The entries in the order given. Raises UnknownIdError that names the missing ids."""
        wanted = as_ids(ids).tolist()
        found = {entry.id: entry for entry in self.find(list(dict.fromkeys(wanted)))}
        missing = [i for i in dict.fromkeys(wanted) if i not in found]
        if missing:
            raise UnknownIdError(missing, "the catalogue")
        return [found[i] for i in wanted]

    def find(self, ids: IdsLike) -> list[Entry]:
        """Those of these ids that are stored, by ascending id."""
        wanted = np.unique(as_ids(ids)).tolist()

        def read(generation: Generation) -> list[Entry]:
            return [entry_of(row) for row in self._rows(generation, wanted, ["id", "fields"])]

        return sorted(self._asked(read, list), key=lambda entry: entry.id)

    def page(self, after_id: int, limit: int, where: Filter | None = None) -> list[Entry]:
        """At most ``limit`` entries with an id above ``after_id``, by ascending id."""
        if limit < 1:
            raise IndexInputError(f"limit is {limit}; expected 1 or more")
        check_number(after_id, "after_id")
        check_number(limit, "limit")

        def read(generation: Generation) -> list[Entry]:
            found: list[Entry] = []
            matching = Matching(self._connection, generation.name, where)
            for entries in matching.entries(max(after_id, -1), min(max(limit, 512), WINDOW)):
                found += entries
                if len(found) >= limit:
                    break
            return found[:limit]

        return self._asked(read, list)

    def count(self, where: Filter | None = None) -> int:
        """The number of entries that match."""
        return self._asked(lambda g: Matching(self._connection, g.name, where).count(), int)

    def ids(self, where: Filter | None = None) -> Ids:
        """The ids that match, int64 (n,), ascending."""
        return self._asked(lambda g: Matching(self._connection, g.name, where).ids(), _no_ids)

    def matching(self, where: Filter) -> IdsLike:
        """The ids that match, listed only where they are needed."""

        def read(generation: Generation) -> IdsLike:
            return Matching(self._connection, generation.name, where)

        return self._asked(read, _no_ids)

    def members(self, key: str, where: Filter | None = None) -> Members:
        """What matches, grouped by the field ``key`` as in filters; reads all of it."""
        check_key(key, "group_by")

        def read(generation: Generation) -> Members:
            matching = Matching(self._connection, generation.name, where)
            return members(
                {
                    entry.id: {key: getattr(entry, key)} if key in COLUMNS else as_mapping(entry)
                    for entries in matching.entries()
                    for entry in entries
                },
                key,
            )

        return self._asked(read, lambda: members({}, key))

    def embeddings(self, model_digest: str) -> tuple[Ids, Vectors]:
        """All that this model made: ids int64 (n,) ascending, and float32 (n, d)."""

        def read(generation: Generation) -> tuple[Ids, Vectors]:
            if generation.model != model_digest:
                return _no_ids(), np.empty((0, 0), np.float32)
            return vectors_in(self._connection, generation)

        return self._asked(read, lambda: (_no_ids(), np.empty((0, 0), np.float32)))

    def unchanged(
        self,
        ids: IdsLike,
        embeddings: Vectors,
        model_digest: str,
        content_hashes: Sequence[str | None],
    ) -> NDArray[np.bool_]:
        """Of which of these ids just that is stored; see `CatalogueReader.unchanged`."""
        wanted = as_ids(ids).tolist()

        def read(generation: Generation) -> NDArray[np.bool_]:
            same = np.zeros(len(wanted), bool)
            if (generation.model, generation.dimension) != (model_digest, embeddings.shape[1]):
                return same
            rows = self._rows(generation, wanted, ["id", "embedded", "fields", "vector"])
            stored = {int(row["id"]): row for row in rows if row["embedded"]}
            for place, id_ in enumerate(wanted):
                if id_ not in stored:
                    continue
                content = entry_of(stored[id_]).content_hash
                (vector,) = vectors_of([stored[id_]], generation.dimension)
                same[place] = (
                    content is not None
                    and content == content_hashes[place]
                    and float(vector @ embeddings[place]) >= SAME
                )
            return same

        return self._asked(read, lambda: np.zeros(len(wanted), bool))

    def model(self) -> str | None:
        """The digest of the model whose embeddings are in use; None before the first."""
        generation = self._generations.current()
        return None if generation is None else generation.model

    def forgotten_sources(self) -> set[str]:
        """Sources of the corpus that were deleted by hand and shall stay so."""
        return set(self._ledger.all(FORGOTTEN))

    def known_sources(self, model_digest: str) -> dict[str, int]:
        """Source to id of everything that this model has embedded."""
        if self.model() != model_digest:
            return {}
        return {e.source: e.id for e in self._all(EMBEDDED)}

    def all_sources(self, origin: Origin | None = None) -> dict[str, int]:
        """Source to id of everything, or of everything with this origin."""
        return {e.source: e.id for e in self._all() if origin in (None, e.origin)}

    def content_hashes(self, origin: Origin) -> set[str]:
        """The content hashes of everything with this origin."""
        return {e.content_hash for e in self._all() if e.origin == origin and e.content_hash}

    def model_digests(self) -> dict[str, int]:
        """The model in use, and the number of embeddings it made."""

        def read(generation: Generation) -> dict[str, int]:
            return {generation.model: self._connection.count(generation.name, EMBEDDED)}

        return self._asked(read, dict)

    def label_counts(self) -> dict[str, int]:
        """Label to the number of entries that have it; entries without one are left out."""
        return dict(self._counts()["label"])

    def split_counts(self) -> dict[str, int]:
        """Split to the number of entries in it; entries without one are left out."""
        return dict(self._counts()["split"])

    def get_meta(self, key: str) -> str | None:
        """The value under ``key``, or None."""
        value = self._ledger.get(META, key)
        return None if value is None else str(value)

    def usable(self) -> bool:
        """Whether what is stored beside the pictures answers now."""
        return self._ledger.usable()

    def check(self) -> str | None:
        """What is wrong, or None. Milvus keeps checksums of its own; see `MilvusStore.verify`."""
        return None

    def _asked(self, read: Callable[[Generation], Answer], nothing: Callable[[], Answer]) -> Answer:
        """Read from the current generation, and again if it has been replaced meanwhile."""
        for attempt in range(_TRIES):
            generation = self._generations.current()
            if generation is None:
                return nothing()
            try:
                return read(generation)
            except StateGoneError:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def _rows(self, generation: Generation, ids: Sequence[int], fields: Sequence[str]) -> list[Row]:
        size = VECTORS_AT_ONCE if "vector" in fields else WINDOW
        return [
            row
            for part in in_parts([i for i in ids if i >= 0], size)
            for row in self._connection.query(generation.name, listed(part), fields, len(part))
        ]

    def _all(self, where: str = "") -> list[Entry]:
        def read(generation: Generation) -> list[Entry]:
            parts = scan(self._connection, generation.name, ["id", "fields"], where)
            return [entry_of(row) for rows in parts for row in rows]

        return self._asked(read, list)

    def _counts(self) -> dict[str, dict[str, int]]:
        """Labels and splits; kept for some twenty times as long as counting them takes."""
        generation = self._generations.current()
        name = "" if generation is None else generation.name
        with self._counting:
            counted = self._counted
            if counted is not None and counted[0] == name and time.monotonic() < counted[1]:
                return counted[2]
            began = time.monotonic()
            found: dict[str, dict[str, int]] = {"label": {}, "split": {}}
            for entry in self._all():
                for key, counts in found.items():
                    value = getattr(entry, key)
                    if value is not None:
                        counts[value] = counts.get(value, 0) + 1
            found = {key: dict(sorted(counts.items())) for key, counts in found.items()}
            took = time.monotonic() - began
            self._counted = (name, began + took + _KEPT_TIMES * took, found)
            return found

    def _changed(self) -> None:
        with self._counting:
            self._counted = None


def _no_ids() -> Ids:
    return np.empty(0, np.int64)


def vectors_in(connection: Connection, generation: Generation) -> tuple[Ids, Vectors]:
    """Everything that the generation's model has embedded: ids ascending, vectors."""
    ids: list[int] = []
    parts = [np.empty((0, generation.dimension), np.float32)]
    fields = ["id", "vector"]
    for rows in scan(connection, generation.name, fields, EMBEDDED, size=VECTORS_AT_ONCE):
        ids += [int(row["id"]) for row in rows]
        parts.append(vectors_of(rows, generation.dimension))
    return np.array(ids, np.int64), np.concatenate(parts)
