"""Recommendation by stored and uploaded examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from index.neighbours import IdsLike, Neighbours, Searchable, Vectors
from index.ranking import Strategy, recommend
from search_api.answering import Answering, Question
from search_api.results import Page, SearchResult
from search_api.stages import Stages


@dataclass(frozen=True)
class Examples:
    """Pictures to look for, or to keep away from.

    Attributes:
        ids: stored ones; they are left out of the answer.
        uploaded: embeddings of others, float32 ``(d,)`` each.
        model: the digest of the model that made those; None without any.
    """

    ids: tuple[int, ...] = ()
    uploaded: tuple[Vectors, ...] = ()
    model: str | None = None


def recommendation(
    answering: Answering,
    positive: Examples,
    negative: Examples,
    strategy: Strategy,
    page: Page,
    stages: Stages,
) -> SearchResult:
    """Pictures like the positive and unlike the negative examples, as `index.ranking` ranks them.

    Raises:
        UnknownIdError: an example is not indexed.
        IndexInputError: no positive example.
        ModelChangedError: another model than that of the uploaded examples answers now.
        CursorError, CursorModelError: the page's cursor does not fit.
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
    question = Question(
        np.stack(vectors) if vectors else np.empty((0, 0), np.float32),
        page,
        stages,
        ("recommend", positive.ids, negative.ids, strategy, first),
    )
    return answering.answer(find, [question], positive.model or negative.model)[0]
