"""The search engine: a corpus, a store and the store's model."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from embed.bundle import PRETRAINED, Bundle
from embed.corpus import ArrayCorpus, Corpus, CorpusError, FolderCorpus
from embed.encoder import PictureEncoder
from embed.folders.options import FolderOptions
from embed.pictures import RGB, Opened, PictureError, PictureLimits, decode, turn
from embed.preprocess import Preprocess
from index.contract import (
    BlobError,
    Catalogue,
    CatalogueError,
    GenerationAheadError,
    GenerationCorruptError,
    GenerationError,
    GenerationFormatError,
    Manifest,
    ModelChangedError,
    ModelMismatchError,
    Progress,
    StateGoneError,
    Store,
    StoreBusyError,
    no_progress,
)
from index.local.store import CacheSizes
from index.ranking.recommend import Strategy
from index.records import Entry
from search_api.schemas.search import Classes
from search_api.service.first_model import first_model, refitted_model
from search_api.service.following.contents import same_pictures
from search_api.service.ingest import Ingest
from search_api.service.labelling.classes import ClassStore
from search_api.service.labelling.classifier_fit import ClassifierFitter
from search_api.service.leftovers import remove_leftovers
from search_api.service.page import Page
from search_api.service.rebuild import IndexBuilder
from search_api.service.recall_sampler import RecallSampler
from search_api.service.recommend import ExampleSet, recommendation
from search_api.service.results import SearchResult
from search_api.service.search import PictureQuery, SearchService
from search_api.service.storage.quotas import StorageQuotas
from search_api.service.storage.trash import TrashService
from search_api.settings import Quotas, StoreLocation
from search_api.stores import opening
from search_api.stores.classifier_store import ClassifierFiles
from search_api.stores.location_file import keep_location
from search_api.stores.model_store import fetch_model, find_bundle, model_folder, open_model
from search_api.stores.store_corpus import (
    MissingCorpus,
    check_corpus,
    corpus_of_store,
    record_of,
    remembered,
)
from search_api.timings import Timings

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5

OpenStore = Callable[[opening.ModelOf], Store[PictureEncoder]]


class SearchEngine:
    """Classifies pictures and finds their neighbours in one indexed corpus.

    Safe to use from several threads. Each search reads one immutable state: the newest generation
    and the catalogue's changes since then. ``builder`` builds generations; ``ingest`` adds, changes
    and deletes single pictures.
    """

    def __init__(
        self,
        encoder: PictureEncoder,
        corpus: Corpus,
        var: Path,
        limits: PictureLimits = PictureLimits(),
        open_model: Callable[[Path], PictureEncoder] | None = None,
        open_store: OpenStore | None = None,
        find_model: Callable[[str], Path | None] | None = None,
        classifiers: ClassifierFiles | None = None,
        quotas: Quotas = Quotas(),
        *,
        follow: bool = False,
    ) -> None:
        """Open the store, creating it if needed; `load` or rebuild it before searching.

        Args:
            encoder: computes the embeddings until the store switches to another model.
            corpus: the pictures to index and to show.
            var: folder of the catalogue and the index.
            limits: bounds on each picture.
            open_model: opens another bundle, which is needed to follow a switch of models by any
                process; without it this engine always uses ``encoder``.
            open_store: opens the store, given this engine's `model`; None for the one in ``var``.
            find_model: returns the folder of the bundle with a digest; None for those in ``var``.
            classifiers: the files of the store's classifier; None for those in ``var``.
            quotas: how much the store keeps.
            follow: ``encoder`` was the store's model; if another process has switched since, `load`
                uses the one that is now.

        Raises:
            CatalogueError: the catalogue is damaged or of a newer format.
        """
        self.corpus = corpus
        self.var = var
        self.limits = limits
        self.load_report = "nothing is loaded"
        self.sampler = RecallSampler()
        self._first = encoder
        self._follow = follow
        self._open_model = open_model
        self._find_model = find_model or (lambda digest: model_folder(var, digest))
        self._opened: PictureEncoder | None = None
        var.mkdir(parents=True, exist_ok=True)
        self.store: Store[PictureEncoder] = (
            opening.open_store(StoreLocation(var), self.model)
            if open_store is None
            else open_store(self.model)
        )
        self.catalogue = self.store.catalogue
        self.catalogue.bounds = quotas.payload_bounds
        self.entries = self.store.entries
        self.blobs = self.store.blobs
        self.served = self.store.served
        self.classes = ClassStore(
            self.catalogue, classifiers or ClassifierFiles(StoreLocation(var))
        )
        self.searches = SearchService(self.store, self.sampler, self.classes)
        self.fitter = ClassifierFitter(self.store, self.classes)
        self.storage = StorageQuotas(self.store, var, quotas)
        self.trash = TrashService(self.store, self.storage)
        self.builder = IndexBuilder(var, self.store, self.picture, self.fitter, self.trash)
        self.ingest = Ingest(
            self.catalogue,
            self.blobs,
            limits,
            lambda: self.encoder,
            self.storage,
            isinstance(corpus, FolderCorpus | MissingCorpus) and corpus.options.gps_place,
        )

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    @property
    def encoder(self) -> PictureEncoder:
        """The encoder of the model in use."""
        state = self.served.last
        return self._first if state is None else state.model

    def model(self, digest: str) -> PictureEncoder | None:
        """The encoder of the model with this digest, or None if this process cannot get it."""
        for encoder in (self.encoder, self._first, self._opened):
            if encoder is not None and encoder.digest == digest:
                return encoder
        folder = None if self._open_model is None else self._find_model(digest)
        if folder is None or self._open_model is None:
            return None
        self._opened = self._open_model(folder)
        return self._opened

    @property
    def ready(self) -> bool:
        """Whether an index is loaded."""
        return self.served.last is not None

    def available(self) -> bool:
        """Whether a search would succeed now. Checks the index's engine, which may take long."""
        return self.ready and self.served.available()

    @property
    def manifest(self) -> Manifest:
        """The manifest of the index in use."""
        return self.served.current().manifest

    def check_corpus(self) -> None:
        """Check that the store was not built from another corpus.

        Raises:
            CorpusMismatchError: it was; names both.
        """
        check_corpus(self.catalogue, self.corpus, self.store.name)

    def load(self) -> Manifest:
        """Check the store, and load its newest intact generation.

        If no generation is intact, build one from the catalogue, or wait for another process that
        is building one. ``load_report`` then says, as a
        sentence for people, what was loaded.

        Raises:
            CatalogueError: the catalogue is damaged.
            NoGenerationError: nothing has been built yet.
            ModelMismatchError: the store was built with another model.
            GenerationError: no generation is usable, and none can be built from the catalogue.
        """
        damage = self.catalogue.check()
        if damage is not None:
            raise CatalogueError(f"{self.store.catalogue_name}: {damage}")
        if not self.store.read_only:
            remove_leftovers(self.var, self.store)
        while True:
            try:
                return self._load()
            except StoreBusyError as error:
                # Another server, started at the same time, builds what this one needs.
                log.warning("the index cannot be used yet: %s", error)
                time.sleep(_POLL_SECONDS)
            except (GenerationError, ModelChangedError):
                if not self._followed():
                    raise

    def follow(self) -> None:
        """Load the first generation if none is loaded and another process has built one by now."""
        if self.ready:
            return
        try:
            self._first = self.served.current().model
        except (GenerationError, StateGoneError):
            pass  # not yet
        except CatalogueError as error:
            log.warning("cannot tell yet whether there is an index: %s", error)

    def _followed(self) -> bool:
        """Use the model that another process has switched to since this one chose its own."""
        digest = self.catalogue.model()
        if not self._follow or digest in (None, self._first.digest):
            return False
        encoder = self.model(digest)
        if encoder is not None:
            self._first = encoder
        return encoder is not None

    def _load(self) -> Manifest:
        digest = self._first.digest
        try:
            manifest, problem = self.served.load(digest)
        except (
            GenerationCorruptError,
            GenerationFormatError,
            GenerationAheadError,
            ModelMismatchError,  # a switch of models was interrupted before its index was built
        ) as error:
            if self.catalogue.model() != digest:
                raise
            manifest = self.builder.compact(self._first, needs_room=False)
            self.load_report = (
                f"{error}. Rebuilt from the catalogue: generation {manifest.generation} with"
                f" {manifest.count:,} pictures."
            )
        else:
            count = self.served.current().index.count()
            loaded = (
                f"generation {manifest.generation} with {count:,} pictures, all checksums valid."
            )
            self.load_report = f"Index: {loaded}"
            if problem is not None:
                self.load_report = f"{problem}. Fell back to {loaded}"
        return manifest

    def pending(self) -> int:
        """How many changes the current generation does not include yet."""
        index = self.served.current().index
        return index.added + index.masked

    def picture(self, entry: Entry, at_least: int | Preprocess | None = None) -> RGB:
        """The picture of an entry, uint8 ``(h, w, 3)``.

        Raises:
            CorpusError: it is no longer in the corpus.
            BlobError: it was added by hand, and its bytes are missing or damaged.
            PictureError: it is not a usable picture.
        """
        if entry.origin != "corpus":
            return decode(self.blobs.get(entry.content_hash or ""), self.limits, at_least)
        try:
            return self.corpus.read(entry.source, at_least=at_least)
        except CorpusError:
            if not self._corpus_has_moved():
                raise
            return self.corpus.read(entry.source, at_least=at_least)

    def _corpus_has_moved(self) -> bool:
        """Use the place of the corpus that the store knows, if another process has changed it."""
        record = remembered(self.catalogue)
        if record is None or not record.is_folder or record.is_same(record_of(self.corpus)):
            return False
        log.warning("the corpus %s is now %s", self.corpus.name, record.name)
        self.corpus = record.open(self.limits)
        return True

    def warm(self) -> None:
        """Read one picture, which loads a corpus that is kept in memory as a whole."""
        for entry in self.catalogue.page(-1, 1):
            try:
                self.picture(entry)
            except (CorpusError, PictureError, BlobError) as error:
                log.warning("picture %d cannot be read: %s", entry.id, error)

    def read(self, data: bytes) -> RGB:
        """Decode a picture and fit it to the encoder's input.

        Returns:
            uint8 ``(input_size, input_size, 3)``.

        Raises:
            PictureError: ``data`` is not a usable picture.
        """
        return self.reduced(Opened(data, self.limits))

    def reduced(self, opened: Opened) -> RGB:
        """As `read`, for a picture whose header was read already."""
        if opened.in_process:  # small
            return opened.decode(self.encoder.preprocess)
        with turn():
            return opened.decode(self.encoder.preprocess)

    def search(self, data: bytes, page: Page = Page(), classes: Classes = "auto") -> SearchResult:
        """Classify an encoded picture and find its neighbours.

        Raises:
            PictureError: ``data`` is not a usable picture.
            NoClassesError: there are no such ``classes``.
        """
        self.classes.check(classes, self.encoder)
        timings = Timings()
        with timings("decode"):
            picture = self.read(data)
        query = PictureQuery(picture, page, timings, classes)
        while True:
            try:
                return self.searches.complete(query, self.search_batch([query])[0])
            except ModelChangedError:
                continue  # the service has switched models meanwhile

    def search_batch(self, queries: Sequence[PictureQuery]) -> list[SearchResult]:
        """Classify several pictures, in one forward pass, and find their neighbours.

        Results for pages that are not plain have no neighbours yet; see `SearchService.by_picture`
        and `SearchService.complete`.
        """
        for query in queries:
            query.timings.end("queue")
        while True:
            try:
                return self.searches.by_picture(self.encoder, queries)
            except ModelChangedError:
                continue  # the service has switched models meanwhile

    def similar(self, image_id: int, page: Page = Page()) -> SearchResult:
        """The neighbours of an indexed picture, without the picture itself.

        Raises:
            UnknownIdError: no such picture.
        """
        return self.recommend(ExampleSet((image_id,)), ExampleSet(), "average_vector", page)

    def recommend(
        self,
        positive: ExampleSet,
        negative: ExampleSet,
        strategy: Strategy,
        page: Page,
        timings: Timings | None = None,
    ) -> SearchResult:
        """Pictures like the positive and unlike the negative examples; see `recommendation`."""
        return recommendation(
            self.searches, positive, negative, strategy, page, timings or Timings()
        )

    def summary(self) -> dict[str, Any]:
        """What is indexed, as JSON values, for ``GET /v1/index``."""
        state = self.served.current()
        manifest = state.manifest
        return {
            "count": state.index.count(),
            "kind": manifest.kind,
            "dimension": manifest.dimension,
            "metric": manifest.metric,
            "model": manifest.model_digest,
            "generation": manifest.generation,
            "complete": not self.builder.unfinished(),
            "built": manifest.created,
            "sequence": state.sequence,
            "pending": {"added": state.index.added, "deleted": state.index.masked},
            "parameters": dict(manifest.parameters),
            "recall": None if manifest.recall is None else dict(manifest.recall),
            "corpus": self.corpus.name,
            "sample": self.corpus.notice is not None,
            "notice": self.corpus.notice,
            "classes": list(state.model.classes),
            "classifier": self.classes.summary(manifest.model_digest),
            "labels": self.catalogue.label_counts(),
            "splits": self.catalogue.split_counts(),
        }


def find_store_corpus(
    data: Path | None,
    location: StoreLocation,
    say: Callable[[str], None] = log.info,
    limits: PictureLimits = PictureLimits(),
    folder_options: FolderOptions = FolderOptions(),
    *,
    building: bool = False,
    replacing: bool = False,
) -> Corpus:
    """The corpus of a store; see `search_api.stores.store_corpus.corpus_of_store`."""

    def same(catalogue: Catalogue, corpus: Corpus) -> float:
        model = Bundle.load(fetch_model(location, catalogue.model() or "") or PRETRAINED)
        return same_pictures(catalogue, corpus, model.preprocess.shorter_side)

    return corpus_of_store(
        data, location, same, say, limits, folder_options, building=building, replacing=replacing
    )


@contextmanager
def open_engine(
    data: Path | None,
    location: StoreLocation,
    bundle: Path | None,
    limits: PictureLimits = PictureLimits(),
    *,
    cache_sizes: CacheSizes = CacheSizes(),
    quotas: Quotas = Quotas(),
    say: Callable[[str], None] = log.info,
    progress: Progress | None = None,
    refit: bool = False,
    folder_options: FolderOptions = FolderOptions(),
    building: bool = False,
    replacing: bool = False,
) -> Iterator[SearchEngine]:
    """Open an engine, without loading its index; it is closed when the block ends.

    Args:
        data: the corpus, or None for the store's own; see `find_store_corpus`.
        location: where the store is.
        bundle: folder of the model, or None; see `search_api.stores.model_store.find_bundle`.
        limits: bounds on each picture.
        cache_sizes: how much of the catalogue to keep in memory.
        quotas: how much the store keeps.
        say: called with messages for people about which corpus and model were found.
        progress: given if the index will be built: then a store without a model gets one for its
            pictures, see `search_api.service.first_model`, and this is called meanwhile.
        refit: fit the photo encoder's embedding to the corpus again.
        folder_options: how a folder or table is read, where that differs from what the store keeps.
        building: the store need not exist yet; nor need it with ``progress``.
        replacing: the store may be of another corpus, which the next build replaces.

    Raises:
        IndexInputError: there is no store.
        CorpusMismatchError: the store is of another corpus than ``data``.
    """
    building = building or progress is not None
    corpus = find_store_corpus(
        data, location, say, limits, folder_options, building=building, replacing=replacing
    )
    if progress is not None and refit:
        model = refitted_model(corpus, location, progress)
    elif progress is not None or (building and bundle is not None):
        model = first_model(bundle, corpus, location, say, progress or no_progress)
    else:
        model = find_bundle(bundle, location)
    encoder = open_model(model, location.var)
    follow = bundle is None
    with engine_over(
        corpus, location, encoder, limits, cache_sizes, quotas, follow=follow
    ) as engine:
        if building:
            keep_location(location)
        yield engine


@contextmanager
def engine_over(
    corpus: Corpus,
    location: StoreLocation,
    encoder: PictureEncoder,
    limits: PictureLimits = PictureLimits(),
    cache_sizes: CacheSizes = CacheSizes(),
    quotas: Quotas = Quotas(),
    *,
    follow: bool = False,
) -> Iterator[SearchEngine]:
    """As `open_engine`, with a corpus and an encoder that are open already."""
    if isinstance(corpus, ArrayCorpus) and os.access(location.var, os.W_OK):
        corpus.keep_in(location.var / "corpus" / "-".join(corpus.name.lower().split()))
    engine = SearchEngine(
        encoder,
        corpus,
        location.var,
        limits,
        partial(open_model, var=location.var),
        lambda model_of: opening.open_store(location, model_of, cache_sizes),
        lambda digest: fetch_model(location, digest),
        ClassifierFiles(location),
        quotas,
        follow=follow,
    )
    try:
        yield engine
    finally:
        engine.close()
