from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from embed.bundle import Bundle
from embed.encoder import Encoder, Encoding
from tests.train.helpers import colours
from train.data import Dataset, Split
from train.evaluate import Evaluation, Mistake, evaluate, summary
from train.measures import (
    Bin,
    ClassScore,
    Macro,
    Retrieval,
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
    # a: 3 right, 5 called so, 4 there are. b: 4 right, 5 called so, 6 there are.
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


class FakeEncoder:
    """Takes a picture's first pixel for its row in tables written by hand."""

    classes = ("red", "green", "blue")
    digest = "sha256:fake"
    precision = "float32"
    device = "cpu"
    runtime = SimpleNamespace(name="fake")
    bundle = SimpleNamespace(temperature=2.0)

    probabilities = np.array(
        [[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.25, 0.6, 0.15], [0.05, 0.9, 0.05]], np.float32
    )
    embeddings = on_circle(0, 40, 100, 60)

    def encode(self, pictures: NDArray[np.uint8]) -> Encoding:
        # Altered copies, and pictures of other kinds, are told by what is left of the number.
        rows = pictures[:, 0, 0, 0] % 4
        return Encoding(self.probabilities[rows], self.embeddings[rows])


def numbered(rows: list[int], labels: list[int]) -> Split:
    pictures = torch.zeros(len(rows), 3, 32, 32, dtype=torch.uint8)
    pictures[:, 0, 0, 0] = torch.tensor(rows)
    return Split(pictures, torch.tensor(labels))


def by_hand(test: Split | None, validation: Split, training: Split) -> Evaluation:
    data = Dataset(FakeEncoder.classes, training, validation, test, {})
    return evaluate(FakeEncoder(), data)  # type: ignore[arg-type]


@pytest.fixture
def found() -> Evaluation:
    return by_hand(
        test=numbered([0, 1, 2, 3], [0, 1, 1, 0]),
        validation=numbered([2], [1]),
        training=numbered([0, 3], [0, 0]),
    )


def test_classification_by_hand(found: Evaluation) -> None:
    assert (found.split, found.pictures, found.accuracy) == ("test", 4, 0.5)
    assert found.digest == "sha256:fake"
    assert found.confusion == ((1, 1, 0), (1, 1, 0), (0, 0, 0))
    assert found.scores == (
        ClassScore("red", 0.5, 0.5, 0.5, 2),
        ClassScore("green", 0.5, 0.5, 0.5, 2),
        ClassScore("blue", 0.0, 0.0, 0.0, 0),
    )
    assert found.macro == Macro(0.5, 0.5, 0.5)


def test_mistakes_most_confident_first(found: Evaluation) -> None:
    assert [
        dataclasses.replace(m, confidence=0.0, probabilities={}, neighbours=())
        for m in found.mistakes
    ] == [
        Mistake(3, "red", "green", 0.0),
        Mistake(1, "green", "red", 0.0),
    ]
    assert [m.confidence for m in found.mistakes] == pytest.approx([0.9, 0.7])
    assert [list(m.probabilities) for m in found.mistakes] == [
        ["green", "red", "blue"],
        ["red", "green", "blue"],
    ]
    assert list(found.mistakes[1].probabilities.values()) == pytest.approx([0.7, 0.2, 0.1])


def test_neighbours_of_mistakes_nearest_first(found: Evaluation) -> None:
    # Gallery: training 0 (0 degrees) and 1 (60), validation 0 (100). Row 3 lies at 60 degrees.
    first, second = (m.neighbours for m in found.mistakes)
    assert [(n.split, n.row, n.label) for n in first] == [
        ("train", 1, "red"),
        ("validation", 0, "green"),
        ("train", 0, "red"),
    ]
    assert [n.score for n in first] == pytest.approx(np.cos(np.deg2rad([0, 40, 60])), abs=1e-5)
    assert [(n.split, n.row) for n in second] == [("train", 1), ("train", 0), ("validation", 0)]


def test_calibration_of_the_whole(found: Evaluation) -> None:
    # Confidences .8 .7 .6 .9, each in a bin of its own; right, wrong, right, wrong.
    assert found.calibration.error == pytest.approx((0.2 + 0.7 + 0.4 + 0.9) / 4)
    # Before the temperature of 2 the logits were twice as large: probabilities squared.
    before = [b.confidence for b in found.uncalibrated.bins]
    squares = [0.64 / 0.66, 0.49 / 0.54, 0.36 / 0.445, 0.81 / 0.815]
    third = found.uncalibrated.bins[-1]
    assert (third.pictures, third.confidence) == (2, pytest.approx((squares[0] + squares[3]) / 2))
    assert before[:2] == pytest.approx([squares[2], squares[1]])


def test_the_gallery_is_training_and_validation_for_the_test(found: Evaluation) -> None:
    # Gallery: 0 and 60 degrees (red), 100 degrees (green). Queries at 0, 40, 100, 60 degrees.
    # red 0: 0, 60, 100 -> 1. green 40: 60, 0, 100 -> 1/3. green 100: 1. red 60: 60, 100, 0.
    expected = (1 + 1 / 3 + 1 + (1 + 2 / 3) / 2) / 4
    assert found.retrieval == Retrieval(4, 3, pytest.approx(expected), {1: 0.75})


def test_without_a_test_split_validation_is_searched_for_in_training() -> None:
    found = by_hand(None, numbered([0, 1], [0, 0]), numbered([0, 2, 3], [0, 1, 1]))
    assert (found.split, found.pictures, found.accuracy) == ("validation", 2, 1.0)
    assert found.mistakes == found.label_errors == ()
    # 0: first. 40: 60 (green) before 0 (red).
    assert found.retrieval == Retrieval(2, 3, pytest.approx((1 + 1 / 2) / 2), {1: 0.5})


def test_to_dict_is_json_with_rounded_floats(found: Evaluation) -> None:
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["accuracy"] == 0.5
    assert plain["retrieval"] == {
        "queries": 4,
        "gallery": 3,
        "mean_average_precision": 0.79167,
        "precision_at": {"1": 0.75},
    }
    mistake = plain["mistakes"][0]
    assert (mistake["row"], mistake["predicted"], mistake["confidence"]) == (3, "green", 0.9)
    assert mistake["probabilities"] == {"green": 0.9, "red": 0.05, "blue": 0.05}
    assert mistake["neighbours"][0] == {"split": "train", "row": 1, "label": "red", "score": 1.0}
    assert plain["label_errors"] == []
    assert plain["search"]["dimension"] == 2
    assert plain["search"]["groups"] is None
    assert list(plain["search"]["copies"]["recall_at"]["mean"]) == ["1", "10"]
    assert [o["kind"] for o in plain["outliers"]] == ["scenes", "noise", "text"]
    assert "map" not in plain
    assert plain["confusion"] == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert plain["environment"]["torch"] == torch.__version__


def test_summary(found: Evaluation) -> None:
    copies = found.search.copies.recall_at["mean"][1]
    assert summary(found) == "\n".join(
        [
            "Measured on 4 test pictures, each seen once.",
            "",
            "  accuracy             50.00%   pictures whose class is right",
            "  calibration error    55.00%   how far confidence is from accuracy",
            "  search mAP           79.17%   4 pictures searched for among 3",
            "  right class among   75.0% of the first 1 found",
            f"  altered copies      {copies:7.2%}   found first by a copy that is cropped, turned,"
            " brightened, compressed or mirrored",
            "",
            "  class  precision  recall      F1  pictures",
            "  red        50.0%   50.0%   50.0%         2",
            "  green      50.0%   50.0%   50.0%         2",
            "  blue        0.0%    0.0%    0.0%         0",
        ]
    )


def test_with_a_real_encoder(tiny_bundle: Bundle) -> None:
    data = colours()
    assert data.test is not None
    encoder = Encoder(tiny_bundle, precision="float32")
    found = evaluate(encoder, data)
    pictures = data.test.pictures.permute(0, 2, 3, 1).numpy()
    right = encoder.encode(pictures).probabilities.argmax(1) == data.test.labels.numpy()
    assert found.accuracy == pytest.approx(right.mean())
    assert found.digest == tiny_bundle.digest
    assert (found.retrieval.queries, found.retrieval.gallery) == (15, 36)
    assert sum(map(sum, found.confusion)) == 15
    assert len(found.mistakes) == 15 - right.sum()


def test_other_classes_are_refused(tiny_bundle: Bundle) -> None:
    data = dataclasses.replace(colours(), classes=("a", "b", "c"))
    with pytest.raises(ValueError, match="the model knows the classes red, green, blue, the data"):
        evaluate(Encoder(tiny_bundle), data)
