"""Building generations from the corpus or the catalogue, with the same or another model."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from embed.corpus import Corpus
from embed.encoder import PictureEncoder
from embed.pictures import RGB
from embed.preprocess import Preprocess
from index.contract import (
    CancelledError,
    GenerationError,
    IndexInputError,
    JobControl,
    Manifest,
    ModelChangedError,
    Store,
    never,
    no_skip,
)
from index.records import Entry
from search_api.service.corpus_sync import Counts, embed_missing, prepare, sync_corpus
from search_api.service.labelling.classifier_fit import ClassifierFitter
from search_api.service.labelling.spelling import compose_labels
from search_api.service.leftovers import remove_leftovers
from search_api.service.storage.trash import TrashService, sweep
from search_api.stores.store_corpus import check_corpus, record_of, remember, remembered

log = logging.getLogger(__name__)

_KIND = "kind"
_UNFINISHED = "first_build_unfinished"


@dataclass(frozen=True)
class IndexBuilder:
    """Builds the index of one store, and then fits the store's classifier.

    The methods that build hold the store's lock; they raise StoreBusyError if another process does.

    Attributes:
        var: folder for ``skipped.json``, the list of skipped pictures.
        store: the store.
        read: returns an entry's picture, fitted by the given preprocessing.
        fitter: fits the classifier.
        trash: the store's trash.
    """

    var: Path
    store: Store[PictureEncoder]
    read: Callable[[Entry, Preprocess], RGB]
    fitter: ClassifierFitter
    trash: TrashService

    def kind(self) -> str:
        """The kind of index that was built last, where it was chosen; ``auto`` otherwise."""
        return self.store.catalogue.get_meta(_KIND) or "auto"

    def unfinished(self) -> bool:
        """Whether the first build was begun and what is served is only what it has embedded."""
        return self.store.catalogue.get_meta(_UNFINISHED) == "yes"

    def rebuild(
        self,
        encoder: PictureEncoder,
        corpus: Corpus,
        control: JobControl = JobControl(),
        *,
        reembed: bool = False,
        kind: str | None = None,
        replace_corpus: bool = False,
        allow_removal: bool = False,
        first: bool = False,
    ) -> tuple[Manifest, Counts]:
        """Bring the store up to date with the corpus and this model, and build a new generation.

        New pictures, and those embedded with another model, are embedded and recorded batch by
        batch, so that an interrupted rebuild continues where it stopped. Pictures whose file has
        changed are embedded again, those that moved keep everything. Pictures gone from the corpus
        leave the catalogue; those added by hand stay, and so do those that cannot be looked at.

        Args:
            encoder: the model to use from then on.
            corpus: where the pictures are.
            control: receives progress and can cancel.
            reembed: embed known pictures again, too, in case files changed under the same name.
            kind: the kind of index to build, and from then on if that succeeds; see
                `index.ann.kinds`. None for the one that `kind` returns.
            replace_corpus: the store may be of another corpus, whose pictures are removed.
            allow_removal: remove what is gone from the corpus however much it is.
            first: nothing can be searched yet: publish what is embedded as soon as there is some,
                so that searches find that and, as changes, what is embedded from then on.

        Returns:
            The new generation's manifest, and how many pictures were embedded, kept and removed.

        Raises:
            StoreBusyError: another process is building in this store.
            CancelledError: ``control`` cancelled it; finished embeddings are kept.
            CorpusError: the corpus cannot be read or is empty.
            CorpusMismatchError: the store is of another corpus, which is not to be replaced.
            RemovalError: it would remove too many pictures, and nothing was removed.
            IndexInputError: this kind of index cannot be built.
        """
        catalogue = self.store.catalogue
        if kind is not None:
            # How many pictures there will be is not known yet.
            self.store.check_kind(kind, encoder.dimension)
        self.trash.storage.check_room()
        with self.store.lock(control.job):
            record = remembered(catalogue)
            if record is None:
                # Whoever continues after an interruption need not name the corpus again.
                remember(catalogue, corpus, self.var)
            elif not replace_corpus:
                check_corpus(catalogue, corpus, self.store.name, building=True)
            replacing = record is not None and not record.is_same(record_of(corpus))
            # First, because embedding can take hours.
            prepared = prepare(
                corpus,
                catalogue,
                encoder.input_size,
                control,
                allow_removal=allow_removal,
                built=self._built(),
                replacing=replacing,
            )
            switched = None
            if catalogue.model() not in (None, encoder.digest):
                switched = self._switch(encoder, control)
            else:
                embed_missing(encoder, catalogue, self.read, _without_skip(control))
            compose_labels(catalogue)
            if first:
                catalogue.set_meta(_UNFINISHED, "yes")
            syncing = self._serving_early(encoder, control) if first else control
            try:
                counts = sync_corpus(
                    encoder, corpus, catalogue, syncing, reembed=reembed, prepared=prepared
                )
            except CancelledError:
                if switched is not None:
                    self._publish(encoder, JobControl(control.progress))
                raise
            if switched is not None:
                embedded = counts.embedded + switched.embedded
                counts = replace(
                    counts,
                    embedded=embedded,
                    kept=counts.total - embedded,
                    skipped={**switched.skipped, **counts.skipped},
                )
            remember(catalogue, corpus, self.var)
            # Once another model's embeddings are in use, only an index of them can be searched.
            stop = control.cancelled if switched is None else never
            manifest = self._publish(encoder, JobControl(control.progress, stop), kind)
            if self.unfinished():
                catalogue.set_meta(_UNFINISHED, "no")
            (self.var / "skipped.json").write_text(json.dumps(counts.skipped, indent=1) + "\n")
            self.fitter.fit_after_build(encoder, _without_skip(control))
        return manifest, counts

    def sync(
        self,
        encoder: PictureEncoder,
        corpus: Corpus,
        control: JobControl = JobControl(),
        *,
        leave: Collection[str] = (),
    ) -> Counts:
        """Bring the store up to date with the corpus, as `rebuild` does, but build no index.

        What has changed is searched as changes since the index was built, until it is compacted.

        Args:
            encoder: of the model in use.
            corpus: where the pictures are.
            control: receives progress and can cancel.
            leave: sources to leave as they are.

        Raises:
            as `rebuild`.
        """
        catalogue = self.store.catalogue
        self.trash.storage.check_room()
        with self.store.lock(control.job):
            check_corpus(catalogue, corpus, self.store.name)
            found = corpus.scan() if leave else None
            if found is not None:
                items = tuple(item for item in found.items if item.source not in leave)
                found = replace(found, items=items)
            prepared = prepare(
                corpus,
                catalogue,
                encoder.input_size,
                control,
                scan=found,
                within=(lambda source: source not in leave) if leave else None,
                built=self._built(),
            )
            return sync_corpus(encoder, corpus, catalogue, control, prepared=prepared)

    def _built(self) -> float | None:
        """When the current index was built, in seconds since 1970; None if there is none."""
        try:
            return datetime.fromisoformat(self.store.status()["built"]).timestamp()
        except GenerationError:
            return None

    def _serving_early(self, encoder: PictureEncoder, control: JobControl) -> JobControl:
        """The control of a first build; see ``first`` of `rebuild`.

        An exact index of the first batch takes no time to build. An earlier attempt may have
        embedded some, too.
        """
        published = False

        def progress(stage: str, done: int, total: int) -> None:
            nonlocal published
            if not published and done < total and self.store.catalogue.model() == encoder.digest:
                published = True
                self.store.publish(encoder.digest, encoder.dimension, "exact")
            control.progress(stage, done, total)

        return replace(control, progress=progress)

    def compact(
        self,
        encoder: PictureEncoder,
        control: JobControl = JobControl(),
        *,
        kind: str | None = None,
        needs_room: bool = True,
    ) -> Manifest:
        """Build a new generation from the catalogue, including all changes since the last one.

        ``kind`` is as for `rebuild`.

        Also embeds pictures added while the store switched models, purges what has expired in the
        trash, and deletes the bytes of added pictures that nothing refers to. Without
        ``needs_room`` it uses the free space that others must leave.

        Raises:
            NoSpaceError: the disk has too little free space; what could be removed has been.
            StoreBusyError: another process is building in this store.
            ModelChangedError: the store's embeddings are of another model than the encoder's.
            CancelledError: ``control`` cancelled it.
            IndexInputError: this kind of index cannot be built.
        """
        catalogue = self.store.catalogue
        if kind is not None:
            self.check_kind(kind, encoder)
        with self.store.lock(control.job):
            model = catalogue.model()
            if model not in (None, encoder.digest):
                raise ModelChangedError(
                    f"the store holds embeddings of the model {model}, expected {encoder.digest};"
                    f" restart with the model {model}"
                )
            self.trash.expire()
            sweep(self.store)
            remove_leftovers(self.var, self.store)
            if needs_room:
                self.trash.storage.check_room()
            embed_missing(encoder, catalogue, self.read, _without_skip(control))
            compose_labels(catalogue)
            manifest = self._publish(encoder, control, kind)
            self.fitter.fit_after_build(encoder, _without_skip(control))
        return manifest

    def embed(self, encoder: PictureEncoder, control: JobControl = JobControl()) -> Counts:
        """Embed everything with another model while the current one stays in use; resumable."""
        self.trash.storage.check_room()
        with self.store.lock(control.job):
            return embed_missing(encoder, self.store.catalogue, self.read, control)

    def switch(
        self, encoder: PictureEncoder, control: JobControl = JobControl()
    ) -> tuple[Manifest, Counts]:
        """Embed what is still missing, and switch to the model; raises as `rebuild` does."""
        self.trash.storage.check_room()
        with self.store.lock(control.job):
            counts = self._switch(encoder, control)
            manifest = self._publish(encoder, JobControl(control.progress))
            self.fitter.fit_after_build(encoder, _without_skip(control))
            return manifest, counts

    def _switch(self, encoder: PictureEncoder, control: JobControl) -> Counts:
        """Embed everything, switch to the embeddings, and embed what was added in between."""
        catalogue = self.store.catalogue
        before = embed_missing(encoder, catalogue, self.read, control)
        catalogue.staging.promote(encoder.digest)
        # From here on nothing can be added with the old model, so this part is not cancellable.
        after = embed_missing(encoder, catalogue, self.read, JobControl(control.progress))
        embedded = before.embedded + after.embedded
        return Counts(
            after.total,
            embedded,
            after.total - embedded - len(after.skipped),
            0,
            {**before.skipped, **after.skipped},
        )

    def check_kind(self, kind: str, encoder: PictureEncoder) -> None:
        """Raise IndexInputError unless this kind can be built over what the store holds now."""
        self.store.check_kind(kind, encoder.dimension, self.store.catalogue.count())

    def _publish(
        self, encoder: PictureEncoder, control: JobControl, kind: str | None = None
    ) -> Manifest:
        """Build and serve; a ``kind`` that was asked for is kept once that has succeeded."""
        wanted = kind or self._usable_kind(encoder)
        manifest = self.store.publish(encoder.digest, encoder.dimension, wanted, control)
        if manifest is None:
            raise CancelledError(
                "stopped before the new index was loaded; the old one stays in use"
            )
        if kind is not None:
            self.store.catalogue.set_meta(_KIND, kind)
        return manifest

    def _usable_kind(self, encoder: PictureEncoder) -> str:
        """`kind`, unless it no longer suits what is stored, or an earlier version accepted it."""
        kind = self.kind()
        try:
            self.check_kind(kind, encoder)
        except IndexInputError as error:
            log.warning("building the kind auto instead: %s", error)
            return "auto"
        return kind


def _without_skip(control: JobControl) -> JobControl:
    """The same without reports of unreadable pictures, which were reported before."""
    return replace(control, skip=no_skip)
