"""Recommendation: more like these examples and less like those."""

from typing import Literal, TypeAlias, get_args

import numpy as np

from index.contract import (
    MAX_K,
    NO_ID,
    Ids,
    IdsLike,
    IndexInputError,
    Neighbours,
    Scores,
    Searchable,
    UnknownIdError,
    Vectors,
)
from index.vectors import FIRST_FETCH, GROWTH, as_ids, as_vectors, check_k, cosine

Strategy: TypeAlias = Literal["average_vector", "best_score"]
_AT_ONCE = 8192
_SMALLEST_MEAN = 1e-6


def recommend(
    index: Searchable,
    positive: Vectors,
    negative: Vectors,
    strategy: Strategy,
    k: int,
    exclude: IdsLike,
    allowed: IdsLike | None = None,
) -> Neighbours:
    """Find vectors like ``positive`` (p, d) and unlike ``negative`` (m, d).

    ``average_vector``: one search for mean(positive) + (mean(positive) - mean(negative)),
    normalised, or for mean(positive) without negatives. ``best_score``: a stored vector scores its
    largest similarity to a positive if that exceeds its largest similarity to a negative, else
    minus the square of the latter; the result is that of brute force over all vectors.
    Source: https://qdrant.tech/documentation/concepts/explore/#recommendation-api

    Ids in ``exclude`` (often the examples themselves) are left out; with ``allowed``, so are all
    others than these. Returns scores and ids of shape (1, k).

    Raises IndexInputError without a positive, for an unknown strategy, for wrong vectors or
    ``k``, and for examples that cancel each other out under ``average_vector``.
    """
    positive = as_vectors(positive, index.dimension, "positive")
    negative = as_vectors(negative, index.dimension, "negative")
    if not len(positive):
        raise IndexInputError("positive has no rows; expected at least one positive example")
    k = check_k(k)
    request = _Request(index, k, np.unique(as_ids(exclude, "exclude")), allowed)
    if strategy == "average_vector":
        return _padded(*request.nearest(_average(positive, negative), k), k)
    if strategy == "best_score":
        return _padded(*_best_score(request, positive, negative), k)
    raise IndexInputError(f"strategy is {strategy!r}; expected one of {get_args(Strategy)}")


class _Request:
    """The index restricted to the ids that the request allows."""

    def __init__(self, index: Searchable, k: int, exclude: Ids, allowed: IdsLike | None) -> None:
        self.index = index
        self.k = k
        self._exclude = exclude
        self._allowed = allowed

    def candidates(self) -> Ids:
        """All ids that the request allows; some may not be stored."""
        allowed = self._allowed
        ids = self.index.ids() if allowed is None else np.unique(as_ids(allowed, "allowed"))
        return np.setdiff1d(ids, self._exclude, assume_unique=True)

    def nearest(self, query: Vectors, k: int) -> tuple[Scores, Ids]:
        """At most ``k`` neighbours of ``query`` (d,), unpadded: scores (m,), ids (m,)."""
        if k + len(self._exclude) > MAX_K:
            scores, ids = self.index.search(query[None], k, self.candidates())
        else:
            scores, ids = self.index.search(query[None], k + len(self._exclude), self._allowed)
        keep = (ids[0] != NO_ID) & ~np.isin(ids[0], self._exclude)
        return scores[0][keep][:k], ids[0][keep][:k]


def _average(positive: Vectors, negative: Vectors) -> Vectors:
    mean = positive.astype(np.float64).mean(axis=0)
    if len(negative):
        mean = mean + (mean - negative.astype(np.float64).mean(axis=0))
    length = float(np.linalg.norm(mean))
    if length < _SMALLEST_MEAN:
        raise IndexInputError(
            f"the examples cancel out: their average has length {length:.3g}; use other examples "
            "or the strategy best_score"
        )
    average: Vectors = (mean / length).astype(np.float32)
    return average


def _best_score(request: _Request, positive: Vectors, negative: Vectors) -> tuple[Scores, Ids]:
    """Fetch candidates near the positives until no other vector can be among the best k.

    A vector that no search returned is no more similar to a positive than the last one returned,
    and no score that a negative determines is above 0.
    """
    fetch = max(FIRST_FETCH, GROWTH * request.k)
    while fetch <= MAX_K:
        answers = [request.nearest(query, fetch) for query in positive]
        bounds = [scores[-1] for scores, _ in answers if len(scores) == fetch]
        complete = len(bounds) < len(answers)
        ids = np.unique(np.concatenate([found for _, found in answers]))
        scores, ids = _scored(request, ids, positive, negative)
        if complete:
            return scores, ids
        bound = max(max(bounds), 0.0) if len(negative) else max(bounds)
        # Strictly greater, because a vector with an equal score could have a smaller id.
        if len(scores) >= request.k and scores[request.k - 1] > bound:
            return scores, ids
        fetch *= GROWTH
    return _scored(request, request.candidates(), positive, negative)


def _scored(
    request: _Request, ids: Ids, positive: Vectors, negative: Vectors
) -> tuple[Scores, Ids]:
    """The best k of these ascending ids by best_score, best first."""
    best_scores, best_ids = np.empty(0, np.float32), np.empty(0, np.int64)
    for start in range(0, len(ids), _AT_ONCE):
        xb, stored = _stored(request.index, ids[start : start + _AT_ONCE])
        scores = np.max([cosine(xb, q) for q in positive], axis=0)
        if len(negative):
            against = np.max([cosine(xb, q) for q in negative], axis=0)
            scores = np.where(scores > against, scores, -(against * against))
        best_scores = np.concatenate((best_scores, scores))
        best_ids = np.concatenate((best_ids, stored))
        # The sort is stable, so ids keep ascending among equal scores.
        best = np.argsort(-best_scores, kind="stable")[: request.k]
        best_scores, best_ids = best_scores[best], best_ids[best]
    return best_scores, best_ids


def _stored(index: Searchable, ids: Ids) -> tuple[Vectors, Ids]:
    """The vectors of the ids that are stored; another thread may be removing some."""
    while True:
        try:
            return index.vectors(ids), ids
        except UnknownIdError as error:
            ids = np.setdiff1d(ids, error.ids, assume_unique=True)


def _padded(scores: Scores, ids: Ids, k: int) -> Neighbours:
    answer = Neighbours(np.full((1, k), -np.inf, np.float32), np.full((1, k), NO_ID, np.int64))
    answer.scores[0, : len(scores)] = scores[:k]
    answer.ids[0, : len(ids)] = ids[:k]
    return answer
