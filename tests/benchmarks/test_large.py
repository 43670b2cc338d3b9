"""What the benchmarks of a million vectors choose, keep and print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import contenders, growth, vectors
from benchmarks.peers.graphs import graph, is_peer
from benchmarks.suite.parts import LARGE, PARTS
from index.ann.scan import exact_rows

K = contenders.K


def _unit(n: int, d: int, seed: int) -> np.ndarray:
    return vectors.unit(np.random.default_rng(seed).standard_normal((n, d), np.float32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """4,000 real vectors, of which 3,500 are finished."""
    np.save(tmp_path / "real.npy", _unit(4000, 8, seed=0).astype(np.float16))
    state = {"count": 4000, "dimension": 8, "done": 3500}
    (tmp_path / "real.json").write_text(json.dumps(state))
    return tmp_path


def test_queries_are_the_vectors_after_the_database(folder: Path) -> None:
    real = np.load(folder / "real.npy")
    xb, xq = vectors.database_and_queries(folder, 2000)
    np.testing.assert_array_equal(xb, real[:2000])
    np.testing.assert_array_equal(xq, vectors.unit(real[2000:3000]))


@pytest.mark.parametrize("count", [2501, None])
def test_vectors_that_do_not_exist_yet_are_not_measured(folder: Path, count: int | None) -> None:
    with pytest.raises(SystemExit, match=r"has 3,500 finished vectors"):
        vectors.database_and_queries(folder, count)


def test_the_truth_is_that_of_brute_force_and_kept(folder: Path) -> None:
    xb, xq = vectors.database_and_queries(folder, 2000)
    _, path = contenders.queries_and_truth(folder, xb, xq, "real-2000")
    wanted = np.argsort(-(xq @ vectors.unit(xb).T), axis=1)[:, :K]
    assert (np.sort(np.load(path), axis=1) == np.sort(wanted, axis=1)).mean() > 0.999
    np.save(path, wanted[:5])
    _, path = contenders.queries_and_truth(folder, xb, xq, "real-2000")
    assert len(np.load(path)) == 5


class _Slow:
    """An index that finds ``effort`` of the ten nearest, in a time that the clock below counts."""

    def __init__(self) -> None:
        self.options = [[effort, many] for effort in (2, 4, 6, 8, 10) for many in (1, 2)]
        self.now, self.values = 0.0, [0, 0]

    def set(self, values: list[int], threads: int) -> None:
        self.values = values

    def search(self, xq: np.ndarray) -> np.ndarray:
        effort, many = self.values
        # Twice as many candidates cost more but for the effort of 6.
        self.now += effort * (many if effort != 6 else 1 / many)
        found = np.full((len(xq), K), -1)
        found[:, :effort] = np.arange(effort)
        return found


def test_the_fastest_setting_that_reaches_each_target_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index: Any = _Slow()
    monkeypatch.setattr(contenders.time, "perf_counter", lambda: index.now)
    truth = np.broadcast_to(np.arange(K), (50, K))
    xq, targets = np.empty((50, 4), np.float32), [0.35, 0.5, 0.75, 1.0]
    chosen = contenders._fastest(index, xq, truth, targets)
    assert chosen == [
        {"target": 0.35, "values": [6, 2]},
        {"target": 0.5, "values": [6, 2]},
        {"target": 0.75, "values": [8, 1]},
        {"target": 1.0, "values": [10, 1]},
    ]
    index.options = [[effort, 1] for effort in (2, 4)]
    chosen = contenders._fastest(index, xq, truth, targets)
    assert chosen == [{"target": 0.35, "values": [4, 1]}, {"target": None, "values": [4, 1]}]


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("hnswlib-16", "hnswlib"),
        ("usearch-bf16", "usearch"),
        ("rabitqlib-7", "rabitqlib"),
        ("faiss:RR64,HNSW32,RaBitQ4,Refine(SQ8)", "faiss"),
    ],
)
def test_other_libraries_find_the_nearest_after_saving_and_loading(
    name: str, library: str, tmp_path: Path
) -> None:
    pytest.importorskip(library)
    assert is_peer(name)
    xb, xq = _unit(1000, 64, seed=1), _unit(20, 64, seed=2)
    built = graph(name, 64)
    built.build([(np.arange(600), xb[:600]), (np.arange(600, 1000), xb[600:])], 1000, 1)
    built.save(tmp_path)
    loaded = graph(name, 64)
    loaded.load(tmp_path)
    loaded.set(200, 1)
    truth = exact_rows(xb, xq, K)[:, :K]
    assert contenders.recall(loaded.search(xq, K), truth) >= 0.85


def test_lookalikes_kinds_are_no_peers() -> None:
    assert [name for name in ("exact", "ivf", "hnsw", "rabitq") if is_peer(name)] == []


def test_the_table_of_growth_is_per_vector() -> None:
    row = {
        "count": 1_000_000,
        "seconds": 20.04,
        "cpu": 1300.0,
        "anonymous": 5e8,
        "sizes": {"index.faiss": 33e6, "vectors.npy": 1064e6, "ids.npy": 8e6, "about.json": 0},
        "held": 2e5,
        "recall_found": 0.9444,
        "median": 0.693,
        "p99": 0.904,
        "limited": {"recall": 0.9444, "median": 4.2, "p99": 8.0},
    }
    assert growth.growth_table([row]).splitlines()[2:] == [
        "| 1,000,000 | 20.0; 1,300.0 | 500 | 33.0; 1,072 | 0.2 | 0.944 | 0.69, 0.90"
        " | 0.944; 4.20, 8.00 |"
    ]


def test_large_parts_have_names_of_their_own() -> None:
    names = [part.name for part in (*PARTS, *LARGE)]
    assert len(set(names)) == len(names)
