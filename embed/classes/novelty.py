"""How near a picture must be to the stored ones to count as one of their kind.

The score of a picture is the mean of its cosine similarities to its nearest stored pictures (after
Sun et al. 2022, arXiv:2204.06507, "Out-of-distribution detection with deep nearest neighbors").
What is usual is measured on stored pictures, each compared with all the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

NEIGHBOURS = 10
"""The number of nearest stored pictures in a score; a search has this many at hand."""
MEASURED = 2_000
"""The most stored pictures that are compared with all the others."""
PASSING = 0.95
"""Share of the stored pictures that count as like the others."""

LIKE = "like the stored pictures"
UNLIKE_MOST = "unlike most stored pictures"
UNLIKE_ALL = "unlike all stored pictures"
NOT_COMPARED = "not compared with the stored pictures"

_ODDS = np.log(19.0)
"""The logarithm of the odds of 0.95."""
_CHUNK = 16_000_000


@dataclass(frozen=True)
class Novelty:
    """What is usual among the stored pictures, and so what is not.

    Attributes:
        threshold: the score that 95 % of the stored pictures reach; ``known`` is 0.5 there.
        lowest: as far below ``threshold`` as the score that 90 % of them reach is above it;
            ``known`` is 0.05 there.
        pictures: stored pictures that it was measured on.
    """

    threshold: float
    lowest: float
    pictures: int

    def score(self, similarities: ArrayLike) -> NDArray[np.float32]:
        """Scores ``(n,)`` of pictures, larger is more usual.

        Args:
            similarities: cosine similarities to the nearest stored pictures ``(n, k)``, best
                first, NaN or -inf where fewer are stored. The first ``NEIGHBOURS`` count.

        Returns:
            float32 ``(n,)``; -1 where no neighbour is given.
        """
        nearest = np.asarray(similarities, np.float32)[:, :NEIGHBOURS]
        given = np.isfinite(nearest)
        count = given.sum(axis=1)
        total = np.where(given, nearest, 0).sum(axis=1)
        return np.where(count > 0, total / np.maximum(count, 1), -1).astype(np.float32)

    def known(self, score: ArrayLike) -> NDArray[np.float32]:
        """The probability 0..1, float32 ``(n,)``, that pictures belong to what is stored."""
        away = np.asarray(score, np.float64) - self.threshold
        odds = np.clip(away * (_ODDS / (self.threshold - self.lowest)), -80, 80)
        return np.asarray(1 / (1 + np.exp(-odds)), np.float32)


@dataclass(frozen=True)
class Answer:
    """What a picture is said to show.

    Attributes:
        label: the class; None if the picture is unlike the stored ones ("none of these").
        nearest: the most probable class, also where ``label`` is None.
        confidence: the probability 0..1 of ``nearest``, times that of being of the stored kind.
        grade: how like the stored pictures it is, in words.
    """

    label: str | None
    nearest: str
    confidence: float
    grade: str


def answer(classes: Sequence[str], probabilities: ArrayLike, known: float | None) -> Answer:
    """The answer for one picture.

    Only a picture's distance to the stored ones makes it none of the classes: an improbable class
    among many is still the best answer.

    Args:
        classes: class names.
        probabilities: of these classes ``(c,)``, which sum to 1.
        known: ``Novelty.known`` of the picture; None if it has not been compared, and then it is
            taken for one of the classes.
    """
    row = np.asarray(probabilities)
    best = int(row.argmax())
    nearest, confidence = classes[best], float(row[best])
    if known is None:
        return Answer(nearest, nearest, confidence, NOT_COMPARED)
    if known >= 0.5:
        return Answer(nearest, nearest, confidence * known, LIKE)
    grade = UNLIKE_MOST if known >= 0.05 else UNLIKE_ALL
    return Answer(None, nearest, confidence * known, grade)


def fit_novelty(
    embeddings: NDArray[np.float32], *, held_out: ArrayLike | None = None, seed: int = 0
) -> Novelty:
    """Measure what is usual among stored pictures.

    Args:
        embeddings: of all stored pictures, of length one, float32 ``(n, d)``.
        held_out: rows of the pictures that the network was not trained with, ``(m,)``; None for
            all. Those that it was trained with are nearer to each other than any new picture is.
        seed: of the draw of at most ``MEASURED`` of them.

    Raises:
        ValueError: fewer than two embeddings, or none held out.
    """
    n = len(embeddings)
    rows = np.arange(n) if held_out is None else np.asarray(held_out, np.int64)
    if n < 2 or not len(rows):
        raise ValueError(
            f"there are {n} embeddings and {len(rows)} held out; expected at least 2 and 1"
        )
    if len(rows) > MEASURED:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MEASURED, replace=False))
    nearest = np.empty((len(rows), min(NEIGHBOURS, n - 1)), np.float32)
    for start in range(0, len(rows), step := max(_CHUNK // n, 1)):
        some = rows[start : start + step]
        similarities = embeddings[some] @ embeddings.T
        similarities[np.arange(len(some)), some] = -np.inf
        nearest[start : start + step] = -np.partition(-similarities, nearest.shape[1] - 1, axis=1)[
            :, : nearest.shape[1]
        ]
    scores = nearest.mean(axis=1)
    threshold, usual = np.quantile(scores, [1 - PASSING, 2 * (1 - PASSING)])
    # Scores that are all the same must not make a cliff.
    width = max(float(usual - threshold), 0.005)
    return Novelty(float(threshold), float(threshold) - width, len(rows))
