"""What a process answers from: the newest generation and the catalogue's changes since.

Any process that writes to the store changes the catalogue's sequence number, and any that
publishes a generation replaces CURRENT. Both are looked at before every answer, which costs some
microseconds, so that an acknowledged write is in the very next answer of every process.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Generic

from index import snapshots
from index.catalogue import Catalogue, CatalogueError
from index.entries import EntryCache
from index.neighbours import IdsLike, Searchable, as_ids
from index.overlay import Overlay
from index.records import Entry
from index.snapshots import Manifest, ModelMismatchError, NoGenerationError, SnapshotError
from index.stores import Model, Serving

log = logging.getLogger(__name__)


class ServedIndex(Generic[Model]):
    """Follows the store in one folder; all methods may be called from several threads."""

    def __init__(
        self,
        root: Path,
        catalogue: Catalogue,
        model_of: Callable[[str], Model | None],
        entries: EntryCache | None = None,
    ) -> None:
        """Nothing is loaded yet; see `load`.

        Args:
            root: the store's folder.
            catalogue: its catalogue.
            model_of: the model with a digest, or None where this process cannot have it.
            entries: keeps the entries that searches find; None to read them each time.
        """
        self._root = root
        self._catalogue = catalogue
        self._model_of = model_of
        self._entries = entries
        self._serving: Serving[Model] | None = None
        self._overlay: Overlay | None = None
        self._seen: snapshots.Stamp | None = None
        self._loading = threading.Lock()
        self._extending = threading.Lock()

    @property
    def last(self) -> Serving[Model] | None:
        """The state of the last answer; None before `load`."""
        return self._serving

    @property
    def dimension(self) -> int | None:
        """The length of every vector; None before `load`."""
        return None if self._serving is None else self._serving.index.dimension

    def load(self, model_digest: str) -> tuple[Manifest, str | None]:
        """Load the newest good generation that this model made.

        Returns its manifest, and what is wrong with newer ones or None.

        Raises:
            NoGenerationError: nothing was built yet.
            ModelMismatchError: another model made what is there.
            SnapshotError: no generation can be used.
        """
        with self._loading:
            stamp = snapshots.stamp(self._root)
            index, manifest, problem = snapshots.load_good(
                self._root, model_digest, self._catalogue.sequence()
            )
            self._set(index, manifest)
            self._seen = stamp
        if problem is not None:
            log.warning("serving generation %d instead: %s", manifest.generation, problem)
        return manifest, problem

    def take_up(self, index: Searchable, manifest: Manifest) -> None:
        """Serve a generation that this process has just published."""
        with self._loading:
            self._set(index, manifest)
            self._seen = snapshots.stamp(self._root)

    def current(self, wait: bool = True) -> Serving[Model]:
        """The newest generation with every write acknowledged before this call.

        Args:
            wait: for a new generation to be loaded; else a thread loads one of the same model, and
                the one before, which with the catalogue's changes gives the same answers, is
                returned meanwhile.

        Raises:
            SnapshotError: no index is loaded, and none can be.
            CatalogueError: the catalogue cannot be read.
        """
        serving = self._serving
        if serving is None or self._seen != snapshots.stamp(self._root):
            if wait or serving is None or not self._of_its_model(serving):
                serving = self._newest()
            elif not self._loading.locked():
                threading.Thread(target=self._load_aside, name="load", daemon=True).start()
        sequence = self._catalogue.sequence()
        return serving if serving.sequence == sequence else self._extend()

    def at_hand(self) -> Serving[Model] | None:
        """What `current` would give, where it does so without reading anything; else None."""
        serving = self._serving
        if serving is None or self._seen != snapshots.stamp(self._root):
            return None
        return serving if serving.sequence == self._catalogue.sequence() else None

    def available(self) -> bool:
        """Whether an index is loaded."""
        return self._serving is not None

    def entries(self, serving: Serving[Model], ids: IdsLike) -> list[Entry]:
        """The entries that a search of ``serving`` found; see `index.stores.Served`."""
        if self._entries is None:
            return self._catalogue.get(ids)
        return self._entries.get(as_ids(ids).tolist())

    def _of_its_model(self, serving: Serving[Model]) -> bool:
        try:
            manifest = snapshots.read_manifest(self._root)
        except SnapshotError:
            return False
        return manifest.model_digest == serving.manifest.model_digest

    def _load_aside(self) -> None:
        try:
            self._newest()
        except CatalogueError as error:
            log.warning("the new generation is not loaded yet: %s", error)

    def _newest(self) -> Serving[Model]:
        serving = self._serving
        # While one thread loads the new generation, the others go on with the old.
        if not self._loading.acquire(blocking=serving is None):
            assert serving is not None
            return serving
        try:
            stamp = snapshots.stamp(self._root)
            if self._serving is None or self._seen != stamp:
                try:
                    manifest = snapshots.read_manifest(self._root)
                    self._set(
                        snapshots.load_current(self._root, self._acceptable(manifest))[0], manifest
                    )
                except SnapshotError as error:
                    if self._serving is None:
                        raise
                    generation = self._serving.manifest.generation
                    log.error("going on with generation %d: %s", generation, error)
                self._seen = stamp
            assert self._serving is not None
            return self._serving
        finally:
            self._loading.release()

    def _acceptable(self, manifest: Manifest) -> str:
        """The manifest's model, if this process has it or can get it."""
        if self._model_of(manifest.model_digest) is None:
            raise ModelMismatchError(
                f"generation {manifest.generation} was made by the model {manifest.model_digest}, "
                "which is not in this process; restart it with that model"
            )
        return manifest.model_digest

    def _set(self, index: Searchable, manifest: Manifest) -> None:
        model = self._model_of(manifest.model_digest)
        if model is None:
            raise ModelMismatchError(f"no model {manifest.model_digest} in this process")
        # Made outside of the lock: reading what has changed since may take a while.
        changes = self._catalogue.changes(manifest.sequence, manifest.model_digest)
        overlay = Overlay.over(index).changed(changes.ids, changes.xb, changes.deleted)
        with self._extending:
            self._overlay = overlay
            self._serving = Serving(model, overlay, manifest, changes.sequence)
        self._extend()

    def _extend(self) -> Serving[Model]:
        """Add the catalogue's writes since."""
        with self._extending:
            serving, overlay = self._serving, self._overlay
            if serving is None or overlay is None:
                raise NoGenerationError(f"{self._root}: no index is loaded")
            changes = self._catalogue.changes(serving.sequence, serving.manifest.model_digest)
            if changes.sequence < serving.sequence:
                raise CatalogueError(
                    f"the catalogue went back from write {serving.sequence} to {changes.sequence}; "
                    "if it was put back from a backup, restart this process"
                )
            self._overlay = overlay.changed(changes.ids, changes.xb, changes.deleted)
            serving = replace(serving, index=self._overlay, sequence=changes.sequence)
            self._serving = serving
            return serving
