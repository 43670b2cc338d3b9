"""Opening the store that somebody asked for, whatever keeps it."""

from __future__ import annotations

from pathlib import Path

from embed.encoder import PictureEncoder
from index.blobs import Blobs
from index.milvus.connection import MilvusSettings
from index.milvus.store import MilvusStore
from index.neighbours import IndexInputError
from index.objects import ObjectBlobs
from index.stores import Pictures, Store
from search_api.engine import OpenStore
from search_api.local_store import Cached, LocalStore, ModelOf, catalogue_path
from search_api.settings import Place
from search_api.shelf import model_folder


def opener(place: Place, var: Path, cached: Cached = Cached()) -> OpenStore:
    """What opens the store of ``place``; ``var`` is this machine's folder.

    ``cached`` is of a store on this machine; one in Milvus is asked each time.
    """

    def open_store(model_of: ModelOf) -> Store[PictureEncoder]:
        pictures = _pictures(place, var)
        if place.milvus is None:
            return LocalStore(var, model_of, pictures, cached)
        given = place.milvus
        settings = MilvusSettings(given.uri, given.token, given.prefix, given.flush)
        return MilvusStore(settings, model_of, pictures)

    return open_store


def store_in(place: Place, var: Path) -> Store[PictureEncoder]:
    """The store, which must be there, without a model.

    Raises:
        IndexInputError: there is none in the folder.
    """
    if place.milvus is None and not catalogue_path(var).exists():
        raise IndexInputError(
            f"no store in {var}; build one with `lookalike index build` or name another with --var"
        )
    return opener(place, var)(lambda digest: None)


def shared_models(place: Place, var: Path) -> ObjectBlobs | None:
    """Where the servers of one store give each other their models; None where ``var`` is enough."""
    if place.milvus is None:
        return None
    return ObjectBlobs(place.pictures or str((var / "pictures").absolute()))


def fetched_model(place: Place, var: Path, digest: str) -> Path | None:
    """The folder of a model that this machine has, or can get from where models are shared."""
    folder = model_folder(var, digest)
    shared = shared_models(place, var)
    if folder is not None or shared is None:
        return folder
    name = digest.removeprefix("sha256:")
    target = var / "models" / name
    temporary = target.with_name(f".tmp-{name}")
    if not name.isalnum() or not shared.download(f"models/{name}", temporary):
        return None
    temporary.rename(target)
    return model_folder(var, digest)


def share_model(place: Place, var: Path, digest: str) -> None:
    """Give a model of this machine to the other servers of the store."""
    folder = model_folder(var, digest)
    shared = shared_models(place, var)
    if folder is not None and shared is not None:
        shared.upload(folder, f"models/{folder.name}")


def _pictures(place: Place, var: Path) -> Pictures:
    url = place.pictures
    if url is None:
        return Blobs(var / "pictures")
    if url.startswith("file://"):
        return Blobs(Path(url.removeprefix("file://")))
    return ObjectBlobs(url) if "://" in url else Blobs(Path(url))
