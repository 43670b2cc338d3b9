"""The stamps of the corpus's files, and other sources for its pictures, on each engine."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.contract import IndexInputError
from index.filters import parse_filter
from index.local.catalogue import SqliteCatalogue
from index.records import NO_STAMP, Record, Stamp
from tests.index.milvus.conftest import Opener

XB = np.eye(3, dtype=np.float32)
ONE, TWO = Stamp(10, 1_700_000_000_123_456_789), Stamp(2**40, -5)


@pytest.fixture
def catalogue(open_store: Opener) -> Iterator[Any]:
    store = open_store()
    yield store.catalogue
    store.close()


@pytest.fixture
def ids(catalogue: Any) -> list[int]:
    """Of a, b and c."""
    found: list[int] = catalogue.upsert(
        [Record(name, "train", "cat", {"n": 1}, f"file:{name}") for name in "abc"], XB, "m"
    )
    return found


def sources(catalogue: Any) -> dict[str, int]:
    found: dict[str, int] = catalogue.all_sources()
    return found


def test_stamps_are_kept_by_id(catalogue: Any, ids: list[int]) -> None:
    a, b, _ = ids
    assert catalogue.stamps() == {}
    catalogue.set_stamps({a: ONE, b: TWO, 12345: ONE})
    assert catalogue.stamps() == {a: ONE, b: TWO}
    catalogue.set_stamps({b: ONE})
    assert catalogue.stamps() == {a: ONE, b: ONE}
    catalogue.delete([b])
    assert catalogue.stamps() == {a: ONE}


def test_a_stamp_is_of_one_content(catalogue: Any, ids: list[int]) -> None:
    a, b, c = ids
    catalogue.set_stamps({a: ONE, b: ONE, c: ONE}, {a: "file:a", b: "file:other", c: "file:c"})
    assert catalogue.stamps() == {a: ONE, c: ONE}
    catalogue.embed([a], XB[:1], "m", ["file:new"])
    assert catalogue.stamps() == {a: NO_STAMP, c: ONE}
    catalogue.embed([a], XB[:1], "m", ["file:a"])
    assert catalogue.stamps() == {a: ONE, c: ONE}


def test_a_renamed_picture_keeps_everything_else(catalogue: Any, ids: list[int]) -> None:
    a, b, _ = ids
    catalogue.set_stamps({a: ONE})
    before = catalogue.get([a])[0]
    assert catalogue.rename({a: "deep/er/a"}) == [a]
    (entry,) = catalogue.get([a])
    assert entry.source == "deep/er/a"
    assert (entry.id, entry.label, entry.split) == (a, "cat", "train")
    assert (entry.payload, entry.content_hash) == (before.payload, "file:a")
    found, xb = catalogue.embeddings("m")
    np.testing.assert_array_equal(xb[found.tolist().index(a)], XB[0])
    assert catalogue.stamps() == {a: ONE}
    assert set(sources(catalogue)) == {"deep/er/a", "b", "c"}
    where = parse_filter({"must": [{"key": "source", "match": {"value": "deep/er/a"}}]})
    assert catalogue.ids(where).tolist() == [a]
    # It is found under its new source by those who store, and its old one is free.
    assert catalogue.upsert([Record("deep/er/a", label="dog")], XB[1:2], "m") == [a]
    (new,) = catalogue.upsert([Record("a", label="new")], XB[2:], "m")
    assert new not in ids
    assert sources(catalogue) == {"deep/er/a": a, "a": new, "b": b, "c": ids[2]}
    assert catalogue.upsert([Record("a")], XB[2:], "m") == [new]


def test_pictures_exchange_their_sources(catalogue: Any, ids: list[int]) -> None:
    a, b, c = ids
    assert sorted(catalogue.rename({a: "b", b: "c", c: "a"})) == sorted(ids)
    assert sources(catalogue) == {"b": a, "c": b, "a": c}
    assert sorted(catalogue.rename({a: "c", b: "d"})) == sorted([a, b])
    assert sources(catalogue) == {"c": a, "d": b, "a": c}
    assert catalogue.upsert([Record("c"), Record("d")], XB[:2], "m") == [a, b]


def test_sources_in_use_and_tombstones_are_left(catalogue: Any, ids: list[int]) -> None:
    a, b, c = ids
    (added,) = catalogue.upsert([Record("key:k", origin="added")], XB[:1], "m")
    catalogue.delete([c], tombstone=True)
    assert catalogue.rename({a: "c", b: "a"}) == []  # a stays, so b must
    assert catalogue.rename({a: "key:k", added: "x", c: "y", a + 999: "z"}) == []
    assert catalogue.rename({a: "a"}) == []
    assert sources(catalogue) == {"a": a, "b": b, "key:k": added}
    for wrong in ({a: "x", b: "x"}, {a: ""}, {a: "nul\0"}):
        with pytest.raises(IndexInputError):
            catalogue.rename(wrong)


def test_a_store_of_an_earlier_version_has_no_stamps_yet(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    with SqliteCatalogue(path) as catalogue:
        (a,) = catalogue.upsert([Record("a")], XB[:1], "m")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE stamps")
    with SqliteCatalogue(path) as catalogue:
        assert catalogue.stamps() == {}
        catalogue.set_stamps({a: ONE})
        assert catalogue.stamps() == {a: ONE}


def test_a_snapshot_keeps_the_stamps(tmp_path: Path) -> None:
    with SqliteCatalogue(tmp_path / "catalogue.sqlite") as catalogue:
        a, b, c = catalogue.upsert([Record(n, None, None, {}, f"file:{n}") for n in "abc"], XB, "m")
        catalogue.set_stamps({a: ONE, b: ONE, c: ONE})
        catalogue.backup(tmp_path / "copy")
        catalogue.rename({a: "elsewhere"})
        catalogue.embed([b], XB[:1], "m", ["file:new"])
        catalogue.set_stamps({b: TWO})
        catalogue.delete([c])
        assert catalogue.stamps() == {a: ONE, b: TWO}
        catalogue.restore(tmp_path / "copy")
        # What b's file was when its present content was read is no longer known.
        assert catalogue.stamps() == {a: ONE, b: NO_STAMP, c: ONE}
        assert catalogue.all_sources() == {"a": a, "b": b, "c": c}
        assert catalogue.check() is None


def test_purging_forgets_the_stamp(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    with SqliteCatalogue(path) as catalogue:
        (a,) = catalogue.upsert([Record("a", content_hash="file:a")], XB[:1], "m")
        catalogue.set_stamps({a: ONE})
        catalogue.delete([a], tombstone=True)
        catalogue.trash.restore([a])
        assert catalogue.stamps() == {a: ONE}
        catalogue.delete([a], tombstone=True)
        catalogue.backup(tmp_path / "copy")
        catalogue.trash.purge([a])
    for file in (path, tmp_path / "copy"):
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("SELECT count(*) FROM stamps").fetchone() == (0,)


def test_each_id_can_get_its_own_payload(catalogue: Any, ids: list[int]) -> None:
    a, b, c = ids
    catalogue.update([a, b, c], payloads={a: {"x": 1}, c: {"n": 2}})
    assert [entry.payload for entry in catalogue.get(ids)] == [{"n": 1, "x": 1}, {"n": 1}, {"n": 2}]
    with pytest.raises(IndexInputError):
        catalogue.update([a, b], payloads={a: {"x": 3}, b: {"x": float("nan")}})
    assert catalogue.get([a])[0].payload == {"n": 1, "x": 1}
