from __future__ import annotations

import numpy as np
import pytest

from benchmarks.retrieval import Truth, fit_pca, measure, pixels, reduced, truth_of
from embed.corpus import ArrayCorpus


def corner(labels: np.ndarray, noise: float, seed: int) -> np.ndarray:
    x = np.eye(4, 16)[labels] + noise * np.random.default_rng(seed).normal(size=(len(labels), 16))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def truth() -> Truth:
    test, train = np.arange(100) % 4, np.arange(400) % 4
    # Groups 0..3 are the classes; every third picture has none.
    return Truth(
        test,
        train,
        np.where(np.arange(100) % 3, test, -1),
        np.where(np.arange(400) % 3, train, -1),
    )


def test_perfect_embeddings_score_one(truth: Truth) -> None:
    test = corner(truth.test_labels, 0.01, 0)
    train = corner(truth.train_labels, 0.01, 1)
    found = measure(test, train, truth, {"same": test[:20], "all": test[:20]})
    assert found == {
        "class mAP": pytest.approx(1.0),
        "class precision@10": 1.0,
        "held-out class mAP": pytest.approx(1.0),
        "held-out class precision@10": 1.0,
        "fine precision@1": 1.0,
        "fine precision@10": 1.0,
        "copy recall@1, mean": 1.0,
        "copy recall@10, mean": 1.0,
        "copy recall@1, same": 1.0,
        "copy recall@10, same": 1.0,
        "copy recall@1, all": 1.0,
        "copy recall@10, all": 1.0,
    }


def test_chance_scores_chance(truth: Truth) -> None:
    random = np.zeros(100, np.int64)
    test = corner(random, 1.0, 2)
    train = corner(np.zeros(400, np.int64), 1.0, 3)
    found = measure(test, train, truth)
    assert found["class mAP"] == pytest.approx(0.26, abs=0.03)
    assert found["fine precision@10"] == pytest.approx(0.25, abs=0.05)
    assert not any("copy" in name for name in found)


def test_reduced_takes_all_parts_the_same_way(truth: Truth) -> None:
    test, train = corner(truth.test_labels, 0.1, 0), corner(truth.train_labels, 0.1, 1)
    xq, xb, copies = reduced(test, train, {"same": test[:10]}, 3)
    assert (xq.shape, xb.shape) == ((100, 3), (400, 3))
    assert np.allclose(copies["same"], xq[:10], atol=1e-5)
    # Three directions tell four classes apart.
    assert measure(xq, xb, truth)["class precision@10"] > 0.99


def test_truth_numbers_groups_within_classes() -> None:
    pictures = np.zeros((4, 32, 32, 3), np.uint8)
    corpus = ArrayCorpus(
        "made",
        ("cat", "dog"),
        lambda: {
            "train": (pictures, np.array([0, 0, 1, 1])),
            "test": (pictures[:2], np.array([1, 0])),
        },
        # The same word in two classes is two groups.
        tags=lambda splits: {"train": ["old", "", "old", "young"], "test": ["young", "old"]},
    )
    truth = truth_of(corpus)
    assert truth.train_groups.tolist() == [0, -1, 1, 2]
    assert truth.test_groups.tolist() == [2, 0]
    assert truth.test_labels.tolist() == [1, 0]


def test_pixels_have_length_one() -> None:
    x = pixels(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))
    assert x.shape == (3, 3072)
    assert np.linalg.norm(x, axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_principal_components_keep_what_varies() -> None:
    random = np.random.default_rng(0)
    x = np.zeros((200, 6), np.float32)
    x[:, 2] = 5 * random.normal(size=200)
    x[:, 4] = 3 * random.normal(size=200)
    x += 0.01 * random.normal(size=x.shape).astype(np.float32) + 7
    y = fit_pca(x, 2)(x)
    assert y.shape == (200, 2)
    assert np.linalg.norm(y, axis=1) == pytest.approx(np.ones(200), abs=1e-5)
    plane = x[:, [2, 4]] - x[:, [2, 4]].mean(0)
    plane /= np.linalg.norm(plane, axis=1, keepdims=True)
    # The same angles between pictures, up to a turn or a reflection.
    assert np.abs(y @ y.T - plane @ plane.T).max() < 0.2
    with pytest.raises(ValueError, match="dimension is 7; expected 1 to 6"):
        fit_pca(x, 7)
