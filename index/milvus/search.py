"""Searching one collection: the `NeighbourIndex` contract over Milvus.

Milvus finds candidates in float32; they are scored again with the vectors that it gives back, as
`index.scan` does for FAISS, so that a pair of pictures has one score in every engine and equal
scores come in the order of ids. Queries are checked here: Milvus answers NaN or another dimension
with nothing, with anything, or after a second with an error of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.milvus.connection import WINDOW, Connection, Row
from index.milvus.expressions import both, listed
from index.milvus.generations import Generation, now
from index.milvus.matching import Matching
from index.milvus.paging import VECTORS_AT_ONCE, in_parts
from index.milvus.rows import entry_of, padded, row, vectors_of
from index.neighbours import (
    NO_ID,
    Ids,
    IdsLike,
    IndexInputError,
    Neighbours,
    Scores,
    UnknownIdError,
    Vectors,
    as_allowed,
    as_ids,
    as_new_ids,
    as_vectors,
    check_k,
    cosine,
)
from index.records import Entry
from index.scan import SPARE, TIE

EMBEDDED = "embedded == true"
_GROWTH = 4
_LEAST_EF = 256
_LISTED_AT_MOST = 10_000
_WITH_ENTRIES = 1_024


class MilvusIndex:
    """One generation's vectors; what it finds it remembers, so that nobody has to ask again."""

    def __init__(self, connection: Connection, generation: Generation) -> None:
        self._connection = connection
        self._generation = generation
        self._name = generation.name
        # What the model could not embed is stored, and never found.
        self._hidden = EMBEDDED if generation.unembedded else ""
        self._seen: dict[int, Entry] = {}

    @property
    def dimension(self) -> int:
        """The length d of every vector."""
        return self._generation.dimension

    @property
    def kind(self) -> str:
        """``exact`` or ``hnsw``."""
        return self._generation.kind

    @property
    def added(self) -> int:
        """Always 0: Milvus has no part beside its index."""
        return 0

    @property
    def masked(self) -> int:
        """Always 0, likewise."""
        return 0

    def count(self) -> int:
        """The number of vectors that a search may find now."""
        return self._connection.count(self._name, self._hidden)

    def ids(self) -> Ids:
        """All stored ids, int64 (n,), ascending; reads all of them."""
        return self.everything().ids()

    def has(self, ids: IdsLike) -> NDArray[np.bool_]:
        """Which of these ids are stored, bool (n,)."""
        wanted = as_ids(ids)
        stored = [
            int(r["id"])
            for part in in_parts(wanted.tolist(), WINDOW)
            for r in self._rows(part, ["id"])
        ]
        found: NDArray[np.bool_] = np.isin(wanted, stored)
        return found

    def everything(self) -> Matching:
        """All ids, listed only where they are needed."""
        return Matching(self._connection, self._name, None)

    def known(self, ids: Sequence[int]) -> list[Entry] | None:
        """The entries, if a search of this object has found all of them."""
        seen = self._seen
        return [seen[i] for i in ids] if all(i in seen for i in ids) else None

    def add(self, ids: IdsLike, xb: Vectors) -> None:
        """Store bare vectors; see `NeighbourIndex.add`. `MilvusRecord.upsert` stores pictures."""
        xb = as_vectors(xb, self.dimension, "xb")
        new = as_new_ids(ids, len(xb)).tolist()
        stored = [int(r["id"]) for part in in_parts(new, WINDOW) for r in self._rows(part, ["id"])]
        if stored:
            raise IndexInputError(f"ids already stored: {sorted(stored)[:10]}; remove them first")
        sequence = now()
        rows = [
            row(Entry(f"id:{i}", id=i), vector, sequence, sequence)
            for i, vector in zip(new, xb, strict=True)
        ]
        for start in range(0, len(rows), VECTORS_AT_ONCE):
            self._connection.upsert(self._name, rows[start : start + VECTORS_AT_ONCE])

    def remove(self, ids: IdsLike) -> int:
        """Remove these ids and return how many were stored."""
        removed = 0
        for part in in_parts(np.unique(as_ids(ids)).tolist(), WINDOW):
            stored = [int(r["id"]) for r in self._rows(part, ["id"])]
            self._connection.delete(self._name, stored)
            removed += len(stored)
        return removed

    def vectors(self, ids: IdsLike) -> Vectors:
        """Return the vectors, float32 (n, d), in the order given; raises UnknownIdError."""
        wanted = as_ids(ids)
        xb = np.empty((len(wanted), self.dimension), np.float32)
        unique, where = np.unique(wanted, return_inverse=True)
        found = np.zeros(len(unique), bool)
        stored = np.empty((len(unique), self.dimension), np.float32)
        for part in in_parts(unique.tolist(), VECTORS_AT_ONCE):
            rows = self._rows(part, ["id", "vector"], self._hidden)
            places = np.searchsorted(unique, [int(r["id"]) for r in rows])
            stored[places] = vectors_of(rows, self.dimension)
            found[places] = True
        if not found.all():
            raise UnknownIdError(wanted[~found[where]].tolist(), "the index")
        xb[:] = stored[where]
        return xb

    def search(self, xq: Vectors, k: int, allowed: IdsLike | None = None) -> Neighbours:
        """Find the ``k`` nearest to each query; see `NeighbourIndex.search`.

        Exact in a collection of the kind ``exact``. In one of the kind ``hnsw`` it is so under
        listed ids, and under a filter that 10,000 pictures or fewer match.
        """
        xq = as_vectors(xq, self.dimension, "xq")
        k = check_k(k)
        if not len(xq):
            return _empty(0, k)
        if allowed is None:
            return self._nearest(xq, k, self.everything())
        if isinstance(allowed, Matching):
            if self.kind != "exact" and not allowed.everything:
                few = self._connection.count(self._name, allowed.expression.wide)
                if few <= _LISTED_AT_MOST:
                    return self._among(xq, k, allowed.ids())
            return self._nearest(xq, k, allowed)
        listed_ids = as_allowed(allowed)
        if self.kind == "exact" and len(listed_ids) > _LISTED_AT_MOST:
            return self._nearest_of_many(xq, k, listed_ids)
        return self._among(xq, k, listed_ids)

    def _nearest(self, xq: Vectors, k: int, matching: Matching) -> Neighbours:
        """By Milvus's search under the expression, asked for more until enough is certain."""
        fetch = min(k + SPARE, WINDOW)
        answer = _empty(len(xq), k)
        left = np.arange(len(xq))
        while len(left):
            with_entries = fetch <= _WITH_ENTRIES or not matching.expression.exact
            hits = self._hits(xq[left], fetch, matching.expression.wide, with_entries)
            again = []
            for query, found in zip(left.tolist(), hits, strict=True):
                scores, ids, floor = self._scored(xq[query], found, matching, with_entries)
                more = self._more(found, fetch, matching)
                enough = len(ids) >= k and scores[k - 1] - floor > TIE
                if more and not enough and fetch < WINDOW:
                    again.append(query)
                elif more and len(ids) < k:
                    # Of what Milvus gives at once, too little was a match after all.
                    scores, ids = self._best_among(xq[query], k, matching.ids())
                _put(answer, query, scores, ids)
            left = np.array(again, np.int64)
            fetch = min(_GROWTH * fetch, WINDOW)
        return answer

    def _more(self, found: Sequence[Row], fetch: int, matching: Matching) -> bool:
        """Whether there may be further hits beyond these."""
        if len(found) == fetch or self.kind == "exact":
            return len(found) == fetch
        # A graph may end before everything that matches was met.
        where = both(matching.expression.wide, self._hidden)
        return len(found) < self._connection.count(self._name, where)

    def _scored(
        self, query: Vectors, found: Sequence[Row], matching: Matching, with_entries: bool
    ) -> tuple[Scores, Ids, float]:
        """Scores and ids of those hits that match, best first; and the least score of any hit."""
        ids = np.array([int(hit["id"]) for hit in found], np.int64)
        scores = cosine(vectors_of(found, self.dimension), query)
        floor = float(scores.min()) if len(scores) else -np.inf
        order = np.lexsort((ids, -scores))
        if with_entries:
            entries = {i: entry_of(hit) for i, hit in zip(ids.tolist(), found, strict=True)}
            kept = {i: entry for i, entry in entries.items() if matching.keeps(entry)}
            self._seen.update(kept)
            order = order[[i in kept for i in ids[order].tolist()]]
        return scores[order], ids[order], floor

    def _nearest_of_many(self, xq: Vectors, k: int, allowed: Ids) -> Neighbours:
        """Among many listed ids: by the best of all as far as they go, else one by one."""
        hits = self._hits(xq, WINDOW, "", False)
        answer = _empty(len(xq), k)
        for query, found in enumerate(hits):
            scores, ids, floor = self._scored(xq[query], found, self.everything(), False)
            inside = np.isin(ids, allowed)
            scores, ids = scores[inside], ids[inside]
            if len(found) == WINDOW and (len(ids) < k or scores[k - 1] - floor <= TIE):
                scores, ids = self._best_among(xq[query], k, allowed)
            _put(answer, query, scores, ids)
        return answer

    def _among(self, xq: Vectors, k: int, allowed: Ids) -> Neighbours:
        answer = _empty(len(xq), k)
        for query in range(len(xq)):
            _put(answer, query, *self._best_among(xq[query], k, allowed))
        return answer

    def _best_among(self, query: Vectors, k: int, allowed: Ids) -> tuple[Scores, Ids]:
        """Brute force over listed ids, whose vectors are read; scores and ids, best first."""
        scores, ids = np.empty(0, np.float32), np.empty(0, np.int64)
        for part in in_parts(allowed.tolist(), VECTORS_AT_ONCE):
            rows = self._rows(part, ["id", "vector"], self._hidden)
            near = cosine(vectors_of(rows, self.dimension), query)
            ids = np.concatenate((ids, np.array([int(r["id"]) for r in rows], np.int64)))
            scores = np.concatenate((scores, near))
            order = np.lexsort((ids, -scores))[:k]
            scores, ids = scores[order], ids[order]
        return scores, ids

    def _hits(self, xq: Vectors, fetch: int, where: str, with_entries: bool) -> list[list[Row]]:
        fields = ["id", "vector", "fields"] if with_entries else ["id", "vector"]
        # A graph that is searched with less than `fetch` gives less than that.
        params = {"ef": max(2 * fetch, _LEAST_EF)} if self.kind == "hnsw" else {}
        if params:
            params["ef"] = min(params["ef"], 32_768)
        asked = np.stack([padded(query) for query in xq])
        return self._connection.search(
            self._name, asked, fetch, both(where, self._hidden), fields, params
        )

    def _rows(self, ids: Sequence[int], fields: Sequence[str], where: str = "") -> list[Row]:
        if not len(ids):
            return []
        return self._connection.query(self._name, both(listed(ids), where), fields, len(ids))


def _empty(queries: int, k: int) -> Neighbours:
    return Neighbours(
        np.full((queries, k), -np.inf, np.float32), np.full((queries, k), NO_ID, np.int64)
    )


def _put(answer: Neighbours, query: int, scores: Scores, ids: Ids) -> None:
    k = answer.ids.shape[1]
    answer.scores[query] = -np.inf
    answer.ids[query] = NO_ID
    answer.scores[query, : len(scores[:k])] = scores[:k]
    answer.ids[query, : len(ids[:k])] = ids[:k]
