"""FAISS is trained on a sample and filled piece by piece."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.ann import approximate, build, kinds, tuning, vector_files
from index.ann.approximate import ApproximateIndex, inner
from index.ann.build import create
from index.ann.exact import ExactIndex
from index.contract import Ids, Vectors
from tests.index.vectors import pieces_of, random_vectors

N, D = 2500, 24
XB = random_vectors(N, D, seed=0)
IDS = np.sort(np.random.default_rng(1).permutation(10**6)[:N])
XQ = random_vectors(20, D, seed=2)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_files, "PIECE", 300)
    monkeypatch.setattr(build, "PIECE", 300)


class Recording:
    """A FAISS index that records how many vectors it receives at once."""

    def __init__(self, index: Any) -> None:
        self.recorded = index
        self.trained: list[int] = []
        self.added: list[int] = []

    def train(self, xb: Vectors) -> None:
        self.trained.append(len(xb))
        self.recorded.train(xb)

    def add_with_ids(self, xb: Vectors, rows: Ids) -> None:
        self.added.append(len(xb))
        self.recorded.add_with_ids(xb, rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.recorded, name)


def test_faiss_receives_a_sample_and_then_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "TRAINING_PER_LIST", 4)
    for module in (build, approximate, tuning):
        monkeypatch.setattr(module, "inner", lambda index: inner(getattr(index, "recorded", index)))
    recording = Recording(build.create("IVF20,SQ8", D))
    index = build.train(IDS, XB, recording, "ivf", "IVF20,SQ8", 0.9)
    assert recording.trained == [4 * 256]
    assert (max(recording.added) <= 300, sum(recording.added)) == (True, N)
    assert recording.added[-1] == 125  # the held-out queries come last
    assert index.recall is not None
    assert index.recall["queries"] == 125
    assert sorted(index.search(XB[:50], 1).ids[:, 0].tolist()) == IDS[:50].tolist()


def test_few_vectors_give_no_recall(tmp_path: Path) -> None:
    index = kinds.build_collected(
        kinds.collect(pieces_of(IDS[:19], XB[:19]), 19, D, "hnsw", tmp_path)
    )
    assert isinstance(index, ApproximateIndex)
    assert index.recall is None
    empty = kinds.build_collected(kinds.collect([], 0, D, "auto", tmp_path))
    assert isinstance(empty, ExactIndex)
    assert (empty.count(), empty.dimension) == (0, D)


def test_graphs_are_built_with_enough_effort() -> None:
    assert inner(create("HNSW32_SQ8", D)).hnsw.efConstruction == 160
