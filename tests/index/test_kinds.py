from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from index import kinds
from index.approximate import ApproximateIndex
from index.local import ExactIndex, IndexFileError
from index.neighbours import IndexInputError, Searchable, UnknownIdError
from index.snapshots import load_current, publish
from index.training import create
from tests.index.vectors import assert_same, brute_force, signs, unit

N, D = 3000, 32


def clustered(n: int, seed: int) -> np.ndarray:
    """Vectors around 20 centres, as embeddings are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((20, D))
    return unit(centres[rng.integers(0, 20, n)] + 0.7 * rng.standard_normal((n, D)))


XB = clustered(N, seed=0)
XQ = clustered(60, seed=1)
IDS = np.sort(np.random.default_rng(2).permutation(10**6)[:N])


@pytest.fixture(scope="module", params=["ivf", "hnsw", "rabitq", "IVF16,PQ16x4"])
def index(request: pytest.FixtureRequest) -> Searchable:
    return kinds.build(IDS, XB, D, request.param, target=0.99)


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
    manifest = publish(tmp_path, index, "m", 7)
    assert (manifest.kind, manifest.count, manifest.sequence) == (index.kind, N, 7)
    loaded, again = load_current(tmp_path, "m")
    assert again == manifest
    assert again.recall is not None
    places = {"places.npy"} if index.kind == "hnsw" else set()
    assert set(again.files) == {"index.faiss", "ids.npy", "vectors.npy"} | places
    assert_same(loaded.search(XQ, 10), index.search(XQ, 10))
    assert isinstance(loaded, ApproximateIndex)
    assert_same(loaded.exact(XQ, 10), brute_force(IDS, XB, XQ, 10))


def test_ties_put_the_smaller_id_first() -> None:
    xb = np.repeat(signs(300, 16, seed=0), 8, axis=0)
    index = kinds.build(np.arange(2400), xb, 16, "ivf")
    answer = index.search(xb[:40:8], 8)
    for row, ids in enumerate(answer.ids):
        assert ids.tolist() == list(range(8 * row, 8 * row + 8))


@pytest.mark.parametrize(
    ("count", "memory", "kind"),
    [
        (0, 2**34, "exact"),
        (199_999, 2**34, "exact"),
        (200_000, 2**34, "ivf"),
        (10**6, 2**34, "hnsw"),
        (10**7, 2**34, "rabitq"),
        (60_000, 10**8, "rabitq"),
    ],
)
def test_auto(count: int, memory: int, kind: str) -> None:
    assert kinds.choose(count, 256, memory) == kind


def test_auto_takes_exact_where_nothing_else_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.kinds._EXACT_BELOW", 100)
    monkeypatch.setattr(
        "index.training.measured", lambda *_: (16, 2, {"k": 10, "value": 0.5, "queries": 10})
    )
    assert isinstance(kinds.build(IDS, XB, D), ExactIndex)
    assert isinstance(kinds.build(IDS, XB, D, "ivf"), ApproximateIndex)


def test_auto_takes_lists_where_a_graph_is_not_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.kinds._EXACT_BELOW", 100)
    monkeypatch.setattr("index.kinds._IVF_BELOW", 100)

    def measured(*args: Any) -> tuple[int, int, dict[str, float]]:
        return 16, 2, {"k": 10, "value": 0.5 if args[2] == "hnsw" else 1.0, "queries": 10}

    monkeypatch.setattr("index.training.measured", measured)
    index = kinds.build(IDS, XB, D)
    assert isinstance(index, ApproximateIndex)
    assert index.kind == "ivf"
    graph = kinds.build(IDS, XB, D, "hnsw")
    assert isinstance(graph, ApproximateIndex)
    assert graph.kind == "hnsw"


def test_graphs_are_built_with_care() -> None:
    assert create("HNSW32_SQ8", D, "").hnsw.efConstruction == 160


@pytest.mark.parametrize("kind", ["", "nonsense", "Flat", "IVF16,Nothing", "PQ8", "IVF99999,SQ8"])
def test_factory_strings_that_cannot_be_used(kind: str) -> None:
    with pytest.raises(IndexInputError, match=r"another kind|expected"):
        kinds.build(IDS, XB, D, kind)


@pytest.mark.parametrize("count", [0, 1, 5, 40, 100])
@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_few_vectors(count: int, kind: str) -> None:
    try:
        index = kinds.build(IDS[:count], XB[:count], D, kind)
    except IndexInputError as error:
        assert count == 0 and "another kind" in str(error)
        return
    assert_same(index.search(XQ[:3], 5), brute_force(IDS[:count], XB[:count], XQ[:3], 5))


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    index = kinds.build(IDS, XB, D, "hnsw")
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
    with pytest.raises(IndexFileError, match="places None"):
        kinds.load(tmp_path, "hnsw", index.parameters)
    (tmp_path / "elsewhere.npy").rename(tmp_path / "places.npy")
    faiss.write_index(faiss.IndexFlatIP(D), str(tmp_path / "index.faiss"))
    with pytest.raises(IndexFileError, match="fit together"):
        kinds.load(tmp_path, "hnsw", index.parameters)
    with pytest.raises(kinds.UnknownKindError):
        kinds.load(tmp_path, "ivf", {})
