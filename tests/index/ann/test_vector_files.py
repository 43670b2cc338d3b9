"""Vectors in files are written and read in pieces, never all in memory."""

import itertools
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from index.ann import build, vector_files
from index.ann.vector_files import (
    VECTORS_FILE,
    mapped_files,
    scattered_vectors,
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
    scattered = scattered_vectors(tmp_path)
    np.testing.assert_array_equal(scattered, xb)
    mappings = Path("/proc/self/smaps").read_text().split("VmFlags:")
    flags = [
        after.splitlines()[0].split()
        for before, after in itertools.pairwise(mappings)
        if f"{tmp_path / VECTORS_FILE}\n" in before
    ]
    assert len(flags) == 1
    assert "rr" in flags[0]
