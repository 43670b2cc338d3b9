"""What a process answers from: the collection that the alias names now.

Nothing is kept in the process, and Milvus is asked for a state that has every write acknowledged
before; so the very next answer of every process knows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from index.manifest import Manifest
from index.milvus.connection import Connection, MilvusUnavailableError
from index.milvus.generations import Generation, Generations, now
from index.milvus.record import MilvusRecord
from index.milvus.search import MilvusIndex
from index.neighbours import IdsLike, as_ids
from index.records import Entry
from index.snapshots import ModelMismatchError, NoGenerationError
from index.stores import Model, Serving, StateGoneError


class MilvusServed(Generic[Model]):
    """See `index.stores.Served`; all methods may be called from several threads."""

    def __init__(
        self,
        connection: Connection,
        generations: Generations,
        record: MilvusRecord,
        model_of: Callable[[str], Model | None],
    ) -> None:
        self._connection = connection
        self._generations = generations
        self._record = record
        self._model_of = model_of
        self._last: Serving[Model] | None = None

    @property
    def last(self) -> Serving[Model] | None:
        """The state of the last answer; None before `load`."""
        return self._last

    @property
    def dimension(self) -> int | None:
        """The length of every vector; None before `load`."""
        return None if self._last is None else self._last.index.dimension

    def load(self, model_digest: str) -> tuple[Manifest, str | None]:
        """Have the current generation loaded, and serve it.

        Raises:
            NoGenerationError: nothing was built yet.
            ModelMismatchError: another model made what is there.
        """
        generation = self._ready()
        if generation.model != model_digest:
            raise ModelMismatchError(
                f"generation {generation.number} in {self._prefix!r} of Milvus was made by the "
                f"model {generation.model}, and the model in use is {model_digest}; change the "
                "model with `lookalike index model BUNDLE --switch`"
            )
        self._connection.load(generation.name)
        self._record.mend()
        serving = self._serving(generation)
        return serving.manifest, None

    def current(self, wait: bool = True) -> Serving[Model]:
        """The current generation, with every write acknowledged before this call.

        Milvus loads generations by itself: there is nothing to wait for.

        Raises:
            NoGenerationError: nothing was built yet.
            ModelMismatchError: this process does not have its model.
            MilvusUnavailableError: Milvus cannot answer.
        """
        if self._connection.shaken.is_set():
            # Cleared first: what happens from now on shakes it again.
            self._connection.shaken.clear()
            try:
                self._record.mend()
            except BaseException:
                self._connection.shaken.set()
                raise
        return self._serving(self._ready())

    def at_hand(self) -> None:
        """Nothing: Milvus is asked each time."""
        return

    def available(self) -> bool:
        """Whether Milvus answers, and has an index, loaded; after a restart that takes a while."""
        try:
            generation = self._ready()
        except (MilvusUnavailableError, NoGenerationError, StateGoneError):
            return False
        return self._connection.usable(generation.name) and self._record.usable()

    def entries(self, serving: Serving[Model], ids: IdsLike) -> list[Entry]:
        """The entries that a search found; as a rule it has brought them along."""
        if isinstance(serving.index, MilvusIndex):
            known = serving.index.known(as_ids(ids).tolist())
            if known is not None:
                return known
        return self._record.get(ids)

    @property
    def _prefix(self) -> str:
        return self._connection.settings.prefix

    def _ready(self) -> Generation:
        generation = self._generations.current()
        if generation is None or not generation.ready:
            raise NoGenerationError(
                f"{self._prefix!r} of Milvus has no index yet; run `lookalike index build`"
            )
        return generation

    def _serving(self, generation: Generation) -> Serving[Model]:
        model = self._model_of(generation.model)
        if model is None:
            raise ModelMismatchError(
                f"generation {generation.number} was made by the model {generation.model}, which "
                "is not in this process; restart it with that model"
            )
        index = MilvusIndex(self._connection, generation)
        self._last = Serving(model, index, generation.manifest(), now())
        return self._last
