"""Finds individual pictures to inspect: mistakes, likely label errors, near-duplicates."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from train.data import Split
from train.evaluation.duplicates import near_duplicates
from train.evaluation.similarity import Integers, Vectors, nearest

NEIGHBOURS = 10
AGREEING = 9
"""Number of ``NEIGHBOURS`` that must carry the predicted label for a likely label error."""
TOP = 3
"""Number of probabilities kept of a mistake."""


@dataclass(frozen=True)
class Neighbour:
    """A picture of the gallery: its split, row and label; ``score`` is the similarity."""

    split: str
    row: int
    label: str
    score: float


@dataclass(frozen=True)
class Mistake:
    """A misclassified picture.

    Attributes:
        row: its row in the evaluated split.
        label: its true class.
        predicted: the class with the highest probability.
        confidence: that probability.
        probabilities: of the most probable classes.
        neighbours: the most similar pictures of the gallery, nearest first.
    """

    row: int
    label: str
    predicted: str
    confidence: float
    probabilities: dict[str, float] = field(default_factory=dict)
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True)
class Duplicate:
    """A picture with a near-duplicate in the gallery; ``neighbour.score`` is a correlation."""

    row: int
    label: str
    neighbour: Neighbour


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicates, highest correlation first, and the accuracy on them and on the rest, 0..1.

    ``accuracy_of_them`` is None if there are no duplicates, ``accuracy_without`` if there is
    nothing else, and both if the pictures were not classified.
    """

    pairs: tuple[Duplicate, ...]
    accuracy_of_them: float | None
    accuracy_without: float | None


class Gallery:
    """The pictures to search in: several splits, one after the other."""

    def __init__(self, splits: dict[str, Split], classes: tuple[str, ...]) -> None:
        """Number the pictures of ``splits`` consecutively, in order."""
        self.splits = splits
        self._classes = classes
        self._rows = [(name, row) for name, split in splits.items() for row in range(len(split))]
        self._labels = np.concatenate([split.labels.numpy() for split in splits.values()])

    def neighbour(self, number: int, score: float) -> Neighbour:
        """The picture with this number, as a neighbour of similarity ``score``."""
        split, row = self._rows[number]
        return Neighbour(split, row, self._classes[self._labels[number]], float(score))


def mistakes(
    probabilities: NDArray[np.float32],
    labels: Integers,
    classes: tuple[str, ...],
    xq: Vectors,
    xb: Vectors,
    gallery: Gallery,
) -> tuple[Mistake, ...]:
    """All misclassified pictures, most confident first.

    Args:
        probabilities: ``(n, classes)``.
        labels: true labels ``(n,)``.
        classes: names of the labels.
        xq: embeddings of the pictures ``(n, d)``.
        xb: embeddings of the gallery ``(m, d)``.
        gallery: the pictures to find neighbours among.
    """
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    scores, numbers = nearest(xq[wrong], xb, NEIGHBOURS)
    most_probable = np.argsort(-probabilities[wrong], axis=1, kind="stable")[:, :TOP]
    return tuple(
        Mistake(
            int(row),
            classes[labels[row]],
            classes[predicted[row]],
            float(confidence[row]),
            {classes[c]: float(probabilities[row, c]) for c in most_probable[i]},
            tuple(map(gallery.neighbour, numbers[i].tolist(), scores[i].tolist())),
        )
        for i, row in enumerate(wrong)
    )


def label_errors(
    candidates: tuple[Mistake, ...],
    probabilities: NDArray[np.float32],
    labels: Integers,
    classes: tuple[str, ...],
) -> tuple[Mistake, ...]:
    """The mistakes whose label is likely wrong: both the model and the neighbours contradict it.

    The model is at least as confident in the predicted label as it is on average for pictures that
    carry it (the threshold of confident learning, Northcutt et al. 2021, arXiv:1911.00068), and at
    least ``AGREEING`` of ``NEIGHBOURS`` neighbours carry it.

    Args:
        candidates: the result of ``mistakes``.
        probabilities: ``(n, classes)``.
        labels: true labels ``(n,)``.
        classes: names of the labels.
    """
    mean_confidence = {
        name: float(probabilities[labels == i, i].mean()) if (labels == i).any() else 1.0
        for i, name in enumerate(classes)
    }
    return tuple(
        mistake
        for mistake in candidates
        if mistake.confidence >= mean_confidence[mistake.predicted]
        and sum(n.label == mistake.predicted for n in mistake.neighbours) >= AGREEING
    )


def duplicates(
    queries: Split, correct: NDArray[np.bool_] | None, classes: tuple[str, ...], gallery: Gallery
) -> Duplicates:
    """Pictures with near-duplicates in the gallery, and their effect on the accuracy.

    Args:
        queries: the evaluated split.
        correct: whether each was classified correctly ``(n,)``; None if they were not classified.
        classes: names of the labels.
        gallery: the pictures that the model was trained with.
    """
    pictures = torch.cat([split.pictures for split in gallery.splits.values()])
    rows, numbers, scores = near_duplicates(queries.pictures, pictures)
    others = np.ones(len(queries), bool)
    others[rows] = False
    pairs = tuple(
        Duplicate(int(row), classes[int(queries.labels[row])], gallery.neighbour(number, score))
        for row, number, score in zip(rows.tolist(), numbers.tolist(), scores.tolist(), strict=True)
    )
    if correct is None:
        return Duplicates(pairs, None, None)
    return Duplicates(
        pairs,
        float(correct[~others].mean()) if len(rows) else None,
        float(correct[others].mean()) if others.any() else None,
    )
