"""What is asked of the engine, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.catalogue import Entry
from index.filters import Filter


@dataclass(frozen=True)
class Prediction:
    """What the classifier says: its first class, and the probability of each class."""

    label: str
    confidence: float
    probabilities: dict[str, float]

    @staticmethod
    def of(classes: Sequence[str], row: NDArray[np.float32]) -> Prediction:
        """From one row of an encoder's probabilities float32 ``(classes,)``."""
        best = int(row.argmax())
        probabilities = {name: float(p) for name, p in zip(classes, row, strict=True)}
        return Prediction(classes[best], float(row[best]), probabilities)


Tags = tuple[tuple[str, float], ...]
"""Finer tags, each with the share of the nearest neighbours that have it, most first."""


@dataclass(frozen=True)
class Tagged:
    """One file: its class and finer tags, or why there are none."""

    path: Path
    prediction: Prediction | None = None
    tags: Tags = ()
    error: str | None = None


@dataclass(frozen=True)
class Point:
    """One neighbour: its cosine similarity to the query and what is known of it."""

    score: float
    entry: Entry


@dataclass(frozen=True)
class Page:
    """Which part of the ranking a caller wants.

    Attributes:
        limit: most points to return.
        offset: how many of the best to leave out first.
        score_threshold: least cosine similarity, -1..1, or None.
        filter: which pictures may be answers, or None for all.
    """

    limit: int = 12
    offset: int = 0
    score_threshold: float | None = None
    filter: Filter | None = None


@dataclass(frozen=True)
class SearchResult:
    """The answer to a query.

    Attributes:
        points: neighbours, best first.
        vote: the class that most of the ten nearest have, and its share 0..1; None without labels.
        generation: which index answered.
        model: the digest of the model that made its embeddings.
        time: milliseconds by stage, and ``total``.
        prediction: the classifier's; None where the query was not an uploaded picture.
    """

    points: tuple[Point, ...]
    vote: tuple[str, float] | None
    generation: int
    model: str
    time: dict[str, float]
    prediction: Prediction | None = None
