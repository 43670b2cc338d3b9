"""The search engine: ingest, search, recommend, rebuild. No HTTP in it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embed.corpus import Corpus, CorpusError
from embed.encoder import PictureEncoder
from embed.pictures import RGB, PictureError, PictureLimits, decode
from index import snapshots
from index.catalogue import Catalogue, Entry
from index.filters import Filter
from index.local import ExactIndex
from index.neighbours import MAX_K, Neighbours, UnknownIdError
from index.ranking import Strategy, recommend, vote
from index.snapshots import Manifest
from search_api.ingest import Counts, Progress, ingest, no_progress
from search_api.results import Page, Point, Prediction, SearchResult
from search_api.stages import Stages, together
from search_api.store import store_lock

log = logging.getLogger(__name__)

VOTERS = 10
"""How many of the nearest neighbours vote on the class."""


class CorpusMismatchError(ValueError):
    """The store holds another corpus than the one asked for."""


@dataclass(frozen=True)
class PictureQuery:
    """A picture to search by.

    Attributes:
        picture: what ``SearchEngine.read`` made of the upload.
        page: which part of the ranking is wanted; None to classify only.
        stages: the time spent on it so far.
    """

    picture: RGB
    page: Page | None = Page()
    stages: Stages = field(default_factory=Stages)


@dataclass(frozen=True)
class _Serving:
    """The index that answers, with its manifest; replaced as a whole, never changed."""

    index: ExactIndex
    manifest: Manifest


def catalogue_path(var: Path) -> Path:
    """Where the store in ``var`` keeps its catalogue."""
    return var / "catalogue.sqlite"


class SearchEngine:
    """Classifies pictures and finds their neighbours in one indexed corpus.

    Safe to use from several threads. Searches answer from one immutable index; ``rebuild``
    prepares the next one beside it and switches in a single assignment.
    """

    def __init__(
        self,
        encoder: PictureEncoder,
        corpus: Corpus,
        var: Path,
        limits: PictureLimits = PictureLimits(),
    ) -> None:
        """Open the store in ``var``, made if needed; call ``load`` or ``rebuild`` before searching.

        Args:
            encoder: what makes embeddings.
            corpus: the pictures to index and to show.
            var: folder of the catalogue and the index.
            limits: bounds of each picture.

        Raises:
            CatalogueError: the catalogue is damaged or of a newer format.
        """
        self.encoder = encoder
        self.corpus = corpus
        self.var = var
        self.limits = limits
        var.mkdir(parents=True, exist_ok=True)
        self.catalogue = Catalogue(catalogue_path(var))
        self._serving: _Serving | None = None
        self._seen: snapshots.Stamp | None = None
        self._loading = threading.Lock()
        self._searching = threading.Lock()

    def close(self) -> None:
        """Close the catalogue."""
        self.catalogue.close()

    @property
    def ready(self) -> bool:
        """An index is loaded and can answer."""
        return self._serving is not None

    @property
    def manifest(self) -> Manifest:
        """The manifest of the index that answers now."""
        return self._state().manifest

    def check_corpus(self) -> None:
        """Refuse a store that was built from another corpus.

        Raises:
            CorpusMismatchError: naming both.
        """
        stored = self.catalogue.get_meta("corpus")
        if stored is not None and stored != self.corpus.name:
            raise CorpusMismatchError(
                f"the store in {self.var} holds {stored!r}, asked for is {self.corpus.name!r};"
                " choose another folder with LOOKALIKE_VAR, or replace what is in this one with"
                " `lookalike index build`"
            )

    def load(self) -> Manifest:
        """Load the current generation from disk and serve it.

        Raises:
            NoGenerationError: nothing was built yet.
            SnapshotCorruptError: the files are damaged.
            ModelMismatchError: another model made them.
        """
        with self._loading:
            stamp = snapshots.stamp(self.var)
            index, manifest = snapshots.load_current(self.var, self.encoder.digest)
            self._serving, self._seen = _Serving(index, manifest), stamp
        return manifest

    def rebuild(
        self,
        progress: Progress = no_progress,
        *,
        reembed: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> tuple[Manifest, Counts]:
        """Bring the store up to date with the corpus and switch to a new index.

        New pictures, and all that another model embedded, are embedded and recorded batch by
        batch, so that an interrupted rebuild goes on where it stopped. Pictures gone from the
        corpus leave the catalogue once the new index serves.

        Args:
            progress: told of each stage, what is done and the total.
            reembed: embed everything again, for pictures that changed under the same name.
            cancelled: asked between batches.

        Returns:
            The new generation's manifest, and what was done.

        Raises:
            StoreBusyError: another process is building in this store.
            CancelledError: ``cancelled`` said so; what was embedded stays recorded.
            CorpusError: the corpus cannot be read or is empty.
        """
        with store_lock(self.var):
            counts, gone = ingest(
                self.encoder, self.corpus, self.catalogue, progress, reembed, cancelled
            )
            progress("indexing", 0, counts.total)
            ids, xb = self.catalogue.embeddings(self.encoder.digest)
            keep = ~np.isin(ids, gone)
            index = ExactIndex(self.encoder.dimension)
            index.add(ids[keep], xb[keep])
            manifest = snapshots.publish(self.var, index, self.encoder.digest)
            self.catalogue.set_meta("corpus", self.corpus.name)
            self.catalogue.set_meta("corpus_is_sample", "yes" if self.corpus.notice else "no")
            with self._loading:
                self._serving, self._seen = _Serving(index, manifest), snapshots.stamp(self.var)
            # Only now: until the switch the old index may still answer with them.
            self.catalogue.delete(gone)
            (self.var / "skipped.json").write_text(json.dumps(counts.skipped, indent=1) + "\n")
            progress("indexing", counts.total, counts.total)
        return manifest, counts

    def warm(self) -> None:
        """Read one picture, so that a corpus which loads as a whole is in memory."""
        for entry in self.catalogue.page(-1, 1):
            try:
                self.corpus.read(entry.source)
            except (CorpusError, PictureError) as error:
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
        picture = decode(data, self.limits, at_least=self.encoder.input_size)
        return self.encoder.fit(picture)

    def search(self, data: bytes, page: Page = Page()) -> SearchResult:
        """Classify an encoded picture and find its neighbours.

        Raises:
            PictureError: ``data`` is not a usable picture.
        """
        stages = Stages()
        with stages("decode"):
            picture = self.read(data)
        return self.answer([PictureQuery(picture, page, stages)])[0]

    def answer(self, queries: Sequence[PictureQuery]) -> list[SearchResult]:
        """Classify several pictures and find their neighbours.

        One forward pass for all, and one scan of the index for those that share a filter and ask
        for about as much.
        """
        for query in queries:
            query.stages.end("queue")
        everyone = together([query.stages for query in queries])
        with everyone("forward"):
            probabilities, xq = self.encoder.encode([query.picture for query in queries])
        results: dict[int, SearchResult] = {}
        groups: dict[tuple[Filter | None, int], list[int]] = {}
        for row, query in enumerate(queries):
            if query.page is None:
                results[row] = self._unsearched(query.stages)
            else:
                deep = (query.page.offset + query.page.limit).bit_length()
                groups.setdefault((query.page.filter, deep), []).append(row)
        for rows in groups.values():
            found = self._answer(
                partial(_nearest, xq[rows]),
                [page for row in rows if (page := queries[row].page) is not None],
                [queries[row].stages for row in rows],
            )
            results.update(zip(rows, found, strict=True))
        return [
            replace(
                results[row], prediction=Prediction.of(self.encoder.classes, probabilities[row])
            )
            for row in range(len(queries))
        ]

    def similar(self, image_id: int, page: Page = Page()) -> SearchResult:
        """The neighbours of an indexed picture, itself left out.

        Raises:
            UnknownIdError: no such picture.
        """
        return self.recommend([image_id], [], "average_vector", page)

    def recommend(
        self, positive: Sequence[int], negative: Sequence[int], strategy: Strategy, page: Page
    ) -> SearchResult:
        """Pictures like the positive and unlike the negative examples, those left out.

        Raises:
            UnknownIdError: an example is not indexed.
            IndexInputError: no positive example.
        """

        def find(index: ExactIndex, k: int, allowed: NDArray[np.int64] | None) -> Neighbours:
            return recommend(
                index,
                index.vectors(positive),
                index.vectors(negative),
                strategy,
                k,
                exclude=[*positive, *negative],
                allowed=allowed,
            )

        return self._answer(find, [page], [Stages()])[0]

    def summary(self) -> dict[str, Any]:
        """What is indexed, for the page and for ``lookalike index status``."""
        state = self._state()
        return {
            "count": state.manifest.count,
            "kind": state.manifest.kind,
            "dimension": state.manifest.dimension,
            "metric": state.manifest.metric,
            "model": state.manifest.model_digest,
            "generation": state.manifest.generation,
            "built": state.manifest.created,
            "corpus": self.corpus.name,
            "sample": self.corpus.notice is not None,
            "notice": self.corpus.notice,
            "classes": list(self.encoder.classes),
            "labels": self.catalogue.label_counts(),
            "splits": self.catalogue.split_counts(),
        }

    def _answer(
        self,
        find: Callable[[ExactIndex, int, NDArray[np.int64] | None], Neighbours],
        pages: Sequence[Page],
        stages: Sequence[Stages],
    ) -> list[SearchResult]:
        """One answer for each page; all of them have the same filter."""
        wanted = max(page.offset + page.limit for page in pages)
        k = min(max(wanted, VOTERS), MAX_K)
        where = pages[0].filter
        everyone = together(stages)
        while True:
            state = self._state()
            # One scan at a time, on all threads: scans that compete are slower for everybody.
            with everyone("search"), self._searching:
                allowed = None if where is None else self.catalogue.ids(where)
                scores, ids = find(state.index, k, allowed)
            try:
                with everyone("payload"):
                    entries = self._entries(ids)
            except UnknownIdError:
                # A rebuild dropped pictures between the two steps; its index does not have them.
                if state is self._state():
                    raise
                continue
            break
        return [
            _result(row_scores, [entries[i] for i in row if i >= 0], page, state.manifest, times)
            for row_scores, row, page, times in zip(
                scores.tolist(), ids.tolist(), pages, stages, strict=True
            )
        ]

    def _unsearched(self, stages: Stages) -> SearchResult:
        manifest = self._state().manifest
        return SearchResult(
            (), None, manifest.generation, self.encoder.digest, stages.milliseconds()
        )

    def _entries(self, ids: NDArray[np.int64]) -> dict[int, Entry]:
        unique = np.unique(ids)
        found = self.catalogue.get(unique[unique >= 0])
        return {entry.id: entry for entry in found}

    def _state(self) -> _Serving:
        """The index to answer from; a newer generation on disk is taken up first.

        Raises:
            SnapshotError: no index is loaded, and none can be.
        """
        state = self._serving
        if state is not None and self._seen == snapshots.stamp(self.var):
            return state
        # While one thread loads the new index, the others go on with the old.
        if not self._loading.acquire(blocking=state is None):
            assert state is not None
            return state
        try:
            stamp = snapshots.stamp(self.var)
            if self._serving is None or self._seen != stamp:
                self._serving = self._load_or_keep()
                self._seen = stamp
            return self._serving
        finally:
            self._loading.release()

    def _load_or_keep(self) -> _Serving:
        try:
            return _Serving(*snapshots.load_current(self.var, self.encoder.digest))
        except snapshots.SnapshotError as error:
            if self._serving is None:
                raise
            log.error("going on with generation %d: %s", self._serving.manifest.generation, error)
            return self._serving


def _nearest(
    xq: NDArray[np.float32], index: ExactIndex, k: int, allowed: NDArray[np.int64] | None
) -> Neighbours:
    return index.search(xq, k, allowed)


def _result(
    scores: Sequence[float],
    entries: Sequence[Entry],
    page: Page,
    manifest: Manifest,
    stages: Stages,
) -> SearchResult:
    points = [Point(score, entry) for score, entry in zip(scores, entries, strict=False)]
    threshold = page.score_threshold
    wanted = [p for p in points if threshold is None or p.score >= threshold]
    return SearchResult(
        points=tuple(wanted[page.offset : page.offset + page.limit]),
        vote=vote([point.entry.label for point in points[:VOTERS]]),
        generation=manifest.generation,
        model=manifest.model_digest,
        time=stages.milliseconds(),
    )
