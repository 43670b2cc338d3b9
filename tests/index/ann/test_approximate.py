"""FAISS's approximate indexes: recall, exact scores, filters, files."""

import shutil
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from index.ann import kinds
from index.ann.approximate import ApproximateIndex, candidates
from index.contract import (
    Ids,
    IndexFileError,
    IndexInputError,
    Searchable,
    UnknownIdError,
    UnknownKindError,
    Vectors,
)
from index.local.generations import load_current, publish
from index.local.history import Moment
from tests.index.vectors import (
    assert_same,
    brute_force,
    built,
    pieces_of,
    random_vectors,
    signs,
    unit,
)

N, D = 3000, 32


def clustered(n: int, seed: int) -> np.ndarray:
    """Vectors around 20 centres, like embeddings."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((20, D))
    return unit(centres[rng.integers(0, 20, n)] + 0.7 * rng.standard_normal((n, D)))


XB = clustered(N, seed=0)
XQ = clustered(60, seed=1)
IDS = np.sort(np.random.default_rng(2).permutation(10**6)[:N])


@pytest.fixture(scope="module", params=["ivf", "hnsw", "rabitq", "IVF16,PQ16x4"])
def index(request: pytest.FixtureRequest) -> Searchable:
    return built(IDS, XB, D, request.param, target=0.99)


def test_finds_nearly_all_and_scores_exactly(index: Searchable) -> None:
    assert isinstance(index, ApproximateIndex)
    assert index.recall is not None
    assert (index.recall["k"], index.recall["queries"]) == (10, 150)
    truth = brute_force(IDS, XB, XQ, 10)
    answer = index.search(XQ, 10)
    found = np.mean([np.isin(a, b).mean() for a, b in zip(truth.ids, answer.ids, strict=True)])
    assert found >= index.recall["value"] - 0.05
    if "PQ" not in index.kind:
        assert index.recall["value"] >= 0.99
    for scores, ids, q in zip(answer.scores, answer.ids, XQ, strict=True):
        rows = np.searchsorted(IDS, ids)
        np.testing.assert_array_equal(
            scores, (XB[rows].astype(np.float64) @ q.astype(np.float64)).astype(np.float32)
        )
        assert (np.diff(scores) <= 0).all()


def test_filters_are_exact(index: Searchable) -> None:
    for share in (1, 40, 1000, 2999, N):
        rows = np.sort(np.random.default_rng(share).permutation(N)[:share])
        for k in (1, 10, 200):
            answer = index.search(XQ, k, allowed=[*IDS[rows][::-1], 10**7])
            assert_same(answer, brute_force(IDS[rows], XB[rows], XQ, k))
    assert index.search(XQ, 3, allowed=[]).ids.tolist() == [[-1] * 3] * 60


def test_large_k_and_one_by_one(index: Searchable) -> None:
    for k in (2100, N, N + 50):
        assert_same(index.search(XQ[:5], k), brute_force(IDS, XB, XQ[:5], k))
    together = index.search(XQ, 10)
    for i in range(10):
        alone = index.search(XQ[i : i + 1], 10)
        np.testing.assert_array_equal(alone.ids[0], together.ids[i])
    assert index.search(XQ[:0], 10).ids.shape == (0, 10)


def test_vectors_and_ids(index: Searchable) -> None:
    np.testing.assert_array_equal(index.ids(), IDS)
    np.testing.assert_array_equal(index.vectors(IDS[[5, 2, 5]]), XB[[5, 2, 5]])
    with pytest.raises(UnknownIdError):
        index.vectors([int(IDS[0]), 10**8])
    with pytest.raises(IndexInputError, match="k is 0"):
        index.search(XQ, 0)
    with pytest.raises(IndexInputError, match="k is 2000000000"):
        index.search(XQ, 2_000_000_000)
    with pytest.raises(IndexInputError, match=r"xq has shape \(1, 5\)"):
        index.search(XQ[:1, :5], 1)


def test_published_and_loaded(index: Searchable, tmp_path: Path) -> None:
    manifest = publish(tmp_path, index, "m", Moment("e", 7))
    assert (manifest.kind, manifest.count, manifest.sequence) == (index.kind, N, 7)
    loaded, again = load_current(tmp_path, "m")
    assert again == manifest
    assert again.recall is not None
    order = {"places.npy"} if index.kind == "hnsw" else set()
    assert set(again.files) == {"index.faiss", "ids.npy", "vectors.npy"} | order
    assert_same(loaded.search(XQ, 10), index.search(XQ, 10))
    assert isinstance(loaded, ApproximateIndex)
    assert_same(loaded.exact(XQ, 10), brute_force(IDS, XB, XQ, 10))


def test_ties_put_the_smaller_id_first() -> None:
    xb = np.repeat(signs(300, 16, seed=0), 8, axis=0)
    index = built(np.arange(2400), xb, 16, "ivf")
    answer = index.search(xb[:40:8], 8)
    for row, ids in enumerate(answer.ids):
        assert ids.tolist() == list(range(8 * row, 8 * row + 8))


def test_files_that_do_not_match_are_refused(tmp_path: Path) -> None:
    index = built(IDS, XB, D, "hnsw")
    assert isinstance(index, ApproximateIndex)
    index.save(tmp_path)
    for name, content in (
        ("ids.npy", IDS[::-1].copy()),
        ("ids.npy", IDS - IDS[-1]),
        ("ids.npy", IDS[:-1]),
        ("ids.npy", IDS.astype(np.float64)),
        ("places.npy", np.zeros(N, np.int32)),
        ("vectors.npy", XB[:-1]),
        ("ids.npy", np.array([object()], object)),
    ):
        whole = (tmp_path / name).read_bytes()
        np.save(tmp_path / name, content, allow_pickle=True)
        with pytest.raises(IndexFileError, match="rebuild the index"):
            kinds.load(tmp_path, "hnsw", index.parameters)
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "places.npy").rename(tmp_path / "elsewhere.npy")
    with pytest.raises(IndexFileError, match="order None"):
        kinds.load(tmp_path, "hnsw", index.parameters)
    (tmp_path / "elsewhere.npy").rename(tmp_path / "places.npy")
    faiss.write_index(faiss.IndexFlatIP(D), str(tmp_path / "index.faiss"))
    with pytest.raises(IndexFileError, match="files that match"):
        kinds.load(tmp_path, "hnsw", index.parameters)
    with pytest.raises(UnknownKindError):
        kinds.load(tmp_path, "ivf", {})


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
    # Codes mapped from a folder that is gone cannot be written again.
    with pytest.raises(IndexFileError, match="is gone"):
        index.save(three)


def test_the_number_of_rescored_candidates_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    xb = random_vectors(5000, D, seed=5)
    index = built(np.arange(5000), xb, D, "rabitq", 0.9)
    assert isinstance(index, ApproximateIndex)
    index.parameters["rescored"] = 160
    asked: list[int] = []

    def noting(parts: Any, xq: Vectors, fetch: int, effort: int) -> Ids:
        asked.append(fetch)
        return candidates(parts, xq, fetch, effort)

    monkeypatch.setattr("index.ann.approximate.candidates", noting)
    for k in (1, 20, 200, 2048, 2049):
        assert index.search(XQ, k).ids.shape == (len(XQ), k)
    assert asked == [160, 3200, 4096, 4096]  # beyond that, it scans all of them
