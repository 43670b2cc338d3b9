"""The index that a process serves: the collection that the alias points to now.

Nothing is cached, and every read requests a state with all acknowledged writes, so every process
sees a write in its very next search.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from index.contract import (
    IdsLike,
    Manifest,
    Model,
    ModelMismatchError,
    NoGenerationError,
    SearchState,
    StateGoneError,
)
from index.milvus.catalogue import MilvusCatalogue
from index.milvus.connection import Connection, MilvusUnavailableError
from index.milvus.generations import Generation, Generations, now
from index.milvus.search import MilvusIndex
from index.records import Entry
from index.vectors import as_ids


class MilvusServedIndex(Generic[Model]):
    """Implements `index.contract.ServedIndex`; thread-safe."""

    def __init__(
        self,
        connection: Connection,
        generations: Generations,
        catalogue: MilvusCatalogue,
        model_of: Callable[[str], Model | None],
    ) -> None:
        self._connection = connection
        self._generations = generations
        self._catalogue = catalogue
        self._model_of = model_of
        self._last: SearchState[Model] | None = None

    @property
    def last(self) -> SearchState[Model] | None:
        return self._last

    @property
    def dimension(self) -> int | None:
        return None if self._last is None else self._last.index.dimension

    def load(self, model_digest: str) -> tuple[Manifest, str | None]:
        generation = self._ready()
        if generation.model != model_digest:
            raise ModelMismatchError(
                f"generation {generation.number} was made by the model {generation.model}, and the "
                f"model in use is {model_digest}; change the model with `lookalike index model "
                "BUNDLE --switch`"
            )
        self._connection.load(generation.name)
        self._catalogue.repeat_deletions()
        return self._state(generation).manifest, None

    def current(self, wait: bool = True) -> SearchState[Model]:
        """See `index.contract.ServedIndex.current`. Milvus loads generations by itself.

        Raises:
            NoGenerationError: nothing has been built yet.
            ModelMismatchError: this process does not have the generation's model.
            MilvusUnavailableError: Milvus is not available.
        """
        disrupted = self._connection.disrupted
        if disrupted.is_set():
            # Cleared first, so that a further disruption is not missed.
            disrupted.clear()
            try:
                self._catalogue.repeat_deletions()
            except BaseException:
                disrupted.set()
                raise
        return self._state(self._ready())

    def peek(self) -> None:
        """None, because nothing is cached."""
        return

    def available(self) -> bool:
        """Whether Milvus has a loaded index; after a restart, loading takes a while."""
        try:
            generation = self._ready()
        except (MilvusUnavailableError, NoGenerationError, StateGoneError):
            return False
        return self._connection.usable(generation.name) and self._catalogue.usable()

    def entries(self, state: SearchState[Model], ids: IdsLike) -> list[Entry]:
        """See `index.contract.ServedIndex.entries`; usually the search has fetched them already."""
        if isinstance(state.index, MilvusIndex):
            known = state.index.found(as_ids(ids).tolist())
            if known is not None:
                return known
        return self._catalogue.get(ids)

    def _ready(self) -> Generation:
        generation = self._generations.require()
        if not generation.ready:
            raise self._generations.no_index()
        return generation

    def _state(self, generation: Generation) -> SearchState[Model]:
        model = self._model_of(generation.model)
        if model is None:
            raise ModelMismatchError(
                f"generation {generation.number} was made by the model {generation.model}, which "
                "this process does not have; restart it with that model"
            )
        index = MilvusIndex(self._connection, generation)
        self._last = SearchState(model, index, generation.manifest(), now())
        return self._last
