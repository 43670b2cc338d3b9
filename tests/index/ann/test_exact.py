import threading

import numpy as np
import pytest

from index.ann.exact import ExactIndex
from index.contract import IndexInputError, Neighbours, Searchable, UnknownIdError
from tests.index.vectors import assert_same, brute_force, filled, random_vectors, signs, unit


@pytest.mark.parametrize("k", [1, 10, 100, 400])
def test_equals_brute_force(k: int) -> None:
    xb, xq = random_vectors(3000, 48, seed=0), random_vectors(300, 48, seed=1)
    ids = np.random.default_rng(2).permutation(10**6)[:3000]
    expected = brute_force(ids, xb, xq, k)
    index = filled(ids, xb)
    assert_same(index.search(xq, k), expected)
    one_by_one = [index.search(q[None], k) for q in xq]
    assert_same(Neighbours(*map(np.concatenate, zip(*one_by_one, strict=True))), expected)


@pytest.mark.parametrize("k", [1, 7, 64, 900])
def test_ties_put_the_smaller_id_first(k: int) -> None:
    xb, xq = signs(2000, 16, seed=0), signs(200, 16, seed=1)
    ids = np.random.default_rng(2).permutation(2000)
    assert_same(filled(ids, xb).search(xq, k), brute_force(ids, xb, xq, k))


@pytest.mark.parametrize("k", [1, 20, 1000])
def test_scores_that_differ_in_the_last_digit(k: int) -> None:
    """A float32 product would order these wrongly."""
    base, noise = random_vectors(1, 256, seed=0), random_vectors(3000, 256, seed=1)
    xb = unit(base.astype(np.float64) + 1e-3 * noise)
    xq = unit(base.astype(np.float64) + 1e-3 * random_vectors(100, 256, seed=2))
    assert_same(filled(np.arange(3000), xb).search(xq, k), brute_force(np.arange(3000), xb, xq, k))


def test_equal_vectors_have_equal_scores_everywhere() -> None:
    xb = np.repeat(random_vectors(1, 257, seed=0), 1000, axis=0)
    index = filled(np.arange(1000)[::-1], xb)
    answer = index.search(random_vectors(7, 257, seed=1), 1000)
    np.testing.assert_array_equal(answer.ids, np.tile(np.arange(1000), (7, 1)))
    assert (answer.scores == answer.scores[:, :1]).all()


@pytest.mark.parametrize("share", [1, 10, 100, 500, 1999, 2000])
def test_allowed_equals_brute_force_over_the_subset(share: int) -> None:
    xb, xq = signs(2000, 16, seed=3), signs(100, 16, seed=4)
    ids = np.arange(2000) * 3
    rows = np.random.default_rng(share).permutation(2000)[:share]
    answer = filled(ids, xb).search(xq, 50, allowed=ids[rows])
    assert_same(answer, brute_force(ids[rows], xb[rows], xq, 50))


@pytest.mark.parametrize("allowed", [[], [1, 4], [-1]])
def test_allowed_ids_that_are_not_stored_give_nothing(allowed: list[int]) -> None:
    answer = filled([0, 3], random_vectors(2, 8, seed=0)).search(
        random_vectors(2, 8, seed=1), 3, allowed=allowed
    )
    np.testing.assert_array_equal(answer.ids, np.full((2, 3), -1))
    np.testing.assert_array_equal(answer.scores, np.full((2, 3), -np.inf, np.float32))


def test_allowed_may_repeat_and_name_unknown_ids() -> None:
    xb = random_vectors(5, 8, seed=0)
    answer = filled(range(5), xb).search(xb[:1], 4, allowed=[3, 99, 3, 0])
    assert answer.ids.tolist() == [[0, 3, -1, -1]]


def test_k_beyond_the_count_is_padded() -> None:
    xb, xq = random_vectors(3, 8, seed=0), random_vectors(4, 8, seed=1)
    answer = filled([5, 1, 9], xb).search(xq, 6)
    assert_same(answer, brute_force(np.array([5, 1, 9]), xb, xq, 6))
    assert (answer.ids[:, 3:] == -1).all()
    assert np.isneginf(answer.scores[:, 3:]).all()


def test_empty_index_and_no_queries() -> None:
    index = ExactIndex(4)
    xq = random_vectors(2, 4, seed=0)
    assert index.search(xq, 3).ids.tolist() == [[-1] * 3] * 2
    assert index.search(xq, 3, allowed=[1]).ids.tolist() == [[-1] * 3] * 2
    index.add([], np.empty((0, 4), np.float32))
    assert index.count() == 0
    assert filled([1], xq[:1]).search(xq[:0], 3).ids.shape == (0, 3)


def test_additions_one_by_one_in_any_order() -> None:
    xb, xq = random_vectors(120, 8, seed=0), random_vectors(20, 8, seed=1)
    ids = np.random.default_rng(0).permutation(1000)[:120]
    index = ExactIndex(8)
    for i, vector in zip(ids, xb, strict=True):
        index.add([int(i)], vector[None])
    assert_same(index.search(xq, 30), brute_force(ids, xb, xq, 30))
    np.testing.assert_array_equal(index.vectors(ids), xb)


def test_vectors_in_the_order_given() -> None:
    xb = random_vectors(4, 8, seed=0)
    index = filled([10, 20, 30, 40], xb)
    vectors = index.vectors([40, 10, 40])
    np.testing.assert_array_equal(vectors, xb[[3, 0, 3]])
    vectors[:] = 0
    np.testing.assert_array_equal(index.vectors([10]), xb[:1])
    with pytest.raises(UnknownIdError, match="the index has no such id: 5, 41") as caught:
        index.vectors([10, 5, 41])
    assert caught.value.ids == (5, 41)


def test_add_refuses_and_changes_nothing() -> None:
    xb = random_vectors(3, 8, seed=0)
    index = filled([1, 2, 3], xb)
    for ids, vectors, message in (
        ([4, 2], xb[:2], r"ids already stored: \[2\]; remove them first"),
        ([4, 4], xb[:2], r"more than once: \[4\]"),
        ([4], xb[:2], "got 1 ids for 2 vectors"),
        ([-5, 4], xb[:2], "ids holds -5"),
        ([4], xb[:1].astype(np.float64), "xb has dtype float64"),
        ([4], xb[:1, :4], r"xb has shape \(1, 4\); expected \(n, 8\)"),
        ([4], xb[:1] * 2, "xb row 0 has length 2"),
    ):
        with pytest.raises(IndexInputError, match=message):
            index.add(ids, vectors)
        assert index.ids().tolist() == [1, 2, 3]


def test_search_refuses() -> None:
    index = filled([1], random_vectors(1, 8, seed=0))
    for xq, k, allowed, message in (
        (random_vectors(1, 9, seed=0), 1, None, r"xq has shape \(1, 9\)"),
        (random_vectors(1, 8, seed=0), 0, None, "k is 0"),
        (random_vectors(1, 8, seed=0), 16385, None, "k is 16385"),
        (random_vectors(1, 8, seed=0), 1, [0.5], "allowed has dtype float64"),
    ):
        with pytest.raises(IndexInputError, match=message):
            index.search(xq, k, allowed)


@pytest.mark.parametrize("dimension", [0, -3, 65537, 2.0, True])
def test_dimension_refused(dimension: int) -> None:
    with pytest.raises(IndexInputError, match="dimension is"):
        ExactIndex(dimension)


def test_arguments_are_neither_changed_nor_kept() -> None:
    xb = random_vectors(50, 8, seed=0)
    ids = np.arange(50)[::-1].copy()
    index = filled(ids, xb)
    before = index.search(xb[:5].copy(), 5)
    np.testing.assert_array_equal(ids, np.arange(50)[::-1])
    xb[:] = 0
    ids[:] = 0
    assert_same(index.search(random_vectors(50, 8, seed=0)[:5], 5), before)


def test_eight_threads_search_while_one_adds() -> None:
    fixed, moving = random_vectors(500, 32, seed=0), random_vectors(200, 32, seed=1)
    xq = random_vectors(40, 32, seed=2)
    index = filled(np.arange(500), fixed)
    expected = brute_force(np.arange(500), fixed, xq, 10)
    failures: list[str] = []
    done = threading.Event()

    def search() -> None:
        rounds = 0
        while rounds < 5 or not done.is_set():
            rounds += 1
            answer = index.search(xq, 10, allowed=np.arange(500))
            if not (
                np.array_equal(answer.ids, expected.ids)
                and np.array_equal(answer.scores, expected.scores)
            ):
                failures.append("a search over the fixed ids changed")
                return
            everything = index.search(xq, 700)
            for row in everything.ids:
                if not np.isin(np.arange(500), row).all():
                    failures.append("a fixed id was missing")
                    return

    threads = [threading.Thread(target=search) for _ in range(8)]
    for thread in threads:
        thread.start()
    for start in range(0, 200, 10):
        index.add(np.arange(start, start + 10) + 1000, moving[start : start + 10])
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert index.count() == 500 + 200


def test_the_exact_index_implements_the_protocol() -> None:
    index: Searchable = ExactIndex(3)
    assert (index.dimension, index.kind, index.count()) == (3, "exact", 0)
