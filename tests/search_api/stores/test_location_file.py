"""What the folder of a store remembers of the rest of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from index.milvus.settings import MilvusSettings
from search_api.settings import StoreLocation
from search_api.stores.location_file import FILE, LocationFileError, keep_location, read_location


def test_the_place_of_a_store_is_remembered_without_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    milvus = MilvusSettings("lite.db", "secret", "shop", flush=False)
    keep_location(StoreLocation(tmp_path, milvus, "added"))
    assert read_location(tmp_path) == {
        "uri": str(tmp_path / "lite.db"),
        "prefix": "shop",
        "flush": False,
        "pictures": str(tmp_path / "added"),
    }
    assert "secret" not in (tmp_path / FILE).read_text()
    keep_location(StoreLocation(tmp_path, None, "s3://bucket/pictures"))
    assert read_location(tmp_path) == {"pictures": "s3://bucket/pictures"}


def test_a_store_that_is_all_in_its_folder_needs_no_file(tmp_path: Path) -> None:
    keep_location(StoreLocation(tmp_path))
    assert list(tmp_path.iterdir()) == []
    keep_location(StoreLocation(tmp_path, MilvusSettings("http://127.0.0.1:19530")))
    keep_location(StoreLocation(tmp_path))
    assert read_location(tmp_path) == {}


def test_it_is_written_only_if_something_has_changed(tmp_path: Path) -> None:
    location = StoreLocation(tmp_path, None, "memory://pictures")
    keep_location(location)
    before = (tmp_path / FILE).stat().st_ino
    keep_location(location)
    assert (tmp_path / FILE).stat().st_ino == before


@pytest.mark.parametrize("text", ["{", "[]", "\ud800"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(LocationFileError, match=r"store.json cannot be read .*; delete it"):
        read_location(tmp_path)
