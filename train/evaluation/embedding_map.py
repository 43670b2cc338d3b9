"""Lays embeddings out on a plane, for a map of pictures."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.evaluation.similarity import Vectors

SHOWN = 1000
"""Maximum number of pictures on the map."""
TSNE_MINIMUM = 30
"""Minimum number of pictures for t-SNE; fewer have no neighbourhoods to preserve."""


@dataclass(frozen=True)
class EmbeddingMap:
    """A map of pictures.

    Attributes:
        method: how it was made, for people.
        rows: of the pictures in their split.
        positions: of the pictures, (x, y), 0..1 each.
    """

    method: str
    rows: tuple[int, ...]
    positions: tuple[tuple[float, float], ...]


def embedding_map(xq: Vectors, seed: int = 0) -> EmbeddingMap:
    """Lay out a random sample of the embeddings ``(n, d)``."""
    count = min(SHOWN, len(xq))
    rows = np.sort(np.random.default_rng(seed).choice(len(xq), count, replace=False))
    positions, method = lay_out(xq[rows], seed)
    return EmbeddingMap(
        method, tuple(rows.tolist()), tuple((float(x), float(y)) for x, y in positions)
    )


def lay_out(x: Vectors, seed: int = 0) -> tuple[NDArray[np.float32], str]:
    """Place similar embeddings ``(n, d)`` near each other.

    By t-SNE (van der Maaten and Hinton 2008) if scikit-learn is installed, which preserves
    neighbourhoods; otherwise by the first two principal components, which only preserve large
    distances.

    Returns:
        positions float32 ``(n, 2)``, 0..1 in both directions, and the name of the method.
    """
    if len(x) >= TSNE_MINIMUM and importlib.util.find_spec("sklearn"):
        from sklearn.manifold import TSNE

        tsne = TSNE(
            metric="cosine",
            init="pca",
            perplexity=min(30.0, len(x) / 4),
            random_state=seed,
            n_jobs=1,  # for the same result on every machine
        )
        return _unit(tsne.fit_transform(x)), "t-SNE"
    centred = x - x.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes[:2].T
    if flat.shape[1] < 2:  # one picture, or embeddings of one dimension
        flat = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    return _unit(flat), "principal components"


def _unit(positions: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = positions.min(axis=0), positions.max(axis=0)
    scaled: NDArray[np.float32] = (positions - low) / np.maximum(high - low, 1e-12)
    return scaled.astype(np.float32)
