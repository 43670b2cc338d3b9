"""The models that a store can switch to: which there are, and how they compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.contract import IndexInputError, ModelChangedError
from search_api.service.engine import SearchEngine
from search_api.service.model_migration import (
    Candidate,
    UnknownModelError,
    candidates,
    compare_models,
    encoder_in_use,
    encoder_of,
)
from tests.search_api.helpers import OTHER, Wider
from tests.search_api.service.conftest import OLD, opened


def test_candidates_are_the_models_in_the_store(store: SearchEngine) -> None:
    assert candidates(store) == [Candidate(OLD, 24, 24), Candidate(OTHER, 0, 24)]
    store.ingest.delete(1)
    store.builder.embed(encoder_of(store, OTHER))
    store.ingest.delete(2)
    assert candidates(store) == [Candidate(OLD, 22, 22), Candidate(OTHER, 22, 22)]
    store.builder.switch(encoder_of(store, OTHER))
    assert candidates(store) == [Candidate(OTHER, 22, 22)]


def test_a_model_that_is_only_staged_is_a_candidate(engine: SearchEngine) -> None:
    assert candidates(engine) == [Candidate("sha256:mean-colour", 24, 24)]
    engine.builder.embed(Wider())
    assert candidates(engine)[1] == Candidate("sha256:mean-colour", 24, 24)
    assert candidates(engine)[0] == Candidate(OTHER, 24, 24)


def test_the_same_colours_in_another_order_change_nothing(store: SearchEngine) -> None:
    store.builder.embed(encoder_of(store, OTHER))
    found = compare_models(store, OTHER, queries=20, k=3)
    assert (found.queries, found.k) == (20, 3)
    assert (found.overlap, found.unchanged, found.first_kept) == (1, 1, 1)
    assert found.label_before == found.label_after


def test_other_embeddings_change_the_neighbours(store: SearchEngine) -> None:
    # The new model puts the ids 1..24 on a quarter of a circle, further and further apart, so that
    # the nearest of each is the one before it.
    ids = np.arange(1, 25)
    angles = np.linspace(0, np.sqrt(np.pi / 2), 24) ** 2
    xb = np.stack((np.cos(angles), np.sin(angles)), 1).astype(np.float32)
    store.catalogue.staging.add(ids, xb, OTHER)
    found = compare_models(store, OTHER, k=1)
    labels = [entry.label for entry in store.catalogue.get(ids)]
    nearest = [1, *range(23)]
    same = [labels[n] == labels[row] for row, n in enumerate(nearest)]
    assert (found.queries, found.label_after) == (24, np.mean(same))
    assert found.overlap == found.first_kept < 1


def test_what_was_embedded_so_far_is_compared(store: SearchEngine) -> None:
    xb = np.eye(2, dtype=np.float32)
    with pytest.raises(IndexInputError, match="expected at least 2"):
        compare_models(store, OTHER)
    store.catalogue.staging.add([3, 5], xb, OTHER)
    found = compare_models(store, OTHER)
    assert (found.queries, found.k, found.overlap) == (2, 1, 1)


def test_the_model_in_use_is_not_compared(store: SearchEngine) -> None:
    with pytest.raises(ModelChangedError, match="already in use"):
        compare_models(store, OLD)


def test_encoders(store: SearchEngine) -> None:
    assert encoder_of(store, OLD) is store.encoder
    assert isinstance(encoder_of(store, OTHER), Wider)
    with pytest.raises(UnknownModelError, match="index model BUNDLE"):
        encoder_of(store, "sha256:" + "c" * 64)


def test_the_encoder_in_use_is_the_catalogues(store: SearchEngine, folder: Path) -> None:
    assert encoder_in_use(store) is store.encoder
    store.builder.embed(encoder_of(store, OTHER))
    store.catalogue.staging.promote(OTHER)  # interrupted before the new index is built
    assert store.encoder.digest == OLD
    assert encoder_in_use(store).digest == OTHER
    empty = opened(folder, store.var / "new")
    assert encoder_in_use(empty) is empty.encoder
    empty.close()
