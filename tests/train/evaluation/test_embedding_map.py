from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from numpy.typing import NDArray

from train.evaluation import embedding_map as module
from train.evaluation.embedding_map import embedding_map, lay_out


def clusters(each: int) -> NDArray[np.float32]:
    centres = np.eye(3, 8).repeat(each, 0)
    x = centres + 0.02 * np.random.default_rng(0).normal(size=centres.shape)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def apart(positions: NDArray[np.float32], each: int) -> float:
    """Least distance between clusters over the largest within one."""
    groups = positions.reshape(3, each, 2)
    centres = groups.mean(1)
    within = np.linalg.norm(groups - centres[:, None], axis=2).max()
    between = [np.linalg.norm(centres[i] - centres[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    return float(min(between) / within)


@pytest.mark.parametrize("each", [5, 20])
def test_clusters_stay_apart(each: int) -> None:
    positions, method = lay_out(clusters(each))
    assert method == ("t-SNE" if each == 20 else "principal components")
    assert positions.shape == (3 * each, 2)
    assert positions.min(axis=0).tolist() == [0, 0]
    assert positions.max(axis=0).tolist() == [1, 1]
    assert apart(positions, each) > 1.5


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    positions, method = lay_out(clusters(20))
    assert method == "principal components"
    assert apart(positions, 20) > 1.5


@pytest.mark.parametrize("shape", [(1, 8), (4, 1), (2, 2)])
def test_hardly_anything(shape: tuple[int, int]) -> None:
    positions, _ = lay_out(np.ones(shape, np.float32))
    assert positions.shape == (shape[0], 2)
    assert np.isfinite(positions).all()


def test_some_are_drawn_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHOWN", 9)
    found = embedding_map(clusters(10), seed=1)
    assert len(found.rows) == len(set(found.rows)) == len(found.positions) == 9
    assert list(found.rows) == sorted(found.rows)
    assert max(found.rows) < 30
    assert embedding_map(clusters(10), seed=1) == found
    assert embedding_map(clusters(10), seed=2).rows != found.rows
