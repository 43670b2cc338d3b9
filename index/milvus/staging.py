"""Staged embeddings of a model not yet in use: a collection with copies of all fields, which
becomes the current one when the model is promoted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from index.contract import Ids, IdsLike, IndexInputError, Vectors
from index.milvus.connection import Connection, Row
from index.milvus.copying import (
    changed_since,
    delete_removed,
    state_of,
    states,
    vectors_in,
    with_vector,
)
from index.milvus.expressions import listed
from index.milvus.generations import Generation, Generations, now
from index.milvus.lease import Lease
from index.milvus.ledger import Ledger
from index.milvus.paging import VECTORS_AT_ONCE, in_parts
from index.milvus.rows import ALL, EMBEDDED, STORED, entry_of
from index.vectors import as_embeddings, as_ids

_KIND = "staging"


class MilvusStaging:
    """Implements `index.contract.Staging`."""

    def __init__(
        self, connection: Connection, ledger: Ledger, generations: Generations, writing: Lease
    ) -> None:
        self._connection = connection
        self._ledger = ledger
        self._generations = generations
        self._writing = writing
        self.promoted: str | None = None
        """The collection that `promote` has just made current; publishing need not copy it."""

    def add(
        self,
        ids: IdsLike,
        embeddings: Vectors,
        model_digest: str,
        content_hashes: Sequence[str | None] | None = None,
    ) -> int:
        xb = as_embeddings(embeddings)
        current = self._generations.current()
        if current is None:
            return 0
        staged = self._generation(model_digest)
        if staged is None:
            staged = self._generations.create(model_digest, xb.shape[1], current.kind)
            self._ledger.put(_KIND, {model_digest: [model_digest, staged.name]}, now())
        wanted = as_ids(ids).tolist()
        vectors = dict(zip(wanted, xb, strict=True))
        hashes = {} if content_hashes is None else dict(zip(wanted, content_hashes, strict=True))
        stored = 0
        for part in in_parts(wanted, VECTORS_AT_ONCE):
            found = self._connection.query(current.name, listed(part), STORED, len(part))
            rows = [
                r for r in found if not hashes or entry_of(r).content_hash == hashes[int(r["id"])]
            ]
            self._connection.upsert(
                staged.name, [with_vector(r, vectors[int(r["id"])], embedded=True) for r in rows]
            )
            stored += len(rows)
        self._connection.flush(staged.name)
        return stored

    def missing(self, model_digest: str) -> Ids:
        current = self._generations.current()
        if current is None:
            return np.empty(0, np.int64)
        staged = self._generation(model_digest)
        found: list[int] = []
        for rows in states(self._connection, current):
            if current.model == model_digest:
                found += [int(row["id"]) for row in rows if not row["embedded"]]
                continue
            known = (
                {}
                if staged is None
                else state_of(self._connection, staged, [int(row["id"]) for row in rows])
            )
            # What was staged for a picture replaced since is obsolete.
            found += [
                int(row["id"])
                for row in rows
                if known.get(int(row["id"]), (0, -1))[1] != int(row["embedded_at"])
            ]
        return np.array(found, np.int64)

    def counts(self) -> dict[str, int]:
        return {
            digest: self._connection.count(name) for digest, name in sorted(self._ledger.all(_KIND))
        }

    def embeddings(self, model_digest: str) -> tuple[Ids, Vectors]:
        staged = self._generation(model_digest)
        if staged is None:
            return np.empty(0, np.int64), np.empty((0, 0), np.float32)
        return vectors_in(self._connection, staged)

    def promote(self, model_digest: str) -> int:
        """See `index.contract.Staging.promote`; searches use the new model from then on.

        Entries that the model could not embed stay, but are not found.
        """
        current = self._generations.current()
        staged = self._generation(model_digest)
        if current is None or current.model == model_digest:
            return 0
        if staged is None:
            if self._connection.count(current.name):
                raise IndexInputError(
                    f"nothing is staged for the model {model_digest}; embed with it first"
                )
            raise IndexInputError("the store is empty; add pictures before changing the model")
        began = now()
        self._update_fields(current, staged, 0)
        with self._writing.hold():
            self._update_fields(current, staged, began)
            self._connection.flush(staged.name)
            number = self._connection.count(staged.name, EMBEDDED)
            ready = self._generations.mark_ready(staged, None)
            self._writing.check()
            self._generations.switch(ready)
        self._ledger.remove(_KIND, [model_digest])
        self.promoted = ready.name
        return number

    def names(self) -> set[str]:
        """The names of the collections with staged embeddings."""
        return {name for _, name in self._ledger.all(_KIND)}

    def _update_fields(self, current: Generation, staged: Generation, since: int) -> None:
        """Update the copied fields with what was written after ``since``."""
        for part in in_parts(
            changed_since(self._connection, current, staged, since), VECTORS_AT_ONCE
        ):
            where = listed(part)
            copied = {
                int(row["id"]): row
                for row in self._connection.query(staged.name, where, ALL, len(part))
            }
            rows = self._connection.query(current.name, where, STORED, len(part))
            self._connection.upsert(
                staged.name,
                [self._row(row, copied.get(int(row["id"])), staged.dimension) for row in rows],
            )
        if since:
            delete_removed(self._connection, self._ledger, current, staged, since)
        else:
            self._delete_all_removed(current, staged)

    def _row(self, row: Row, staged: Row | None, dimension: int) -> dict[str, Any]:
        if staged is not None and int(staged["embedded_at"]) == int(row["embedded_at"]):
            return with_vector(row, staged["vector"], embedded=bool(staged["embedded"]))
        return with_vector(row, np.zeros(dimension, np.float32), embedded=False)

    def _delete_all_removed(self, current: Generation, staged: Generation) -> None:
        for rows in states(self._connection, staged):
            ids: Sequence[int] = [int(row["id"]) for row in rows]
            present = state_of(self._connection, current, ids)
            self._connection.delete(staged.name, [i for i in ids if i not in present])

    def _generation(self, model_digest: str) -> Generation | None:
        found = self._ledger.get(_KIND, model_digest)
        return None if found is None else self._generations.get(found[1])
