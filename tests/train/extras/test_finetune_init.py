from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from embed.architecture import Architecture
from embed.bundle import Bundle
from embed.preprocess import Preprocess
from embed.resnet import build
from tests.train.helpers import QUICK, coloured, colours
from train.data import Dataset, Split
from train.extras.finetune_init import (
    architecture_for,
    features_of,
    fit_head,
    initialise,
    preprocess_for,
    recompute_batch_norm,
)
from train.extras.shaping import shape
from train.loop import predict, train
from train.recipe import Shaping

FROM_TINY = dataclasses.replace(QUICK, epochs=2, low_share=0.0, class_balance=0.9)


@pytest.fixture
def saved(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    tiny_bundle.save(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.mark.parametrize(
    ("old", "size", "shrink"),
    [((32, 1), 32, 1), ((32, 1), 48, 1), ((32, 1), 64, 2), ((32, 1), 224, 7), ((64, 2), 128, 4)],
)
def test_the_stages_keep_about_the_size_of_their_maps(
    tiny_bundle: Bundle, old: tuple[int, int], size: int, shrink: int
) -> None:
    old_size, old_shrink = old
    bundle = dataclasses.replace(
        tiny_bundle,
        architecture=dataclasses.replace(tiny_bundle.architecture, shrink=old_shrink),
        preprocess=dataclasses.replace(tiny_bundle.preprocess, input_size=old_size),
    )
    made = architecture_for(bundle, size, classes=7, dropout=0.2)
    assert made == Architecture(classes=7, widths=(24, 24, 32), dropout=0.2, shrink=shrink)
    expected = dataclasses.replace(bundle.preprocess, input_size=size)
    assert preprocess_for(bundle, size) == expected


def test_a_shaped_embedding_is_dropped(tiny_bundle: Bundle) -> None:
    data = colours()
    shaped = shape(tiny_bundle, data.train.pictures, Shaping(likeness=5, pictures=24))
    made = architecture_for(shaped, 32, 3, 0.0)
    assert made == tiny_bundle.architecture
    network = build(made)
    initialise(network, shaped, shaped.preprocess, data.train, torch.ones(3), 0.1)
    assert torch.equal(
        network.state_dict()["stages.2.conv2.weight"],
        torch.tensor(tiny_bundle.weights["stages.2.conv2.weight"]),
    )


def test_resnet18_has_nothing_to_shrink(tiny_bundle: Bundle) -> None:
    architecture = Architecture("resnet18", classes=3)
    bundle = dataclasses.replace(tiny_bundle, architecture=architecture)
    assert architecture_for(bundle, 224, 5, 0.0) == Architecture("resnet18", classes=5)


@pytest.mark.parametrize("name", ["whitened-resnet", "resnet18"])
def test_a_head_fitted_to_features_separates_them(name: str) -> None:
    torch.manual_seed(0)
    network = build(Architecture(name, classes=3, widths=(24, 24, 32)))  # type: ignore[arg-type]
    labels = torch.arange(60) % 3
    features = 10 * F.one_hot(labels, network.dimension).float() + torch.rand(60, network.dimension)
    fit_head(network, features, labels, torch.ones(3), smoothing=0.1)
    with torch.no_grad():
        shares = network.classify(features).softmax(1)
    assert torch.equal(shares.argmax(1), labels)
    # As sure as the smoothed labels are, 1 - 0.1 * 2 / 3, less what the penalty takes.
    assert float(shares.max(1).values.mean()) == pytest.approx(0.93, abs=0.03)
    # From zero, not from wherever it was.
    before = [p.detach().clone() for p in network.head.parameters()]
    fit_head(network, features, labels, torch.ones(3), smoothing=0.1)
    for p, q in zip(network.head.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), q, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["whitened-resnet", "resnet18"])
def test_a_head_fitted_to_few_pictures_tells_others_apart(name: str) -> None:
    # Classes that overlap, more features than pictures: weights that are free to grow separate the
    # 90 by what is noise, and are sure of it.
    generator = torch.Generator().manual_seed(0)
    network = build(Architecture(name, classes=3, widths=(24, 24, 256)))  # type: ignore[arg-type]
    labels = torch.arange(390) % 3
    causes = torch.randn(390, 6, generator=generator)
    causes[:, :2] += 1.5 * torch.tensor([[0.0, 1.0], [1.0, -1.0], [-1.0, 0.0]])[labels]
    features = causes @ torch.randn(6, network.dimension, generator=generator)
    features += 0.5 * torch.randn(390, network.dimension, generator=generator)
    fit_head(network, features[:90], labels[:90], torch.ones(3), smoothing=0.05)
    with torch.no_grad():
        logits = network.classify(features[90:])
    assert float(F.cross_entropy(logits, labels[90:])) < 0.47
    assert float((logits.argmax(1) == labels[90:]).float().mean()) > 0.79


def test_weights_of_the_classes_move_the_head() -> None:
    network = build(Architecture(classes=2, widths=(24, 24, 32)))
    features = torch.ones(10, 32)  # nothing to tell them apart by
    labels = torch.tensor([0] * 8 + [1] * 2)
    for weights, expected in (([1.0, 1.0], 0.8), ([0.5, 2.0], 0.5)):
        fit_head(network, features, labels, torch.tensor(weights), smoothing=0.0)
        share = network.classify(features).detach().softmax(1)[0, 0]
        assert float(share) == pytest.approx(expected, abs=0.02)


def test_recomputed_statistics_are_those_of_the_pictures(tiny_bundle: Bundle) -> None:
    network = tiny_bundle.network()
    pictures = coloured(40).pictures
    norm = network.stages[0].norm1  # type: ignore[union-attr, index]
    seen: list[torch.Tensor] = []
    handle = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].float()))
    recompute_batch_norm(network, tiny_bundle.preprocess, pictures)
    handle.remove()
    (x,) = seen
    assert len(x) == 120
    torch.testing.assert_close(norm.running_mean, x.mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
    assert norm.momentum == 0.4
    assert not network.training


def test_initialise_keeps_the_layers_and_fits_the_rest(tiny_bundle: Bundle) -> None:
    data = colours()
    network = build(architecture_for(tiny_bundle, 32, 3, 0.0))
    initialise(network, tiny_bundle, tiny_bundle.preprocess, data.train, torch.ones(3), 0.1)
    state = network.state_dict()
    for name, array in tiny_bundle.weights.items():
        same = torch.equal(state[name], torch.tensor(array))
        if name.endswith(("conv1.weight", "conv2.weight", "norm1.bias", "stem.weight")):
            assert same, name
        if name.endswith(("running_mean", "running_var")) or name == "head.weight":
            assert not same, name
    # Colours are seen even by random layers.
    network.eval()
    logits = predict(network, tiny_bundle.preprocess, data.validation.pictures)
    assert float((logits.argmax(1) == data.validation.labels).float().mean()) > 0.9


def test_a_run_from_a_bundle(saved: Path, tiny_bundle: Bundle, tmp_path: Path) -> None:
    recipe = dataclasses.replace(FROM_TINY, init=str(saved))
    data = colours()
    four = Dataset(
        ("a", "b", "c", "d"),
        Split(
            torch.cat([data.train.pictures, data.train.pictures[:8].flip(1)]),
            torch.cat([data.train.labels, torch.full((8,), 3)]),
        ),
        data.validation,
        data.test,
        {},
    )
    bundle = train(recipe, four, tmp_path / "run")
    assert bundle.classes == ("a", "b", "c", "d")
    assert bundle.architecture == Architecture(classes=4, widths=(24, 24, 32), dropout=0.1)
    assert bundle.preprocess == tiny_bundle.preprocess
    assert bundle.training["init"] == tiny_bundle.digest
    assert bundle.training["recipe"]["init"] == str(saved)
    again = train(recipe, four, tmp_path / "run", resume=True)
    assert again.digest == bundle.digest


def test_larger_pictures_from_a_bundle(saved: Path, tmp_path: Path) -> None:
    data = colours()

    def doubled(split: Split) -> Split:
        return Split(F.interpolate(split.pictures.float(), scale_factor=2).byte(), split.labels)

    large = Dataset(data.classes, doubled(data.train), doubled(data.validation), None, {})
    recipe = dataclasses.replace(FROM_TINY, init=str(saved), size=64, epochs=1)
    bundle = train(recipe, large, tmp_path / "run")
    assert bundle.preprocess.input_size == 64
    assert bundle.architecture.shrink == 2
    fresh = train(dataclasses.replace(recipe, init=None), large, tmp_path / "fresh")
    assert fresh.architecture.shrink == 2
    assert "init" not in fresh.training


def test_features_are_those_of_the_network(tiny_bundle: Bundle) -> None:
    network = tiny_bundle.network()
    pictures = coloured(3).pictures
    found = features_of(network, Preprocess(), pictures)
    with torch.no_grad():
        expected = network(Preprocess().normalise(pictures)).features
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
