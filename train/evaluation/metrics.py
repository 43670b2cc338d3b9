"""Metrics of classification, calibration and retrieval, computed on plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""
RANKS = (1, 10, 100)
"""Ranks at which the precision of a search is reported."""

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class, 0..1; 0 where a denominator is zero (nothing predicted, no pictures)."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Macro:
    """Unweighted means over the classes that have pictures."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Bin:
    """Predictions of similar confidence: how many, their mean confidence, their accuracy."""

    pictures: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """``error`` is the expected calibration error 0..1; ``bins`` are the non-empty bins."""

    error: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Retrieval:
    """How well a search by cosine similarity finds pictures of the query's class.

    Attributes:
        queries: number of queries, without those whose class is not in the gallery.
        gallery: number of pictures searched.
        mean_average_precision: over the whole ranking of the gallery, 0..1.
        precision_at: by k, the share of the query's class among the first k results, 0..1.
    """

    queries: int
    gallery: int
    mean_average_precision: float
    precision_at: dict[int, float]


def confusion_matrix(labels: Labels, predicted: Labels, classes: int) -> Labels:
    """Counts int64 ``(classes, classes)`` by true (row) and predicted (column) labels ``(n,)``."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


def class_scores(confusion: Labels, names: Sequence[str]) -> tuple[ClassScore, ...]:
    """Precision, recall and F1 of each class, from a confusion matrix with true labels as rows."""
    hits, predicted, support = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    return tuple(
        ClassScore(
            name,
            precision=_ratio(hits[i], predicted[i]),
            recall=_ratio(hits[i], support[i]),
            f1=_ratio(2 * hits[i], predicted[i] + support[i]),
            support=int(support[i]),
        )
        for i, name in enumerate(names)
    )


def macro(scores: Sequence[ClassScore]) -> Macro:
    """The macro averages of ``scores``, of which at least one has pictures."""
    present = [score for score in scores if score.support]
    n = len(present)
    return Macro(
        sum(s.precision for s in present) / n,
        sum(s.recall for s in present) / n,
        sum(s.f1 for s in present) / n,
    )


def calibration(
    confidence: NDArray[np.float32], correct: NDArray[np.bool_], bins: int = BINS
) -> Calibration:
    """The expected calibration error, over bins of equal width (lower, upper].

    Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning"; Guo et
    al. 2017 (arXiv:1706.04599), equation 3.

    Args:
        confidence: probability of the predicted class, 0..1, ``(n,)``.
        correct: whether that class was correct, ``(n,)``.
        bins: number of bins.
    """
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    filled = tuple(
        Bin(
            int(inside.sum()),
            float(confidence[inside].mean(dtype=np.float64)),
            float(correct[inside].mean()),
        )
        for inside in (bin_of == i for i in range(bins))
        if inside.any()
    )
    gaps = sum(b.pictures * abs(b.accuracy - b.confidence) for b in filled)
    return Calibration(gaps / len(confidence), filled)


def retrieval(
    xq: NDArray[np.float32], yq: Labels, xb: NDArray[np.float32], yb: Labels, chunk: int = 200
) -> Retrieval:
    """Rank ``xb`` for each query of ``xq``; a picture is relevant if it has the query's label.

    Average precision is the mean, over the relevant pictures, of the precision at their rank.
    Among equally similar pictures, the relevant ones come last.

    Args:
        xq: embeddings of the queries, of length one, ``(nq, d)``.
        yq: their labels ``(nq,)``.
        xb: embeddings of the gallery, of length one, ``(n, d)``.
        yb: their labels ``(n,)``.
        chunk: queries ranked at a time; each needs about 40 bytes per gallery picture.

    Raises:
        ValueError: no query has a picture of its class in the gallery.
    """
    has_match = np.isin(yq, yb)
    if not has_match.any():
        raise ValueError(
            f"none of the {len(yq)} queries has a picture of its class among the {len(yb)} of the"
            " gallery; expected the same classes in both"
        )
    queries, labels = xq[has_match], yq[has_match]
    ranks = np.arange(1, len(yb) + 1, dtype=np.float32)
    hits_at = {k: 0 for k in RANKS if k <= len(yb)}
    total = 0.0
    for start in range(0, len(labels), chunk):
        rows = slice(start, start + chunk)
        # Sorting values is ten times faster than argsort, so the last bit of each distance holds
        # the relevance. Distances are 1..3, and positive floats sort like their bits as integers;
        # the loss of precision is no larger than the rounding of the cosine.
        keys = (np.float32(2) - queries[rows] @ xb.T).view(np.int32)  # (chunk, n)
        keys &= ~np.int32(1)
        keys |= yb == labels[rows, None]
        keys.sort(axis=1)
        relevant = (keys & 1).astype(np.bool_)
        precision = relevant.cumsum(1, dtype=np.float32) / ranks
        average = precision.sum(1, dtype=np.float64, where=relevant) / relevant.sum(1)
        total += float(average.sum())
        for k in hits_at:
            hits_at[k] += int(relevant[:, :k].sum())
    n = len(labels)
    return Retrieval(n, len(yb), total / n, {k: hits / (n * k) for k, hits in hits_at.items()})


def _ratio(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else 0.0
