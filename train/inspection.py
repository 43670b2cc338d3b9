"""Single pictures that are worth a look: mistakes, likely label errors, near-duplicates."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from train.data import Split
from train.duplicates import near_duplicates
from train.similarity import Numbers, Vectors, nearest

NEIGHBOURS = 10
AGREEING = 8
"""Of the neighbours, so many must carry another label before one is called a likely error."""
TOP = 3
"""Probabilities listed of a mistake."""


@dataclass(frozen=True)
class Neighbour:
    """A picture of the gallery: its split, row and label; ``score`` is the similarity."""

    split: str
    row: int
    label: str
    score: float


@dataclass(frozen=True)
class Mistake:
    """A picture taken for another class.

    Attributes:
        row: its place in the evaluated split.
        label: its class.
        predicted: what it was taken for.
        confidence: probability of that class.
        probabilities: of the likeliest classes.
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
    """A picture that the gallery holds nearly the same; ``neighbour.score`` is a correlation."""

    row: int
    label: str
    neighbour: Neighbour


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicates, the surest first; accuracy on them and on all other pictures, 0..1.

    ``accuracy_of_them`` is None where there are none.
    """

    pairs: tuple[Duplicate, ...]
    accuracy_of_them: float | None
    accuracy_without: float | None


class Gallery:
    """The pictures searched in, several splits one after the other."""

    def __init__(self, splits: dict[str, Split], classes: tuple[str, ...]) -> None:
        """Number the pictures of ``splits`` through, in order."""
        self.splits = splits
        self._classes = classes
        self._places = [(name, row) for name, split in splits.items() for row in range(len(split))]
        self.labels: Numbers = np.concatenate([split.labels.numpy() for split in splits.values()])

    def neighbour(self, number: int, score: float) -> Neighbour:
        """What is told of the picture of that number."""
        split, row = self._places[number]
        return Neighbour(split, row, self._classes[self.labels[number]], float(score))


def mistakes(
    probabilities: NDArray[np.float32],
    labels: Numbers,
    classes: tuple[str, ...],
    xq: Vectors,
    xb: Vectors,
    gallery: Gallery,
) -> tuple[Mistake, ...]:
    """All pictures of ``labels (n,)`` whose likeliest class is another, most confident first."""
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    scores, rows = nearest(xq[wrong], xb, NEIGHBOURS)
    likeliest = np.argsort(-probabilities[wrong], axis=1, kind="stable")[:, :TOP]
    return tuple(
        Mistake(
            int(row),
            classes[labels[row]],
            classes[predicted[row]],
            float(confidence[row]),
            {classes[i]: float(probabilities[row, i]) for i in likeliest[place]},
            tuple(map(gallery.neighbour, rows[place].tolist(), scores[place].tolist())),
        )
        for place, row in enumerate(wrong)
    )


def label_errors(
    found: tuple[Mistake, ...],
    probabilities: NDArray[np.float32],
    labels: Numbers,
    classes: tuple[str, ...],
) -> tuple[Mistake, ...]:
    """Those mistakes whose label is likely wrong: model and neighbours agree against it.

    The model is at least as sure as it is on average of pictures that do carry that label (the
    threshold of confident learning, Northcutt et al. 2021, arXiv:1911.00068), and at least
    ``AGREEING`` of ``NEIGHBOURS`` neighbours carry it.

    Args:
        found: as ``mistakes`` gives them.
        probabilities: ``(n, classes)``.
        labels: ``(n,)``.
        classes: their names.
    """
    usual = {
        name: float(probabilities[labels == i, i].mean()) if (labels == i).any() else 1.0
        for i, name in enumerate(classes)
    }
    return tuple(
        mistake
        for mistake in found
        if mistake.confidence >= usual[mistake.predicted]
        and sum(n.label == mistake.predicted for n in mistake.neighbours) >= AGREEING
    )


def duplicates(
    queries: Split, right: NDArray[np.bool_], classes: tuple[str, ...], gallery: Gallery
) -> Duplicates:
    """Pictures of ``queries`` that the gallery holds nearly the same, and what they change.

    Args:
        queries: the evaluated split.
        right: whether each was classified rightly ``(n,)``.
        classes: names of the labels.
        gallery: what was learned from.
    """
    known = torch.cat([split.pictures for split in gallery.splits.values()])
    rows, numbers, scores = near_duplicates(queries.pictures, known)
    without = np.ones(len(right), bool)
    without[rows] = False
    pairs = tuple(
        Duplicate(int(row), classes[int(queries.labels[row])], gallery.neighbour(number, score))
        for row, number, score in zip(rows.tolist(), numbers.tolist(), scores.tolist(), strict=True)
    )
    return Duplicates(
        pairs,
        float(right[~without].mean()) if len(rows) else None,
        float(right[without].mean()) if without.any() else None,
    )
