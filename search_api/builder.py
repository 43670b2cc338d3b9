"""Making generations: from the corpus, from the catalogue alone, or with another model."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embed.corpus import Corpus
from embed.encoder import PictureEncoder
from embed.pictures import RGB
from index.catalogue import Entry, ModelChangedError
from index.snapshots import Manifest, SnapshotError
from index.stores import RecordOfAll, Store
from search_api.ingest import (
    CancelledError,
    Counts,
    Progress,
    Skip,
    ingest,
    no_progress,
    no_skip,
    stage,
)

log = logging.getLogger(__name__)


def never() -> bool:
    """Nobody asks to stop."""
    return False


@dataclass(frozen=True)
class Builder:
    """Builds in one store; every method holds the store's lock and raises StoreBusyError.

    Attributes:
        var: folder of what the builder leaves for people to read.
        store: the store.
        read: gives an entry's picture, its shorter side at least so many pixels.
    """

    var: Path
    store: Store[PictureEncoder]
    read: Callable[[Entry, int], RGB]

    @property
    def catalogue(self) -> RecordOfAll:
        """The store's record."""
        return self.store.catalogue

    def kind(self) -> str:
        """The kind of index that this store wants; ``auto`` unless `set_kind` was called."""
        return self.catalogue.get_meta("kind") or "auto"

    def set_kind(self, kind: str) -> None:
        """Build this kind from now on; see `index.kinds`. Raises IndexInputError."""
        self.store.check_kind(kind)
        self.catalogue.set_meta("kind", kind)

    def rebuild(
        self,
        encoder: PictureEncoder,
        corpus: Corpus,
        progress: Progress = no_progress,
        *,
        reembed: bool = False,
        cancelled: Callable[[], bool] = never,
        job: str = "",
        skip: Skip = no_skip,
    ) -> tuple[Manifest, Counts]:
        """Bring the store up to date with the corpus and this model; see `SearchEngine.rebuild`."""
        with self.store.lock(job):
            staged = None
            if self.catalogue.model() not in (None, encoder.digest):
                staged = self._gone_over(encoder, progress, cancelled, skip)
            else:
                stage(encoder, self.catalogue, self.read, progress, cancelled)
            try:
                counts = ingest(encoder, corpus, self.catalogue, progress, reembed, cancelled, skip)
            except CancelledError:
                if staged is not None:
                    self._publish(encoder, progress)
                raise
            if staged is not None:
                embedded = counts.embedded + staged.embedded
                counts = Counts(
                    counts.total,
                    embedded,
                    counts.total - embedded,
                    counts.removed,
                    {**staged.skipped, **counts.skipped},
                )
            self.catalogue.set_meta("corpus", corpus.name)
            self.catalogue.set_meta("corpus_is_sample", "yes" if corpus.notice else "no")
            # Once another model's embeddings are in place, only their index can answer.
            stop = cancelled if staged is None else never
            manifest = self._publish(encoder, progress, stop)
            (self.var / "skipped.json").write_text(json.dumps(counts.skipped, indent=1) + "\n")
        return manifest, counts

    def compact(
        self,
        encoder: PictureEncoder,
        progress: Progress = no_progress,
        job: str = "",
        cancelled: Callable[[], bool] = never,
    ) -> Manifest:
        """Fold what was added and deleted into a new generation, from the catalogue alone.

        Also embeds what came while the store went over to the model, and removes the bytes of
        added pictures that neither the catalogue nor a snapshot names.

        Raises:
            ModelChangedError: the store's embeddings are of another model than the encoder's.
        """
        with self.store.lock(job):
            model = self.catalogue.model()
            if model not in (None, encoder.digest):
                raise ModelChangedError(
                    f"the store holds embeddings of the model {model}, not of {encoder.digest};"
                    " restart with that model"
                )
            stage(encoder, self.catalogue, self.read, progress, cancelled)
            manifest = self._publish(encoder, progress, cancelled)
            self._sweep()
        return manifest

    def stage(
        self,
        encoder: PictureEncoder,
        progress: Progress = no_progress,
        cancelled: Callable[[], bool] = never,
        job: str = "",
        skip: Skip = no_skip,
    ) -> Counts:
        """Embed everything with another model, beside what serves; resumable."""
        with self.store.lock(job):
            return stage(encoder, self.catalogue, self.read, progress, cancelled, skip)

    def switch(
        self,
        encoder: PictureEncoder,
        progress: Progress = no_progress,
        cancelled: Callable[[], bool] = never,
        job: str = "",
        skip: Skip = no_skip,
    ) -> tuple[Manifest, Counts]:
        """Embed what is missing still, and go over to the model."""
        with self.store.lock(job):
            counts = self._gone_over(encoder, progress, cancelled, skip)
            return self._publish(encoder, progress), counts

    def _gone_over(
        self,
        encoder: PictureEncoder,
        progress: Progress,
        cancelled: Callable[[], bool],
        skip: Skip,
    ) -> Counts:
        """Embed everything, put the embeddings in place, and embed what came in between."""
        staged = stage(encoder, self.catalogue, self.read, progress, cancelled, skip)
        self.catalogue.staging.promote(encoder.digest)
        # From here on nobody can add with the old model, and there is no way back.
        late = stage(encoder, self.catalogue, self.read, progress, never)
        embedded = staged.embedded + late.embedded
        return Counts(
            late.total,
            embedded,
            late.total - embedded - len(late.skipped),
            0,
            {**staged.skipped, **late.skipped},
        )

    def _publish(
        self,
        encoder: PictureEncoder,
        progress: Progress,
        cancelled: Callable[[], bool] = never,
    ) -> Manifest:
        manifest = self.store.publish(
            encoder.digest, encoder.dimension, self.kind(), progress, cancelled
        )
        if manifest is None:
            raise CancelledError("stopped before the new index was taken up; the old one serves on")
        return manifest

    def _sweep(self) -> None:
        def needed() -> set[str]:
            return self.catalogue.content_hashes("added") | self.store.snapshots.content_hashes()

        try:
            removed = self.store.pictures.sweep(needed)
        except (SnapshotError, OSError) as error:
            log.warning("the bytes of deleted pictures stay for now: %s", error)
        else:
            if removed:
                log.info("removed the bytes of %d deleted pictures", removed)
