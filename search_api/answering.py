"""Answers to queries: a forward pass, a search, and what is known of the pictures found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from embed.encoder import PictureEncoder
from embed.pictures import RGB
from embed.runtime import LANES
from index.catalogue import Entry, ModelChangedError
from index.filters import Filter
from index.grouping import Members
from index.neighbours import IdsLike, Neighbours, Searchable, UnknownIdError, Vectors
from index.ranking import vote
from index.stores import Serving, StateGoneError, Store
from search_api.arranging import Arranged, Picked, arrange, plain, wanted
from search_api.cursors import Cursor, fingerprint
from search_api.results import Group, Page, Point, Prediction, SearchResult
from search_api.sampling import RecallSampler
from search_api.stages import Stages, together
from search_api.threads import take_share

_TRIES = 3
COMPANY = 8
"""Queries at a time from which on there is enough to do for two lanes of batches. One scan of an
exact index for 8 queries costs little more than one for 4."""


@dataclass(frozen=True)
class PictureQuery:
    """A picture to search by.

    Attributes:
        picture: what ``SearchEngine.read`` made of the upload.
        page: which part of the ranking is wanted; None to classify and embed only.
        stages: the time spent on it so far.
    """

    picture: RGB
    page: Page | None = Page()
    stages: Stages = field(default_factory=Stages)


@dataclass(frozen=True)
class Question:
    """One query, whatever it asks by.

    Attributes:
        vectors: embeddings float32 ``(n, d)`` of what was uploaded; n is 0 without any.
        page: which part of the ranking is wanted.
        stages: the time spent on it so far.
        identity: what beside ``vectors`` and ``page`` decides the ranking; of a stable ``repr``.
    """

    vectors: Vectors
    page: Page
    stages: Stages
    identity: object = "picture"


Find = Callable[[Searchable, Vectors, int, IdsLike | None], Neighbours]
"""``find(index, vectors, k, allowed)``: the neighbours asked for by uploaded ``vectors``."""


class Answering:
    """Answers from the newest state of the store; safe to use from several threads."""

    def __init__(self, store: Store[PictureEncoder], sampler: RecallSampler) -> None:
        """``sampler`` is offered the queries of searches by picture."""
        self._served = store.served
        self._selections = store.selections
        self._sampler = sampler
        # A few scans at a time, each on its share of the cores, whichever thread asks: on one
        # machine more that compete are slower for all.
        self._searching: AbstractContextManager[object] = (
            nullcontext() if store.parallel else threading.BoundedSemaphore(LANES)
        )

    def pictures(
        self, encoder: PictureEncoder, queries: Sequence[PictureQuery]
    ) -> list[SearchResult]:
        """One answer for each picture.

        One forward pass for all, and one scan of the index for those whose pages are plain, share
        a filter and ask for about as much. What is not plain takes longer, and gets the prediction
        and the embedding only: see `finish`.

        Raises:
            ModelChangedError: another model than the encoder's answers now.
        """
        everyone = together([query.stages for query in queries])
        with everyone("forward"):
            # In company there are more requests to read, to search and to answer meanwhile.
            spare = len(queries) >= COMPANY
            probabilities, xq = encoder.encode([query.picture for query in queries], spare=spare)
        results: dict[int, SearchResult] = {}
        groups: dict[tuple[Filter | None, int], list[int]] = {}
        for row, query in enumerate(queries):
            if query.page is None or not query.page.plain:
                results[row] = self._unsearched(encoder.digest, query.stages)
                continue
            deep = (query.page.offset + query.page.limit).bit_length()
            groups.setdefault((query.page.filter, deep), []).append(row)
        for rows in groups.values():
            questions = [
                Question(xq[row : row + 1], page, queries[row].stages)
                for row in rows
                if (page := queries[row].page) is not None
            ]
            found = self.answer(self._nearest, questions, encoder.digest)
            results.update(zip(rows, found, strict=True))
        classes = encoder.classes
        for row, values in enumerate(probabilities):
            results[row] = replace(
                results[row], prediction=Prediction.of(classes, values), vector=xq[row]
            )
        return [results[row] for row in range(len(queries))]

    def finish(self, query: PictureQuery, result: SearchResult) -> SearchResult:
        """Search for a page that is not plain, by what `pictures` made of the query.

        Raises as `answer` does.
        """
        if query.page is None or query.page.plain:
            return result
        assert result.vector is not None
        question = Question(result.vector[None], query.page, query.stages)
        (found,) = self.answer(self._nearest, [question], result.model)
        return replace(found, prediction=result.prediction, vector=result.vector)

    def answer(
        self, find: Find, questions: Sequence[Question], model: str | None = None
    ) -> list[SearchResult]:
        """One answer for each question; several only of plain pages with the same filter.

        Args:
            find: asks an index by the questions' vectors, stacked.
            questions: what is asked.
            model: the digest of the model that made the vectors, or None where it does not matter.

        Raises:
            ModelChangedError: another model than ``model`` answers now.
            CursorError: a page's cursor belongs to another request.
            CursorModelError: a page's cursor was made under another model.
        """
        everyone = together([question.stages for question in questions])
        before: Serving[PictureEncoder] | None = None
        tries = 0
        while True:
            state = self._served.current(wait=False)
            if model not in (None, state.manifest.model_digest):
                raise ModelChangedError(f"{state.manifest.model_digest} answers now, not {model}")
            try:
                with everyone("search"):
                    first = questions[0].page
                    # Read before it is this request's turn to scan, as it takes longer than that.
                    of = (
                        None
                        if first.group_by is None
                        else self._selections.members(first.group_by, first.filter)
                    )
                    where = first.filter
                    allowed = None if where is None else self._selections.matching(where)
                    with self._searching:
                        take_share()
                        found = self._search(find, questions, state, of, allowed)
                with everyone("payload"):
                    entries = self._entries(state, found)
            except (UnknownIdError, StateGoneError):
                # Pictures were deleted between the steps, or all was replaced; the next state is
                # another.
                tries += 1
                if before is state or tries == _TRIES:
                    raise
                before = state
                continue
            break
        return [
            _result(arranged, entries, question, state)
            for arranged, question in zip(found, questions, strict=True)
        ]

    def _search(
        self,
        find: Find,
        questions: Sequence[Question],
        state: Serving[PictureEncoder],
        of: Members | None,
        allowed: IdsLike | None,
    ) -> list[Arranged]:
        pages = [question.page for question in questions]
        if all(page.plain for page in pages):
            xq = np.vstack([question.vectors for question in questions])
            scores, ids = find(state.index, xq, wanted(pages), allowed)
            return [plain(*row) for row in zip(scores, ids, pages, strict=True)]
        ((question, page),) = zip(questions, pages, strict=True)
        vectors = question.vectors
        if page.cursor is not None:
            request = fingerprint(question.identity, page)
            page.cursor.check(request, state.manifest.model_digest, vectors)
            vectors = page.cursor.vectors
        search = partial(find, state.index, vectors)
        return [arrange(search, state.index, of, page, allowed)]

    def _nearest(
        self, index: Searchable, xq: Vectors, k: int, allowed: IdsLike | None
    ) -> Neighbours:
        self._sampler.offer(index, xq)
        return index.search(xq, k, allowed)

    def _unsearched(self, model: str, stages: Stages) -> SearchResult:
        state = self._served.current()
        return SearchResult(
            (), None, state.manifest.generation, model, stages.milliseconds(), None, state.sequence
        )

    def _entries(
        self, state: Serving[PictureEncoder], found: Sequence[Arranged]
    ) -> dict[int, Entry]:
        ids = sorted(set().union(*(arranged.ids() for arranged in found)))
        return {entry.id: entry for entry in self._served.entries(state, ids)}


def _result(
    arranged: Arranged,
    entries: dict[int, Entry],
    question: Question,
    state: Serving[PictureEncoder],
) -> SearchResult:
    groups = None
    if arranged.groups is not None:
        groups = tuple(Group(value, _points(of, entries)) for value, of in arranged.groups)
    cursor = None
    if arranged.end is not None:
        was = question.page.cursor
        cursor = Cursor(
            arranged.end.place,
            arranged.end.seen,
            arranged.end.groups,
            state.manifest.model_digest,
            fingerprint(question.identity, question.page),
            question.vectors if was is None else was.vectors,
        )
    return SearchResult(
        points=_points(arranged.points, entries),
        vote=vote([entries[voter].label for voter in arranged.voters]),
        generation=state.manifest.generation,
        model=state.manifest.model_digest,
        time=question.stages.milliseconds(),
        sequence=state.sequence,
        groups=groups,
        cursor=cursor,
    )


def _points(picked: Picked, entries: dict[int, Entry]) -> tuple[Point, ...]:
    return tuple(
        Point(score, entries[i]) for score, i in zip(picked.scores, picked.ids, strict=True)
    )
