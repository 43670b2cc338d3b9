"""Model migration: comparing and choosing the models that a store can switch to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embed.encoder import PictureEncoder
from index.contract import ModelChangedError
from index.ranking.compare import Difference, compare
from search_api.service.engine import SearchEngine


@dataclass(frozen=True)
class Candidate:
    """A model that the store can switch to, and how many of the pictures it has embedded."""

    model: str
    embedded: int
    total: int


class UnknownModelError(LookupError):
    """The store does not hold the model."""


def candidates(engine: SearchEngine) -> list[Candidate]:
    """The models in the store, including the one in use."""
    total = engine.catalogue.count()
    staged = engine.catalogue.staging.counts()
    done = engine.catalogue.model_digests()
    folder = engine.var / "models"
    kept = {f"sha256:{p.name}" for p in folder.glob("[0-9a-f]*")} if folder.is_dir() else set()
    serving = {engine.encoder.digest}
    return [
        Candidate(model, staged.get(model, 0) + done.get(model, 0), total)
        for model in sorted(kept | serving | staged.keys())
    ]


def compare_models(
    engine: SearchEngine, digest: str, queries: int = 500, k: int = 10
) -> Difference:
    """How much the neighbours would change, judged by what the new model has embedded so far.

    Raises:
        ModelChangedError: the model is already in use.
        IndexInputError: it has embedded fewer than two pictures.
    """
    catalogue = engine.catalogue
    serving = engine.encoder.digest
    if digest == serving:
        raise ModelChangedError(
            f"the model {digest} is already in use; there is nothing to compare"
        )
    old_ids, old = catalogue.embeddings(serving)
    new_ids, new = catalogue.staging.embeddings(digest)
    ids, old_rows, new_rows = np.intersect1d(
        old_ids, new_ids, assume_unique=True, return_indices=True
    )
    labels = {entry.id: entry.label for entry in catalogue.find(ids)}
    return compare(
        ids,
        old[old_rows],
        new[new_rows],
        [labels.get(i) for i in ids.tolist()],  # None if deleted in between
        queries,
        k,
    )


def encoder_in_use(engine: SearchEngine) -> PictureEncoder:
    """The encoder of the catalogue's model, or the engine's if this process cannot get that one.

    The two differ only if a switch of models was interrupted before the new index was built. Then
    no index can be built with the engine's model any more.
    """
    digest = engine.catalogue.model()
    return (None if digest is None else engine.model(digest)) or engine.encoder


def encoder_of(engine: SearchEngine, digest: str) -> PictureEncoder:
    """The encoder of the model with this digest. Raises UnknownModelError."""
    encoder = engine.model(digest)
    if encoder is None:
        raise UnknownModelError(
            f"the store does not hold the model {digest[:100]!r}; add it with"
            " `lookalike index model BUNDLE`"
        )
    return encoder
