"""The record in Milvus: writes that are in its log, and in its storage, before they return.

Milvus has no transactions and compares nothing before it writes, so writers take turns: see
`index.milvus.lease`. An id is a hash of its source; the same key has the same id whichever process
adds it, and no counter is shared.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from index.catalogue import KEEP, Keep, ModelChangedError
from index.filters import Filter
from index.milvus.connection import WINDOW, Connection
from index.milvus.copying import DELETED
from index.milvus.expressions import listed
from index.milvus.generations import Generation, Generations, now
from index.milvus.lease import Lease
from index.milvus.ledger import Ledger
from index.milvus.paging import VECTORS_AT_ONCE, in_parts
from index.milvus.reading import FORGOTTEN, META, MilvusReader
from index.milvus.rows import (
    ALL,
    PROBES,
    candidate_ids,
    entry_of,
    row,
    vectors_of,
    with_id,
)
from index.milvus.staging import MilvusStaging
from index.neighbours import (
    IdsLike,
    IndexInputError,
    UnknownIdError,
    Vectors,
    as_ids,
    as_vectors,
)
from index.payload import Payload, check_payload, check_text
from index.records import Entry, Record, optional_text, row_from_record
from index.stores import StateGoneError


class MilvusRecord(MilvusReader):
    """See `index.stores.RecordOfAll`; all methods may be called from several threads.

    Raises MilvusUnavailableError where Milvus cannot answer. A write that ends so may have been
    done; repeated, it changes nothing more.
    """

    def __init__(
        self, connection: Connection, ledger: Ledger, generations: Generations, writing: Lease
    ) -> None:
        super().__init__(connection, ledger, generations)
        self._writing = writing
        self.staging = MilvusStaging(connection, ledger, generations, writing)
        self._flushing = threading.Lock()
        self._written = 0
        self._flushed = 0

    def close(self) -> None:
        """Nothing: the connection is closed by who opened it."""

    def upsert(
        self, records: Sequence[Record], embeddings: Vectors, model_digest: str
    ) -> list[int]:
        """Store the records with ``embeddings`` float32 (n, d); return their ids in order.

        A source that is stored already gets the new fields. Up to 2,000 records are stored
        together; of more, some may be if this raises.

        Raises as `index.catalogue.Catalogue.upsert` does.
        """
        xb = _matrix(embeddings)
        if len(xb) != len(records):
            raise IndexInputError(f"got {len(records)} records for {len(xb)} embeddings")
        for i, record in enumerate(records):
            row_from_record(record, f"records[{i}]")
        sources = [record.source for record in records]
        if len(set(sources)) != len(sources):
            raise IndexInputError("a source is given more than once; expected each source once")
        if not records:
            return []
        with self._turn():
            generation = self._of_model(model_digest, xb)
            stored = self._places(generation, sources)
            sequence = now()
            ids: list[int] = []
            rows: list[dict[str, Any]] = []
            taken: set[int] = set()
            for record, vector in zip(records, xb, strict=True):
                id_ = _place(record, stored, taken)
                taken.add(id_)
                ids.append(id_)
                rows.append(row(with_id(record, id_), vector, sequence, sequence))
            self._upsert(generation, rows)
            self._ledger.remove(FORGOTTEN, [r.source for r in records if r.origin == "corpus"])
        self._durable(generation)
        return ids

    def embed(
        self,
        ids: IdsLike,
        embeddings: Vectors,
        model_digest: str,
        content_hashes: Sequence[str | None],
    ) -> int:
        """Give stored ids new embeddings; see `index.catalogue.Catalogue.embed`."""
        xb = _matrix(embeddings)
        wanted = as_ids(ids).tolist()
        with self._turn():
            generation = self._of_model(model_digest, xb)
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
                if i in found
            ]
            self._upsert(generation, rows)
        self._durable(generation)
        return len(rows)

    def update(
        self,
        ids: IdsLike,
        *,
        label: str | Literal[Keep.KEEP] | None = KEEP,
        split: str | Literal[Keep.KEEP] | None = KEEP,
        payload: Payload | None = None,
        replace_payload: bool = False,
        by_hand: bool = False,
    ) -> int:
        """Change fields of these ids; see `index.catalogue.Catalogue.update`."""
        changes: dict[str, Any] = {
            name: optional_text(value, name)
            for name, value in (("label", label), ("split", split))
            if value is not KEEP
        }
        if payload is not None:
            check_payload(payload)
        wanted = np.unique(as_ids(ids)).tolist()
        with self._turn():
            generation = self._generations.current()
            if generation is None:
                raise UnknownIdError(wanted, "the catalogue")
            known = {int(r["id"]) for r in self._rows(generation, wanted, ["id"])}
            missing = [i for i in wanted if i not in known]
            if missing:
                raise UnknownIdError(missing, "the catalogue")
            sequence = now()
            for part in in_parts(wanted, VECTORS_AT_ONCE):
                rows = []
                for found in self._rows(generation, part, ALL):
                    entry = entry_of(found)
                    values = dict(changes)
                    if values and by_hand:
                        values["edited"] = True
                    if payload is not None:
                        values["payload"] = (
                            dict(payload) if replace_payload else {**entry.payload, **payload}
                        )
                    vector = vectors_of([found], generation.dimension)[0]
                    changed = row(
                        replace(entry, **values), vector, sequence, int(found["embedded_at"])
                    )
                    rows.append({**changed, "embedded": bool(found["embedded"])})
                self._upsert(generation, rows)
        self._durable(generation)
        return len(wanted)

    def delete(self, ids: IdsLike, *, remember: bool = False) -> int:
        """Delete these ids and return how many there were. Unknown ids are ignored.

        With ``remember`` a picture of the corpus stays deleted: `forgotten_sources` names it.
        """
        wanted = np.unique(as_ids(ids)).tolist()
        with self._turn():
            generation = self._generations.current()
            if generation is None:
                return 0
            deleted = self._delete(generation, wanted, remember)
        self._durable(generation)
        return deleted

    def delete_where(self, where: Filter) -> list[int]:
        """Delete what matches, remembering it as `delete` does; return the ids, ascending."""
        with self._turn():
            generation = self._generations.current()
            if generation is None:
                return []
            ids: list[int] = self.ids(where).tolist()
            self._delete(generation, ids, True)
        self._durable(generation)
        return ids

    def set_meta(self, key: str, value: str) -> None:
        """Store a value, for example the corpus name, in the place of an earlier one."""
        check_text(key, "key")
        check_text(value, "value")
        self._ledger.put(META, {key: value}, now())

    def _delete(self, generation: Generation, ids: Sequence[int], remember: bool) -> int:
        deleted = 0
        for part in in_parts(ids, WINDOW):
            found = [entry_of(r) for r in self._rows(generation, part, ["id", "fields"])]
            sequence = now()
            # Noted before it is done: whoever copies the collection must learn of it.
            self._ledger.put(DELETED, {str(e.id): e.id for e in found}, sequence)
            if remember:
                sources = {e.source: e.source for e in found if e.origin == "corpus"}
                self._ledger.put(FORGOTTEN, sources, sequence)
            self._writing.check()
            self._connection.delete(generation.name, [e.id for e in found])
            deleted += len(found)
        return deleted

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """This process's turn to write."""
        with self._writing.held():
            yield
        self._changed()

    def _of_model(self, model_digest: str, xb: Vectors) -> Generation:
        """The generation to write embeddings to; made if there is none."""
        check_text(model_digest, "model_digest")
        generation = self._generations.current()
        if generation is None:
            generation = self._generations.begin(model_digest, xb.shape[1], "exact")
            self._generations.switch(generation)
        if generation.model != model_digest:
            raise ModelChangedError(
                f"the store holds embeddings of the model {generation.model}, these are of "
                f"{model_digest}; embed with the model in use, or change the model as a whole"
            )
        if len(xb) and xb.shape[1] != generation.dimension:
            raise IndexInputError(
                f"embeddings has {xb.shape[1]} dimensions; model {model_digest} has stored "
                f"{generation.dimension}"
            )
        return generation

    def _places(self, generation: Generation, sources: Sequence[str]) -> dict[int, Entry]:
        """What is stored under the ids that these sources may have."""
        ids = sorted({i for source in sources for i in candidate_ids(source)})
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

    def _durable(self, generation: Generation) -> None:
        """Return once everything written before is in Milvus's storage, if that is wanted.

        Those who wait at the same time share one flush.
        """
        if not self._connection.settings.flush:
            return
        with self._counting:
            self._written += 1
            mine = self._written
        with self._flushing:
            if self._flushed >= mine:
                return
            with self._counting:
                upto = self._written
            try:
                self._connection.flush(generation.name)
                self._ledger.flush()
            except StateGoneError:
                # Replaced by a copy, which was flushed before it took the place.
                if not self._ledger.exists():
                    raise
            self._flushed = upto


def _place(record: Record, stored: dict[int, Entry], taken: set[int]) -> int:
    """The record's id: its own where it is stored already, else the first that is free."""
    places = candidate_ids(record.source)
    for place in places:
        entry = stored.get(place)
        if entry is not None and entry.source == record.source:
            if entry.origin != record.origin:
                raise IndexInputError(
                    f"the source {record.source!r} is stored with another origin than "
                    f"{record.origin!r}; use another name"
                )
            return place
    for place in places:
        if place not in stored and place not in taken:
            return place
    raise IndexInputError(
        f"{PROBES} other pictures have the ids of {record.source!r}; use another name"
    )


def _matrix(embeddings: Vectors) -> Vectors:
    if not isinstance(embeddings, np.ndarray) or embeddings.ndim != 2:
        raise IndexInputError("embeddings is not a matrix; expected float32 (n, d)")
    return as_vectors(embeddings, embeddings.shape[1], "embeddings")
