from __future__ import annotations

from pathlib import Path

import pytest

from index.catalogue import Catalogue, Record
from index.entries import EntryCache
from index.neighbours import UnknownIdError
from tests.index.vectors import random_vectors

MODEL = "sha256:model"


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    catalogue = Catalogue(tmp_path / "catalogue.sqlite")
    records = [Record(f"{i}.png", "train", "cat", {"number": i}) for i in range(6)]
    catalogue.upsert(records, random_vectors(6, 4, 0), MODEL)
    return catalogue


def count_reads(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    asked: list[list[int]] = []
    get = catalogue.get

    def counted(ids):  # type: ignore[no-untyped-def]
        asked.append(list(ids))
        return get(ids)

    monkeypatch.setattr(catalogue, "get", counted)
    return asked


def test_an_entry_is_read_once(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = count_reads(catalogue, monkeypatch)
    cache = EntryCache(catalogue, 10)
    first = cache.get([2, 1, 2])
    assert [entry.source for entry in first] == ["1.png", "0.png", "1.png"]
    again = cache.get([1, 2, 3])
    assert asked == [[2, 1], [3]]
    assert again[0] is first[1]


def test_changes_of_any_process_are_followed(catalogue: Catalogue, tmp_path: Path) -> None:
    cache = EntryCache(catalogue, 10)
    kept = cache.get([1, 2, 3])
    other = Catalogue(tmp_path / "catalogue.sqlite")
    other.update([2], label="dog", payload={"new": True})
    assert [entry.label for entry in cache.get([1, 2, 3])] == ["cat", "dog", "cat"]
    assert cache.get([2])[0].payload == {"number": 1, "new": True}
    assert cache.get([1])[0] is kept[0]
    other.delete([3])
    with pytest.raises(UnknownIdError) as error:
        cache.get([1, 3])
    assert error.value.ids == (3,)


def test_many_changes_at_once(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.entries._MOST_TOUCHED", 2)
    cache = EntryCache(catalogue, 10)
    cache.get(range(1, 7))
    catalogue.update([1, 2, 3], split="test")
    assert [entry.split for entry in cache.get(range(1, 5))] == ["test"] * 3 + ["train"]


def test_it_stays_small(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = count_reads(catalogue, monkeypatch)
    cache = EntryCache(catalogue, 2)
    cache.get([1, 2])
    cache.get([3])
    cache.get([2, 3])
    cache.get([1])
    assert asked == [[1, 2], [3], [1]]


def test_what_was_read_before_a_write_is_not_kept_after_it(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
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
