"""Fits the embedding of another library's network to a corpus: centred, and reduced by PCA.

Networks trained on ImageNet give all pictures features that are much alike. What a corpus has in
common is taken out, and the directions in which its pictures differ are kept, without whitening,
which would make noise as long as meaning (docs/benchmarks.md).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embed.architecture import Backbone
from embed.bundle import Bundle

DIMENSION = 256
"""Of the projected embedding."""
PICTURES = 2000
"""As many pictures, at most, are embedded to fit an embedding."""
FEWEST_PROJECTED = 2 * DIMENSION
"""With fewer pictures, the embedding is only centred: a corpus that grows would need directions in
which the first few did not differ."""
FEWEST_CENTRED = 32
"""With fewer pictures, the embedding is left as it is."""


def fit_embedding(bundle: Bundle, features: NDArray[np.float32]) -> Bundle:
    """The bundle with its embedding fitted to a corpus as far as the corpus's size allows.

    Args:
        bundle: of another library's network, not fitted yet.
        features: of the corpus's pictures, float32 ``(n, d)``, of any length.

    Raises:
        ValueError: the bundle cannot be fitted.
    """
    n, d = features.shape
    if n >= FEWEST_PROJECTED and d > DIMENSION:
        return projected(bundle, features, DIMENSION)
    return centred(bundle, features) if n >= FEWEST_CENTRED else bundle


def centred(bundle: Bundle, features: NDArray[np.float32]) -> Bundle:
    """The bundle with the mean of a corpus's L2-normalised features taken out; see above."""
    architecture = _plain(bundle)
    mean = _unit(features).mean(axis=0)
    return _fitted(bundle, replace(architecture, centred=True), {"centre": mean}, features)


def projected(bundle: Bundle, features: NDArray[np.float32], dimension: int = DIMENSION) -> Bundle:
    """The bundle with an embedding that is centred on a corpus and reduced by PCA, not whitened.

    Args:
        bundle: of another library's network, not fitted yet.
        features: of the corpus's pictures, float32 ``(n, d)``, of any length.
        dimension: of the new embedding, at most ``d`` and at most ``n - 1``.

    Raises:
        ValueError: the bundle cannot be fitted, or there are too few pictures.
    """
    # Slow to import, and serving needs only this module's numbers.
    from sklearn.decomposition import PCA

    architecture = _plain(bundle)
    n, d = features.shape
    if not 1 <= dimension <= min(d, n - 1):
        raise ValueError(
            f"the dimension is {dimension}; expected 1 to {min(d, n - 1)} for {n:,} pictures with"
            f" {d} features"
        )
    solver = "covariance_eigh" if n > d else "full"
    pca = PCA(dimension, svd_solver=solver).fit(_unit(features))
    return _fitted(
        bundle,
        replace(architecture, centred=True, projection=dimension),
        {"centre": pca.mean_, "projection.weight": pca.components_},
        features,
    )


def _plain(bundle: Bundle) -> Backbone:
    architecture = bundle.architecture
    if not isinstance(architecture, Backbone) or architecture.centred:
        raise ValueError(
            f"the embedding of {architecture.name} cannot be fitted to a corpus; expected an"
            " imported network that has not been fitted"
        )
    return architecture


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit: NDArray[np.float32] = features / np.maximum(lengths, 1e-12)
    return unit


def _fitted(
    bundle: Bundle,
    architecture: Backbone,
    weights: dict[str, NDArray[Any]],
    features: NDArray[np.float32],
) -> Bundle:
    fit = {
        "of": bundle.digest,
        "pictures": len(features),
        "dimension": architecture.projection or features.shape[1],
    }
    return replace(
        bundle,
        architecture=architecture,
        weights={**bundle.weights, **{n: w.astype(np.float32) for n, w in weights.items()}},
        training={**bundle.training, "fit": fit},
    )
