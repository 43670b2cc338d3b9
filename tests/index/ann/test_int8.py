"""A scan of int8 codes: its candidates include the best, whatever the vectors are."""

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.ann import exact, int8
from index.ann.exact import ExactIndex
from index.ann.int8 import Codes
from index.contract import MAX_K, Vectors
from tests.index.vectors import assert_same, brute_force, filled, random_vectors, signs, unit

needs_kernels = pytest.mark.skipif(
    not int8.available(), reason="NumKong has no int8 instructions for this machine"
)


@pytest.fixture(autouse=True)
def _coded_from_the_first_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_CODED", 1)


def near(n: int, d: int, seed: int, apart: float) -> Vectors:
    """Vectors around three centres, some of them equal."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((3, d))[rng.integers(0, 3, n)]
    xb = unit(centres / np.sqrt(d) + apart * rng.standard_normal((n, d)) / np.sqrt(d))
    xb[rng.integers(0, n, n // 4)] = xb[rng.integers(0, n, n // 4)]
    return xb


def sharp(n: int, d: int, seed: int) -> Vectors:
    """Most of each length in one component."""
    rng = np.random.default_rng(seed)
    xb = rng.standard_normal((n, d)) / np.sqrt(d)
    xb[np.arange(n), rng.integers(0, d, n)] *= 1000
    return unit(xb)


def stretched(n: int, d: int, seed: int) -> Vectors:
    """Lengths at both ends of what is accepted, near-duplicates among them."""
    lengths = np.random.default_rng(seed).choice([1 - 9e-4, 1 + 9e-4], (n, 1)).astype(np.float32)
    return near(n, d, seed, 0.01) * lengths


MAKERS = {
    "random": random_vectors,
    "near": lambda n, d, seed: near(n, d, seed, 0.05),
    "nearly equal": lambda n, d, seed: near(n, d, seed, 1e-4),
    "sharp": sharp,
    "stretched": stretched,
    "one picture": lambda n, d, seed: np.repeat(random_vectors(1, d, seed), n, axis=0),
}


@needs_kernels
@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(MAKERS)),
    n=st.integers(1, 700),
    d=st.sampled_from([1, 2, 3, 17, 64, 65, 266]),
    nq=st.sampled_from([0, 1, 2, 33]),
    k=st.sampled_from([1, 2, 10, 21, 700]),
    size=st.sampled_from([32, 64, 256, int8._PIECE]),
    share=st.sampled_from([None, 0, 0.05, 0.5, 1]),
    seed=st.integers(0, 10**6),
)
def test_equals_brute_force_whatever_the_vectors(
    kind: str, n: int, d: int, nq: int, k: int, size: int, share: float | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    xb = MAKERS[kind](n, d, seed)
    # Queries that are stored, and those that are not.
    xq = np.concatenate((xb[rng.integers(0, n, nq // 2)], MAKERS[kind](nq, d, seed + 1)))[:nq]
    ids = np.sort(rng.permutation(10 * n)[:n])
    rows = None if share is None else np.flatnonzero(rng.random(n) < share)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "_PIECE", size)
        index = filled(ids, xb)
        found = index.search(xq, k, None if rows is None else ids[rows])
    among = np.arange(n) if rows is None else rows
    expected = brute_force(ids[among], xb[among], xq, k)
    # Sums in another order may differ in the last bit, and then so may the order of two ids.
    np.testing.assert_allclose(found.scores, expected.scores, rtol=3e-7, atol=1e-7)
    reference = ExactIndex(d)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "available", lambda: False)
        reference.add(ids, xb)
        assert_same(found, reference.search(xq, k, None if rows is None else ids[rows]))


def worst_case() -> tuple[Vectors, Vectors]:
    """Vectors (32, 64) of which the nearest to the query (1, 64) is the first, by its remainder.

    Rounding takes 0.45 of a step away from each of its components, all in the query's favour, and
    adds as much to its rivals.
    """
    rotation = int8._rotated(np.eye(64, dtype=np.float32)).astype(np.float64)
    s = np.random.default_rng(0).choice([-1.0, 1.0], 64)
    level = np.where(np.arange(64) % 2 == 0, 60.0, -60.0)
    best = (level + 0.45) * s
    rivals = np.tile(level, (30, 1))
    rivals[:, 20:40] += 2  # 40 more in all than the best, and 57.6 less by what is taken away
    rivals = (rivals - 0.45) * s
    largest = np.where(np.arange(64) % 2 == 0, 58.32, -58.32) * s
    largest[0] = -127 * s[0]  # sets the scale: all lengths are 480 within what is accepted
    xb = np.vstack((best, largest, rivals)) / 480 @ rotation.T
    return xb.astype(np.float32), unit(s[None] @ rotation.T)


@needs_kernels
def test_the_bound_is_met_and_cannot_be_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    xb, xq = worst_case()
    assert (xq @ xb.T).argmax() == 0
    codes = Codes.of(xb)
    assert codes.scale == pytest.approx(1 / 480)
    assert 0 in codes.candidates(xq, 1, None, len(xb), 1)[0]  # type: ignore[operator]
    assert filled(np.arange(len(xb)), xb).search(xq, 1).ids.tolist() == [[0]]
    whole = Codes._window
    monkeypatch.setattr(Codes, "_window", lambda *args: whole(*args) // 2)
    assert 0 not in codes.candidates(xq, 1, None, len(xb), 1)[0]  # type: ignore[operator]


@needs_kernels
@pytest.mark.parametrize("d", [1, 17, 64, 266, 1280])
def test_a_code_is_its_vector_within_the_bound(d: int) -> None:
    xb = sharp(50, d, seed=d)
    rotated = int8._rotated(xb)
    assert rotated.shape[1] % 64 == 0
    np.testing.assert_allclose(
        rotated.astype(np.float64) @ rotated.T, xb.astype(np.float64) @ xb.T, atol=1e-5
    )
    scale = np.float32(np.abs(rotated).max() / 127)
    codes, rest = int8._encoded(rotated.copy(), scale)
    assert np.abs(codes).max() == 127
    left = np.linalg.norm(rotated - codes * np.float64(scale), axis=1)
    assert (left <= rest).all()
    assert (rest <= left + 1.5e-4).all()


@needs_kernels
def test_few_candidates_of_vectors_that_differ() -> None:
    """The bound would be of no use if most vectors passed."""
    xb, xq = random_vectors(5000, 256, seed=0), random_vectors(40, 256, seed=1)
    found = Codes.of(xb).candidates(xq, 10, None, 5000, 1)
    assert all(rows is not None and 10 <= len(rows) < 300 for rows in found)


@needs_kernels
def test_too_many_candidates_are_left_to_the_scan_in_float() -> None:
    xb = np.concatenate((signs(100, 16, seed=0), np.repeat(signs(1, 16, seed=1), 900, axis=0)))
    found = Codes.of(xb).candidates(np.concatenate((xb[:1], xb[-1:])), 3, None, 500, 1)
    assert found[0] is not None
    assert found[1] is None
    xq = xb[[0, 500, 3, 999]]
    assert_same(filled(np.arange(1000), xb).search(xq, 7), brute_force(np.arange(1000), xb, xq, 7))


@needs_kernels
def test_codes_for_a_large_k_are_not_asked() -> None:
    xb = random_vectors(3000, 8, seed=0)
    assert Codes.of(xb).candidates(xb[:2], 2000, None, 3000, 1) == [None, None]
    index = filled(np.arange(3000), xb)
    assert_same(index.search(xb[:2], MAX_K), brute_force(np.arange(3000), xb, xb[:2], MAX_K))


@needs_kernels
def test_threads_share_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "_PIECE", 256)
    xb, xq = near(3000, 33, 0, 0.2), near(40, 33, 1, 0.2)
    codes = Codes.of(xb)
    assert len(codes.pieces) == 12
    alone = codes.candidates(xq, 5, None, 3000, 1)
    for threads in (2, 5, 40):
        for one, other in zip(alone, codes.candidates(xq, 5, None, 3000, threads), strict=True):
            assert one is not None
            assert other is not None
            np.testing.assert_array_equal(np.sort(one), np.sort(other))


@needs_kernels
def test_codes_take_a_row_of_whole_cache_lines() -> None:
    codes = Codes.of(random_vectors(6400, 266, seed=0))
    assert 266 * 6400 < codes.nbytes <= 330 * 6400


def test_products_of_the_largest_codes() -> None:
    """What `available` has checked before any index relies on it."""
    if not int8.available():
        pytest.skip("NumKong has no int8 instructions for this machine")
    codes = np.full((33, 1280), 127, np.int8)
    codes[::2] = -127
    out = np.empty((3, 33), np.int32)
    int8._products(codes[:3], int8.numkong.dots_pack(codes, dtype="int8"), out)
    wide = codes.astype(np.int64)
    np.testing.assert_array_equal(out, wide[:3] @ wide.T)


@pytest.mark.parametrize("how", ["no package", "no instructions", "wrong products"])
def test_without_kernels_everything_is_scanned_in_float(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    int8.available.cache_clear()
    try:
        if how == "no package":
            monkeypatch.setattr(int8, "numkong", None)
        elif how == "no instructions":
            monkeypatch.setattr(int8, "_capabilities", lambda: {"serial": True, "haswell": False})
        else:
            monkeypatch.setattr(int8, "_products", lambda codes, packed, out: out.fill(0))
        assert not int8.available()
        monkeypatch.setattr(Codes, "of", None)  # would fail
        xb, xq = random_vectors(500, 48, seed=0), random_vectors(40, 48, seed=1)
        index = filled(np.arange(500), xb)
        assert_same(index.search(xq, 10), brute_force(np.arange(500), xb, xq, 10))
        assert_same(index.search(xq[:1], 10), brute_force(np.arange(500), xb, xq[:1], 10))
    finally:
        monkeypatch.undo()
        int8.available.cache_clear()


@needs_kernels
def test_who_searches_while_codes_are_made_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    xb, xq = random_vectors(300, 16, seed=0), random_vectors(3, 16, seed=1)
    index = filled(np.arange(300), xb)
    expected = brute_force(np.arange(300), xb, xq, 5)
    begun, go_on = threading.Event(), threading.Event()
    of = Codes.of
    made: list[int] = []

    def slow(vectors: Vectors) -> Codes:
        begun.set()
        assert go_on.wait(60)
        made.append(len(vectors))
        return of(vectors)

    monkeypatch.setattr(Codes, "of", slow)
    answers: list[Any] = []
    first = threading.Thread(target=lambda: answers.append(index.search(xq, 5)))
    first.start()
    assert begun.wait(60)
    assert_same(index.search(xq, 5), expected)
    go_on.set()
    first.join()
    assert_same(answers[0], expected)
    assert_same(index.search(xq, 5), expected)
    assert made == [300]


@needs_kernels
def test_codes_are_made_on_loading_and_never_stored(tmp_path: Any) -> None:
    xb = random_vectors(300, 16, seed=0)
    index = filled(np.arange(300), xb)
    index.save(tmp_path / "before")
    index.search(xb[:1], 3)
    assert index._state.coding._codes is not None
    index.save(tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()
    assert ExactIndex.load(tmp_path / "after")._state.coding._codes is not None
