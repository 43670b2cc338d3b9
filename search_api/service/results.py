"""The results of the service: predictions, neighbours, groups, tags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embed.classes.novelty import answer
from search_api.schemas.search import Source

if TYPE_CHECKING:  # `lookalike classify --server` reads results without loading an index
    from index.records import Entry, Scalar
    from search_api.service.cursors import Cursor


MOST_LISTED = 20
"""The number of probabilities that a prediction lists; a network may have a thousand classes."""


@dataclass(frozen=True)
class Prediction:
    """What a picture shows, by the store's classifier or by the network's own.

    Attributes:
        label: the class; None if the picture is unlike everything stored.
        confidence: the probability 0..1 of ``nearest_class``, times that of the picture being like
            the stored ones, where that is known.
        probabilities: of each class, in their order; of more than ``MOST_LISTED`` classes, those of
            the most probable ones, largest first.
        nearest_class: the most probable class, also where ``label`` is None.
        grade: how like the stored pictures it is, in words.
        source: whose classes these are.
    """

    label: str | None
    confidence: float
    probabilities: dict[str, float]
    nearest_class: str
    grade: str
    source: Source

    @staticmethod
    def of(
        classes: tuple[str, ...],
        row: NDArray[np.float32],
        source: Source = "network",
        known: float | None = None,
    ) -> Prediction:
        """From one row of probabilities, float32 ``(classes,)``; ``known`` as in `answer`."""
        found = answer(classes, row, known)
        if len(classes) <= MOST_LISTED:
            listed = dict(zip(classes, row.tolist(), strict=True))
        else:
            best = np.argsort(-row, kind="stable")[:MOST_LISTED]
            listed = {classes[i]: float(row[i]) for i in best}
        return Prediction(found.label, found.confidence, listed, found.nearest, found.grade, source)


@dataclass(frozen=True)
class Predictions:
    """The predictions by both classifiers; None for one that does not exist."""

    store: Prediction | None
    network: Prediction | None


Tags = tuple[tuple[str, float], ...]
"""Finer tags, each with the share 0..1 of the nearest neighbours that have it, largest first."""


@dataclass(frozen=True)
class Tagged:
    """A file with its class and finer tags, or the reason why it has none.

    ``predictions`` is None unless both classifiers were asked for.
    """

    path: Path
    prediction: Prediction | None = None
    tags: Tags = ()
    error: str | None = None
    predictions: Predictions | None = None


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
        prediction: of an uploaded picture; None for other queries, and without any classes.
        predictions: by both classifiers, if both were asked for.
        groups: the nearest groups, best first, or None without ``group_by``.
        cursor: where the next page starts; None after the last page and with ``diversity``.
        vector: the uploaded picture's embedding, float32 ``(d,)``, or None.
        similarities: to the nearest of all stored pictures, float32 ``(k,)``, or None if not known.
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
    predictions: Predictions | None = None
    similarities: NDArray[np.float32] | None = None

    def cursor_text(self, longest: int | None) -> str | None:
        """The cursor as text; None without a next page or if it exceeds ``longest`` characters."""
        if self.cursor is None:
            return None
        text = self.cursor.text()
        return text if longest is None or len(text) <= longest else None
