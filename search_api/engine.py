"""The search engine: ingest, search, recommend, rebuild. No HTTP in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from embed.corpus import Corpus, CorpusError
from embed.encoder import PictureEncoder
from embed.pictures import RGB, Opened, PictureError, PictureLimits, decode
from index.blobs import BlobError
from index.catalogue import CatalogueError, Entry, ModelChangedError
from index.ranking import Strategy
from index.snapshots import (
    Manifest,
    ModelMismatchError,
    SnapshotAheadError,
    SnapshotCorruptError,
    SnapshotFormatError,
)
from index.stores import Store
from search_api.answering import Answering, PictureQuery
from search_api.builder import Builder
from search_api.ingest import Counts, Progress, Skip, no_progress, no_skip
from search_api.local_store import LocalStore, ModelOf, catalogue_path
from search_api.recommending import Examples, recommendation
from search_api.results import Page, Prediction, SearchResult
from search_api.sampling import RecallSampler
from search_api.shelf import model_folder
from search_api.stages import Stages
from search_api.writer import Writer

__all__ = ["CorpusMismatchError", "OpenStore", "SearchEngine", "catalogue_path"]

log = logging.getLogger(__name__)

OpenStore = Callable[[ModelOf], Store[PictureEncoder]]


class CorpusMismatchError(ValueError):
    """The store holds another corpus than the one asked for."""


class SearchEngine:
    """Classifies pictures and finds their neighbours in one indexed corpus.

    Safe to use from several threads. Searches answer from one immutable state, the newest
    generation with the catalogue's changes since; ``rebuild`` prepares the next generation beside
    it and switches in a single assignment. ``writer`` changes single pictures.
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
    ) -> None:
        """Open the store in ``var``, made if needed; call ``load`` or ``rebuild`` before searching.

        Args:
            encoder: what makes embeddings.
            corpus: the pictures to index and to show.
            var: folder of the catalogue and the index.
            limits: bounds of each picture.
            open_model: opens another bundle, so that a change of model by any process can be
                followed; without it this engine keeps to ``encoder``.
            open_store: opens the store, given what gives it models; None for the one in ``var``.
            find_model: gives the folder of the bundle with a digest; None for those in ``var``.

        Raises:
            CatalogueError: the catalogue is damaged or of a newer format.
        """
        self.corpus = corpus
        self.var = var
        self.limits = limits
        self.loaded = "nothing is loaded"
        self.sampler = RecallSampler()
        self._first = encoder
        self._open_model = open_model
        self._find_model = find_model or (lambda digest: model_folder(var, digest))
        self._opened: PictureEncoder | None = None
        var.mkdir(parents=True, exist_ok=True)
        self.store: Store[PictureEncoder] = (
            LocalStore(var, self.model) if open_store is None else open_store(self.model)
        )
        self.catalogue = self.store.catalogue
        self.entries = self.store.entries
        self.blobs = self.store.pictures
        self.served = self.store.served
        self.answering = Answering(self.store, self.sampler)
        self.builder = Builder(var, self.store, self.picture)
        self.writer = Writer(self.catalogue, self.blobs, limits, lambda: self.encoder)

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    @property
    def encoder(self) -> PictureEncoder:
        """The encoder of the model that answers now."""
        serving = self.served.last
        return self._first if serving is None else serving.model

    def model(self, digest: str) -> PictureEncoder | None:
        """The encoder of the model with this digest; None where this process cannot have it."""
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
        """An index is loaded."""
        return self.served.last is not None

    def available(self) -> bool:
        """Whether a search can be answered now; asks what keeps the index, which may take long."""
        return self.ready and self.served.available()

    @property
    def manifest(self) -> Manifest:
        """The manifest of the index that answers now."""
        return self.served.current().manifest

    def check_corpus(self) -> None:
        """Refuse a store that was built from another corpus.

        Raises:
            CorpusMismatchError: naming both.
        """
        stored = self.catalogue.get_meta("corpus")
        if stored is not None and stored != self.corpus.name:
            raise CorpusMismatchError(
                f"{self.store.name} holds {stored!r}, asked for is {self.corpus.name!r};"
                " choose another folder with LOOKALIKE_VAR, or replace what is in this one with"
                " `lookalike index build`"
            )

    def load(self) -> Manifest:
        """Check the store, load the newest good generation and serve it.

        Where no generation is good, a new one is made from the catalogue. ``loaded`` says in a
        sentence which of these it was.

        Raises:
            CatalogueError: the catalogue is damaged.
            NoGenerationError: nothing was built yet.
            ModelMismatchError: another model made what there is.
            SnapshotError: no generation can be used, and the catalogue cannot make one.
        """
        damage = self.catalogue.check()
        if damage is not None:
            raise CatalogueError(f"{self.store.record}: {damage}")
        digest = self._first.digest
        try:
            manifest, problem = self.served.load(digest)
        except (
            SnapshotCorruptError,
            SnapshotFormatError,
            SnapshotAheadError,
            ModelMismatchError,  # a change of model was interrupted before its index was made
        ) as error:
            if self.catalogue.model() != digest:
                raise
            manifest = self.builder.compact(self._first)
            self.loaded = (
                f"{error}. Rebuilt from the catalogue: generation {manifest.generation} with"
                f" {manifest.count:,} pictures."
            )
        else:
            count = self.served.current().index.count()
            good = f"generation {manifest.generation} with {count:,} pictures, every checksum good."
            self.loaded = f"Index: {good}"
            if problem is not None:
                self.loaded = f"{problem}. Fell back to {good}"
        return manifest

    def rebuild(
        self,
        progress: Progress = no_progress,
        *,
        reembed: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
        job: str = "",
        skip: Skip = no_skip,
    ) -> tuple[Manifest, Counts]:
        """Bring the store up to date with the corpus and switch to a new index.

        New pictures, and all that another model embedded, are embedded and recorded batch by
        batch, so that an interrupted rebuild goes on where it stopped. Pictures gone from the
        corpus leave the catalogue; those added by hand stay.

        Args:
            progress: told of each stage, what is done and the total.
            reembed: embed everything again, for pictures that changed under the same name.
            cancelled: asked between batches.
            job: names this rebuild to others who want to build meanwhile.
            skip: told of the pictures that are left out, with reasons, as they are met.

        Returns:
            The new generation's manifest, and what was done.

        Raises:
            StoreBusyError: another process is building in this store.
            CancelledError: ``cancelled`` said so; what was embedded stays recorded.
            CorpusError: the corpus cannot be read or is empty.
        """
        return self.builder.rebuild(
            self.encoder,
            self.corpus,
            progress,
            reembed=reembed,
            cancelled=cancelled,
            job=job,
            skip=skip,
        )

    def compact(
        self,
        progress: Progress = no_progress,
        job: str = "",
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Manifest:
        """Fold what was added and deleted since into a new generation; see `Builder.compact`."""
        return self.builder.compact(self.encoder, progress, job, cancelled)

    def pending(self) -> int:
        """How many changes the generation that answers does not hold itself."""
        index = self.served.current().index
        return index.added + index.masked

    def picture(self, entry: Entry, at_least: int | None = None) -> RGB:
        """The picture of an entry, uint8 ``(h, w, 3)``.

        Raises:
            CorpusError: it is not in the corpus any more.
            BlobError: it was added, and its bytes are missing or damaged.
            PictureError: it is not a usable picture.
        """
        if entry.origin == "corpus":
            return self.corpus.read(entry.source, at_least=at_least)
        return decode(self.blobs.get(entry.content_hash or ""), self.limits, at_least)

    def warm(self) -> None:
        """Read one picture, so that a corpus which loads as a whole is in memory."""
        for entry in self.catalogue.page(-1, 1):
            try:
                self.picture(entry)
            except (CorpusError, PictureError, BlobError) as error:
                log.warning("picture %d cannot be read: %s", entry.id, error)

    def classify(self, pictures: Sequence[RGB]) -> list[Prediction]:
        """Classify RGB pictures uint8 ``(h, w, 3)``."""
        if not pictures:
            return []
        rows = self.encoder.encode(pictures).probabilities
        return [Prediction.of(self.encoder.classes, row) for row in rows]

    def read(self, data: bytes) -> RGB:
        """Decode a picture and reduce it to what the encoder uses of it.

        Returns:
            uint8 ``(input_size, input_size, 3)``.

        Raises:
            PictureError: ``data`` is not a usable picture.
        """
        return self.reduced(Opened(data, self.limits))

    def reduced(self, opened: Opened) -> RGB:
        """Decode a picture whose header was read, as ``read`` does."""
        encoder = self.encoder
        return encoder.fit(opened.decode(encoder.input_size))

    def search(self, data: bytes, page: Page = Page()) -> SearchResult:
        """Classify an encoded picture and find its neighbours.

        Raises:
            PictureError: ``data`` is not a usable picture.
        """
        stages = Stages()
        with stages("decode"):
            picture = self.read(data)
        query = PictureQuery(picture, page, stages)
        while True:
            try:
                return self.answering.finish(query, self.answer([query])[0])
            except ModelChangedError:
                continue  # the service went over to another model meanwhile

    def answer(self, queries: Sequence[PictureQuery]) -> list[SearchResult]:
        """Classify several pictures and find their neighbours.

        One forward pass for all. What is not a plain page has no neighbours yet; see
        `Answering.pictures` and `Answering.finish`.
        """
        for query in queries:
            query.stages.end("queue")
        while True:
            try:
                return self.answering.pictures(self.encoder, queries)
            except ModelChangedError:
                continue  # the service went over to another model meanwhile

    def similar(self, image_id: int, page: Page = Page()) -> SearchResult:
        """The neighbours of an indexed picture, itself left out.

        Raises:
            UnknownIdError: no such picture.
        """
        return self.recommend(Examples((image_id,)), Examples(), "average_vector", page)

    def recommend(
        self,
        positive: Examples,
        negative: Examples,
        strategy: Strategy,
        page: Page,
        stages: Stages | None = None,
    ) -> SearchResult:
        """Pictures like the positive and unlike the negative examples, those left out.

        Raises:
            UnknownIdError: an example is not indexed.
            IndexInputError: no positive example.
            ModelChangedError: another model than that of the uploaded examples answers now.
            CursorError, CursorModelError: the page's cursor does not fit.
        """
        return recommendation(
            self.answering, positive, negative, strategy, page, stages or Stages()
        )

    def summary(self) -> dict[str, Any]:
        """What is indexed, for the page and for ``lookalike index status``."""
        state = self.served.current()
        manifest = state.manifest
        return {
            "count": state.index.count(),
            "kind": manifest.kind,
            "dimension": manifest.dimension,
            "metric": manifest.metric,
            "model": manifest.model_digest,
            "generation": manifest.generation,
            "built": manifest.created,
            "sequence": state.sequence,
            "pending": {"added": state.index.added, "deleted": state.index.masked},
            "parameters": dict(manifest.parameters),
            "recall": None if manifest.recall is None else dict(manifest.recall),
            "corpus": self.corpus.name,
            "sample": self.corpus.notice is not None,
            "notice": self.corpus.notice,
            "classes": list(state.model.classes),
            "labels": self.catalogue.label_counts(),
            "splits": self.catalogue.split_counts(),
        }
