"""The models of a store: which one is used, copies in the store, sharing between servers."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from embed.bundle import Bundle, BundleError
from index.milvus.settings import MilvusSettings
from index.records import Record
from search_api.settings import StoreLocation
from search_api.stores import model_store
from search_api.stores.model_store import (
    fetch_model,
    find_bundle,
    has_bundle,
    keep_model,
    model_folder,
    open_model,
    share_model,
    usable_cache,
)
from search_api.stores.opening import open_store
from tests.search_api.helpers import OTHER

HEX = OTHER.removeprefix("sha256:")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder that has what a bundle has, and a runtime's export."""
    folder = tmp_path / "bundle"
    (folder / ".export" / "network").mkdir(parents=True)
    (folder / ".lock").touch()
    (folder / "bundle.json").write_text("{}")
    (folder / "weights.safetensors").write_bytes(b"weights")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_model_is_copied_without_what_its_runtime_cached(bundle: Path, tmp_path: Path) -> None:
    var = tmp_path / "var"
    assert model_folder(var, OTHER) is None
    folder = keep_model(var, bundle, OTHER)
    assert folder == model_folder(var, OTHER) == var / "models" / HEX
    assert names(folder) == ["bundle.json", "weights.safetensors"]
    assert (folder / "weights.safetensors").read_bytes() == b"weights"
    assert names(var / "models") == [HEX]


def test_a_model_that_is_there_is_not_copied_again(bundle: Path, tmp_path: Path) -> None:
    folder = keep_model(tmp_path, bundle, OTHER)
    (bundle / "weights.safetensors").write_bytes(b"others")
    assert keep_model(tmp_path, bundle, OTHER) == folder
    assert (folder / "weights.safetensors").read_bytes() == b"weights"


def test_another_classifier_of_the_same_embedding_replaces_the_copy(
    bundle: Path, tmp_path: Path
) -> None:
    folder = keep_model(tmp_path, bundle, OTHER)
    (bundle / "bundle.json").write_text("another classifier")
    (bundle / "weights.safetensors").write_bytes(b"others")
    assert keep_model(tmp_path, bundle, OTHER) == folder
    assert (folder / "bundle.json").read_text() == "another classifier"
    assert (folder / "weights.safetensors").read_bytes() == b"others"
    assert names(tmp_path / "models") == [HEX]


def test_a_failed_copy_leaves_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(model_store, "fsync_file", full)
    with pytest.raises(OSError, match="no space"):
        keep_model(tmp_path, bundle, OTHER)
    assert names(tmp_path / "models") == []


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../x", "md5:" + "b" * 64, HEX.upper()])
def test_other_digests_name_no_folder(bundle: Path, tmp_path: Path, digest: str) -> None:
    assert model_folder(tmp_path, digest) is None
    with pytest.raises(ValueError, match="expected sha256: and 64 hex digits"):
        keep_model(tmp_path, bundle, digest)


def test_the_given_model_comes_first(bundle: Path, tmp_path: Path) -> None:
    assert find_bundle(bundle, StoreLocation(tmp_path / "var")) == bundle


def test_then_the_model_of_the_store(bundle: Path, tmp_path: Path) -> None:
    location = StoreLocation(tmp_path / "var")
    keep_model(location.var, bundle, OTHER)
    assert find_bundle(None, location) == model_store.PRETRAINED  # there is no store yet
    with closing(open_store(location, lambda digest: None)) as store:
        record = Record("a.png", None, None, {}, "hash", "added")
        store.catalogue.upsert([record], np.eye(1, 2, dtype=np.float32), OTHER)
    assert find_bundle(None, location) == model_folder(location.var, OTHER)


def test_then_the_shipped_model_or_one_trained_here(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = StoreLocation(tmp_path / "var")
    monkeypatch.setattr(model_store, "PRETRAINED", tmp_path / "shipped")
    assert find_bundle(None, location) == tmp_path / "shipped"
    location.var.mkdir()
    bundle.rename(location.var / "bundle")
    assert has_bundle(location.var / "bundle")
    assert find_bundle(None, location) == location.var / "bundle"
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "bundle.json").write_text("{}")
    assert find_bundle(None, location) == tmp_path / "shipped"


def test_models_are_shared_over_milvus(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")

    def server(name: str) -> StoreLocation:
        milvus = MilvusSettings("x.db")
        return StoreLocation(tmp_path / name, milvus, f"memory://{tmp_path.name}")

    one, two = server("one"), server("two")
    keep_model(one.var, bundle, OTHER)
    assert fetch_model(two, OTHER) is None
    share_model(one, OTHER)
    found = fetch_model(two, OTHER)
    assert found == model_folder(two.var, OTHER)
    assert found is not None
    assert names(found) == ["bundle.json", "weights.safetensors"]
    assert fetch_model(two, "sha256:" + "c" * 64) is None
    assert fetch_model(two, "sha256:../x") is None


def test_without_milvus_the_folder_is_all_there_is(bundle: Path, tmp_path: Path) -> None:
    location = StoreLocation(tmp_path / "var")
    share_model(location, OTHER)  # does nothing
    assert fetch_model(location, OTHER) is None
    folder = keep_model(location.var, bundle, OTHER)
    assert fetch_model(location, OTHER) == folder


def test_the_runtime_has_the_cores_of_this_process(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch too, which by itself would count those of the machine."""
    tiny_bundle.save(tmp_path)
    monkeypatch.setattr(model_store, "available_cores", lambda: 3)
    monkeypatch.setattr("embed.runtime.select.importlib.util.find_spec", lambda _: None)
    before = torch.get_num_threads()
    try:
        assert open_model(tmp_path).runtime.name == "torch"
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    assert not has_bundle(tmp_path)
    with pytest.raises(BundleError, match=r"bundle\.json"):
        open_model(tmp_path)


def test_the_cache_is_the_users_or_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "own"))
    assert usable_cache(tmp_path / "var") == tmp_path / "own"
    assert not caplog.records
    (tmp_path / "own").chmod(0o777)  # anybody may have written what is in it
    for _ in range(2):
        assert usable_cache(tmp_path / "var") == tmp_path / "var" / "cache"
        assert usable_cache(None) is None
    said, not_kept = [record.getMessage() for record in caplog.records]
    assert "other users can write into" in said and "var/cache is used" in said
    assert not_kept.startswith("the exported network is not kept: other users can write into")
