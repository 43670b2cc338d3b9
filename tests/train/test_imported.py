from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from embed.architecture import Backbone
from embed.encoder import Encoder, normalise
from embed.imported.fitting import centred, projected
from tests.train.helpers import imported
from train.imported import (
    embeddings,
    freeze_all_but_last,
    unfitted,
    without_classifier,
)


def features(n: int, d: int = 256) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)


def test_a_network_without_its_classifier_embeds_the_same() -> None:
    bundle = replace(imported(), temperature=2.0)
    plain = without_classifier(bundle)
    assert plain.digest == bundle.digest
    assert (plain.classes, plain.architecture.classes, plain.temperature) == ((), 0, 1.0)
    assert {*bundle.weights} - {*plain.weights} == {"head.weight", "head.bias"}


def test_a_fit_is_taken_off_with_a_classifier_that_reads_it() -> None:
    bundle = imported()
    assert unfitted(bundle) is bundle
    for shaped in (projected(bundle, features(20), 8), centred(bundle, features(20))):
        assert isinstance(shaped.architecture, Backbone) and shaped.architecture.centred
        plain = unfitted(shaped)
        assert plain.digest == bundle.digest
        assert plain.weights.keys() == bundle.weights.keys()
        assert plain.classes == ("day", "night")  # it reads the pooled features
        assert "fit" in shaped.training and "fit" not in plain.training
        reads = replace(shaped, architecture=replace(shaped.architecture, head_reads="embedding"))
        assert unfitted(reads).classes == ()


def test_embeddings_are_those_of_the_network() -> None:
    bundle = imported()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    x = Encoder(bundle, precision="float32", runtime="torch").raw(pixels).features
    for made in (bundle, centred(bundle, x), projected(bundle, x, 8)):
        expected = Encoder(made, precision="float32", runtime="torch").encode(pixels).embeddings
        assert embeddings(made, x) == pytest.approx(expected, abs=1e-4)


def test_zeros_stay_zeros() -> None:
    assert normalise(np.zeros((1, 3), np.float32)).tolist() == [[0, 0, 0]]


def test_only_the_last_layers_learn() -> None:
    body = nn.Sequential(
        *(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.BatchNorm1d(2)) for _ in range(3))
    )
    freeze_all_but_last(body, 1 / 3)
    learning = {name for name, p in body.named_parameters() if p.requires_grad}
    assert learning == {"2.0.weight", "2.0.bias", "2.2.weight", "2.2.bias"}
