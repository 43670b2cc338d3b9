"""Recommendation from stored and uploaded examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from index.contract import IdsLike, Neighbours, Searchable, Vectors
from index.ranking.recommend import Strategy, recommend
from search_api.service.page import Page
from search_api.service.results import SearchResult
from search_api.service.search import SearchService, VectorQuery
from search_api.timings import Timings


@dataclass(frozen=True)
class ExampleSet:
    """The positive or the negative examples of a recommendation.

    Attributes:
        ids: stored pictures, which the results leave out.
        uploaded: embeddings of other pictures, float32 ``(d,)`` each.
        model: digest of the model that made ``uploaded``; None if that is empty.
    """

    ids: tuple[int, ...] = ()
    uploaded: tuple[Vectors, ...] = ()
    model: str | None = None


def recommendation(
    service: SearchService,
    positive: ExampleSet,
    negative: ExampleSet,
    strategy: Strategy,
    page: Page,
    timings: Timings,
) -> SearchResult:
    """Pictures like the positive and unlike the negative examples; see `index.ranking.recommend`.

    Raises:
        UnknownIdError: an example is not indexed.
        IndexInputError: there is no positive example.
        ModelChangedError: the uploaded examples were embedded with another model than is in use.
        CursorError, CursorModelError: the page's cursor does not match.
    """
    first = len(positive.uploaded)

    def find(index: Searchable, uploaded: Vectors, k: int, allowed: IdsLike | None) -> Neighbours:
        uploaded = uploaded.reshape(-1, index.dimension)
        return recommend(
            index,
            np.vstack((index.vectors(positive.ids), uploaded[:first])),
            np.vstack((index.vectors(negative.ids), uploaded[first:])),
            strategy,
            k,
            exclude=[*positive.ids, *negative.ids],
            allowed=allowed,
        )

    vectors = [*positive.uploaded, *negative.uploaded]
    query = VectorQuery(
        np.stack(vectors) if vectors else np.empty((0, 0), np.float32),
        page,
        timings,
        ("recommend", positive.ids, negative.ids, strategy, first),
    )
    return service.search(find, [query], positive.model or negative.model)[0]
