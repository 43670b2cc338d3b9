from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from index.conditions import Filter
from index.contract import UnknownIdError
from index.filters import parse_filter
from index.local.caches import EntryCache, SelectionCache
from index.local.catalogue import SqliteCatalogue
from index.records import Record
from tests.index.vectors import random_vectors

MODEL = "sha256:model"


@pytest.fixture
def catalogue(tmp_path: Path) -> SqliteCatalogue:
    catalogue = SqliteCatalogue(tmp_path / "catalogue.sqlite")
    records = [Record(f"{i}.png", "train", "cat", {"number": i}) for i in range(6)]
    catalogue.upsert(records, random_vectors(6, 4, 0), MODEL)
    return catalogue


def count_reads(catalogue: SqliteCatalogue, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    asked: list[list[int]] = []
    get = catalogue.get

    def counted(ids):  # type: ignore[no-untyped-def]
        asked.append(list(ids))
        return get(ids)

    monkeypatch.setattr(catalogue, "get", counted)
    return asked


def test_an_entry_is_read_once(catalogue: SqliteCatalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = count_reads(catalogue, monkeypatch)
    cache = EntryCache(catalogue, 10)
    first = cache.get([2, 1, 2])
    assert [entry.source for entry in first] == ["1.png", "0.png", "1.png"]
    again = cache.get([1, 2, 3])
    assert asked == [[2, 1], [3]]
    assert again[0] is first[1]


def test_changes_of_any_process_are_followed(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    cache = EntryCache(catalogue, 10)
    kept = cache.get([1, 2, 3])
    other = SqliteCatalogue(tmp_path / "catalogue.sqlite")
    other.update([2], label="dog", payload={"new": True})
    assert [entry.label for entry in cache.get([1, 2, 3])] == ["cat", "dog", "cat"]
    assert cache.get([2])[0].payload == {"number": 1, "new": True}
    assert cache.get([1])[0] is kept[0]
    other.delete([3])
    with pytest.raises(UnknownIdError) as error:
        cache.get([1, 3])
    assert error.value.ids == (3,)


def test_many_changes_at_once(
    catalogue: SqliteCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.local.caches._MAX_TOUCHED", 2)
    cache = EntryCache(catalogue, 10)
    cache.get(range(1, 7))
    catalogue.update([1, 2, 3], split="test")
    assert [entry.split for entry in cache.get(range(1, 5))] == ["test"] * 3 + ["train"]


def test_it_stays_small(catalogue: SqliteCatalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = count_reads(catalogue, monkeypatch)
    cache = EntryCache(catalogue, 2)
    cache.get([1, 2])
    cache.get([3])
    cache.get([2, 3])
    cache.get([1])
    assert asked == [[1, 2], [3], [1]]


def test_what_was_read_before_a_write_is_not_kept_after_it(
    catalogue: SqliteCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = EntryCache(catalogue, 10)
    get = catalogue.get

    def overtaken(ids):  # type: ignore[no-untyped-def]
        entries = get(ids)
        monkeypatch.setattr(catalogue, "get", get)
        catalogue.update([1], label="dog")
        cache.get([2])  # another thread's search, which learns of the write
        return entries

    monkeypatch.setattr(catalogue, "get", overtaken)
    assert cache.get([1])[0].label == "cat"
    assert cache.get([1])[0].label == "dog"


def labelled(label: str) -> Filter:
    return parse_filter({"must": [{"key": "label", "match": {"value": label}}]})


@pytest.fixture
def cats_and_dogs(tmp_path: Path) -> SqliteCatalogue:
    catalogue = SqliteCatalogue(tmp_path / "catalogue.sqlite")
    records = [Record(f"{i}.png", "train", ("cat", "dog")[i % 2]) for i in range(6)]
    catalogue.upsert(records, random_vectors(6, 4, 0), "m")
    return catalogue


def count_selections(catalogue: SqliteCatalogue, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    asked: list[Any] = []
    ids, members = catalogue.ids, catalogue.members
    monkeypatch.setattr(catalogue, "ids", lambda where: asked.append(where) or ids(where))
    monkeypatch.setattr(
        catalogue, "members", lambda key, where: asked.append(key) or members(key, where)
    )
    return asked


def test_a_selection_is_read_once_until_something_is_written(
    cats_and_dogs: SqliteCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count_selections(cats_and_dogs, monkeypatch)
    selections = SelectionCache(cats_and_dogs, 4)
    cats = selections.matching(labelled("cat"))
    assert selections.matching(labelled("cat")) is cats
    assert selections.members("label") is selections.members("label")
    assert asked == [labelled("cat"), "label"]
    first, second, third = cats.tolist()
    cats_and_dogs.update([second], label="dog")
    assert selections.matching(labelled("cat")).tolist() == [first, third]
    assert selections.members("label").values == ("cat", "dog")
    assert asked == [labelled("cat"), "label"] * 2


def test_the_oldest_selections_are_dropped_first(
    cats_and_dogs: SqliteCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count_selections(cats_and_dogs, monkeypatch)
    selections = SelectionCache(cats_and_dogs, 1)
    for label in ("cat", "dog", "dog", "cat"):
        selections.matching(labelled(label))
    assert asked == [labelled("cat"), labelled("dog"), labelled("cat")]
