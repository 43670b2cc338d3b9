"""Going over to another model while the present one serves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embed.encoder import PictureEncoder
from index.catalogue import ModelChangedError
from index.difference import Difference, difference
from index.snapshots import Manifest
from search_api.engine import SearchEngine
from search_api.ingest import Counts, Progress, Skip, no_progress, no_skip


@dataclass(frozen=True)
class Candidate:
    """A model that the store could go over to: how many pictures it has embedded, of how many."""

    model: str
    embedded: int
    total: int


class UnknownModelError(LookupError):
    """The store does not hold the model."""


def candidates(engine: SearchEngine) -> list[Candidate]:
    """The models in the store other than the one that serves, and the one that serves."""
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


def embed(
    engine: SearchEngine,
    digest: str,
    progress: Progress = no_progress,
    cancelled: Callable[[], bool] = lambda: False,
    job: str = "",
    skip: Skip = no_skip,
) -> Counts:
    """Embed everything with the model; the present one serves on. Resumable.

    Raises:
        UnknownModelError: the store does not hold the model.
    """
    return engine.builder.stage(encoder_of(engine, digest), progress, cancelled, job, skip)


def compare(engine: SearchEngine, digest: str, queries: int = 500, k: int = 10) -> Difference:
    """How much the neighbours would change; over what the model has embedded so far.

    Raises:
        ModelChangedError: it is the model that serves.
        IndexInputError: it has embedded fewer than two pictures.
    """
    catalogue = engine.catalogue
    serving = engine.encoder.digest
    if digest == serving:
        raise ModelChangedError(f"the model {digest} serves already; there is nothing to compare")
    old_ids, old = catalogue.embeddings(serving)
    new_ids, new = catalogue.staging.embeddings(digest)
    ids, old_rows, new_rows = np.intersect1d(
        old_ids, new_ids, assume_unique=True, return_indices=True
    )
    labels = {entry.id: entry.label for entry in catalogue.find(ids)}
    return difference(
        ids,
        old[old_rows],
        new[new_rows],
        [labels.get(i) for i in ids.tolist()],  # None for what was deleted meanwhile
        queries,
        k,
    )


def switch(
    engine: SearchEngine,
    digest: str,
    progress: Progress = no_progress,
    cancelled: Callable[[], bool] = lambda: False,
    job: str = "",
    skip: Skip = no_skip,
) -> tuple[Manifest, Counts]:
    """Embed what is missing still, and serve with the model from then on, in every process.

    Raises:
        UnknownModelError: the store does not hold the model.
    """
    return engine.builder.switch(encoder_of(engine, digest), progress, cancelled, job, skip)


def encoder_in_use(engine: SearchEngine) -> PictureEncoder:
    """The encoder of the model that the record holds, where this process can have it.

    That is the one that serves but for a change of model that was interrupted before its index was
    made. Then no index of the one that serves can be made any more.
    """
    digest = engine.catalogue.model()
    return (None if digest is None else engine.model(digest)) or engine.encoder


def encoder_of(engine: SearchEngine, digest: str) -> PictureEncoder:
    """The model's encoder. Raises UnknownModelError."""
    encoder = engine.model(digest)
    if encoder is None:
        raise UnknownModelError(
            f"the store does not hold the model {digest[:100]!r}; put it there with"
            " `lookalike index model BUNDLE`"
        )
    return encoder
