"""Vectors in files are written and read in pieces, never all in memory."""

import itertools
import mmap
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from index.ann import build, vector_files
from index.ann.scan import best_of
from index.ann.vector_files import (
    VECTORS_FILE,
    ScatteredRows,
    mapped_files,
    workspace,
    write_pieces,
)
from index.contract import Ids, IndexInputError, Vectors
from tests.index.ann.test_build import IDS, XB, D, N
from tests.index.vectors import pieces_of, random_vectors


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_files, "PIECE", 300)
    monkeypatch.setattr(build, "PIECE", 300)


def test_memory_does_not_grow_with_the_vectors(tmp_path: Path) -> None:
    """NumPy's memory while 40 MB of vectors are collected: a few pieces of 30 kB."""

    def pieces() -> Iterator[tuple[Ids, Vectors]]:
        rng = np.random.default_rng(0)
        for start in range(0, 400_000, 300):
            x = rng.standard_normal((min(300, 400_000 - start), D), np.float32)
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            yield np.arange(start, start + len(x)), x

    tracemalloc.start()
    write_pieces(pieces(), 400_000, D, tmp_path)
    ids, xb = mapped_files(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (ids.shape, xb.shape, xb.nbytes) == ((400_000,), (400_000, D), 38_400_000)
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("ids", "xb", "count", "message"),
    [
        (IDS[::-1], XB, N, "ids do not ascend"),
        (np.concatenate((IDS[:300], IDS[:300])), XB[:600], 600, "ids do not ascend"),
        (IDS - IDS[5], XB, N, "expected ids of 0 or more"),
        (IDS, XB * 2, N, "xb row 0 has length 2"),
        (IDS, XB[:, :5], N, r"expected \(n, 24\)"),
        (IDS, XB, N + 1, "got 2500 vectors; expected 2501"),
    ],
)
def test_pieces_that_are_refused(
    ids: Ids, xb: Vectors, count: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(IndexInputError, match=message):
        write_pieces(pieces_of(ids, xb), count, D, tmp_path)


def test_what_a_crash_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "building").mkdir()
    (tmp_path / "building" / "vectors.npy").write_bytes(b"half")
    with workspace(tmp_path) as folder:
        assert list(folder.iterdir()) == []
        (folder / "something").write_bytes(b"1")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), workspace(tmp_path):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="says how a file is mapped")
def test_isolated_rows_are_read_without_read_ahead(tmp_path: Path) -> None:
    xb = random_vectors(2000, 16, seed=0)
    write_pieces(pieces_of(np.arange(2000), xb), 2000, 16, tmp_path)
    scattered = ScatteredRows(tmp_path)
    np.testing.assert_array_equal(scattered.xb, xb)
    mappings = Path("/proc/self/smaps").read_text().split("VmFlags:")
    flags = [
        after.splitlines()[0].split()
        for before, after in itertools.pairwise(mappings)
        if f"{tmp_path / VECTORS_FILE}\n" in before
    ]
    assert len(flags) == 1
    assert "rr" in flags[0]


class _Requests:
    """A mapping that notes what is requested of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []

    def madvise(self, advice: int, start: int, length: int) -> None:
        self.asked.append((advice, start, length))


def _scattered(folder: Path, n: int, d: int) -> tuple[ScatteredRows, Vectors, _Requests]:
    xb = random_vectors(n, d, seed=0)
    write_pieces(pieces_of(np.arange(n), xb), n, d, folder)
    scattered, requests = ScatteredRows(folder), _Requests()
    scattered._mapping = requests  # type: ignore[assignment]
    return scattered, xb, requests


def test_rows_that_may_be_on_the_disk_are_requested_at_once_and_ranked_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, d = 2000, 266
    scattered, xb, requests = _scattered(tmp_path, n, d)
    rng = np.random.default_rng(1)
    xq = random_vectors(7, d, seed=2)
    rows = np.stack([rng.permutation(n)[:100] for _ in xq])
    rows[3, 40:] = -1
    wanted = best_of(np.arange(n), xb, xq, 10, rows)
    monkeypatch.setattr(vector_files, "_REQUESTED", 200)  # two queries at a time
    found = scattered.best_of(np.arange(n), xq, 10, rows)
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_array_equal(found.scores, wanted.scores)

    assert {advice for advice, _, _ in requests.asked} == {mmap.MADV_WILLNEED}
    assert all(start % mmap.PAGESIZE == 0 for _, start, _ in requests.asked)
    asked = {page for _, start, length in requests.asked for page in _pages(start, start + length)}
    header = (tmp_path / VECTORS_FILE).stat().st_size - n * d * 4
    starts = header + np.unique(rows[rows >= 0]) * d * 4
    assert asked == {page for start in starts for page in _pages(start, start + d * 4)}


def _pages(start: int, stop: int) -> range:
    return range(int(start) // mmap.PAGESIZE, -(-int(stop) // mmap.PAGESIZE))


def test_rows_in_memory_are_not_requested_again_until_a_search_reads_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scattered, _, requests = _scattered(tmp_path, 500, 16)
    xq, rows = random_vectors(1, 16, seed=2), np.arange(50)[None]
    read_before_and_after = iter([0, 8, 8, 8, 8, 8, 8, 16, 16, 24])
    monkeypatch.setattr(vector_files, "_blocks_read", lambda: next(read_before_and_after))
    requested = []
    for _ in range(5):
        requests.asked.clear()
        scattered.best_of(np.arange(500), xq, 5, rows)
        requested.append(len(requests.asked))
    # The first reads, the second does not; the fourth reads without having requested anything.
    assert requested == [50, 50, 0, 0, 50]


def test_no_queries_have_no_neighbours(tmp_path: Path) -> None:
    scattered, _, _ = _scattered(tmp_path, 50, 16)
    found = scattered.best_of(
        np.arange(50), np.empty((0, 16), np.float32), 5, np.empty((0, 9), int)
    )
    assert found.scores.shape == found.ids.shape == (0, 5)
