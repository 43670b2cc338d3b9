from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from embed.architecture import Backbone
from embed.bundle import Bundle
from embed.classes.classifier import TooFewLabelsError
from embed.encoder import Encoder
from embed.imported.fitting import fit_embedding, projected
from tests.train.helpers import coloured, colours, imported
from train.data import Dataset, Split
from train.evaluation.search_quality import pictures_of
from train.extras.probe import embed, fit, learnable, reproject, train_probe
from train.imported import embeddings
from train.recipe import PROBE

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def network() -> Bundle:
    return imported()


@pytest.fixture(scope="module")
def data() -> Dataset:
    """As ``colours``, with the classes in the order of a folder."""
    return replace(colours(), classes=CLASSES)


@pytest.fixture(scope="module")
def probe(network: Bundle, data: Dataset) -> Bundle:
    return fit(embed(network, [data.train, data.validation]), CLASSES)


def all_batches(batches: Iterator[Tensor], total: int) -> Iterator[Tensor]:
    return batches


def test_it_learns_the_classes(probe: Bundle, data: Dataset) -> None:
    assert data.test is not None
    found = Encoder(probe).encode(pictures_of(data.test)).probabilities
    assert probe.classes == CLASSES
    assert found.argmax(1).tolist() == data.test.labels.tolist()
    assert probe.metrics["cross_validated_accuracy"] == 1.0


def test_the_embedding_does_not_depend_on_the_classifier(
    probe: Bundle, network: Bundle, data: Dataset
) -> None:
    features = embed(network, [data.train, data.validation])
    assert probe.digest == fit_embedding(network, features.values).digest
    assert probe.architecture == replace(
        network.architecture, classes=3, centred=True, head_reads="embedding"
    )
    others = features.labels.copy()
    others[:3] = others[:3][::-1]
    again = fit(replace(features, labels=others), ("x", "y", "z"))
    assert again.digest == probe.digest
    assert again.content_digest != probe.content_digest
    assert np.abs(again.weights["head.weight"] - probe.weights["head.weight"]).max() > 0.01


def test_it_is_the_classifier_of_a_store(probe: Bundle, network: Bundle, data: Dataset) -> None:
    """Logits, divided by the temperature, are those of the classifier on the embeddings."""
    features = embed(network, [data.validation])
    x = embeddings(probe, features.values)
    expected = x @ probe.weights["head.weight"].T + probe.weights["head.bias"]
    encoder = Encoder(probe, precision="float32", runtime="torch")
    found = encoder.raw(pictures_of(data.validation))
    assert found.logits == pytest.approx(expected, abs=0.1)
    assert features.labels.tolist() == data.validation.labels.tolist()


def test_many_pictures_are_projected_a_few_not_even_centred(
    network: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embed.imported.fitting.DIMENSION", 16)
    monkeypatch.setattr("embed.imported.fitting.FEWEST_PROJECTED", 33)
    enough = coloured(11)
    shaped = fit(embed(network, [enough]), CLASSES)
    assert isinstance(shaped.architecture, Backbone)
    assert (shaped.architecture.projection, shaped.training["fit"]["pictures"]) == (16, 33)
    assert shaped.weights["head.weight"].shape == (3, 16)
    found = Encoder(shaped).encode(pictures_of(enough))
    assert found.embeddings.shape == (33, 16)
    assert (found.probabilities.argmax(1) == enough.labels.numpy()).mean() > 0.95
    few = fit(embed(network, [coloured(10)]), CLASSES)
    assert few.digest == network.digest
    found = Encoder(few).encode(pictures_of(enough))
    assert (found.probabilities.argmax(1) == enough.labels.numpy()).mean() > 0.95


def test_a_fitted_network_keeps_its_fit(network: Bundle) -> None:
    features = embed(network, [coloured(11)])
    shaped = projected(network, features.values, 8)
    found = fit(embed(shaped, [coloured(11)]), CLASSES)
    assert found.digest == shaped.digest
    assert found.weights["head.weight"].shape == (3, 8)


def test_classes_with_too_few_pictures_are_left_out() -> None:
    labels = torch.tensor([0] * 4 + [1] * 5 + [2] * 6)
    split = Split(torch.zeros(15, 3, 32, 32, dtype=torch.uint8), labels)
    one = split[torch.tensor([0, 9, 14])]
    data = Dataset(("a", "b", "c"), split, one, one, {})
    same, few = learnable(data, validation=True)
    assert (same, few) == (data, {})
    less, few = learnable(data, validation=False)
    assert few == {"a": 4}
    assert less.classes == ("b", "c")
    assert less.train.labels.tolist() == [0] * 5 + [1] * 6
    assert less.validation.labels.tolist() == [1, 1]
    assert less.test is not None and less.test.labels.tolist() == [1, 1]
    only = dataclasses.replace(data, train=split[torch.arange(9)])
    with pytest.raises(TooFewLabelsError, match=r"1 of 3 classes have 5 .*'a' has 4"):
        learnable(only, validation=False)


def test_a_training_records_what_it_did(network: Bundle, data: Dataset, tmp_path: Path) -> None:
    network.save(tmp_path)
    recipe = replace(
        PROBE, architecture="timm:test_efficientnet", init=str(tmp_path), size=32, seed=4
    )
    totals = []

    def counting(batches: Iterator[Tensor], total: int) -> Iterator[Tensor]:
        seen = list(batches)
        totals.append((total, sum(map(len, seen))))
        return iter(seen)

    bundle = train_probe(recipe, data, counting)
    assert totals == [(2, 36)]
    assert bundle.training["recipe"] == recipe.to_dict()
    assert bundle.training["pictures"] == {"train": 24, "validation": 12}
    assert bundle.training["init"] == network.digest
    assert bundle.training["source"] == "timm:test_efficientnet"
    assert bundle.training["minutes"] >= 0


def test_a_new_projection_keeps_a_classifier_of_pooled_features(
    network: Bundle, data: Dataset
) -> None:
    shaped = reproject(network, data, 8, 0, all_batches)
    assert shaped.architecture == replace(network.architecture, centred=True, projection=8)
    assert shaped.classes == ("day", "night")
    pictures = pictures_of(data.validation)
    before, after = Encoder(network).encode(pictures), Encoder(shaped).encode(pictures)
    assert after.embeddings.shape == (12, 8)
    assert after.probabilities == pytest.approx(before.probabilities, abs=1e-3)
    again = reproject(shaped, data, 4, 0, all_batches)
    assert Encoder(again).encode(pictures).embeddings.shape == (12, 4)


def test_a_new_projection_refits_a_classifier_of_the_embedding(
    probe: Bundle, data: Dataset
) -> None:
    shaped = reproject(probe, data, 8, 0, all_batches)
    assert shaped.weights["head.weight"].shape == (3, 8)
    assert data.test is not None
    found = Encoder(shaped).encode(pictures_of(data.test)).probabilities.argmax(1)
    assert (found == data.test.labels.numpy()).mean() > 0.75  # eight directions of noise
    with pytest.raises(ValueError, match="classes blue, green, red and the data a, b, c"):
        reproject(probe, replace(data, classes=("a", "b", "c")), 8, 0, all_batches)


def test_a_projection_that_does_not_fit_is_refused(network: Bundle, data: Dataset) -> None:
    with pytest.raises(ValueError, match="the dimension is 36; expected 1 to 35"):
        reproject(network, data, 36, 0, all_batches)
