from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from embed.architecture import Backbone
from embed.bundle import Bundle
from embed.encoder import Encoder, Encoding
from tests.train.helpers import colours
from train.data import Dataset, Split
from train.evaluation.evaluate import Evaluation, evaluate, summary
from train.evaluation.inspection import Mistake
from train.evaluation.metrics import ClassScore, Macro, Retrieval

pytestmark = pytest.mark.slow


def on_circle(*degrees: float) -> NDArray[np.float32]:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


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
        # Altered copies and outliers take the row that is left of the number.
        rows = pictures[:, 0, 0, 0] % 4
        return Encoding(self.probabilities[rows], self.embeddings[rows])


def numbered(rows: list[int], labels: list[int]) -> Split:
    pictures = torch.zeros(len(rows), 3, 32, 32, dtype=torch.uint8)
    pictures[:, 0, 0, 0] = torch.tensor(rows)
    return Split(pictures, torch.tensor(labels))


def by_hand(test: Split | None, validation: Split, training: Split) -> Evaluation:
    data = Dataset(FakeEncoder.classes, training, validation, test, {})
    return evaluate(FakeEncoder(), data)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
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
            "Evaluated on 4 test pictures, single view.",
            "",
            "  accuracy             50.00%   share of pictures classified correctly",
            "  calibration error    55.00%   mean difference between confidence and accuracy",
            "  search mAP           79.17%   4 queries among 3 pictures, relevant if of the same"
            " class",
            "  search precision    75.0% at 1",
            f"  altered copies      {copies:7.2%}   share of originals ranked first for a cropped,"
            " rotated, brightened, compressed or mirrored copy",
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
    with pytest.raises(ValueError, match="the model has the classes red, green, blue, the data"):
        evaluate(Encoder(tiny_bundle), data)


def test_an_imported_network_with_other_classes_is_measured_by_its_search() -> None:
    class Imported(FakeEncoder):
        classes = ("day", "night")  # type: ignore[assignment]
        bundle = SimpleNamespace(temperature=2.0, architecture=Backbone("timm", "resnet18"))

    splits = {
        "train": numbered([0, 3], [0, 0]),
        "validation": numbered([2], [1]),
        "test": numbered([0, 1, 2, 3], [0, 1, 1, 0]),
    }
    data = Dataset(("red", "green", "blue"), skipped={}, **splits)
    found = evaluate(Imported(), data)  # type: ignore[arg-type]
    known = evaluate(FakeEncoder(), data)  # type: ignore[arg-type]
    assert (found.accuracy, found.macro, found.calibration, found.uncalibrated) == (None,) * 4
    assert (found.scores, found.confusion, found.mistakes, found.label_errors) == ((),) * 4
    assert (found.classes, found.pictures) == (data.classes, 4)
    assert found.search == known.search
    assert [o.by_neighbours for o in found.outliers] == [o.by_neighbours for o in known.outliers]
    assert {o.by_confidence for o in found.outliers} == {None}
    assert found.duplicates.accuracy_without is None
    assert "No accuracy: the network's own classes" in summary(found)
    assert "accuracy  " not in summary(found)
    assert json.loads(json.dumps(found.to_dict()))["accuracy"] is None


def test_a_network_of_ours_needs_its_classes(tiny_bundle: Bundle) -> None:
    data = dataclasses.replace(colours(), classes=("a", "b", "c"))
    with pytest.raises(ValueError, match="the model has the classes red, green, blue, the data"):
        evaluate(Encoder(tiny_bundle), data)
