import numpy as np
import pytest

from index.ann.exact import ExactIndex
from index.ann.overlay import Overlay
from index.contract import MAX_K, UnknownIdError
from tests.index.vectors import assert_same, brute_force, filled, random_vectors, signs

NONE = np.empty(0, np.int64)


def test_what_was_added_deleted_and_changed_is_one_index() -> None:
    xb, new, xq = (random_vectors(n, 16, seed=n) for n in (400, 60, 50))
    overlay = Overlay.over(filled(np.arange(400), xb))
    truth = dict(enumerate(xb))
    # 380..419: twenty new vectors for stored ids, twenty new ids; then some of each are deleted.
    overlay = overlay.changed(np.arange(380, 420), new[:40], np.arange(10))
    truth |= dict(zip(range(380, 420), new[:40], strict=True))
    overlay = overlay.changed(np.array([5, 390, 600]), new[40:43], np.array([415, 200, 777]))
    truth |= {5: new[40], 390: new[41], 600: new[42]}
    for gone in (0, 1, 2, 3, 4, 6, 7, 8, 9, 200, 415):
        del truth[gone]
    ids = np.array(sorted(truth))
    vectors = np.stack([truth[i] for i in ids.tolist()])
    assert overlay.count() == len(ids)
    np.testing.assert_array_equal(overlay.ids(), ids)
    np.testing.assert_array_equal(overlay.vectors(ids[::-1]), vectors[::-1])
    for k in (1, 10, 500):
        assert_same(overlay.search(xq, k), brute_force(ids, vectors, xq, k))
    some = np.random.default_rng(0).permutation(ids)[:37]
    kept = np.isin(ids, some)
    allowed = np.concatenate((some, [0, 200, 415, 10**6]))
    assert_same(overlay.search(xq, 20, allowed), brute_force(ids[kept], vectors[kept], xq, 20))
    with pytest.raises(UnknownIdError) as error:
        overlay.vectors([5, 200, 415, 10**6, 390])
    assert error.value.ids == (200, 415, 10**6)


@pytest.mark.parametrize("gone", [1, 40, 900, 1100, 2000])
def test_many_masked_and_ties(gone: int) -> None:
    xb, xq = signs(2000, 16, seed=0), signs(40, 16, seed=1)
    deleted = np.random.default_rng(gone).permutation(2000)[:gone]
    overlay = Overlay.over(filled(np.arange(2000), xb)).changed(NONE, xb[:0], deleted)
    left = np.setdiff1d(np.arange(2000), deleted)
    for k in (1, 30, 1500):
        assert_same(overlay.search(xq, k), brute_force(left, xb[left], xq, k))


def test_the_nearest_of_all_are_masked() -> None:
    """More of the nearest are masked than a search fetches at first."""
    near = np.repeat(random_vectors(1, 8, seed=0), 500, axis=0)
    xb = np.concatenate((near, random_vectors(1000, 8, seed=1)))
    overlay = Overlay.over(filled(np.arange(1500), xb)).changed(NONE, xb[:0], np.arange(499))
    answer = overlay.search(near[:2], 3)
    assert answer.ids[:, 0].tolist() == [499, 499]
    assert_same(answer, brute_force(np.arange(499, 1500), xb[499:], near[:2], 3))


def test_the_largest_k() -> None:
    xb = random_vectors(MAX_K + 50, 4, seed=0)
    overlay = Overlay.over(filled(np.arange(len(xb)), xb)).changed(NONE, xb[:0], np.arange(30))
    answer = overlay.search(xb[:1], MAX_K)
    assert_same(answer, brute_force(np.arange(30, len(xb)), xb[30:], xb[:1], MAX_K))


def test_empty_base_and_no_queries() -> None:
    xb = random_vectors(3, 8, seed=0)
    overlay = Overlay.over(ExactIndex(8)).changed(np.array([7, 8, 9]), xb, np.array([1]))
    assert overlay.search(xb[:1], 2).ids.tolist()[0][0] == 7
    assert overlay.search(xb[:0], 2).ids.shape == (0, 2)
    empty = overlay.changed(NONE, xb[:0], np.array([7, 8, 9]))
    assert empty.count() == 0
    assert empty.search(xb[:1], 2).ids.tolist() == [[-1, -1]]
    assert empty.changed(NONE, xb[:0], NONE) is empty
    assert (overlay.added, overlay.masked, overlay.kind) == (3, 0, "exact")
