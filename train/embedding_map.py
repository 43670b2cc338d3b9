"""Embeddings laid out on a plane, to be looked at."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from train.similarity import Vectors

SHOWN = 1000
"""Pictures laid out, at most."""
FEWEST = 30
"""Pictures from which on t-SNE is used; fewer have no neighbourhoods to keep."""


class Map(NamedTuple):
    """``places`` float32 ``(n, 2)``, 0..1 in both directions; ``method`` for people."""

    places: NDArray[np.float32]
    method: str


@dataclass(frozen=True)
class EmbeddingMap:
    """A plane of pictures: how it was made, rows of the split, and places 0..1 by 0..1."""

    method: str
    rows: tuple[int, ...]
    places: tuple[tuple[float, float], ...]


def embedding_map(xq: Vectors, seed: int = 0) -> EmbeddingMap:
    """Lay out some of the embeddings ``(n, d)``, drawn at random."""
    count = min(SHOWN, len(xq))
    rows = np.sort(np.random.default_rng(seed).choice(len(xq), count, replace=False))
    places, method = lay_out(xq[rows], seed)
    return EmbeddingMap(
        method, tuple(rows.tolist()), tuple((float(x), float(y)) for x, y in places)
    )


def lay_out(x: Vectors, seed: int = 0) -> Map:
    """Place similar embeddings ``(n, d)`` near each other.

    By t-SNE (van der Maaten and Hinton 2008) where scikit-learn is installed, which keeps
    neighbourhoods; else by the two principal components, which keep the large distances only.
    """
    if len(x) >= FEWEST and importlib.util.find_spec("sklearn"):
        from sklearn.manifold import TSNE

        tsne = TSNE(
            metric="cosine",
            init="pca",
            perplexity=min(30.0, len(x) / 4),
            random_state=seed,
            n_jobs=1,  # the same figures on any machine
        )
        return Map(_unit(tsne.fit_transform(x)), "t-SNE")
    centred = x - x.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes[:2].T
    if flat.shape[1] < 2:  # one picture, or embeddings of one number
        flat = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    return Map(_unit(flat), "principal components")


def _unit(places: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = places.min(axis=0), places.max(axis=0)
    found: NDArray[np.float32] = ((places - low) / np.maximum(high - low, 1e-12)).astype(np.float32)
    return found
