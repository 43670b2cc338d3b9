"""The results of the service: predictions, neighbours, groups, tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # `lookalike classify --server` reads results without loading an index
    from index.records import Entry, Scalar
    from search_api.service.cursors import Cursor


@dataclass(frozen=True)
class Prediction:
    """The most probable class, its probability, and the probability of each class."""

    label: str
    confidence: float
    probabilities: dict[str, float]

    @staticmethod
    def of(classes: Sequence[str], row: NDArray[np.float32]) -> Prediction:
        """From one row of an encoder's probabilities, float32 ``(classes,)``."""
        best = int(row.argmax())
        probabilities = {name: float(p) for name, p in zip(classes, row, strict=True)}
        return Prediction(classes[best], float(row[best]), probabilities)


Tags = tuple[tuple[str, float], ...]
"""Finer tags, each with the share 0..1 of the nearest neighbours that have it, largest first."""


@dataclass(frozen=True)
class Tagged:
    """A file with its class and finer tags, or the reason why it has none."""

    path: Path
    prediction: Prediction | None = None
    tags: Tags = ()
    error: str | None = None


@dataclass(frozen=True)
class Point:
    """A neighbour: its cosine similarity to the query, and its catalogue entry."""

    score: float
    entry: Entry


@dataclass(frozen=True)
class Group:
    """Neighbours with the same value in a field, best first."""

    value: Scalar
    points: tuple[Point, ...]


@dataclass(frozen=True)
class SearchResult:
    """The result of a query.

    Attributes:
        points: neighbours, best first; empty if there are groups.
        vote: the most frequent label of the ten nearest and its share 0..1; None without labels.
        generation: number of the index that was searched.
        sequence: number of the last write that the result reflects.
        model: digest of the model that made the embeddings.
        time: milliseconds by step, and ``total``.
        prediction: the classifier's; None unless the query was an uploaded picture.
        groups: the nearest groups, best first, or None without ``group_by``.
        cursor: where the next page starts; None after the last page and with ``diversity``.
        vector: the uploaded picture's embedding, float32 ``(d,)``, or None.
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
        """The cursor as text; None without a next page or if it exceeds ``longest`` characters."""
        if self.cursor is None:
            return None
        text = self.cursor.text()
        return text if longest is None or len(text) <= longest else None
