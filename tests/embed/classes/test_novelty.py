"""How unlike the stored pictures a picture is, on hand-made embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from embed.classes.novelty import (
    LIKE,
    NEIGHBOURS,
    NOT_COMPARED,
    UNLIKE_ALL,
    UNLIKE_MOST,
    Answer,
    Novelty,
    answer,
    fit_novelty,
)

NOVELTY = Novelty(threshold=0.6, lowest=0.5, pictures=100)


def cluster(n: int, axis: int, spread: float = 0.2, d: int = 16, seed: int = 0) -> np.ndarray:
    x = spread * np.random.default_rng(seed).normal(size=(n, d)) / np.sqrt(d)
    x[:, axis] += 1
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def nearest(xq: np.ndarray, xb: np.ndarray) -> np.ndarray:
    return -np.sort(-(xq @ xb.T), axis=1)[:, :NEIGHBOURS]


def test_the_score_is_the_mean_of_the_ten_nearest() -> None:
    similarities = np.full((1, 12), 0.5, np.float32)
    similarities[0, :2] = 0.9, 0.8
    assert NOVELTY.score(similarities) == pytest.approx([(0.9 + 0.8 + 8 * 0.5) / 10])


@pytest.mark.parametrize("absent", [np.nan, -np.inf])
def test_absent_neighbours_do_not_count(absent: float) -> None:
    score = NOVELTY.score([[0.8, 0.6, absent], [absent] * 3])
    assert score.dtype == np.float32
    assert score == pytest.approx([0.7, -1.0])


def test_no_neighbours_at_all() -> None:
    assert NOVELTY.score(np.empty((2, 0))).tolist() == [-1, -1]
    assert NOVELTY.known([-1.0])[0] < 1e-6


def test_known_has_its_values_at_threshold_and_lowest() -> None:
    known = NOVELTY.known([0.7, 0.6, 0.5, 1.0, -1.0])
    assert known.dtype == np.float32
    assert known[:3] == pytest.approx([0.95, 0.5, 0.05])
    assert known[3] == pytest.approx(1, abs=1e-4)
    assert 0 < known[4] < 1e-12


def test_ninety_five_percent_of_the_stored_pictures_pass() -> None:
    x = cluster(400, 0, spread=1.0)
    novelty = fit_novelty(x)
    similarities = x @ x.T
    np.fill_diagonal(similarities, -np.inf)
    score = novelty.score(-np.sort(-similarities, axis=1)[:, :NEIGHBOURS])
    assert novelty.pictures == 400
    assert (novelty.known(score) >= 0.5).mean() == pytest.approx(0.95, abs=0.003)
    assert (novelty.known(score) >= 0.95).mean() == pytest.approx(0.90, abs=0.003)


def test_new_pictures_of_the_same_kind_pass_and_others_do_not() -> None:
    xb = cluster(500, 0, spread=0.7)
    novelty = fit_novelty(xb)
    same = novelty.known(novelty.score(nearest(cluster(500, 0, spread=0.7, seed=1), xb)))
    other = novelty.known(novelty.score(nearest(cluster(500, 3, spread=0.7, seed=2), xb)))
    assert 0.9 < (same >= 0.5).mean() < 0.99
    assert (other < 0.05).mean() > 0.99


def test_held_out_pictures_set_the_threshold() -> None:
    # The first 300 are what a network was trained with: nearer to each other than new ones are.
    x = np.concatenate([cluster(300, 0, spread=0.3), cluster(100, 0, spread=0.9, seed=1)])
    every = fit_novelty(x)
    held_out = fit_novelty(x, held_out=np.arange(300, 400))
    assert held_out.pictures == 100
    assert held_out.threshold < every.threshold


def test_a_sample_is_measured_where_there_are_many() -> None:
    x = cluster(3_000, 0, spread=1.0)
    novelty = fit_novelty(x, seed=1)
    assert novelty.pictures == 2_000
    assert novelty == fit_novelty(x, seed=1)
    assert novelty.threshold == pytest.approx(fit_novelty(x, seed=2).threshold, abs=0.01)


def test_fewer_pictures_than_neighbours() -> None:
    x = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8]], np.float32)
    novelty = fit_novelty(x)  # scores 0.7, 0.88, 0.78
    assert novelty.threshold == pytest.approx(np.quantile([0.7, 0.88, 0.78], 0.05))


def test_equal_scores_make_no_cliff() -> None:
    novelty = fit_novelty(np.ones((20, 1), np.float32))
    assert novelty.threshold == 1
    assert novelty.known([0.999])[0] == pytest.approx(0.357, abs=0.01)


@pytest.mark.parametrize(
    ("n", "held_out", "message"),
    [(1, None, "there are 1 embeddings and 1 held out"), (3, [], "3 embeddings and 0 held out")],
)
def test_too_few(n: int, held_out: list[int] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_novelty(np.ones((n, 1), np.float32), held_out=held_out)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (None, Answer("b", "b", 0.75, NOT_COMPARED)),
        (0.8, Answer("b", "b", 0.6, LIKE)),
        (0.5, Answer("b", "b", 0.375, LIKE)),
        (0.4, Answer(None, "b", 0.3, UNLIKE_MOST)),
        (0.04, Answer(None, "b", 0.03, UNLIKE_ALL)),
    ],
)
def test_answer(known: float | None, expected: Answer) -> None:
    found = answer(("a", "b"), [0.25, 0.75], known)
    assert (found.label, found.nearest, found.grade) == (
        expected.label,
        expected.nearest,
        expected.grade,
    )
    assert found.confidence == pytest.approx(expected.confidence)


def test_an_improbable_class_is_still_the_answer() -> None:
    assert answer("abcde", [0.2, 0.21, 0.2, 0.2, 0.19], 1.0).label == "b"
