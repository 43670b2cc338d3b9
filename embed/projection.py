"""Reduces the embedding of another library's network to the directions that a corpus needs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from embed.architecture import Backbone
from embed.bundle import Bundle

DIMENSION = 256
"""Of the projected embedding."""
PICTURES = 2000
"""As many pictures, at most, are embedded to fit a projection."""


def projected(bundle: Bundle, features: NDArray[np.float32], dimension: int = DIMENSION) -> Bundle:
    """The bundle with an embedding that is centred on a corpus and reduced by PCA, not whitened.

    Args:
        bundle: of another library's network, without a projection.
        features: of the corpus's pictures, float32 ``(n, d)``, of any length.
        dimension: of the new embedding, at most ``d`` and at most ``n - 1``.

    Raises:
        ValueError: the bundle cannot be projected, or there are too few pictures.
    """
    architecture = bundle.architecture
    if not isinstance(architecture, Backbone) or architecture.projection:
        raise ValueError(
            f"the embedding of {architecture.name} cannot be projected; expected an imported"
            " network without a projection"
        )
    n, d = features.shape
    if not 1 <= dimension <= min(d, n - 1):
        raise ValueError(
            f"the dimension is {dimension}; expected 1 to {min(d, n - 1)} for {n:,} pictures with"
            f" {d} features"
        )
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    x = features / np.maximum(lengths, 1e-12)
    pca = PCA(dimension, svd_solver="covariance_eigh" if n > d else "full").fit(x)
    weight = pca.components_.astype(np.float32)
    projection = {
        "projection.weight": weight,
        "projection.bias": -(weight @ pca.mean_.astype(np.float32)),
    }
    return replace(
        bundle,
        architecture=replace(architecture, projection=dimension),
        weights={**bundle.weights, **projection},
        training={
            **bundle.training,
            "projection": {"of": bundle.digest, "pictures": n, "dimension": dimension},
        },
    )
