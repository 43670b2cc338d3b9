"""Takes imported networks apart: their classifier, their fit to a corpus, their layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from embed.architecture import Backbone
from embed.bundle import Bundle
from embed.encoder import normalise

_FITTED = ("centre", "projection.weight")
"""Weights that ``embed.imported.fitting`` adds."""


def without_classifier(bundle: Bundle) -> Bundle:
    """The same embedding without classes."""
    architecture = _backbone(bundle)
    return replace(
        bundle,
        architecture=replace(architecture, classes=0, head_reads="pooled"),
        classes=(),
        temperature=1.0,
        weights={n: w for n, w in bundle.weights.items() if not n.startswith("head.")},
    )


def unfitted(bundle: Bundle) -> Bundle:
    """The same network with its whole embedding, not fitted to any pictures.

    A classifier that reads the fitted embedding goes too.
    """
    architecture = _backbone(bundle)
    if not architecture.centred:
        return bundle
    if architecture.head_reads == "embedding":
        bundle = without_classifier(bundle)
    return replace(
        bundle,
        architecture=replace(_backbone(bundle), centred=False, projection=0),
        weights={n: w for n, w in bundle.weights.items() if n not in _FITTED},
        training={name: value for name, value in bundle.training.items() if name != "fit"},
    )


def embeddings(bundle: Bundle, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embeddings of length one, float32 ``(n, d)``, from the pooled features.

    Args:
        bundle: an imported network.
        features: of its body, float32 ``(n, k)``.
    """
    x = normalise(features)
    if _backbone(bundle).centred:
        x -= bundle.weights["centre"]
    if _backbone(bundle).projection:
        x = x @ bundle.weights["projection.weight"].T
    return normalise(x)


def freeze_all_but_last(body: nn.Module, share: float) -> None:
    """Let only the last ``share`` 0..1 of a network's layers learn, in the order they were made.

    Networks of timm and torchvision make their layers in the order in which pictures pass them.
    """
    layers = [m for m in body.modules() if any(True for _ in m.parameters(recurse=False))]
    kept = len(layers) - round(len(layers) * share)
    for layer in layers[:kept]:
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(False)


def _backbone(bundle: Bundle) -> Backbone:
    assert isinstance(bundle.architecture, Backbone)
    return bundle.architecture
