"""Making the next generation: a new collection, filled beside the one that answers, then switched
to in one step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np

from index.milvus.connection import Connection, MilvusUnavailableError
from index.milvus.copying import DELETED, MARGIN, catch_up, copy_all
from index.milvus.generations import Generation, Generations, chosen, now
from index.milvus.lease import Lease
from index.milvus.ledger import Ledger
from index.milvus.record import MilvusRecord
from index.milvus.search import MilvusIndex
from index.neighbours import Ids, Scores, Vectors
from index.stores import Progress, StateGoneError

_QUERIES = 64
_K = 10
_FEW = 1_000
_PASSES = 10


class Publisher:
    """Makes generations; whoever calls it holds the right to build."""

    def __init__(
        self,
        connection: Connection,
        ledger: Ledger,
        generations: Generations,
        record: MilvusRecord,
        writing: Lease,
    ) -> None:
        self._connection = connection
        self._ledger = ledger
        self._generations = generations
        self._record = record
        self._writing = writing

    def publish(
        self,
        model_digest: str,
        dimension: int,
        kind: str,
        progress: Progress,
        cancelled: Callable[[], bool],
    ) -> Generation | None:
        """See `index.stores.Store.publish`."""
        current = self._generations.current()
        if current is None:
            current = self._generations.begin(model_digest, dimension, "exact")
            self._generations.switch(current)
        total = self._connection.count(current.name)
        progress("indexing", 0, total)
        wanted = chosen(kind, total)
        as_it_is = not current.ready or current.name == self._record.staging.promoted
        if as_it_is and current.kind == wanted:
            # What was filled just now needs no copy.
            self._connection.flush(current.name)
            done = current if current.ready else self._generations.finish(current, None)
        else:
            copied = self._copied(current, wanted, total, progress, cancelled)
            if copied is None:
                return None
            done = copied
        self._record.staging.promoted = None
        self._generations.tidy(self._record.staging.names())
        progress("indexing", total, total)
        return done

    def _copied(
        self,
        current: Generation,
        kind: str,
        total: int,
        progress: Progress,
        cancelled: Callable[[], bool],
    ) -> Generation | None:
        began = now()
        fresh = self._generations.begin(current.model, current.dimension, kind)
        try:
            whole = copy_all(
                self._connection,
                current,
                fresh,
                lambda done: progress("indexing", min(done, total), total),
                cancelled,
            )
            if not whole or cancelled():
                self._discard(fresh)
                return None
            since = began
            for _ in range(_PASSES):
                before, since = since, now()
                if self._catch_up(current, fresh, before) < _FEW:
                    break
            self._connection.flush(fresh.name)
            recall = self._recall(fresh) if kind != "exact" else None
            with self._writing.held():
                self._catch_up(current, fresh, before)
                self._connection.flush(fresh.name)
                ready = self._generations.finish(fresh, recall)
                self._writing.check()
                self._generations.switch(ready)
        except BaseException:
            with suppress(MilvusUnavailableError, StateGoneError):
                self._abandon(fresh)
            raise
        old = [str(value) for value in self._ledger.all(DELETED, before=began - 2 * MARGIN)]
        self._ledger.remove(DELETED, old)
        return ready

    def _catch_up(self, source: Generation, target: Generation, since: int) -> int:
        return catch_up(self._connection, self._ledger, source, target, since)

    def _recall(self, generation: Generation) -> dict[str, float] | None:
        """Share of the true 10 nearest that a search finds, over some of the stored vectors."""
        index = MilvusIndex(self._connection, generation)
        ids, xb = self._record.embeddings(generation.model)
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
        """Drop what is half done, unless it has become the current one after all."""
        current = self._generations.current()
        if current is None or current.name != generation.name:
            self._discard(generation)


def _nearest(ids: Ids, xb: Vectors, query: Vectors) -> Ids:
    scores: Scores = xb @ query
    order = np.argpartition(-scores, _K)[:_K]
    return ids[order]
