"""Searching one collection.

Milvus finds candidates in float32; they are rescored from the vectors that it returns, as
`index.ann.scan` does for FAISS. So a pair of pictures has the same score in every engine, and equal
scores are ordered by id. Queries are checked here, because for NaN or a wrong dimension Milvus
returns nothing, or anything, or an error of its own after a second.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.contract import (
    NO_ID,
    Ids,
    IdsLike,
    Neighbours,
    Scores,
    UnknownIdError,
    Vectors,
)
from index.milvus.connection import WINDOW, Connection, Row
from index.milvus.expressions import both, listed
from index.milvus.generations import Generation
from index.milvus.matching import Matching
from index.milvus.paging import VECTORS_AT_ONCE, in_parts
from index.milvus.rows import EMBEDDED, entry_of, padded, vectors_of
from index.records import Entry
from index.vectors import GROWTH, SPARE, TIE, as_allowed, as_ids, as_vectors, check_k, cosine

_LEAST_EF = 256
_MAX_LISTED = 10_000
_MAX_WITH_ENTRIES = 1_024


class MilvusIndex:
    """Implements `index.contract.StoreIndex` for one generation; remembers the entries it finds."""

    def __init__(self, connection: Connection, generation: Generation) -> None:
        self._connection = connection
        self._generation = generation
        self._name = generation.name
        # What the model could not embed is stored, but never found.
        self._hidden = EMBEDDED if generation.unembedded else ""
        self._seen: dict[int, Entry] = {}

    @property
    def dimension(self) -> int:
        return self._generation.dimension

    @property
    def kind(self) -> str:
        return self._generation.kind

    @property
    def added(self) -> int:
        """Always 0: there is no delta, Milvus indexes additions itself."""
        return 0

    @property
    def masked(self) -> int:
        """Always 0, for the same reason."""
        return 0

    def count(self) -> int:
        return self._connection.count(self._name, self._hidden)

    def ids(self) -> Ids:
        return self.all_ids().ids()

    def has(self, ids: IdsLike) -> NDArray[np.bool_]:
        wanted = as_ids(ids)
        stored = [
            int(r["id"])
            for part in in_parts(wanted.tolist(), WINDOW)
            for r in self._rows(part, ["id"])
        ]
        found: NDArray[np.bool_] = np.isin(wanted, stored)
        return found

    def all_ids(self) -> Matching:
        return Matching(self._connection, self._name, None)

    def found(self, ids: Sequence[int]) -> list[Entry] | None:
        """The entries, if searches of this object have found all of them, else None."""
        seen = self._seen
        return [seen[i] for i in ids] if all(i in seen for i in ids) else None

    def vectors(self, ids: IdsLike) -> Vectors:
        wanted = as_ids(ids)
        unique, where = np.unique(wanted, return_inverse=True)
        found = np.zeros(len(unique), bool)
        stored = np.empty((len(unique), self.dimension), np.float32)
        for part in in_parts(unique.tolist(), VECTORS_AT_ONCE):
            rows = self._rows(part, ["id", "vector"], self._hidden)
            at = np.searchsorted(unique, [int(r["id"]) for r in rows])
            stored[at] = vectors_of(rows, self.dimension)
            found[at] = True
        if not found.all():
            raise UnknownIdError(wanted[~found[where]].tolist(), "the index")
        xb: Vectors = stored[where]
        return xb

    def search(self, xq: Vectors, k: int, allowed: IdsLike | None = None) -> Neighbours:
        """See `index.contract.Searchable.search`.

        Exact if the collection's kind is ``exact``. If it is ``hnsw``, exact among listed ids, and
        with a filter that at most 10,000 pictures match.
        """
        xq = as_vectors(xq, self.dimension, "xq")
        k = check_k(k)
        if not len(xq):
            return _empty(0, k)
        if allowed is None:
            return self._nearest(xq, k, self.all_ids())
        if isinstance(allowed, Matching):
            if self.kind != "exact" and not allowed.unfiltered:
                few = self._connection.count(self._name, allowed.expression.wide)
                if few <= _MAX_LISTED:
                    return self._among(xq, k, allowed.ids())
            return self._nearest(xq, k, allowed)
        listed_ids = as_allowed(allowed)
        if self.kind == "exact" and len(listed_ids) > _MAX_LISTED:
            return self._nearest_of_many(xq, k, listed_ids)
        return self._among(xq, k, listed_ids)

    def _nearest(self, xq: Vectors, k: int, matching: Matching) -> Neighbours:
        """By Milvus's filtered search, fetching more until the best ``k`` are certain."""
        fetch = min(k + SPARE, WINDOW)
        answer = _empty(len(xq), k)
        left = np.arange(len(xq))
        while len(left):
            with_entries = fetch <= _MAX_WITH_ENTRIES or not matching.expression.exact
            hits = self._hits(xq[left], fetch, matching.expression.wide, with_entries)
            again = []
            for query, found in zip(left.tolist(), hits, strict=True):
                scores, ids, floor = self._scored(xq[query], found, matching, with_entries)
                more = self._more(found, fetch, matching)
                enough = len(ids) >= k and scores[k - 1] - floor > TIE
                if more and not enough and fetch < WINDOW:
                    again.append(query)
                elif more and len(ids) < k:
                    # Even among the most hits that Milvus returns, too few match the filter itself.
                    scores, ids = self._best_among(xq[query], k, matching.ids())
                _put(answer, query, scores, ids)
            left = np.array(again, np.int64)
            fetch = min(GROWTH * fetch, WINDOW)
        return answer

    def _more(self, found: Sequence[Row], fetch: int, matching: Matching) -> bool:
        """Whether there may be further hits."""
        if len(found) == fetch or self.kind == "exact":
            return len(found) == fetch
        # A graph search may end before reaching everything that matches.
        where = both(matching.expression.wide, self._hidden)
        return len(found) < self._connection.count(self._name, where)

    def _scored(
        self, query: Vectors, found: Sequence[Row], matching: Matching, with_entries: bool
    ) -> tuple[Scores, Ids, float]:
        """Scores and ids of the hits that match, best first; and the lowest score of any hit."""
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
        """Among many listed ids: from the nearest of all if these suffice, else by brute force."""
        hits = self._hits(xq, WINDOW, "", False)
        answer = _empty(len(xq), k)
        for query, found in enumerate(hits):
            scores, ids, floor = self._scored(xq[query], found, self.all_ids(), False)
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
        """Brute force over listed ids: scores and ids, best first."""
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
        # With ef < fetch, a graph search returns fewer than fetch.
        params = {"ef": max(2 * fetch, _LEAST_EF)} if self.kind == "hnsw" else {}
        if params:
            params["ef"] = min(params["ef"], 32_768)
        queries = np.stack([padded(query) for query in xq])
        return self._connection.search(
            self._name, queries, fetch, both(where, self._hidden), fields, params
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
