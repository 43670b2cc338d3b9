from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from train.evaluation.metrics import (
    Bin,
    ClassScore,
    calibration,
    class_scores,
    confusion_matrix,
    macro,
    retrieval,
)

CONFUSION = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])


def test_confusion_matrix_rows_are_true() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    predicted = np.array([0, 2, 2, 1, 1, 2])
    assert confusion_matrix(labels, predicted, 4).tolist() == [
        [1, 0, 2, 0],
        [0, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 0, 0],
    ]


def test_class_scores_by_hand() -> None:
    a, b, c = class_scores(CONFUSION, ("a", "b", "c"))
    # a: 3 correct of 5 predicted and 4 true. b: 4 correct of 5 predicted and 6 true.
    assert a == ClassScore("a", 3 / 5, 3 / 4, 2 / 3, 4)
    assert b == ClassScore("b", 4 / 5, 4 / 6, 8 / 11, 6)
    # Neither predicted nor there: zero by definition.
    assert c == ClassScore("c", 0.0, 0.0, 0.0, 0)


def test_macro_leaves_out_classes_without_pictures() -> None:
    found = macro(class_scores(CONFUSION, ("a", "b", "c")))
    assert found.precision == pytest.approx((3 / 5 + 4 / 5) / 2)
    assert found.recall == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert found.f1 == pytest.approx((2 / 3 + 8 / 11) / 2)


def test_a_class_never_predicted_has_precision_zero_and_counts() -> None:
    scores = class_scores(np.array([[4, 0], [2, 0]]), ("a", "b"))
    assert scores[1] == ClassScore("b", 0.0, 0.0, 0.0, 2)
    assert macro(scores).recall == 0.5


def test_calibration_by_hand() -> None:
    confidence = np.array([0.95, 0.85, 0.55, 0.6], np.float32)
    correct = np.array([True, False, True, False])
    found = calibration(confidence, correct, bins=5)
    # (0.8, 1]: 2 of mean 0.9, half right. (0.4, 0.6]: 2 of mean 0.575, half right.
    low, high = found.bins
    assert (low.pictures, low.accuracy) == (2, 0.5)
    assert (high.pictures, high.accuracy) == (2, 0.5)
    assert low.confidence == pytest.approx(0.575)
    assert high.confidence == pytest.approx(0.9)
    assert found.error == pytest.approx((2 * 0.075 + 2 * 0.4) / 4)


def test_calibration_at_the_ends() -> None:
    sure = calibration(np.array([1.0, 1.0], np.float32), np.array([True, True]))
    assert sure.error == 0.0
    assert sure.bins == (Bin(2, 1.0, 1.0),)
    none = calibration(np.array([0.0], np.float32), np.array([False]))
    assert none.bins == (Bin(1, 0.0, 0.0),)


def on_circle(*degrees: float) -> NDArray[np.float32]:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_average_precision_by_hand() -> None:
    found = retrieval(
        on_circle(0, 90),
        np.array([0, 1]),
        on_circle(10, 20, 30, 40),
        np.array([0, 1, 0, 1]),
    )
    # First query, nearest first: 0 1 0 1 with label 0, so (1/1 + 2/3) / 2.
    # Second query: 1 0 1 0 with label 1, the same.
    assert found.mean_average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert found.precision_at == {1: 1.0}
    assert (found.queries, found.gallery) == (2, 4)


def test_average_precision_where_all_is_behind() -> None:
    found = retrieval(
        on_circle(0), np.array([7]), on_circle(10, 180, 20, 150), np.array([1, 7, 1, 7])
    )
    # Ranked 1 1 7 7: (1/3 + 2/4) / 2.
    assert found.mean_average_precision == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert found.precision_at == {1: 0.0}


def test_precision_at_only_within_the_gallery() -> None:
    labels = np.array([0] * 4 + [1] * 6)
    found = retrieval(on_circle(0), np.array([0]), on_circle(*range(1, 11)), labels)
    assert found.precision_at == {1: 1.0, 10: 0.4}
    assert found.mean_average_precision == 1.0


def test_of_equally_similar_pictures_the_relevant_come_last() -> None:
    same = on_circle(5, 5, 5)
    found = retrieval(on_circle(0), np.array([0]), same, np.array([1, 0, 1]))
    assert found.mean_average_precision == pytest.approx(1 / 3)


def test_queries_without_their_class_in_the_gallery_are_left_out() -> None:
    found = retrieval(on_circle(0, 50), np.array([0, 9]), on_circle(0, 50), np.array([0, 1]))
    assert (found.queries, found.mean_average_precision) == (1, 1.0)
    with pytest.raises(ValueError, match="none of the 1 queries has a picture of its class"):
        retrieval(on_circle(0), np.array([9]), on_circle(0), np.array([0]))


def brute_force(
    xq: NDArray[np.float32], yq: NDArray[np.int64], xb: NDArray[np.float32], yb: NDArray[np.int64]
) -> float:
    total = 0.0
    for x, y in zip(xq, yq, strict=True):
        ranked = yb[np.argsort(-(xb.astype(np.float64) @ x))]
        ranks = np.flatnonzero(ranked == y) + 1
        total += float(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return total / len(xq)


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_retrieval_agrees_with_brute_force_in_any_chunks(chunk: int) -> None:
    rng = np.random.default_rng(0)
    yq, yb = rng.integers(0, 4, 30), rng.integers(0, 4, 300)
    centres = rng.normal(size=(4, 16))

    def near(labels: NDArray[np.int64]) -> NDArray[np.float32]:
        x = centres[labels] + 2 * rng.normal(size=(len(labels), 16))
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    xq, xb = near(yq), near(yb)
    found = retrieval(xq, yq, xb, yb, chunk=chunk)
    assert found.mean_average_precision == pytest.approx(brute_force(xq, yq, xb, yb), abs=1e-5)
    assert 0.3 < found.mean_average_precision < 0.9
    assert list(found.precision_at) == [1, 10, 100]
