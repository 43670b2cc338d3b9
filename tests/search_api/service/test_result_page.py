"""From rankings to pages, on eight vectors in the plane whose order is known."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from index.ann.exact import ExactIndex
from index.contract import IdsLike, Members, Neighbours
from index.ranking.resume import RankPosition
from search_api.service.cursors import Cursor
from search_api.service.page import Page
from search_api.service.result_page import (
    Ranked,
    ResultPage,
    neighbours_needed,
    plain_page,
    special_page,
)

COSINES = (1.0, 0.9, 0.8, 0.5, 0.28, 0.0, -0.6, -1.0)
"""Of the ids 1..8 to the query, so that the ranking is 1, 2, ..., 8."""
IDS = tuple(range(1, 9))


class Plane(ExactIndex):
    """Vectors at these cosines to the query (1, 0), all on one side of it."""

    added = masked = 0

    def __init__(self) -> None:
        super().__init__(2)
        x = np.array(COSINES)
        self.add(np.array(IDS), np.stack((x, np.sqrt(1 - x * x)), 1).astype(np.float32))

    def all_ids(self) -> IdsLike:
        return self.ids()


INDEX = Plane()


def search(k: int, allowed: IdsLike | None) -> Neighbours:
    return INDEX.search(np.array([[1, 0]], np.float32), k, allowed)


def special(page: Page, of: Members | None = None, allowed: IdsLike | None = None) -> ResultPage:
    return special_page(search, INDEX, of, page, allowed)


def ranking(k: int) -> partial[ResultPage]:
    scores, ids = search(k, None)
    return partial(plain_page, scores[0], ids[0])


def cursor(position: RankPosition, seen: int, groups: tuple[str, ...] | None = None) -> Cursor:
    return Cursor(position, seen, groups, "m", "r", np.empty((0, 0), np.float32))


def test_ranked_ends_at_the_threshold() -> None:
    scores, ids = np.array([0.9, 0.5, 0.25], np.float32), np.array([4, 2, 9])
    assert Ranked.of(scores, ids, None) == Ranked((0.8999999761581421, 0.5, 0.25), (4, 2, 9))
    assert Ranked.of(scores, ids, 0.5).ids == (4, 2)
    assert Ranked.of(scores, ids, 0.95) == Ranked((), ())


def test_neighbours_needed_are_one_more_than_the_deepest_page() -> None:
    assert neighbours_needed([Page(3)]) == 10  # as many as vote
    assert neighbours_needed([Page(12), Page(5, 20)]) == 26


def test_a_plain_page() -> None:
    page = ranking(8)(Page(3, 2))
    assert page.points.ids == (3, 4, 5)
    assert page.points.scores == pytest.approx((0.8, 0.5, 0.28), abs=1e-6)
    assert page.voters == IDS
    assert page.end is not None
    assert (page.end.position.id, page.end.seen, page.end.groups) == (5, 5, None)
    assert page.ids() == set(IDS)


def test_the_last_plain_page_has_no_end() -> None:
    assert ranking(8)(Page(8)).end is None
    page = ranking(12)(Page(5, 6))  # padded: there are only eight
    assert (page.points.ids, page.end) == ((7, 8), None)
    assert ranking(8)(Page(5, 8)).points.ids == ()


def test_a_threshold_ends_the_ranking() -> None:
    page = ranking(8)(Page(5, 0, 0.4))
    assert (page.points.ids, page.end) == ((1, 2, 3, 4), None)
    assert page.voters == IDS
    page = ranking(8)(Page(3, 0, 0.4))
    assert page.points.ids == (1, 2, 3)
    assert page.end is not None and page.end.position.id == 3


def test_a_page_after_a_cursor() -> None:
    after = cursor(RankPosition(search(3, None).scores[0, 2].item(), 3), 3)
    page = special(Page(2, cursor=after))
    assert page.points.ids == (4, 5)
    assert page.end is not None
    assert (page.end.position.id, page.end.seen) == (5, 5)
    assert page.voters == IDS
    page = special(Page(2, cursor=after), allowed=np.array([2, 6, 8]))
    assert (page.points.ids, page.end, page.voters) == ((6, 8), None, (2, 6, 8))


def test_a_page_after_a_cursor_is_where_it_was_after_changes() -> None:
    # A point with a score between those of 3 and 4, which itself is not stored any more.
    page = special(Page(2, cursor=cursor(RankPosition(0.7, 77), 1)))
    assert page.points.ids == (4, 5)


def test_diversity_chooses_from_the_candidates() -> None:
    # At 1, each further point is the one least similar to those chosen: first 6, at a right angle
    # to 1. Then the larger of the similarities to 1 and to 6 is smallest for 3: 0.8, against 0.9
    # for 2, 0.87 for 4 and 0.96 for 5.
    page = special(Page(3, diversity=1.0, candidates=6))
    assert page.points.ids == (1, 6, 3)
    assert page.end is None
    assert page.voters == IDS
    assert special(Page(6, diversity=0.0, candidates=6)).points.ids == (1, 2, 3, 4, 5, 6)


def test_pages_of_a_diverse_selection_fit_together() -> None:
    whole = special(Page(6, diversity=0.6, candidates=6)).points
    second = special(Page(3, 3, diversity=0.6, candidates=6)).points
    assert whole.ids[3:] == second.ids
    assert whole.scores[3:] == second.scores


def test_diversity_after_threshold_and_filter() -> None:
    page = special(Page(8, 0, 0.4, diversity=0.7, candidates=8))
    assert sorted(page.points.ids) == [1, 2, 3, 4]
    page = special(Page(8, diversity=0.7, candidates=8), allowed=np.array([2, 5, 8]))
    assert sorted(page.points.ids) == [2, 5, 8]
    assert page.voters == (2, 5, 8)


# The group a has 2, 3 and 7; b has 1 and 8; c has 4.
GROUPS = Members(("a", "b", "c"), np.array([2, 3, 7, 1, 8, 4]), np.array([0, 0, 0, 1, 1, 2]))


def test_groups_come_by_their_nearest_point() -> None:
    page = special(Page(2, group_by="label", group_size=2), GROUPS)
    assert page.points == Ranked((), ())
    assert page.groups is not None
    assert [(value, group.ids) for value, group in page.groups] == [("b", (1, 8)), ("a", (2, 3))]
    assert page.end is not None
    assert (page.end.position.id, page.end.seen, page.end.groups) == (2, 2, ("b", "a"))
    assert page.voters == IDS
    assert page.ids() == set(IDS)


def test_the_next_page_of_groups() -> None:
    after = cursor(RankPosition(0.9, 2), 2, ("b", "a"))
    page = special(Page(2, group_by="label", cursor=after), GROUPS)
    assert page.groups is not None
    assert [(value, group.ids) for value, group in page.groups] == [("c", (4,))]
    assert page.end is None
    page = special(Page(1, 1, group_by="label", group_size=1), GROUPS)
    assert page.groups is not None
    assert [(value, group.ids) for value, group in page.groups] == [("a", (2,))]


def test_a_threshold_ends_groups_and_their_points() -> None:
    page = special(Page(5, 0, 0.85, group_by="label", group_size=3), GROUPS)
    assert page.groups is not None
    assert [(value, group.ids) for value, group in page.groups] == [("b", (1,)), ("a", (2,))]
    assert page.end is None
