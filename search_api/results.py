"""What is asked of the engine, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # the client reads answers and needs no index
    from index.catalogue import Entry
    from index.filters import Filter
    from index.payload import Scalar
    from search_api.cursors import Cursor


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
class Group:
    """Neighbours that have the same value in a field, best first."""

    value: Scalar
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Page:
    """Which part of which ranking a caller wants.

    Attributes:
        limit: most points to return, or groups where ``group_by`` is given.
        offset: how many of the best to leave out first.
        score_threshold: least cosine similarity, -1..1, or None.
        filter: which pictures may be answers, or None for all.
        diversity: 0..1 to reorder the best ``candidates`` by maximal marginal relevance, or None.
        candidates: how many of the best take part in that.
        group_by: the field to group by, or None.
        group_size: most points in each group.
        cursor: where to go on; ``offset`` is 0 then.
    """

    limit: int = 12
    offset: int = 0
    score_threshold: float | None = None
    filter: Filter | None = None
    diversity: float | None = None
    candidates: int = 200
    group_by: str | None = None
    group_size: int = 3
    cursor: Cursor | None = None

    @property
    def plain(self) -> bool:
        """The ranking as it is, from its beginning: such pages share one scan of the index."""
        return self.diversity is None and self.group_by is None and self.cursor is None


@dataclass(frozen=True)
class SearchResult:
    """The answer to a query.

    Attributes:
        points: neighbours, best first; none where there are groups.
        vote: the class that most of the ten nearest have, and its share 0..1; None without labels.
        generation: which index answered.
        sequence: number of the last write that the answer knows of.
        model: the digest of the model that made its embeddings.
        time: milliseconds by stage, and ``total``.
        prediction: the classifier's; None where the query was not an uploaded picture.
        groups: the nearest groups, best first, or None where they were not asked for.
        cursor: where the next page begins; None after the last, and under ``diversity``.
        vector: the uploaded picture's embedding float32 ``(d,)``, or None.
    """

    points: tuple[Point, ...]
    vote: tuple[str, float] | None
    generation: int
    model: str
    time: dict[str, float]
    prediction: Prediction | None = None
    sequence: int = 0
    groups: tuple[Group, ...] | None = None
    cursor: Cursor | None = None
    vector: NDArray[np.float32] | None = None

    def cursor_text(self, longest: int | None) -> str | None:
        """What a caller sends back for the next page; None where that is too long."""
        if self.cursor is None:
            return None
        text = self.cursor.text()
        return text if longest is None or len(text) <= longest else None
