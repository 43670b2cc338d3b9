"""Searching: a forward pass, a scan of the index, and the catalogue entries of what was found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from embed.encoder import PictureEncoder
from embed.pictures import RGB
from embed.runtime.protocol import WORKERS
from index.conditions import Filter
from index.contract import (
    IdsLike,
    Members,
    ModelChangedError,
    Neighbours,
    Searchable,
    SearchState,
    StateGoneError,
    Store,
    UnknownIdError,
    Vectors,
)
from index.ranking.vote import VOTERS, vote
from index.records import Entry
from search_api.schemas.search import Classes
from search_api.service.cursors import Cursor
from search_api.service.labelling.classes import ClassStore
from search_api.service.page import Page, fingerprint
from search_api.service.recall_sampler import RecallSampler
from search_api.service.result_page import (
    Ranked,
    ResultPage,
    neighbours_needed,
    plain_page,
    special_page,
)
from search_api.service.results import Group, Point, SearchResult
from search_api.threads import limit_faiss_threads
from search_api.timings import Timings, time_all

_TRIES = 3
MIN_BATCH = 8
"""Number of waiting queries from which a second worker starts a batch of its own: scanning an exact
index for 8 queries costs little more than for 4."""


@dataclass(frozen=True)
class PictureQuery:
    """A picture to search by.

    Attributes:
        picture: the picture as `SearchEngine.read` returns it.
        page: the requested page; None to classify and embed only.
        timings: the time spent on the query so far.
        classes: whose classes to predict; None for no prediction.
    """

    picture: RGB
    page: Page | None = Page()
    timings: Timings = field(default_factory=Timings)
    classes: Classes | None = "auto"

    @property
    def unfiltered(self) -> bool:
        """Whether its page is a ranking of all stored pictures from the nearest on."""
        return self.page is not None and self.page.plain and self.page.filter is None


@dataclass(frozen=True)
class VectorQuery:
    """A query by embeddings or by stored pictures.

    Attributes:
        vectors: embeddings float32 ``(n, d)`` of uploaded pictures; n is 0 without any.
        page: the requested page.
        timings: the time spent on the query so far.
        identity: what else determines the ranking; its ``repr`` must be stable.
    """

    vectors: Vectors
    page: Page
    timings: Timings
    identity: object = "picture"


Find = Callable[[Searchable, Vectors, int, IdsLike | None], Neighbours]
"""``find(index, vectors, k, allowed)`` returns the ``k`` nearest neighbours."""


class SearchService:
    """Searches the newest state of the store; safe to use from several threads."""

    def __init__(
        self, store: Store[PictureEncoder], sampler: RecallSampler, classes: ClassStore
    ) -> None:
        """Search ``store``, whose classes are ``classes``.

        ``sampler`` receives the embeddings of searches by picture.
        """
        self._classes = classes
        self._served = store.served
        self._selections = store.selections
        self._sampler = sampler
        # On one machine, more concurrent scans than workers would slow each other down.
        self._searching: AbstractContextManager[object] = (
            nullcontext() if store.parallel else threading.BoundedSemaphore(WORKERS)
        )

    def by_picture(
        self, encoder: PictureEncoder, queries: Sequence[PictureQuery]
    ) -> list[SearchResult]:
        """One result for each picture, with one forward pass for all of them.

        Plain pages with the same filter and about the same depth also share a scan of the index.
        Other pages take longer, so their results have only prediction and embedding until
        `complete` is called.

        Raises:
            ModelChangedError: another model than the encoder's is in use.
        """
        all_timings = time_all([query.timings for query in queries])
        with all_timings("forward"):
            # With a large batch, other threads have more decoding and searching to do meanwhile.
            spare = len(queries) >= MIN_BATCH
            probabilities, xq = encoder.encode([query.picture for query in queries], spare=spare)
        stored = self._classes.of(encoder.digest)
        wanted = [query.classes for query in queries]
        similarities: NDArray[np.float32] | None = None
        if stored.novelty is not None and any(wanted):
            # Also of pictures that are unlike all of a page's, or that nothing is searched for.
            similarities = np.full((len(queries), VOTERS), -np.inf, np.float32)
            rows = [i for i, query in enumerate(queries) if query.classes and not query.unfiltered]
            if rows:
                with time_all([queries[row].timings for row in rows])("search"):
                    similarities[rows] = self._similarities(encoder.digest, xq[rows])
        results: dict[int, SearchResult] = {}
        groups: dict[tuple[Filter | None, int], list[int]] = {}
        for row, query in enumerate(queries):
            if query.page is None or not query.page.plain:
                results[row] = self._unsearched(encoder.digest, query.timings)
                continue
            depth = (query.page.offset + query.page.limit).bit_length()
            groups.setdefault((query.page.filter, depth), []).append(row)
        for rows in groups.values():
            batch = [
                VectorQuery(xq[row : row + 1], page, queries[row].timings)
                for row in rows
                if (page := queries[row].page) is not None
            ]
            found = self.search(self._nearest, batch, encoder.digest)
            results.update(zip(rows, found, strict=True))
        if similarities is not None:
            for row, result in results.items():
                if result.similarities is not None:
                    similarities[row, : len(result.similarities)] = result.similarities
        predicted = stored.predict(encoder, probabilities, xq, similarities, wanted)
        return [
            replace(results[row], prediction=one, predictions=both, vector=xq[row])
            for row, (one, both) in enumerate(predicted)
        ]

    def complete(self, query: PictureQuery, result: SearchResult) -> SearchResult:
        """Search for a page that is not plain, with the embedding from `by_picture`.

        Raises as `search` does.
        """
        if query.page is None or query.page.plain:
            return result
        assert result.vector is not None
        by_vector = VectorQuery(result.vector[None], query.page, query.timings)
        (found,) = self.search(self._nearest, [by_vector], result.model)
        return replace(
            found,
            prediction=result.prediction,
            predictions=result.predictions,
            vector=result.vector,
        )

    def search(
        self, find: Find, queries: Sequence[VectorQuery], model: str | None = None
    ) -> list[SearchResult]:
        """One result for each query.

        Args:
            find: searches an index by the queries' stacked vectors.
            queries: a single query, or several with plain pages and the same filter.
            model: digest of the model that made the vectors, or None if it does not matter.

        Raises:
            ModelChangedError: another model than ``model`` is in use.
            CursorError: a page's cursor belongs to another request.
            CursorModelError: a page's cursor was made with another model.
        """
        all_timings = time_all([query.timings for query in queries])
        before: SearchState[PictureEncoder] | None = None
        tries = 0
        while True:
            state = self._served.current(wait=False)
            if model not in (None, state.manifest.model_digest):
                raise ModelChangedError(
                    f"the model in use is {state.manifest.model_digest}, expected {model}"
                )
            try:
                with all_timings("search"):
                    first = queries[0].page
                    # Outside of the semaphore, because this can take longer than the scan.
                    members = (
                        None
                        if first.group_by is None
                        else self._selections.members(first.group_by, first.filter)
                    )
                    where = first.filter
                    allowed = None if where is None else self._selections.matching(where)
                    with self._searching:
                        limit_faiss_threads()
                        pages = self._pages(find, queries, state, members, allowed)
                with all_timings("payload"):
                    entries = self._entries(state, pages)
            except (UnknownIdError, StateGoneError):
                # Pictures were deleted between the steps, or the state was replaced.
                tries += 1
                if before is state or tries == _TRIES:
                    raise
                before = state
                continue
            break
        return [
            _result(page, entries, query, state) for page, query in zip(pages, queries, strict=True)
        ]

    def _pages(
        self,
        find: Find,
        queries: Sequence[VectorQuery],
        state: SearchState[PictureEncoder],
        members: Members | None,
        allowed: IdsLike | None,
    ) -> list[ResultPage]:
        wanted = [query.page for query in queries]
        if all(page.plain for page in wanted):
            xq = np.vstack([query.vectors for query in queries])
            scores, ids = find(state.index, xq, neighbours_needed(wanted), allowed)
            return [plain_page(*row) for row in zip(scores, ids, wanted, strict=True)]
        ((query, page),) = zip(queries, wanted, strict=True)
        vectors = query.vectors
        if page.cursor is not None:
            request = fingerprint(query.identity, page)
            page.cursor.check(request, state.manifest.model_digest, vectors)
            vectors = page.cursor.vectors
        search = partial(find, state.index, vectors)
        return [special_page(search, state.index, members, page, allowed)]

    def _nearest(
        self, index: Searchable, xq: Vectors, k: int, allowed: IdsLike | None
    ) -> Neighbours:
        self._sampler.offer(index, xq)
        return index.search(xq, k, allowed)

    def _similarities(self, model: str, xq: Vectors) -> NDArray[np.float32]:
        """To the nearest of all stored pictures, float32 ``(nq, VOTERS)``."""
        tries = 0
        while True:
            state = self._served.current(wait=False)
            if state.manifest.model_digest != model:
                raise ModelChangedError(
                    f"the model in use is {state.manifest.model_digest}, expected {model}"
                )
            try:
                with self._searching:
                    limit_faiss_threads()
                    return state.index.search(xq, VOTERS).scores
            except StateGoneError:
                tries += 1
                if tries == _TRIES:
                    raise

    def _unsearched(self, model: str, timings: Timings) -> SearchResult:
        state = self._served.current()
        return SearchResult(
            points=(),
            vote=None,
            generation=state.manifest.generation,
            model=model,
            time=timings.milliseconds(),
            sequence=state.sequence,
        )

    def _entries(
        self, state: SearchState[PictureEncoder], pages: Sequence[ResultPage]
    ) -> dict[int, Entry]:
        ids = sorted(set().union(*(page.ids() for page in pages)))
        return {entry.id: entry for entry in self._served.entries(state, ids)}


def _result(
    page: ResultPage,
    entries: dict[int, Entry],
    query: VectorQuery,
    state: SearchState[PictureEncoder],
) -> SearchResult:
    groups = None
    if page.groups is not None:
        groups = tuple(Group(value, _points(of, entries)) for value, of in page.groups)
    cursor = None
    if page.end is not None:
        previous = query.page.cursor
        cursor = Cursor(
            page.end.position,
            page.end.seen,
            page.end.groups,
            state.manifest.model_digest,
            fingerprint(query.identity, query.page),
            query.vectors if previous is None else previous.vectors,
        )
    return SearchResult(
        points=_points(page.points, entries),
        vote=vote([entries[voter].label for voter in page.voters]),
        generation=state.manifest.generation,
        model=state.manifest.model_digest,
        time=query.timings.milliseconds(),
        sequence=state.sequence,
        groups=groups,
        cursor=cursor,
        similarities=page.similarities,
    )


def _points(ranked: Ranked, entries: dict[int, Entry]) -> tuple[Point, ...]:
    return tuple(
        Point(score, entries[i]) for score, i in zip(ranked.scores, ranked.ids, strict=True)
    )
