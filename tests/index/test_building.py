"""Building from pieces: the same index, and never more than a piece of the vectors in memory."""

import itertools
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index import building, kinds, training
from index.approximate import ApproximateIndex, candidates
from index.building import (
    VECTORS_FILE,
    mapped_files,
    pieces_of,
    scattered_vectors,
    workspace,
    write_pieces,
)
from index.catalogue import Catalogue, Record
from index.local import ExactIndex, IndexFileError
from index.neighbours import Ids, IndexInputError, Vectors
from index.snapshots import load_current, publish
from tests.index.vectors import assert_same, brute_force, random_vectors

N, D = 2500, 24
XB = random_vectors(N, D, seed=0)
IDS = np.sort(np.random.default_rng(1).permutation(10**6)[:N])
XQ = random_vectors(20, D, seed=2)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "PIECE", 300)
    monkeypatch.setattr(training, "PIECE", 300)


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw", "rabitq"])
def test_a_collected_index_is_that_of_whole_arrays(kind: str, tmp_path: Path) -> None:
    with workspace(tmp_path) as folder:
        index = kinds.build_collected(
            kinds.collect(pieces_of(IDS, XB), N, D, kind, folder), target=0.99
        )
        assert_same(index.search(XQ, 10), kinds.build(IDS, XB, D, kind, 0.99).search(XQ, 10))
        manifest = publish(tmp_path, index, "m", 3)
    assert not (tmp_path / "building").exists()
    # What is mapped stays readable though its folder is gone.
    everything = IDS.tolist()
    assert_same(index.search(XQ, 5, everything), brute_force(IDS, XB, XQ, 5))
    loaded, again = load_current(tmp_path, "m")
    assert (again, loaded.count()) == (manifest, N)
    assert_same(loaded.search(XQ, 10), index.search(XQ, 10))
    # A generation that was loaded can be published again.
    publish(tmp_path, loaded, "m", 4)
    assert_same(load_current(tmp_path, "m")[0].search(XQ, 10), index.search(XQ, 10))


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "rabitq"])
def test_saving_into_the_folder_that_is_mapped_leaves_the_files_alone(
    kind: str, tmp_path: Path
) -> None:
    index = kinds.build_collected(kinds.collect(pieces_of(IDS, XB), N, D, kind, tmp_path))
    assert isinstance(index, ApproximateIndex)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(index.save(tmp_path)) == set(before)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    np.testing.assert_array_equal(index.vectors(IDS), XB)


def test_on_another_disk_the_files_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    for folder in (one, two, three):
        folder.mkdir()
    index = kinds.build_collected(kinds.collect(pieces_of(IDS, XB), N, D, "rabitq", one))
    assert isinstance(index, ApproximateIndex)

    def refused(*_: object) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr("os.link", refused)
    index.save(two)
    shutil.rmtree(one)
    loaded = kinds.load(two, "rabitq", index.parameters)
    assert_same(loaded.search(XQ, 10), index.search(XQ, 10))
    # Codes that were mapped from a folder that is gone cannot be written once more.
    with pytest.raises(IndexFileError, match="is gone"):
        index.save(three)


def test_a_generation_shares_its_vectors_with_what_was_collected(tmp_path: Path) -> None:
    with workspace(tmp_path) as folder:
        index = kinds.build_collected(kinds.collect(pieces_of(IDS, XB), N, D, "rabitq", folder))
        inode = (folder / "vectors.npy").stat().st_ino
        publish(tmp_path, index, "m")
    assert (tmp_path / "generations/000001/vectors.npy").stat().st_ino == inode


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


class Recording:
    """A FAISS index that notes how many vectors it is given at once."""

    def __init__(self, index: Any) -> None:
        self.index = index
        self.trained: list[int] = []
        self.added: list[int] = []

    def train(self, xb: Vectors) -> None:
        self.trained.append(len(xb))
        self.index.train(xb)

    def add_with_ids(self, xb: Vectors, rows: Ids) -> None:
        self.added.append(len(xb))
        self.index.add_with_ids(xb, rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.index, name)


def test_faiss_is_given_a_sample_and_then_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_TRAINING_PER_LIST", 4)
    monkeypatch.setattr(training, "inner", lambda index: getattr(index, "index", index))
    monkeypatch.setattr("index.approximate.inner", lambda index: getattr(index, "index", index))
    recording = Recording(training.create("IVF20,SQ8", D, ""))
    index = training.train(IDS, XB, recording, "ivf", "IVF20,SQ8", 0.9)
    assert recording.trained == [4 * 256]
    assert (max(recording.added) <= 300, sum(recording.added)) == (True, N)
    assert recording.added[-1] == 125  # the held-out queries come last
    assert index.recall is not None
    assert index.recall["queries"] == 125
    assert sorted(index.search(XB[:50], 1).ids[:, 0].tolist()) == IDS[:50].tolist()


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


def test_the_catalogue_is_read_in_pieces_of_one_state(tmp_path: Path) -> None:
    with Catalogue(tmp_path / "catalogue.sqlite") as catalogue:
        catalogue.upsert([Record(str(i)) for i in range(70)], XB[:70], "m")
        with catalogue.reading_embeddings("m", rows=30) as stored:
            pieces = []
            for ids, xb in stored.pieces:
                pieces.append((ids, xb))
                catalogue.upsert([Record(f"later {len(pieces)}")], XB[:1], "m")
        assert (stored.sequence, stored.count) == (1, 70)
        assert [len(ids) for ids, _ in pieces] == [30, 30, 10]
        np.testing.assert_array_equal(np.concatenate([xb for _, xb in pieces]), XB[:70])
        np.testing.assert_array_equal(np.concatenate([i for i, _ in pieces]), np.arange(1, 71))
        with catalogue.reading_embeddings("other") as stored:
            assert (stored.count, list(stored.pieces)) == (0, [])


def test_the_effort_is_the_cheapest_that_reaches_the_target() -> None:
    index = kinds.build(IDS, XB, D, "rabitq", 0.9)
    assert isinstance(index, ApproximateIndex)
    assert isinstance(index.parameters["rescored"], int)
    assert index.recall is not None
    assert index.recall["value"] >= 0.95
    more = kinds.build(IDS, XB, D, "rabitq", 0.99)
    assert isinstance(more, ApproximateIndex)
    assert more.recall is not None
    assert more.recall["value"] >= 0.995
    assert more.parameters["effort"] * more.parameters["rescored"] > (
        index.parameters["effort"] * index.parameters["rescored"]
    )


def test_no_search_scores_more_than_some_thousand_again(monkeypatch: pytest.MonkeyPatch) -> None:
    xb = random_vectors(5000, D, seed=5)
    index = kinds.build(np.arange(5000), xb, D, "rabitq", 0.9)
    assert isinstance(index, ApproximateIndex)
    index.parameters["rescored"] = 160
    asked: list[int] = []

    def noting(parts: Any, xq: Vectors, fetch: int, effort: int) -> Ids:
        asked.append(fetch)
        return candidates(parts, xq, fetch, effort)

    monkeypatch.setattr("index.approximate.candidates", noting)
    for k in (1, 20, 200, 2048, 2049):
        assert index.search(XQ, k).ids.shape == (20, k)
    assert asked == [160, 3200, 4096, 4096]  # and for more it looks at all of them


def test_few_vectors_give_no_recall(tmp_path: Path) -> None:
    index = kinds.build_collected(
        kinds.collect(pieces_of(IDS[:19], XB[:19]), 19, D, "hnsw", tmp_path)
    )
    assert isinstance(index, ApproximateIndex)
    assert index.recall is None
    empty = kinds.build_collected(kinds.collect([], 0, D, "auto", tmp_path))
    assert isinstance(empty, ExactIndex)
    assert (empty.count(), empty.dimension) == (0, D)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="says how a file is mapped")
def test_rows_that_lie_apart_are_read_without_reading_ahead(tmp_path: Path) -> None:
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
