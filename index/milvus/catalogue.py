"""The catalogue in Milvus: before a write returns, it is in Milvus's log and its storage.

Milvus has neither transactions nor compare-and-set, so writers exclude each other with a lease: see
`index.milvus.lease`. An id is a hash of the source, so a source has the same id whichever process
adds it, and no counter is shared.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.conditions import COLUMNS, Filter
from index.contract import (
    KEEP,
    NO_ID,
    Change,
    EngineCannotError,
    Ids,
    IdsLike,
    IndexInputError,
    Members,
    ModelChangedError,
    Purged,
    Quota,
    StateGoneError,
    Trashed,
    Undeleted,
    UnknownIdError,
    Vectors,
)
from index.filters import check_key, check_order
from index.milvus.connection import WINDOW, Connection, Row
from index.milvus.copying import DELETED, state_of, vectors_in
from index.milvus.expressions import listed
from index.milvus.generations import Generation, Generations, now
from index.milvus.lease import Lease
from index.milvus.ledger import Ledger
from index.milvus.matching import Matching
from index.milvus.paging import VECTORS_AT_ONCE, in_parts, scan
from index.milvus.rows import (
    ALL,
    EMBEDDED,
    PROBES,
    as_mapping,
    candidate_ids,
    entry_of,
    row,
    vectors_of,
    with_id,
)
from index.milvus.staging import MilvusStaging
from index.payload import (
    FieldChanges,
    check_number,
    check_sources,
    check_text,
    other_origin,
    storable,
)
from index.ranking.groups import members
from index.records import NO_STAMP, Entry, Origin, Payload, PayloadBounds, Record, Stamp
from index.scans import UNBOUNDED
from index.sorting import OrderBy, Sorted, SortPosition, first_of, sort_value
from index.vectors import SAME, as_embeddings, as_ids

log = logging.getLogger(__name__)

_ATTEMPTS = 5
_CACHED_TIMES = 20
_TOMBSTONE = "forgotten"
_META = "meta"
_STAMP = "stamp"
_RENAMED = "renamed"
"""The ids of sources that were given to pictures with another one's id."""
Result = TypeVar("Result")


class MilvusTrash:
    """Unsupported: a collection has rows that searches find, and no others."""

    available = False

    def page(self, after_id: int, limit: int) -> list[Trashed]:
        raise _no_trash()

    def count(self) -> int:
        return 0

    def last(self) -> list[int]:
        raise _no_trash()

    def restore(self, ids: IdsLike, quota: Quota = Quota()) -> Undeleted:
        raise _no_trash()

    def surplus(self, before: float, pictures: int, size: int) -> list[int]:
        return []

    def purge(self, ids: IdsLike | None) -> Purged:
        raise _no_trash()


class MilvusCatalogue:
    """Implements `index.contract.Catalogue`; thread-safe.

    Every method may raise MilvusUnavailableError. A write that raises it may have been done;
    repeating it is harmless.
    """

    def __init__(
        self, connection: Connection, ledger: Ledger, generations: Generations, writing: Lease
    ) -> None:
        self.bounds = PayloadBounds()
        self.scans = UNBOUNDED
        self._connection = connection
        self._ledger = ledger
        self._generations = generations
        self._writing = writing
        self.staging = MilvusStaging(connection, ledger, generations, writing)
        self.trash = MilvusTrash()
        self._lock = threading.Lock()
        self._cached_counts: tuple[str, float, dict[str, dict[str, int]]] | None = None
        self._flushing = threading.Lock()
        self._written = 0
        self._flushed = 0

    def close(self) -> None:
        """Do nothing: the connection is closed by whoever opened it."""

    def upsert(
        self,
        records: Sequence[Record],
        embeddings: Vectors,
        model_digest: str,
        quota: Quota = Quota(),
        *,
        only_new: bool = False,
        expected: Sequence[Entry | None] | None = None,
    ) -> list[int]:
        """See `index.contract.Catalogue.upsert`.

        At most 2,048 records are stored atomically; of more, some may be stored if this raises.
        """
        self.check_quota(records, quota)
        xb = as_embeddings(embeddings)
        records = storable(records, len(xb), self.bounds)
        sources = [record.source for record in records]
        if not records:
            return []
        with self._exclusive():
            generation = self._generation_of(model_digest, xb)
            stored = self._stored(generation, sources)
            sequence = now()
            ids: list[int] = []
            rows: list[dict[str, Any]] = []
            taken: set[int] = set()
            gone = self.tombstones() if only_new else set()
            known = {entry.source: entry for entry in stored.values()}
            if expected is not None:
                wanted = zip(records, expected, strict=True)
                gone |= {r.source for r, entry in wanted if known.get(r.source) != entry}
            left_out = gone | known.keys() if only_new else gone
            for record, vector in zip(records, xb, strict=True):
                if record.source in left_out:
                    ids.append(NO_ID)
                    continue
                id_ = _id_for(record, known, stored, taken)
                taken.add(id_)
                ids.append(id_)
                rows.append(row(with_id(record, id_), vector, sequence, sequence))
            self._upsert(generation, rows)
            revived = [r.source for r in records if r.origin == "corpus" and r.source not in gone]
            self._ledger.remove(_TOMBSTONE, revived)
        self._flush(generation)
        return ids

    def embed(
        self,
        ids: IdsLike,
        embeddings: Vectors,
        model_digest: str,
        content_hashes: Sequence[str | None],
        *,
        only_same: bool = False,
    ) -> int:
        xb = as_embeddings(embeddings)
        wanted = as_ids(ids).tolist()
        with self._exclusive():
            generation = self._generation_of(model_digest, xb)
            found = {int(r["id"]): r for r in self._rows(generation, wanted, ALL)}
            sequence = now()
            rows = [
                row(
                    replace(entry_of(found[i]), content_hash=content),
                    vector,
                    sequence,
                    sequence,
                )
                for i, vector, content in zip(wanted, xb, content_hashes, strict=True)
                if i in found and (not only_same or entry_of(found[i]).content_hash == content)
            ]
            self._upsert(generation, rows)
        self._flush(generation)
        return len(rows)

    def update(
        self,
        ids: IdsLike,
        *,
        label: Change = KEEP,
        split: Change = KEEP,
        payload: Payload | None = None,
        payloads: Mapping[int, Payload] | None = None,
        replace_payload: bool = False,
        by_hand: bool = False,
        expected: Sequence[Entry] | None = None,
    ) -> int:
        changes = FieldChanges(
            label, split, payload, replace_payload, by_hand, self.bounds, payloads
        )
        wanted = np.unique(as_ids(ids)).tolist()
        with self._exclusive():
            generation = self._generations.current()
            if generation is None:
                raise UnknownIdError(wanted, "the catalogue")
            if expected is None:
                known = {int(r["id"]) for r in self._rows(generation, wanted, ["id"])}
                missing = [i for i in wanted if i not in known]
            else:
                stored = map(entry_of, self._rows(generation, wanted, ["id", "fields"]))
                same = {entry.id: entry for entry in stored}
                wanted = [entry.id for entry in expected if same.get(entry.id) == entry]
                missing = []
            if missing:
                raise UnknownIdError(missing, "the catalogue")
            sequence = now()
            for part in in_parts(wanted, VECTORS_AT_ONCE):
                rows = []
                for found in self._rows(generation, part, ALL):
                    entry = entry_of(found)
                    entry = replace(entry, **changes.of(entry))
                    (vector,) = vectors_of([found], generation.dimension)
                    embedded_at, embedded = int(found["embedded_at"]), bool(found["embedded"])
                    rows.append(row(entry, vector, sequence, embedded_at, embedded=embedded))
                self._upsert(generation, rows)
        self._flush(generation)
        return len(wanted)

    def rename(self, sources: Mapping[int, str]) -> list[int]:
        """See `index.contract.Catalogue.rename`.

        At most 2,048 are renamed atomically; of more, some may be renamed if this raises.
        """
        check_sources(list(sources.values()))
        with self._exclusive():
            generation = self._generations.current()
            if generation is None:
                return []
            wanted = self._renamable(generation, sources)
            # Ids are found by hashing the source; these no longer are. Recorded first, so that
            # nobody who adds a picture misses one.
            self._ledger.put(
                _RENAMED,
                {new: [new, id_] for id_, new in wanted.items() if id_ not in candidate_ids(new)},
                sequence := now(),
            )
            for part in in_parts(sorted(wanted), VECTORS_AT_ONCE):
                rows = []
                for found in self._rows(generation, part, ALL):
                    entry = replace(entry_of(found), source=wanted[int(found["id"])])
                    (vector,) = vectors_of([found], generation.dimension)
                    embedded_at, embedded = int(found["embedded_at"]), bool(found["embedded"])
                    rows.append(row(entry, vector, sequence, embedded_at, embedded=embedded))
                self._upsert(generation, rows)
        self._flush(generation)
        return sorted(wanted)

    def _renamable(self, generation: Generation, sources: Mapping[int, str]) -> dict[int, str]:
        rows = self._rows(generation, sorted(sources), ["id", "fields"])
        wanted = {
            entry.id: sources[entry.id]
            for entry in map(entry_of, rows)
            if entry.origin == "corpus" and entry.source != sources[entry.id]
        }
        names = list(wanted.values())
        stored = self._stored(generation, names).values()
        taken = {entry.source: entry.id for entry in stored}
        taken |= dict.fromkeys(self._ledger.some(_TOMBSTONE, names), NO_ID)
        # Who keeps its source, because another has the one it wants, may keep a third from moving.
        while blocked := [id_ for id_, new in wanted.items() if taken.get(new, id_) not in wanted]:
            for id_ in blocked:
                del wanted[id_]
        return wanted

    def stamps(self) -> dict[int, Stamp]:
        found = {id_: (Stamp(*stamp), hash_) for id_, *stamp, hash_ in self._ledger.all(_STAMP)}
        if not found:
            return {}
        return {
            entry.id: found[entry.id][0] if found[entry.id][1] == entry.content_hash else NO_STAMP
            for entry in self._all()
            if entry.id in found
        }

    def set_stamps(
        self,
        found: Mapping[int, Stamp],
        content_hashes: Mapping[int, str | None] | None = None,
    ) -> None:
        generation = self._generations.current()
        if generation is None:
            return
        rows = self._rows(generation, sorted(found), ["id", "fields"])
        stored = {entry.id: entry.content_hash for entry in map(entry_of, rows)}
        self._ledger.put(
            _STAMP,
            {
                str(id_): [id_, *found[id_], hash_]
                for id_, hash_ in stored.items()
                if content_hashes is None or content_hashes.get(id_) == hash_
            },
            now(),
        )

    def delete(self, ids: IdsLike, *, tombstone: bool = False) -> int:
        wanted = np.unique(as_ids(ids)).tolist()
        with self._exclusive():
            generation = self._generations.current()
            if generation is None:
                return 0
            deleted = self._delete(generation, wanted, tombstone)
        self._flush(generation)
        return deleted

    def delete_where(self, where: Filter) -> list[int]:
        with self._exclusive():
            generation = self._generations.current()
            if generation is None:
                return []
            ids: list[int] = self.ids(where).tolist()
            self._delete(generation, ids, True)
        self._flush(generation)
        return ids

    def set_meta(self, key: str, value: str) -> None:
        check_text(key, "key")
        check_text(value, "value")
        self._ledger.put(_META, {key: value}, now())

    def cached(self, id_: int) -> Entry | None:
        """None, because nothing is cached."""
        return None

    def get(self, ids: IdsLike) -> list[Entry]:
        wanted = as_ids(ids).tolist()
        found = {entry.id: entry for entry in self.find(list(dict.fromkeys(wanted)))}
        missing = [i for i in dict.fromkeys(wanted) if i not in found]
        if missing:
            raise UnknownIdError(missing, "the catalogue")
        return [found[i] for i in wanted]

    def find(self, ids: IdsLike) -> list[Entry]:
        wanted = np.unique(as_ids(ids)).tolist()

        def read(generation: Generation) -> list[Entry]:
            return [entry_of(row) for row in self._rows(generation, wanted, ["id", "fields"])]

        return sorted(self._read(read, list), key=lambda entry: entry.id)

    def of_sources(self, sources: Sequence[str]) -> dict[str, Entry]:
        asked = set(sources)

        def read(generation: Generation) -> dict[str, Entry]:
            found = self._stored(generation, list(asked)).values()
            return {entry.source: entry for entry in found if entry.source in asked}

        return self._read(read, dict)

    def page(self, after_id: int, limit: int, where: Filter | None = None) -> list[Entry]:
        if limit < 1:
            raise IndexInputError(f"limit is {limit}; expected 1 or more")
        check_number(after_id, "after_id")
        check_number(limit, "limit")

        def read(generation: Generation) -> list[Entry]:
            found: list[Entry] = []
            matching = self._matching(generation, where)
            for entries in matching.entries(max(after_id, -1), min(max(limit, 512), WINDOW)):
                found += entries
                if len(found) >= limit:
                    break
            return found[:limit]

        return self._read(read, list)

    def sorted_page(
        self,
        order: OrderBy,
        limit: int,
        where: Filter | None = None,
        after: SortPosition | None = None,
    ) -> list[Sorted]:
        check_order(order, limit)

        def read(generation: Generation) -> list[Sorted]:
            matching = self._matching(generation, where or Filter())
            entries = (entry for some in matching.entries() for entry in some)
            valued = ((sort_value(as_mapping(entry), order), entry) for entry in entries)
            return first_of(valued, order, limit, after)

        return self._read(read, list)

    def count(self, where: Filter | None = None) -> int:
        return self._read(lambda g: self._matching(g, where).total(), int)

    def ids(self, where: Filter | None = None) -> Ids:
        return self._read(lambda g: self._matching(g, where).ids(), _no_ids)

    def _matching(self, generation: Generation, where: Filter | None) -> Matching:
        return Matching(self._connection, generation.name, where, self.scans)

    def matching(self, where: Filter) -> IdsLike:

        def read(generation: Generation) -> IdsLike:
            return self._matching(generation, where)

        return self._read(read, _no_ids)

    def members(self, key: str, where: Filter | None = None) -> Members:
        check_key(key, "group_by")

        def read(generation: Generation) -> Members:
            matching = self._matching(generation, where)
            return members(
                {
                    entry.id: {key: getattr(entry, key)} if key in COLUMNS else as_mapping(entry)
                    for entries in matching.entries()
                    for entry in entries
                },
                key,
            )

        return self._read(read, lambda: members({}, key))

    def embeddings(self, model_digest: str) -> tuple[Ids, Vectors]:

        def read(generation: Generation) -> tuple[Ids, Vectors]:
            if generation.model != model_digest:
                return _no_ids(), np.empty((0, 0), np.float32)
            return vectors_in(self._connection, generation)

        return self._read(read, lambda: (_no_ids(), np.empty((0, 0), np.float32)))

    def unchanged(
        self,
        ids: IdsLike,
        embeddings: Vectors,
        model_digest: str,
        content_hashes: Sequence[str | None],
    ) -> NDArray[np.bool_]:
        wanted = as_ids(ids).tolist()

        def read(generation: Generation) -> NDArray[np.bool_]:
            same = np.zeros(len(wanted), bool)
            if (generation.model, generation.dimension) != (model_digest, embeddings.shape[1]):
                return same
            rows = self._rows(generation, wanted, ["id", "embedded", "fields", "vector"])
            stored = {int(row["id"]): row for row in rows if row["embedded"]}
            for position, id_ in enumerate(wanted):
                if id_ not in stored:
                    continue
                content = entry_of(stored[id_]).content_hash
                (vector,) = vectors_of([stored[id_]], generation.dimension)
                same[position] = (
                    content is not None
                    and content == content_hashes[position]
                    and float(vector @ embeddings[position]) >= SAME
                )
            return same

        return self._read(read, lambda: np.zeros(len(wanted), bool))

    def check_quota(self, records: Sequence[Record], quota: Quota) -> None:
        if quota.pictures or quota.size:
            raise EngineCannotError(
                "a store in Milvus does not count what is added; leave out max_added_pictures and "
                "max_added_bytes, or set a quota where its pictures are"
            )

    def usage(self) -> None:
        return None

    def measure(self, size_of: Callable[[str], int | None]) -> int:
        return 0

    def model(self) -> str | None:
        generation = self._generations.current()
        return None if generation is None else generation.model

    def tombstones(self) -> set[str]:
        return set(self._ledger.all(_TOMBSTONE))

    def forget_tombstones(self) -> None:
        with self._exclusive():
            self._ledger.remove(_TOMBSTONE, sorted(self.tombstones()))

    def known_sources(self, model_digest: str) -> dict[str, int]:
        if self.model() != model_digest:
            return {}
        return {e.source: e.id for e in self._all(EMBEDDED)}

    def all_sources(self, origin: Origin | None = None) -> dict[str, int]:
        return {e.source: e.id for e in self._all() if origin in (None, e.origin)}

    def content_hashes(self, origin: Origin) -> set[str]:
        return {e.content_hash for e in self._all() if e.origin == origin and e.content_hash}

    def model_digests(self) -> dict[str, int]:
        """Only the model in use, with the number of embeddings it made."""

        def read(generation: Generation) -> dict[str, int]:
            return {generation.model: self._connection.count(generation.name, EMBEDDED)}

        return self._read(read, dict)

    def label_counts(self) -> dict[str, int]:
        return dict(self._counts()["label"])

    def split_counts(self) -> dict[str, int]:
        return dict(self._counts()["split"])

    def get_meta(self, key: str) -> str | None:
        value = self._ledger.get(_META, key)
        return None if value is None else str(value)

    def usable(self) -> bool:
        """Whether the ledger can be read now."""
        return self._ledger.usable()

    def check(self) -> str | None:
        """None: Milvus has checksums of its own; see `MilvusStore.verify`."""
        return None

    def _delete(self, generation: Generation, ids: Sequence[int], tombstone: bool) -> int:
        deleted = 0
        for part in in_parts(ids, WINDOW):
            found = [entry_of(r) for r in self._rows(generation, part, ["id", "fields"])]
            sequence = now()
            # Recorded first, so that whoever is copying the collection learns of it.
            self._ledger.put(DELETED, {str(e.id): [e.id, sequence] for e in found}, sequence)
            if tombstone:
                sources = {e.source: e.source for e in found if e.origin == "corpus"}
                self._ledger.put(_TOMBSTONE, sources, sequence)
            self._writing.check()
            self._connection.delete(generation.name, [e.id for e in found])
            self._ledger.remove(_STAMP, [str(e.id) for e in found])
            deleted += len(found)
        return deleted

    def repeat_deletions(self) -> int:
        """Delete again what was deleted but is still stored; return how many.

        A server that was killed may lose deletions that it had acknowledged, but not additions
        (observed with 2.3.5). The ledger, which is only added to, has a record of them.
        """
        gone = {int(id_): int(sequence) for id_, sequence in self._ledger.all(DELETED)}
        generation = self._generations.current()
        if generation is None or not gone:
            return 0
        if not self._undeleted(generation, gone):
            return 0
        with self._exclusive():
            generation = self._generations.current() or generation
            back = self._undeleted(generation, gone)
            self._writing.check()
            for part in in_parts(back, WINDOW):
                self._connection.delete(generation.name, part)
        if back:
            log.warning("deleted %d pictures again, whose deletion Milvus had lost", len(back))
        return len(back)

    def _undeleted(self, generation: Generation, gone: dict[int, int]) -> list[int]:
        """The ids that are stored as they were before they were deleted."""
        found = state_of(self._connection, generation, sorted(gone))
        return [id_ for id_, (sequence, _) in found.items() if sequence < gone[id_]]

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the writer lease."""
        with self._writing.hold():
            yield
        self._invalidate_counts()

    def _generation_of(self, model_digest: str, xb: Vectors) -> Generation:
        """The generation for embeddings of this model, created if there is none."""
        check_text(model_digest, "model_digest")
        generation = self._generations.current()
        if generation is None:
            generation = self._generations.create(model_digest, xb.shape[1], "exact")
            self._generations.switch(generation)
        if generation.model != model_digest:
            raise ModelChangedError(
                f"the store holds embeddings of the model {generation.model}, these are of "
                f"{model_digest}; embed with the model in use, or switch the store to that model"
            )
        if len(xb) and xb.shape[1] != generation.dimension:
            raise IndexInputError(
                f"embeddings has {xb.shape[1]} dimensions; model {model_digest} has stored "
                f"{generation.dimension}"
            )
        return generation

    def _stored(self, generation: Generation, sources: Sequence[str]) -> dict[int, Entry]:
        """The entries stored under the ids that these sources may have."""
        renamed = self._ledger.some(_RENAMED, sources).values()
        ids = sorted(
            {i for source in sources for i in candidate_ids(source)} | {i for _, i in renamed}
        )
        found: dict[int, Entry] = {}
        for part in in_parts(ids, WINDOW):
            rows = self._connection.query(
                generation.name, listed(part), ["id", "fields"], len(part)
            )
            found |= {entry.id: entry for entry in map(entry_of, rows)}
        return found

    def _upsert(self, generation: Generation, rows: Sequence[dict[str, Any]]) -> None:
        for start in range(0, len(rows), VECTORS_AT_ONCE):
            self._writing.check()
            self._connection.upsert(generation.name, rows[start : start + VECTORS_AT_ONCE])

    def _flush(self, generation: Generation) -> None:
        """Wait until everything written so far is in Milvus's storage, if the settings require it.

        Concurrent callers share one flush.
        """
        if not self._connection.settings.flush:
            return
        with self._lock:
            self._written += 1
            mine = self._written
        with self._flushing:
            if self._flushed >= mine:
                return
            with self._lock:
                upto = self._written
            try:
                self._connection.flush(generation.name)
                self._ledger.flush()
            except StateGoneError:
                # Replaced by a copy, which was flushed before the switch.
                if not self._ledger.exists():
                    raise
            self._flushed = upto

    def _read(self, read: Callable[[Generation], Result], nothing: Callable[[], Result]) -> Result:
        """Read from the current generation, again if it is replaced meanwhile."""
        for attempt in range(_ATTEMPTS):
            generation = self._generations.current()
            if generation is None:
                return nothing()
            try:
                return read(generation)
            except StateGoneError:
                if attempt == _ATTEMPTS - 1:
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

        return self._read(read, list)

    def _counts(self) -> dict[str, dict[str, int]]:
        """The counts of labels and splits, cached for twenty times as long as counting takes."""
        generation = self._generations.current()
        name = "" if generation is None else generation.name
        with self._lock:
            counted = self._cached_counts
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
            self._cached_counts = (name, began + took + _CACHED_TIMES * took, found)
            return found

    def _invalidate_counts(self) -> None:
        with self._lock:
            self._cached_counts = None


def _id_for(
    record: Record, known: Mapping[str, Entry], stored: Mapping[int, Entry], taken: set[int]
) -> int:
    """The id of a record: its own if the source is ``known``, else the first candidate not taken.

    ``stored`` are the entries by id.
    """
    entry = known.get(record.source)
    if entry is not None:
        if entry.origin != record.origin:
            raise other_origin(record)
        return entry.id
    for candidate in candidate_ids(record.source):
        if candidate not in stored and candidate not in taken:
            return candidate
    raise IndexInputError(
        f"{PROBES} other pictures have the ids of {record.source!r}; use another name"
    )


def _no_trash() -> EngineCannotError:
    return EngineCannotError(
        "a store in Milvus has no trash: what is deleted there is deleted for good, and its"
        " files go at the next compaction"
    )


def _no_ids() -> Ids:
    return np.empty(0, np.int64)
