"""Choosing a kind, and building one from pieces."""

from pathlib import Path
from typing import Any

import pytest

from index.ann import build, kinds, vector_files
from index.ann.approximate import ApproximateIndex
from index.ann.exact import ExactIndex
from index.ann.vector_files import workspace
from index.contract import IndexInputError
from index.local.generations import load_current, publish
from index.local.history import Moment
from tests.index.ann.test_approximate import IDS, XB, XQ, D, N
from tests.index.vectors import assert_same, brute_force, built, pieces_of

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_files, "PIECE", 300)
    monkeypatch.setattr(build, "PIECE", 300)


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
    monkeypatch.setattr("index.ann.kinds._EXACT_BELOW", 100)
    monkeypatch.setattr(
        "index.ann.build.tuned", lambda *_: (16, 2, {"k": 10, "value": 0.5, "queries": 10})
    )
    assert isinstance(built(IDS, XB, D), ExactIndex)
    assert isinstance(built(IDS, XB, D, "ivf"), ApproximateIndex)


def test_auto_takes_lists_where_a_graph_is_not_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.ann.kinds._EXACT_BELOW", 100)
    monkeypatch.setattr("index.ann.kinds._IVF_BELOW", 100)

    def measured(*args: Any) -> tuple[int, int, dict[str, float]]:
        return 16, 2, {"k": 10, "value": 0.5 if args[2] == "hnsw" else 1.0, "queries": 10}

    monkeypatch.setattr("index.ann.build.tuned", measured)
    index = built(IDS, XB, D)
    assert isinstance(index, ApproximateIndex)
    assert index.kind == "ivf"
    graph = built(IDS, XB, D, "hnsw")
    assert isinstance(graph, ApproximateIndex)
    assert graph.kind == "hnsw"


@pytest.mark.parametrize("kind", ["", "nonsense", "Flat", "IVF16,Nothing", "PQ8", "IVF99999,SQ8"])
def test_factory_strings_that_cannot_be_used(kind: str) -> None:
    with pytest.raises(IndexInputError, match=r"another kind|expected"):
        built(IDS, XB, D, kind)


@pytest.mark.parametrize("count", [0, 1, 5, 40, 100])
@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_few_vectors(count: int, kind: str) -> None:
    try:
        index = built(IDS[:count], XB[:count], D, kind)
    except IndexInputError as error:
        assert count == 0 and "another kind" in str(error)
        return
    assert_same(index.search(XQ[:3], 5), brute_force(IDS[:count], XB[:count], XQ[:3], 5))


@pytest.mark.parametrize("kind", ["auto", "ivf", "hnsw", "rabitq", "IVF4,SQ8"])
def test_an_empty_store_gets_an_exact_index_of_any_kind(kind: str, tmp_path: Path) -> None:
    """Otherwise a store whose pictures were all deleted could not switch models any more."""
    index = kinds.build_collected(kinds.collect(iter(()), 0, D, kind, tmp_path))
    assert (index.kind, index.count(), index.dimension) == ("exact", 0, D)


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw", "rabitq"])
def test_a_collected_index_is_that_of_whole_arrays(kind: str, tmp_path: Path) -> None:
    with workspace(tmp_path) as folder:
        index = kinds.build_collected(
            kinds.collect(pieces_of(IDS, XB), N, D, kind, folder), target=0.99
        )
        assert_same(index.search(XQ, 10), built(IDS, XB, D, kind, 0.99).search(XQ, 10))
        manifest = publish(tmp_path, index, "m", Moment("e", 3))
    assert not (tmp_path / "building").exists()
    # What is mapped stays readable although its folder is gone.
    everything = IDS.tolist()
    assert_same(index.search(XQ, 5, everything), brute_force(IDS, XB, XQ, 5))
    loaded, again = load_current(tmp_path, "m")
    assert (again, loaded.count()) == (manifest, N)
    assert_same(loaded.search(XQ, 10), index.search(XQ, 10))
    # A generation that was loaded can be published again.
    publish(tmp_path, loaded, "m", Moment("e", 4))
    assert_same(load_current(tmp_path, "m")[0].search(XQ, 10), index.search(XQ, 10))


def test_a_generation_shares_its_vectors_with_what_was_collected(tmp_path: Path) -> None:
    with workspace(tmp_path) as folder:
        index = kinds.build_collected(kinds.collect(pieces_of(IDS, XB), N, D, "rabitq", folder))
        inode = (folder / "vectors.npy").stat().st_ino
        publish(tmp_path, index, "m")
    assert (tmp_path / "generations/000001/vectors.npy").stat().st_ino == inode
