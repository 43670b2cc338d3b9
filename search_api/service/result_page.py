"""From a ranking to a page of results: a stretch of it, a diverse selection, or groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from index.contract import MAX_K, NO_ID, Ids, IdsLike, Members, Scores, Searchable, StoreIndex
from index.ranking.groups import heads, nearest_of
from index.ranking.mmr import mmr
from index.ranking.resume import RankPosition, Search, following, ranked
from index.ranking.vote import VOTERS
from index.records import Scalar
from search_api.service.page import Page


@dataclass(frozen=True)
class Ranked:
    """Scores and ids of points, best first."""

    scores: tuple[float, ...]
    ids: tuple[int, ...]

    @staticmethod
    def of(scores: Scores, ids: Ids, threshold: float | None) -> Ranked:
        """The points with at least the score ``threshold``; ``scores (n,)`` descend."""
        if threshold is not None:
            ids = ids[scores >= threshold]
            scores = scores[: len(ids)]
        return Ranked(tuple(scores.tolist()), tuple(ids.tolist()))


@dataclass(frozen=True)
class PageEnd:
    """Where a page ended.

    Attributes:
        position: its last point.
        seen: how many points, or groups, the ranking has up to there.
        groups: the values of all groups up to there; None without groups.
    """

    position: RankPosition
    seen: int
    groups: tuple[Scalar, ...] | None = None


@dataclass(frozen=True)
class ResultPage:
    """The contents of a page, by id.

    Attributes:
        points: best first; empty if there are groups.
        voters: ids of the nearest points of the whole ranking, nearest first.
        groups: values and their points, or None.
        end: where the next page starts, or None without one.
        similarities: to the nearest of all pictures, ``(k,)``; None if the page is of others.
    """

    points: Ranked
    voters: tuple[int, ...]
    groups: tuple[tuple[Scalar, Ranked], ...] | None = None
    end: PageEnd | None = None
    similarities: Scores | None = None

    def ids(self) -> set[int]:
        """All ids whose catalogue entries the result needs."""
        shown = {i for _, group in self.groups or () for i in group.ids}
        return shown.union(self.points.ids, self.voters)


def neighbours_needed(pages: Sequence[Page]) -> int:
    """How many neighbours plain pages need: one more than they show, to know if more follow."""
    return min(max(VOTERS, *(page.offset + page.limit + 1 for page in pages)), MAX_K)


def plain_page(scores: Scores, ids: Ids, page: Page) -> ResultPage:
    """A page of a ranking ``(k,)`` from its start; ids of -1 at its end are padding."""
    if len(ids) and ids[-1] == NO_ID:
        keep = ids != NO_ID
        scores, ids = scores[keep], ids[keep]
    voters = tuple(ids[:VOTERS].tolist())
    start = page.offset
    nearest = None if page.filter is not None else scores[:VOTERS]
    return _stretch(scores[start:], ids[start:], page, voters, start, nearest)


def special_page(
    search: Search,
    index: StoreIndex,
    of: Members | None,
    page: Page,
    allowed: IdsLike | None,
) -> ResultPage:
    """A page that is not plain: with groups, diversity or a cursor.

    Args:
        search: searches ``index`` for the neighbours of the query.
        index: holds the vectors.
        of: which picture is in which group; None without ``group_by``.
        page: the requested page.
        allowed: ids that match the page's filter; None without one.
    """
    if of is not None:
        return _grouped(search, of, page, allowed)
    if page.diversity is not None:
        return _varied(search, index, page, page.diversity, allowed)
    assert page.cursor is not None
    scores, ids = following(
        search,
        page.limit + 1,
        index.all_ids() if allowed is None else allowed,
        page.cursor.position,
        page.cursor.seen,
    )
    return _stretch(scores, ids, page, _voters(search, allowed), page.cursor.seen)


def _stretch(
    scores: Scores,
    ids: Ids,
    page: Page,
    voters: tuple[int, ...],
    before: int,
    similarities: Scores | None = None,
) -> ResultPage:
    good = Ranked.of(scores, ids, page.score_threshold)
    shown = Ranked(good.scores[: page.limit], good.ids[: page.limit])
    end = None
    if len(good.ids) > page.limit:
        end = PageEnd(RankPosition(shown.scores[-1], shown.ids[-1]), before + page.limit)
    return ResultPage(shown, voters, None, end, similarities)


def _varied(
    search: Search, index: Searchable, page: Page, diversity: float, allowed: IdsLike | None
) -> ResultPage:
    scores, ids = ranked(search, min(max(page.candidates, VOTERS), MAX_K), allowed)
    voters = tuple(ids[:VOTERS].tolist())
    pool = scores[: page.candidates]
    if page.score_threshold is not None:
        pool = pool[pool >= page.score_threshold]
    ids = ids[: len(pool)]
    order = mmr(pool, index.vectors(ids), diversity, page.offset + page.limit)[page.offset :]
    return ResultPage(Ranked.of(pool[order], ids[order], None), voters)


def _grouped(search: Search, of: Members, page: Page, allowed: IdsLike | None) -> ResultPage:
    before = () if page.cursor is None else page.cursor.groups or ()
    chosen: list[tuple[Scalar, Ranked]] = []
    shown: list[Scalar] = []
    end = None
    last: RankPosition | None = None
    for head in heads(search, of, page.offset + page.limit + 1, before):
        if page.score_threshold is not None and head.position.score < page.score_threshold:
            break
        if len(chosen) == page.limit and last is not None:
            groups = (*before, *shown)
            end = PageEnd(last, len(groups), groups)
            break
        shown.append(of.values[head.code])
        if len(shown) <= page.offset:
            continue
        last = head.position
        scores, ids = nearest_of(search, of, head.code, page.group_size)
        chosen.append((shown[-1], Ranked.of(scores, ids, page.score_threshold)))
    return ResultPage(Ranked((), ()), _voters(search, allowed), tuple(chosen), end)


def _voters(search: Search, allowed: IdsLike | None) -> tuple[int, ...]:
    return tuple(ranked(search, VOTERS, allowed)[1].tolist())
