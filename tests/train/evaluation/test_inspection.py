from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from train.data import Split
from train.evaluation.inspection import Gallery, Neighbour, duplicates, label_errors, mistakes

CLASSES = ("cat", "dog")


def on_circle(*degrees: float) -> NDArray[np.float32]:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def split(labels: list[int]) -> Split:
    pictures = torch.zeros(len(labels), 3, 32, 32, dtype=torch.uint8)
    return Split(pictures, torch.tensor(labels))


# Twelve dogs about 0 degrees; of the cats at 90, two are labelled dogs.
GALLERY = Gallery({"train": split([1] * 12), "validation": split([0] * 10 + [1] * 2)}, CLASSES)
XB = on_circle(*range(12), *range(80, 92))


def test_gallery_numbers_its_splits_consecutively() -> None:
    assert GALLERY.neighbour(3, 0.5) == Neighbour("train", 3, "dog", 0.5)
    assert GALLERY.neighbour(12, 0.25) == Neighbour("validation", 0, "cat", 0.25)
    labels = [GALLERY.neighbour(number, 1.0).label for number in range(24)]
    assert labels == ["dog"] * 12 + ["cat"] * 10 + ["dog"] * 2


def test_label_errors_need_the_model_and_the_neighbours() -> None:
    probabilities = np.array(
        [
            [0.02, 0.98],  # labelled cat, surely a dog, among dogs: an error
            [0.40, 0.60],  # labelled cat, hardly a dog, among dogs
            [0.03, 0.97],  # labelled cat, surely a dog, but among cats
            [0.05, 0.95],  # a dog
            [0.20, 0.80],  # a dog
        ],
        np.float32,
    )
    labels = np.array([0, 0, 0, 1, 1])
    xq = on_circle(5, 6, 85, 4, 3)
    found = mistakes(probabilities, labels, CLASSES, xq, XB, GALLERY)
    assert [mistake.row for mistake in found] == [0, 2, 1]
    assert all(mistake.label == "cat" for mistake in found)
    assert found[0].probabilities == pytest.approx({"dog": 0.98, "cat": 0.02})
    assert len(found[0].neighbours) == 10
    assert {n.label for n in found[0].neighbours} == {"dog"}
    # The mean confidence in dogs is 0.875.
    assert [m.row for m in label_errors(found, probabilities, labels, CLASSES)] == [0]


def test_nothing_wrong() -> None:
    probabilities = np.array([[0.9, 0.1]], np.float32)
    labels = np.array([0])
    found = mistakes(probabilities, labels, CLASSES, on_circle(85), XB, GALLERY)
    assert found == ()
    assert label_errors(found, probabilities, labels, CLASSES) == ()


def test_accuracy_with_and_without_duplicates() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (6, 3, 32, 32), generator=generator).byte()
    gallery = Gallery({"train": Split(noise[:4], torch.tensor([0, 0, 1, 1]))}, CLASSES)
    queries = Split(noise[[3, 4, 1, 5]], torch.tensor([1, 0, 1, 1]))
    found = duplicates(queries, np.array([True, False, True, True]), CLASSES, gallery)
    assert {(d.row, d.label, d.neighbour.row, d.neighbour.label) for d in found.pairs} == {
        (0, "dog", 3, "dog"),
        (2, "dog", 1, "cat"),
    }
    assert found.accuracy_of_them == 1.0
    assert found.accuracy_without == 0.5
    none = duplicates(queries[torch.tensor([1, 3])], np.array([True, False]), CLASSES, gallery)
    assert none.pairs == ()
    assert none.accuracy_of_them is None
    assert none.accuracy_without == 0.5
