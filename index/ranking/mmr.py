"""Neighbours that differ from each other: maximal marginal relevance."""

import numpy as np
from numpy.typing import NDArray

from index.contract import IndexInputError, Scores, Vectors


def mmr(scores: Scores, xb: Vectors, diversity: float, k: int) -> NDArray[np.int64]:
    """Choose and order at most ``k`` of n candidates by maximal marginal relevance.

    The first is the one with the largest score. Each further one is the candidate with the largest

        (1 - diversity) * score - diversity * (largest cosine similarity to one chosen before)

    so that 0 keeps the ranking and 1 ignores it. Ties go to the earlier candidate. The first
    choices do not depend on ``k``, so pages of one set of candidates fit together.

    Args:
        scores: relevance float32 (n,), descending.
        xb: the candidates' vectors float32 (n, d), L2-normalised.
        diversity: 0..1; 1 - lambda of the source.
        k: maximum number of candidates to choose.

    Returns:
        Positions int64 (min(n, k),) in the order of choice.

    Raises:
        IndexInputError: ``diversity`` is not within 0..1, or scores and vectors differ in number.

    Source: Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering
    documents and producing summaries", SIGIR 1998.
    """
    if not 0 <= diversity <= 1:
        raise IndexInputError(f"diversity is {diversity}; expected 0 to 1")
    if len(scores) != len(xb):
        raise IndexInputError(f"got {len(scores)} scores for {len(xb)} vectors; expected one each")
    vectors = xb.astype(np.float64)
    relevance = (1 - diversity) * scores.astype(np.float64)
    nearest = np.full(len(scores), -np.inf)  # largest similarity to a chosen candidate
    left = np.ones(len(scores), bool)
    chosen = np.empty(min(len(scores), max(k, 0)), np.int64)
    for turn in range(len(chosen)):
        # The first is chosen by score alone, even at a diversity of 1.
        gain = relevance - diversity * nearest if turn else scores
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        chosen[turn] = best
        left[best] = False
        np.maximum(nearest, vectors @ vectors[best], out=nearest)
    return chosen
