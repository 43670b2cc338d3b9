"""Opens the store at a location, in SQLite and FAISS or in Milvus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from embed.encoder import PictureEncoder
from index.blobs.folder import FolderBlobs
from index.blobs.objects import ObjectBlobs
from index.contract import Blobs, IndexInputError, Store
from index.local.store import CacheSizes, LocalStore, catalogue_path
from index.milvus.store import MilvusStore
from search_api.file_modes import tighten
from search_api.settings import StoreLocation

ModelOf = Callable[[str], PictureEncoder | None]
"""Returns the model with a digest, or None if this process cannot get it."""


def open_store(
    location: StoreLocation, model_of: ModelOf, cache_sizes: CacheSizes = CacheSizes()
) -> Store[PictureEncoder]:
    """Open the store, creating it if needed; ``cache_sizes`` does not apply to Milvus.

    One that other users can read is closed to them first; see `search_api.file_modes`.

    Raises:
        CatalogueError: it cannot be opened.
    """
    if _is_ours(location.var):
        tighten(location.var)
    blobs = _blobs(location)
    if isinstance(blobs, FolderBlobs) and blobs.exists():
        tighten(blobs.root)
    if location.milvus is None:
        return LocalStore(location.var, model_of, blobs, cache_sizes)
    return MilvusStore(location.milvus, model_of, blobs)


def open_existing_store(location: StoreLocation) -> Store[PictureEncoder]:
    """Open an existing store, without a model.

    Raises:
        IndexInputError: there is none.
        CatalogueError: it cannot be opened.
    """
    if not has_store(location):
        raise IndexInputError(
            f"no store in {location.var}; build one with `lookalike index build --data FOLDER --var"
            f" {location.var}`, or choose another folder with --var"
        )
    return open_store(location, lambda digest: None)


def has_store(location: StoreLocation) -> bool:
    """Whether the store exists; Milvus always counts as existing."""
    return location.milvus is not None or catalogue_path(location.var).exists()


def shared_objects(location: StoreLocation) -> ObjectBlobs | None:
    """Where the servers of one store share files other than pictures; None if all use ``var``."""
    if location.milvus is None:
        return None
    return ObjectBlobs(location.pictures or str((location.var / "pictures").absolute()))


def _is_ours(var: Path) -> bool:
    """Whether the folder is a store's, or nobody's yet."""
    names = (catalogue_path(var), var / "jobs", var / "models")
    return any(path.exists() for path in names) or (var.is_dir() and not any(var.iterdir()))


def _blobs(location: StoreLocation) -> Blobs:
    url = location.pictures
    if url is None:
        return FolderBlobs(location.var / "pictures")
    if url.startswith("file://"):
        return FolderBlobs(Path(url.removeprefix("file://")))
    if "://" not in url:
        return FolderBlobs(Path(url))
    # Many machines share a store in Milvus, so a lock of this one would mean nothing.
    return ObjectBlobs(url, lock=None if location.milvus else location.var / "pictures.lock")
