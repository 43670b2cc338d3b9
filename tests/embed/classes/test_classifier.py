"""The classifier of a store's labels, on hand-made embeddings."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from embed.classes import classifier as module
from embed.classes.classifier import (
    GRID,
    Classifier,
    ClassifierError,
    TooFewLabelsError,
    fit_classifier,
    near_duplicates,
)
from embed.classes.novelty import NEIGHBOURS, Novelty, answer

D = 12


def clusters(n: int, names: str = "abc", spread: float = 0.8, seed: int = 0) -> tuple:
    """``n`` embeddings of each class, around an axis of its own, and their labels."""
    labels = list(names * n)
    x = spread * np.random.default_rng(seed).normal(size=(len(labels), D)) / np.sqrt(D)
    x[np.arange(len(x)), [names.index(name) for name in labels]] += 1
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


def predicted(classifier: Classifier, x: np.ndarray) -> list[str]:
    return [classifier.classes[i] for i in classifier.probabilities(x).argmax(axis=1)]


@pytest.fixture(scope="module")
def fitted() -> Classifier:
    return fit_classifier(*clusters(40), "sha256:model")


def test_it_learns_the_classes(fitted: Classifier) -> None:
    x, labels = clusters(50, seed=1)
    probabilities = fitted.probabilities(x)
    assert fitted.classes == ("a", "b", "c")
    assert fitted.counts == {"a": 40, "b": 40, "c": 40}
    assert fitted.left_out == {}
    assert (fitted.model, fitted.splits) == ("sha256:model", 5)
    assert fitted.c in GRID
    assert probabilities.dtype == np.float32
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    right = np.mean([a == b for a, b in zip(predicted(fitted, x), labels, strict=True)])
    assert right > 0.95
    assert fitted.accuracy == pytest.approx(right, abs=0.04)


def test_confidence_matches_accuracy_where_the_classes_overlap() -> None:
    classifier = fit_classifier(*clusters(300, spread=2.5), "m")
    x, labels = clusters(2_000, spread=2.5, seed=1)
    probabilities = classifier.probabilities(x)
    right = np.array(predicted(classifier, x)) == np.array(labels)
    assert 0.6 < right.mean() < 0.95
    assert classifier.accuracy == pytest.approx(right.mean(), abs=0.03)
    assert probabilities.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.04)
    assert classifier.ece < 0.05


def test_noise_gives_no_confidence() -> None:
    x, labels = clusters(100)
    classifier = fit_classifier(x, list(np.random.default_rng(0).permutation(labels)), "m")
    assert classifier.accuracy < 0.45
    assert classifier.probabilities(x).max() < 0.6


def test_two_classes() -> None:
    classifier = fit_classifier(*clusters(20, "ab"), "m")
    x, labels = clusters(50, "ab", seed=1)
    assert classifier.weight.shape == (2, D)
    assert predicted(classifier, x) == labels
    assert classifier.accuracy == 1


def test_the_order_of_pictures_and_the_names_of_classes_do_not_matter(fitted: Classifier) -> None:
    x, labels = clusters(40)
    other = fit_classifier(x, [{"a": "z", "b": "y", "c": "x"}[name] for name in labels], "m")
    assert other.classes == ("x", "y", "z")
    assert (other.accuracy, other.c) == (fitted.accuracy, fitted.c)
    assert other.temperature == pytest.approx(fitted.temperature, rel=1e-3)
    xq, _ = clusters(10, seed=1)
    expected = fitted.probabilities(xq)
    assert other.probabilities(xq)[:, ::-1] == pytest.approx(expected, abs=1e-3)
    order = np.random.default_rng(0).permutation(len(x))
    shuffled = fit_classifier(x[order], [labels[i] for i in order], "m")
    assert np.abs(shuffled.probabilities(xq) - expected).max() < 0.1


def test_more_pictures_make_a_class_more_probable() -> None:
    x, _ = clusters(110, "a", spread=3)
    classifier = fit_classifier(x, ["many"] * 100 + ["few"] * 10, "m")
    assert classifier.probabilities(x).mean(axis=0) == pytest.approx(
        [10 / 110, 100 / 110], abs=0.03
    )


def test_a_class_with_too_few_pictures_is_named_not_learnt() -> None:
    x, labels = clusters(20, "abcd")
    kept = [i for i, name in enumerate(labels) if name != "d" or i < 16]
    classifier = fit_classifier(x[kept], [labels[i] for i in kept], "m")
    assert classifier.classes == ("a", "b", "c")
    assert classifier.left_out == {"d": 4}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "0 of 0 classes"),
        (["a"] * 20, r"1 of 1 classes .* \(enough: 'a' has 20\); label more"),
        (["a"] * 9 + ["b"] * 4, r"1 of 2 classes .* 'a' has 9\) \(too few: 'b' has 4\)"),
        (list("abcdefg"), r"0 of 7 classes .*'e' has 1 and 2 more\)"),
    ],
)
def test_too_few_labels(labels: list[str], message: str) -> None:
    with pytest.raises(TooFewLabelsError, match=message):
        fit_classifier(np.ones((len(labels), D), np.float32), labels, "m")


def test_arrays_that_do_not_fit() -> None:
    x, labels = clusters(10)
    with pytest.raises(ValueError, match=r"shape \(30, 12\) and there are 29 labels"):
        fit_classifier(x, labels[1:], "m")
    x[3, 3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        fit_classifier(x, labels, "m")


def test_embeddings_of_another_dimension(fitted: Classifier) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 5\).*\(n, 12\).*sha256:model"):
        fitted.probabilities(np.ones((2, 5), np.float32))


def test_near_duplicates_are_connected_components() -> None:
    angles = np.deg2rad([0, 10, 20, 90, 95, 180])  # cosines 0.985 and 0.996 to the next
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    for chunk in (1, 2, 100):
        groups = near_duplicates(x, 0.97, chunk)
        assert groups[0] == groups[1] == groups[2]
        assert groups[3] == groups[4]
        assert len(set(groups)) == 3


def test_near_duplicates_are_never_on_both_sides() -> None:
    x, labels = clusters(20, spread=1.5)
    copies = x + np.float32(0.01) * np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    both = np.concatenate([x, copies / np.linalg.norm(copies, axis=1, keepdims=True)])
    y = np.array([ord(name) - ord("a") for name in labels * 2])
    split = module._divided(both, y, 5, seed=0)
    assert set(split) == {0, 1, 2, 3, 4}
    assert (split[: len(x)] == split[len(x) :]).all()
    for number in range(5):
        assert np.bincount(y[split == number]).tolist() == [8, 8, 8]


def test_copies_of_mislabelled_pictures_do_not_flatter() -> None:
    # The labels are noise; only who has seen a copy can know them.
    x = clusters(60, "a", spread=5)[0]
    labels = list(np.random.default_rng(0).permutation(list("ab" * 30)))
    assert fit_classifier(np.repeat(x, 4, axis=0), list(np.repeat(labels, 4)), "m").accuracy < 0.7


def test_classes_that_consist_of_copies_are_measured_all_the_same() -> None:
    x = np.repeat(np.eye(3, D, dtype=np.float32), 6, axis=0)
    classifier = fit_classifier(x, list("aaaaaabbbbbbcccccc"), "m")
    assert classifier.accuracy == 1
    assert predicted(classifier, x[::6]) == ["a", "b", "c"]


def test_many_pictures_are_sampled_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.array([0] * 900 + [1] * 90 + [2] * 10)
    rows = module._draw(y, 200, np.random.default_rng(0))
    assert np.bincount(y[rows]).tolist() == [180, 18, 5]
    assert len(set(rows)) == len(rows)
    monkeypatch.setattr(module, "MAX_COMPARED", 60)
    classifier = fit_classifier(*clusters(100), "m")
    assert classifier.counts == {"a": 100, "b": 100, "c": 100}
    assert classifier.accuracy > 0.9


def test_many_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(150, 64))
    x = np.repeat(centres, 8, axis=0) + 0.5 * rng.normal(size=(1_200, 64))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    monkeypatch.setattr(module, "MAX_WORK", 1e5)
    classifier = fit_classifier(x, [str(i // 8) for i in range(1_200)], "m")
    assert (len(classifier.classes), classifier.splits) == (150, 3)
    assert classifier.accuracy > 0.9


def test_progress_and_cancelling() -> None:
    seen = []
    fit_classifier(*clusters(20), "m", progress=lambda done, total: seen.append((done, total)))
    done = [step for step, _ in seen]
    assert done == sorted(set(done))
    assert seen[0] == (0, seen[-1][1])
    assert seen[-1][0] == seen[-1][1]

    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise StopError

    with pytest.raises(StopError):
        fit_classifier(*clusters(20), "m", progress=stop)


def test_the_embeddings_are_left_as_they_are() -> None:
    x, labels = clusters(20)
    before = x.copy()
    fit_classifier(x, labels, "m")
    assert (x == before).all()


def test_an_outlier_is_none_of_the_classes(fitted: Classifier) -> None:
    xb, _ = clusters(40)
    xq = np.concatenate([clusters(1, seed=5)[0], -xb[:1], np.eye(D, dtype=np.float32)[-1:]])
    similarities = -np.sort(-(xq @ xb.T), axis=1)[:, :NEIGHBOURS]
    assert fitted.novelty is not None
    known = fitted.novelty.known(fitted.novelty.score(similarities))
    found = [
        answer(fitted.classes, p, float(k))
        for p, k in zip(fitted.probabilities(xq), known, strict=True)
    ]
    assert [one.label for one in found] == ["a", "b", "c", None, None]
    assert all(one.confidence < 0.05 for one in found[3:])


@pytest.mark.parametrize("novelty", [True, False])
def test_bytes(fitted: Classifier, novelty: bool) -> None:
    before = fitted if novelty else dataclasses.replace(fitted, novelty=None)
    data = before.to_bytes()
    after = Classifier.from_bytes(data)
    for field in dataclasses.fields(Classifier):
        assert np.array_equal(getattr(after, field.name), getattr(before, field.name)), field.name
    assert after.to_bytes() == data
    assert after.digest == before.digest
    assert isinstance(after.novelty, Novelty) is novelty


def test_the_digest_is_of_what_answers_depend_on(fitted: Classifier) -> None:
    digest = fitted.digest
    assert digest.startswith("sha256:")
    assert dataclasses.replace(fitted, accuracy=0.5).digest == digest
    assert dataclasses.replace(fitted, temperature=2.0).digest != digest
    assert dataclasses.replace(fitted, weight=fitted.weight + 1).digest != digest
    assert dataclasses.replace(fitted, novelty=None).digest != digest


def test_damaged_bytes(fitted: Classifier) -> None:
    data = fitted.to_bytes()
    for damaged in (b"", b"no classifier", data[:50], data[:-1], data + b"x"):
        with pytest.raises(ClassifierError):
            Classifier.from_bytes(damaged)
    for position in range(0, len(data), 37):
        flipped = bytearray(data)
        flipped[position] ^= 1
        with pytest.raises(ClassifierError):
            Classifier.from_bytes(bytes(flipped))


def test_a_newer_format(fitted: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORMAT_VERSION", 2)
    data = fitted.to_bytes()
    monkeypatch.undo()
    with pytest.raises(ClassifierError, match="format 2, this program reads 1; use the version"):
        Classifier.from_bytes(data)


def test_it_holds_no_pickles(fitted: Classifier) -> None:
    data = fitted.to_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert sorted(header) == ["__metadata__", "bias", "weight"]
