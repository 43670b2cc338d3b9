"""The models of a store, kept in the store: those it has served and those it is switching to.

Every process on the store can therefore follow a switch of models, and a restart needs no path.
With Milvus, the servers of one store share their models wherever they share added pictures.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from embed.bundle import MANIFEST, PRETRAINED, Bundle
from embed.encoder import Encoder
from embed.private_cache import UntrustedFolderError, default_cache, private_folder
from embed.runtime.protocol import available_cores
from index.blobs.objects import ObjectBlobs
from index.files import fsync_file, fsync_folder, make_folder
from index.temporaries import temporary_folder
from search_api.settings import StoreLocation
from search_api.stores.opening import has_store, open_existing_store

log = logging.getLogger(__name__)

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def open_model(folder: Path, var: Path | None = None) -> Encoder:
    """The encoder of a trained model, on all cores available to this process.

    The network that its runtime exports is kept in a private cache; see `usable_cache`.

    Raises:
        BundleError: the folder holds no usable model.
    """
    return Encoder(Bundle.load(folder), threads=available_cores(), cache=usable_cache(var))


def usable_cache(var: Path | None) -> Path | None:
    """The user's cache folder; one in ``var`` if the user, such as a service's, has none.

    None if there is no ``var`` either. That is said, and that the cache cannot be trusted.
    """
    try:
        cache = private_folder(default_cache())
        if os.access(cache, os.W_OK):
            return cache
        why = f"{cache} cannot be written"
    except UntrustedFolderError as error:
        why = str(error)
        if var is not None:
            _say_once(f"{why}; until then {var / 'cache'} is used")
    except OSError as error:
        why = str(error)
    if var is None:
        _say_once(f"the exported network is not kept: {why}")
        return None
    return var / "cache"


@lru_cache
def _say_once(message: str) -> None:
    log.warning("%s", message)


def find_bundle(bundle: Path | None, location: StoreLocation) -> Path:
    """The model folder to use: ``bundle``, the store's, the shipped one, or one trained here."""
    if bundle is not None:
        return bundle
    var = location.var
    if location.milvus is not None or ((var / "models").is_dir() and has_store(location)):
        with closing(open_existing_store(location)) as store:
            kept = fetch_model(location, store.catalogue.model() or "")
        if kept is not None:
            return kept
    trained = var / "bundle"
    return trained if not has_bundle(PRETRAINED) and has_bundle(trained) else PRETRAINED


def has_bundle(folder: Path) -> bool:
    """Whether the folder holds a trained model."""
    return (folder / MANIFEST).is_file()


def model_folder(var: Path, digest: str) -> Path | None:
    """The store's copy of the bundle with this digest, or None without one."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        return None
    folder = var / "models" / match[1]
    return folder if folder.is_dir() else None


def keep_model(var: Path, bundle: Path, digest: str) -> Path:
    """Copy the bundle durably into the store; return its folder there.

    Raises:
        ValueError: the digest is not that of a bundle.
    """
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise ValueError(f"the model's digest is {digest!r}; expected sha256: and 64 hex digits")
    folder = var / "models" / match[1]
    # One with another classifier makes the same embeddings, and so has the same digest.
    if folder.is_dir() and _same(folder / MANIFEST, bundle / MANIFEST):
        return folder
    make_folder(folder.parent)
    with temporary_folder(folder.parent) as temporary:
        new = temporary / "new"
        new.mkdir()
        for path in bundle.iterdir():
            # Hidden files are a runtime's cached exports, which may be half written.
            if path.is_file() and not path.name.startswith("."):
                fsync_file(Path(shutil.copyfile(path, new / path.name)))
        fsync_folder(new)
        try:
            if folder.is_dir():
                folder.rename(temporary / "old")
            new.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first
                raise
    fsync_folder(folder.parent)
    return folder


def _same(kept: Path, new: Path) -> bool:
    return not new.is_file() or (kept.is_file() and kept.read_bytes() == new.read_bytes())


def fetch_model(location: StoreLocation, digest: str) -> Path | None:
    """The folder of a model, downloaded from the other servers if needed; None without one."""
    match = _DIGEST.fullmatch(digest)
    folder = model_folder(location.var, digest)
    shared = _shared_models(location)
    if match is None or folder is not None or shared is None:
        return folder
    target = location.var / "models" / match[1]
    make_folder(target.parent)
    with temporary_folder(target.parent) as temporary:
        if not shared.download(f"models/{match[1]}", temporary / "new"):
            return None
        try:
            (temporary / "new").rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process was first
                raise
    return target


def share_model(location: StoreLocation, digest: str) -> None:
    """Upload a model of this machine for the other servers of the store."""
    folder = model_folder(location.var, digest)
    shared = _shared_models(location)
    if folder is not None and shared is not None:
        shared.upload(folder, f"models/{folder.name}")


def _shared_models(location: StoreLocation) -> ObjectBlobs | None:
    """Where the servers of one store share models; None if they all use ``var``."""
    if location.milvus is None:
        return None
    return ObjectBlobs(location.pictures or str((location.var / "pictures").absolute()))
