"""The index that a process serves: the newest generation and the catalogue's changes since.

Every write to the store changes the catalogue's sequence number, and every publication of a
generation replaces CURRENT. Both are checked before every search, which takes some microseconds, so
every process sees an acknowledged write in its very next search.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Generic

from index.ann.overlay import Overlay
from index.contract import (
    CatalogueError,
    GenerationError,
    IdsLike,
    Manifest,
    Model,
    ModelMismatchError,
    NoGenerationError,
    Searchable,
    SearchState,
)
from index.local import generations
from index.local.caches import EntryCache
from index.local.catalogue import SqliteCatalogue
from index.local.history import Moment
from index.records import Entry
from index.vectors import as_ids

log = logging.getLogger(__name__)


class LocalServedIndex(Generic[Model]):
    """Implements `index.contract.ServedIndex` for one folder; thread-safe."""

    def __init__(
        self,
        root: Path,
        catalogue: SqliteCatalogue,
        model_of: Callable[[str], Model | None],
        entries: EntryCache,
    ) -> None:
        """Prepare; nothing is loaded before `load`.

        Args:
            root: the store's folder.
            catalogue: its catalogue.
            model_of: returns the model with a digest; None if this process does not have it.
            entries: reads the entries that searches find.
        """
        self._root = root
        self._catalogue = catalogue
        self._model_of = model_of
        self._entries = entries
        self._state: SearchState[Model] | None = None
        self._overlay: Overlay | None = None
        self._stamp: generations.Stamp | None = None
        self._loading = threading.Lock()
        self._extending = threading.Lock()

    @property
    def last(self) -> SearchState[Model] | None:
        return self._state

    @property
    def dimension(self) -> int | None:
        return None if self._state is None else self._state.index.dimension

    def load(self, model_digest: str) -> tuple[Manifest, str | None]:
        with self._loading:
            stamp = generations.stamp(self._root)
            index, manifest, problem = generations.load_good(
                self._root, model_digest, self._catalogue.history, self._proven
            )
            self._set(index, manifest)
            self._stamp = stamp
        if problem is not None:
            log.warning("serving generation %d instead: %s", manifest.generation, problem)
        return manifest, problem

    def adopt(self, index: Searchable, manifest: Manifest) -> None:
        """Serve a generation that this process has just published."""
        with self._loading:
            self._set(index, manifest)
            self._stamp = generations.stamp(self._root)

    def current(self, wait: bool = True) -> SearchState[Model]:
        """The newest generation with every write acknowledged before this call.

        Args:
            wait: for a new generation to load. Otherwise a thread loads one of the same model, and
                meanwhile the previous one, which gives the same results with the catalogue's
                changes, is returned.

        Raises:
            GenerationError: no index is loaded, and none can be loaded.
            CatalogueError: the catalogue cannot be read.
        """
        state = self._state
        if state is None or self._stamp != generations.stamp(self._root):
            if wait or state is None or not self._same_model(state):
                state = self._newest()
            elif not self._loading.locked():
                threading.Thread(target=self._load_in_background, name="load", daemon=True).start()
        return state if self._up_to_date(state) else self._extend()

    def peek(self) -> SearchState[Model] | None:
        state = self._state
        if state is None or self._stamp != generations.stamp(self._root):
            return None
        return state if self._up_to_date(state) else None

    def available(self) -> bool:
        return self._state is not None

    def entries(self, state: SearchState[Model], ids: IdsLike) -> list[Entry]:
        return self._entries.get(as_ids(ids).tolist())

    def _up_to_date(self, state: SearchState[Model]) -> bool:
        return (state.epoch, state.sequence) == self._catalogue.moment()

    def _proven(self, index: Searchable, manifest: Manifest) -> bool:
        """Whether a generation from before there were epochs agrees with the catalogue."""
        return self._catalogue.agrees(index, manifest.sequence, manifest.model_digest)

    def _same_model(self, state: SearchState[Model]) -> bool:
        try:
            manifest = generations.read_manifest(self._root)
        except GenerationError:
            return False
        return manifest.model_digest == state.manifest.model_digest

    def _load_in_background(self) -> None:
        try:
            self._newest()
        except CatalogueError as error:
            log.warning("cannot load the new generation yet: %s", error)

    def _newest(self) -> SearchState[Model]:
        state = self._state
        # While one thread loads the new generation, the others keep using the old one.
        if not self._loading.acquire(blocking=state is None):
            assert state is not None
            return state
        try:
            stamp = generations.stamp(self._root)
            if self._state is None or self._stamp != stamp:
                try:
                    model = self._available_model(generations.read_manifest(self._root))
                    self._set(
                        *generations.load_own(
                            self._root, model, self._catalogue.history, self._proven
                        )
                    )
                except GenerationError as error:
                    if self._state is None:
                        raise
                    generation = self._state.manifest.generation
                    log.error("still serving generation %d: %s", generation, error)
                self._stamp = stamp
            assert self._state is not None
            return self._state
        finally:
            self._loading.release()

    def _available_model(self, manifest: Manifest) -> str:
        """The digest of the manifest's model; raises ModelMismatchError if it is unavailable."""
        if self._model_of(manifest.model_digest) is None:
            raise ModelMismatchError(
                f"generation {manifest.generation} was made by the model {manifest.model_digest}, "
                "which this process does not have; restart it with that model"
            )
        return manifest.model_digest

    def _set(self, index: Searchable, manifest: Manifest) -> None:
        model = self._model_of(manifest.model_digest)
        if model is None:
            raise ModelMismatchError(
                f"this process does not have the model {manifest.model_digest}"
            )
        # Outside the lock, because reading the changes since may take a while.
        since = Moment(manifest.epoch, manifest.sequence)
        changes = self._catalogue.changes(since, manifest.model_digest)
        overlay = Overlay.over(index).changed(changes.ids, changes.xb, changes.deleted)
        with self._extending:
            self._overlay = overlay
            self._state = SearchState(
                model, overlay, manifest, changes.moment.sequence, changes.moment.epoch
            )
        self._extend()

    def _extend(self) -> SearchState[Model]:
        """Apply the catalogue's latest changes."""
        with self._extending:
            state, overlay = self._state, self._overlay
            if state is None or overlay is None:
                raise NoGenerationError(f"{self._root}: no index is loaded")
            since = Moment(state.epoch, state.sequence)
            changes = self._catalogue.changes(since, state.manifest.model_digest)
            self._overlay = overlay.changed(changes.ids, changes.xb, changes.deleted)
            sequence, epoch = changes.moment.sequence, changes.moment.epoch
            state = replace(state, index=self._overlay, sequence=sequence, epoch=epoch)
            self._state = state
            return state
