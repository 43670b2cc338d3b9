"""Publishing generations: a new collection is filled while the current one serves, then switched to
atomically."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from index.contract import Ids, JobControl, Scores, StateGoneError, Vectors
from index.milvus.catalogue import MilvusCatalogue
from index.milvus.connection import Connection, MilvusUnavailableError
from index.milvus.copying import DELETED, MARGIN, catch_up, copy_all
from index.milvus.generations import Generation, Generations, now, resolve_kind
from index.milvus.lease import Lease
from index.milvus.ledger import Ledger
from index.milvus.search import MilvusIndex

_QUERIES = 64
_K = 10
_FEW = 1_000
_PASSES = 10


class Publisher:
    """Publishes generations; the caller must hold the builder lease."""

    def __init__(
        self,
        connection: Connection,
        ledger: Ledger,
        generations: Generations,
        catalogue: MilvusCatalogue,
        writing: Lease,
    ) -> None:
        self._connection = connection
        self._ledger = ledger
        self._generations = generations
        self._catalogue = catalogue
        self._writing = writing

    def publish(
        self,
        model_digest: str,
        dimension: int,
        kind: str,
        control: JobControl,
    ) -> Generation | None:
        """See `index.contract.Store.publish`."""
        current = self._generations.current()
        if current is None:
            current = self._generations.create(model_digest, dimension, "exact")
            self._generations.switch(current)
        total = self._connection.count(current.name)
        control.progress("indexing", 0, total)
        wanted = resolve_kind(kind, total)
        fresh = not current.ready or current.name == self._catalogue.staging.promoted
        if fresh and current.kind == wanted:
            # It was filled just now, so no copy is needed.
            self._connection.flush(current.name)
            done = current if current.ready else self._generations.mark_ready(current, None)
        else:
            copied = self._copied(current, wanted, total, control)
            if copied is None:
                return None
            done = copied
        self._catalogue.staging.promoted = None
        self._generations.drop_old(self._catalogue.staging.names())
        control.progress("indexing", total, total)
        return done

    def _copied(
        self,
        current: Generation,
        kind: str,
        total: int,
        control: JobControl,
    ) -> Generation | None:
        began = now()
        fresh = self._generations.create(current.model, current.dimension, kind)
        try:
            whole = copy_all(
                self._connection,
                current,
                fresh,
                lambda done: control.progress("indexing", min(done, total), total),
                control.cancelled,
            )
            if not whole or control.cancelled():
                self._discard(fresh)
                return None
            since = began
            for _ in range(_PASSES):
                before, since = since, now()
                if self._catch_up(current, fresh, before) < _FEW:
                    break
            self._connection.flush(fresh.name)
            recall = self._recall(fresh) if kind != "exact" else None
            with self._writing.hold():
                self._catch_up(current, fresh, before)
                self._connection.flush(fresh.name)
                ready = self._generations.mark_ready(fresh, recall)
                self._writing.check()
                self._generations.switch(ready)
        except BaseException:
            with suppress(MilvusUnavailableError, StateGoneError):
                self._abandon(fresh)
            raise
        old = [str(id_) for id_, _ in self._ledger.all(DELETED, before=began - 2 * MARGIN)]
        self._ledger.remove(DELETED, old)
        return ready

    def _catch_up(self, source: Generation, target: Generation, since: int) -> int:
        return catch_up(self._connection, self._ledger, source, target, since)

    def _recall(self, generation: Generation) -> dict[str, float] | None:
        """The share of the true 10 nearest that a search finds, over a sample of stored vectors."""
        index = MilvusIndex(self._connection, generation)
        ids, xb = self._catalogue.embeddings(generation.model)
        if len(ids) <= _K:
            return None
        rows = np.random.default_rng(0).permutation(len(ids))[:_QUERIES]
        found = index.search(xb[rows], _K).ids
        shares = [
            float(np.isin(_nearest(ids, xb, xb[r]), found[i]).mean()) for i, r in enumerate(rows)
        ]
        return {"k": _K, "value": round(float(np.mean(shares)), 6), "queries": len(rows)}

    def _discard(self, generation: Generation) -> None:
        self._connection.drop(generation.name)

    def _abandon(self, generation: Generation) -> None:
        """Drop an incomplete collection, unless it has become the current one after all."""
        current = self._generations.current()
        if current is None or current.name != generation.name:
            self._discard(generation)


def _nearest(ids: Ids, xb: Vectors, query: Vectors) -> Ids:
    scores: Scores = xb @ query
    order = np.argpartition(-scores, _K)[:_K]
    return ids[order]
