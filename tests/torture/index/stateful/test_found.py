"""What random sequences found, as the shortest steps that lead to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.index.stateful.model import FIRST, SECOND, step
from tests.torture.index.stateful.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def test_a_generation_of_a_lost_timeline_is_not_served(world: World) -> None:
    world.back_up()
    world.run(step("add", uploads=[{"colour": 10, "key": "lost"}]), 0)
    world.run(step("compact"), 0)
    world.put_back(0)
    for colour in (11, 12, 13):
        world.run(step("add", uploads=[{"colour": colour}]), 0)
    world.reopen(0, 1)


@pytest.mark.parametrize("point", (4, 8, 12))
def test_bytes_that_a_snapshot_needs_outlive_a_compaction(world: World, point: int) -> None:
    deleted = step("delete", ids=[5, 6])
    world.race(step("snapshot", name="s"), [deleted, step("compact")], point)
    world.run(step("compact"), 1)


@pytest.mark.parametrize("point", (4, 8, 12))
def test_one_of_two_snapshots_of_a_name_wins(world: World, point: int) -> None:
    world.race(step("snapshot", name="s"), [step("snapshot", name="s")], point)
    assert set(world.state.snapshots) == {"s"}
    world.run(step("restore", name="s"), 1)


@pytest.mark.parametrize("point", range(5, 12))
def test_a_delete_is_not_undone_by_a_rebuild(world: World, point: int) -> None:
    world.put_file("1.png", 1, "c")
    world.race(step("rebuild"), [step("delete_one", id=2)], point)
    world.run(step("rebuild"), 1)


@pytest.mark.parametrize("point", range(5, 12))
def test_a_label_set_by_hand_is_not_overwritten_by_a_rebuild(world: World, point: int) -> None:
    world.put_file("1.png", 1, "c")
    world.race(step("rebuild"), [step("update", id=2, label="hand")], point)
    assert {p.label for p in world.state.pictures if p.id == 2} == {"hand"}


def test_adding_a_damaged_picture_again_mends_it(world: World) -> None:
    world.damage_picture(0, 0.5, False)
    world.run(step("add", uploads=[{"colour": 4}, {"colour": 5}]), 1)
    assert not world.disk.lost


def test_an_emptied_watermark_is_as_good_as_none(world: World) -> None:
    world.lose_watermark("emptied")


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw", "rabitq", "IVF1,SQ8"])
def test_an_emptied_store_can_be_built_and_switched(world: World, kind: str) -> None:
    world.run(step("delete", ids=range(1, 7)), 0)
    world.run(step("compact", kind=kind), 0)
    world.run(step("switch", model=SECOND), 0)
    world.run(step("add", uploads=[{"colour": 7}]), 1)
    world.run(step("switch", model=FIRST), 0)


@pytest.mark.parametrize("point", (3, 5, 7, 9))
def test_what_is_deleted_during_a_purge_stays_in_the_trash(world: World, point: int) -> None:
    world.run(step("add", uploads=[{"colour": 31}]), 1)
    world.run(step("delete", ids=[1, 5]), 0)
    world.race(step("purge"), [step("delete", ids=[4, 7])], point)
