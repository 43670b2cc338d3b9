"""What a page shows of a ranking: a stretch of it, a varied choice, or groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from index.continuation import Place, Search, following, ranked
from index.diversity import mmr
from index.grouping import Members, heads, nearest_of
from index.neighbours import MAX_K, NO_ID, Ids, IdsLike, Scores, Searchable
from index.payload import Scalar
from index.stores import ServedSearchable
from search_api.results import Page

VOTERS = 10
"""How many of the nearest neighbours vote on the class."""


@dataclass(frozen=True)
class Picked:
    """Scores and ids of the points to show, best first."""

    scores: tuple[float, ...]
    ids: tuple[int, ...]

    @staticmethod
    def of(scores: Scores, ids: Ids, least: float | None) -> Picked:
        """Those of at least the score ``least``; scores descend."""
        if least is not None:
            ids = ids[scores >= least]
            scores = scores[: len(ids)]
        return Picked(tuple(scores.tolist()), tuple(ids.tolist()))


@dataclass(frozen=True)
class End:
    """Where a page ended: its last point, how many come up to it, and the groups so far."""

    place: Place
    seen: int
    groups: tuple[Scalar, ...] | None = None


@dataclass(frozen=True)
class Arranged:
    """What a page shows, by id.

    Attributes:
        points: in order; none where there are groups.
        voters: ids of the nearest of the whole ranking, nearest first.
        groups: values and their points, or None.
        end: None where no further page follows.
    """

    points: Picked
    voters: tuple[int, ...]
    groups: tuple[tuple[Scalar, Picked], ...] | None = None
    end: End | None = None

    def ids(self) -> set[int]:
        """All ids that the answer needs to know more of."""
        shown = {i for _, group in self.groups or () for i in group.ids}
        return shown.union(self.points.ids, self.voters)


def wanted(pages: Sequence[Page]) -> int:
    """How many neighbours plain pages need: one more than shown tells whether more follow."""
    return min(max(VOTERS, *(page.offset + page.limit + 1 for page in pages)), MAX_K)


def plain(scores: Scores, ids: Ids, page: Page) -> Arranged:
    """A stretch from the beginning of a ranking (k,), which may end in padding."""
    keep = ids != NO_ID
    scores, ids = scores[keep], ids[keep]
    voters = tuple(ids[:VOTERS].tolist())
    return _stretch(scores[page.offset :], ids[page.offset :], page, voters, page.offset)


def arrange(
    search: Search,
    index: ServedSearchable,
    of: Members | None,
    page: Page,
    allowed: IdsLike | None,
) -> Arranged:
    """A page that is not plain.

    Args:
        search: asks ``index`` for the neighbours of the one query.
        index: holds the vectors.
        of: which picture is in which group; None where the page is not in groups.
        page: what is wanted.
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
        index.everything() if allowed is None else allowed,
        page.cursor.place,
        page.cursor.seen,
    )
    return _stretch(scores, ids, page, _voters(search, allowed), page.cursor.seen)


def _stretch(
    scores: Scores, ids: Ids, page: Page, voters: tuple[int, ...], before: int
) -> Arranged:
    picked = Picked.of(scores, ids, page.score_threshold)
    shown = Picked(picked.scores[: page.limit], picked.ids[: page.limit])
    end = None
    if len(picked.ids) > page.limit:
        end = End(Place(shown.scores[-1], shown.ids[-1]), before + page.limit)
    return Arranged(shown, voters, end=end)


def _varied(
    search: Search, index: Searchable, page: Page, diversity: float, allowed: IdsLike | None
) -> Arranged:
    scores, ids = ranked(search, min(max(page.candidates, VOTERS), MAX_K), allowed)
    voters = tuple(ids[:VOTERS].tolist())
    pool = scores[: page.candidates]
    if page.score_threshold is not None:
        pool = pool[pool >= page.score_threshold]
    ids = ids[: len(pool)]
    order = mmr(pool, index.vectors(ids), diversity, page.offset + page.limit)[page.offset :]
    return Arranged(Picked.of(pool[order], ids[order], None), voters)


def _grouped(search: Search, of: Members, page: Page, allowed: IdsLike | None) -> Arranged:
    before = () if page.cursor is None else page.cursor.groups or ()
    chosen: list[tuple[Scalar, Picked]] = []
    shown: list[Scalar] = []
    end = None
    last: Place | None = None
    for head in heads(search, of, page.offset + page.limit + 1, before):
        if page.score_threshold is not None and head.place.score < page.score_threshold:
            break
        if len(chosen) == page.limit and last is not None:
            groups = (*before, *shown)
            end = End(last, len(groups), groups)
            break
        shown.append(of.values[head.code])
        if len(shown) <= page.offset:
            continue
        last = head.place
        scores, ids = nearest_of(search, of, head.code, page.group_size)
        chosen.append((shown[-1], Picked.of(scores, ids, page.score_threshold)))
    return Arranged(Picked((), ()), _voters(search, allowed), tuple(chosen), end)


def _voters(search: Search, allowed: IdsLike | None) -> tuple[int, ...]:
    return tuple(ranked(search, VOTERS, allowed)[1].tolist())
