"""Opening the store at a location: which engine, which folder for added pictures."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from index.blobs.objects import ObjectBlobs
from index.contract import IndexInputError
from index.local.store import CacheSizes, LocalStore
from index.milvus.settings import MilvusSettings
from search_api.service.engine import SearchEngine
from search_api.settings import StoreLocation
from search_api.stores.opening import has_store, open_existing_store, open_store
from tests.search_api.conftest import MeanColour


def no_model(digest: str) -> None:
    return None


def test_a_store_exists_once_it_was_opened(tmp_path: Path) -> None:
    location = StoreLocation(tmp_path)
    assert not has_store(location)
    with pytest.raises(IndexInputError, match="index build"):
        open_existing_store(location)
    assert list(tmp_path.iterdir()) == []
    open_store(location, no_model).close()
    assert has_store(location)
    with closing(open_existing_store(location)) as store:
        assert isinstance(store, LocalStore)
        assert store.catalogue.count() == 0


def test_a_store_in_milvus_counts_as_existing(tmp_path: Path) -> None:
    assert has_store(StoreLocation(tmp_path, MilvusSettings("http://127.0.0.1:1")))


def test_milvus_is_opened_where_the_location_says(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite")
    location = StoreLocation(tmp_path, MilvusSettings(str(tmp_path / "lite.db"), prefix="mine"))
    with closing(open_store(location, no_model)) as store:
        assert "mine" in store.name
        assert store.parallel
        assert not (tmp_path / "catalogue.sqlite").exists()


@pytest.mark.parametrize(
    ("pictures", "folder"),
    [
        (None, "var/pictures"),
        ("{tmp}/elsewhere", "elsewhere"),
        ("file://{tmp}/elsewhere", "elsewhere"),
    ],
)
def test_added_pictures_are_in_a_folder(tmp_path: Path, pictures: str | None, folder: str) -> None:
    url = None if pictures is None else pictures.replace("{tmp}", str(tmp_path))
    with closing(open_store(StoreLocation(tmp_path / "var", pictures=url), no_model)) as store:
        name = store.blobs.put(b"some bytes")
        assert store.blobs.get(name) == b"some bytes"
    (path,) = (tmp_path / folder).glob("??/*")
    assert path.read_bytes() == b"some bytes"


def test_added_pictures_are_in_an_object_store(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    location = StoreLocation(tmp_path, pictures=f"memory://{tmp_path.name}")
    with closing(open_store(location, no_model)) as store:
        assert isinstance(store.blobs, ObjectBlobs)
        store.blobs.put(b"some bytes")
        assert len(store.blobs.names()) == 1
    assert not (tmp_path / "pictures").exists()


def test_models_and_cache_sizes_reach_the_store(engine: SearchEngine) -> None:
    models = {engine.encoder.digest: MeanColour()}
    location = StoreLocation(engine.var)
    with closing(open_store(location, models.get, CacheSizes(entries=1, selections=1))) as store:
        store.served.load(engine.encoder.digest)
        assert store.served.current().model is models[engine.encoder.digest]
        store.entries.get([1])
        assert store.entries.cached(1) is not None
        store.entries.get([2])
        assert store.entries.cached(1) is None
