"""Probing: a classifier on the embedding of an imported network, whose layers stay as they are.

The classifier is that of a store (``embed.classes``), on the embedding that a store would use:
fitted to what tells the pictures apart (``embed.imported.fitting``). Each picture is embedded
once, without augmentation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embed.architecture import Backbone
from embed.bundle import Bundle
from embed.classes.classifier import MIN_PER_CLASS, TooFewLabelsError, fit_classifier
from embed.encoder import Encoder
from embed.imported.fitting import PICTURES, fit_embedding, projected
from train import environment
from train.choice import read_init
from train.data import Dataset, Split
from train.imported import embeddings, unfitted, without_classifier
from train.recipe import Recipe

Batches = Iterator[Tensor]
BatchProgress = Callable[[Batches, int], Batches]
_BATCH = 64


@dataclass(frozen=True)
class Features:
    """Pictures after a network's body, before its projection.

    Attributes:
        bundle: the network, without a classifier.
        values: float32 ``(n, d)``.
        labels: int64 ``(n,)``.
        precision: of the forward pass, ``float32`` or ``bfloat16``.
    """

    bundle: Bundle
    values: NDArray[np.float32]
    labels: NDArray[np.int64]
    precision: str

    def first(self, count: int) -> Features:
        """Those of the first ``count`` pictures."""
        return replace(self, values=self.values[:count], labels=self.labels[:count])


def learnable(data: Dataset, validation: bool) -> tuple[Dataset, dict[str, int]]:
    """The data without classes that have too few pictures for a classifier.

    Args:
        data: labelled pictures.
        validation: whether validation pictures count, as they do where they are trained on.

    Returns:
        the data, and how many such pictures each of the other classes has.

    Raises:
        TooFewLabelsError: fewer than two classes are left.
    """
    labels = torch.cat([data.train.labels, *([data.validation.labels] if validation else [])])
    counts = torch.bincount(labels, minlength=len(data.classes)).tolist()
    kept = [i for i, count in enumerate(counts) if count >= MIN_PER_CLASS]
    few = {data.classes[i]: count for i, count in enumerate(counts) if i not in kept}
    if len(kept) < 2:
        found = ", ".join(f"{name!r} has {count}" for name, count in list(few.items())[:5])
        raise TooFewLabelsError(
            f"{len(kept)} of {len(counts)} classes have {MIN_PER_CLASS} training pictures, which a"
            f" classifier needs; expected at least 2 such classes ({found}); add pictures, or hold"
            " fewer out for the test"
        )
    if not few:
        return data, few
    number = torch.full((len(counts),), -1)
    number[torch.tensor(kept)] = torch.arange(len(kept))

    def without(split: Split) -> Split:
        chosen = split[number[split.labels] >= 0]
        return replace(chosen, labels=number[chosen.labels])

    return Dataset(
        tuple(data.classes[i] for i in kept),
        without(data.train),
        without(data.validation),
        None if data.test is None else without(data.test),
        data.skipped,
    ), few


def embed(
    init: Bundle, splits: Sequence[Split], progress: BatchProgress = lambda batches, total: batches
) -> Features:
    """Run the pictures of several splits through a network, one after the other.

    Args:
        init: an imported network, with or without a classifier.
        splits: pictures of its input size.
        progress: wraps the batches to show progress: (batches, number of batches).
    """
    encoder = Encoder(unfitted(without_classifier(init)), batch_size=_BATCH)
    batches = [batch for split in splits for batch in split.pictures.split(_BATCH)]  # type: ignore[no-untyped-call]
    values = [
        encoder.raw(batch.permute(0, 2, 3, 1).numpy()).features
        for batch in progress(iter(batches), len(batches))
    ]
    labels = np.concatenate([split.labels.numpy() for split in splits])
    return Features(without_classifier(init), np.concatenate(values), labels, encoder.precision)


def fit(features: Features, classes: tuple[str, ...], seed: int = 0) -> Bundle:
    """The network with a classifier of these pictures; its layers do not change.

    An embedding that is not fitted to a corpus is fitted to these pictures, as in a store.

    Args:
        features: of the pictures to learn from.
        classes: names of their labels, each with at least ``MIN_PER_CLASS`` pictures.
        seed: of every draw.
    """
    bundle = features.bundle
    assert isinstance(bundle.architecture, Backbone)
    if not bundle.architecture.centred:
        bundle = fit_embedding(bundle, features.values[_spread(len(features.values))])
    x = embeddings(bundle, features.values)
    found = fit_classifier(x, [classes[i] for i in features.labels], bundle.digest, seed=seed)
    assert found.classes == classes
    assert isinstance(bundle.architecture, Backbone)
    return replace(
        bundle,
        architecture=replace(bundle.architecture, classes=len(classes), head_reads="embedding"),
        classes=classes,
        weights={**bundle.weights, "head.weight": found.weight, "head.bias": found.bias},
        temperature=found.temperature,
        metrics={
            "cross_validated_accuracy": round(found.accuracy, 4),
            "cross_validated_calibration_error": round(found.ece, 4),
        },
    )


def reproject(
    bundle: Bundle, data: Dataset, dimension: int, seed: int, progress: BatchProgress
) -> Bundle:
    """The imported network with an embedding of ``dimension``, fitted to its training pictures.

    An embedding fitted before is replaced. A classifier that reads the embedding is fitted again;
    one that reads the pooled features stays.

    Args:
        bundle: the model.
        data: of the model's input size and, if its classifier has to be fitted again, its classes.
        dimension: of the new embedding.
        seed: for the classifier.
        progress: as in ``embed``.

    Raises:
        ValueError: ``dimension`` does not fit the network or the number of pictures, or the
            classifier cannot be fitted again because the classes differ.
    """
    architecture = bundle.architecture
    assert isinstance(architecture, Backbone)
    refit = architecture.head_reads == "embedding" and architecture.classes > 0
    if refit and bundle.classes != data.classes:
        raise ValueError(
            "the classifier reads the embedding, so it has to be fitted again, but the model has"
            f" the classes {', '.join(bundle.classes)} and the data {', '.join(data.classes)}; give"
            " the pictures that it was trained on"
        )
    features = embed(bundle, [data.train, data.validation], progress)
    rows = _spread(len(features.values))
    shaped = projected(unfitted(features.bundle), features.values[rows], dimension)
    if refit:
        fitted = fit(replace(features, bundle=shaped), data.classes, seed)
        return replace(fitted, metrics={**bundle.metrics, **fitted.metrics})
    head = {n: w for n, w in bundle.weights.items() if n.startswith("head.")}
    assert isinstance(shaped.architecture, Backbone)
    return replace(
        shaped,
        architecture=replace(shaped.architecture, classes=architecture.classes),
        classes=bundle.classes,
        temperature=bundle.temperature,
        weights={**shaped.weights, **head},
    )


def train_probe(recipe: Recipe, data: Dataset, progress: BatchProgress) -> Bundle:
    """Fit a classifier to all pictures that are not held out for the test.

    Args:
        recipe: with ``layers`` of ``classifier``.
        data: pictures of the input size of the recipe's ``init``, of ``learnable`` classes.
        progress: as in ``embed``.

    Raises:
        BundleError: the recipe's ``init`` is not a bundle.
    """
    started = time.monotonic()
    described = environment.describe("cpu")
    init = read_init(recipe.init)
    assert init is not None
    features = embed(init, [data.train, data.validation], progress)
    bundle = fit(features, data.classes, recipe.seed)
    return replace(
        bundle,
        training={
            **bundle.training,
            "recipe": recipe.to_dict(),
            "pictures": {"train": len(data.train), "validation": len(data.validation)},
            "minutes": round((time.monotonic() - started) / 60, 2),
            "init": init.digest,
            "precision": features.precision,
            **described,
        },
    )


def _spread(count: int) -> NDArray[np.int64]:
    """At most ``PICTURES`` of ``count`` rows, spread evenly."""
    return np.linspace(0, count - 1, min(PICTURES, count)).astype(np.int64)
