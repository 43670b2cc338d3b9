from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from index.catalogue import Catalogue, Record
from index.filters import Filter, parse_filter
from index.selections import Selections
from tests.index.vectors import random_vectors


def labelled(label: str) -> Filter:
    return parse_filter({"must": [{"key": "label", "match": {"value": label}}]})


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    catalogue = Catalogue(tmp_path / "catalogue.sqlite")
    records = [Record(f"{i}.png", "train", ("cat", "dog")[i % 2]) for i in range(6)]
    catalogue.upsert(records, random_vectors(6, 4, 0), "m")
    return catalogue


def count_reads(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    asked: list[Any] = []
    ids, members = catalogue.ids, catalogue.members
    monkeypatch.setattr(catalogue, "ids", lambda where: asked.append(where) or ids(where))
    monkeypatch.setattr(
        catalogue, "members", lambda key, where: asked.append(key) or members(key, where)
    )
    return asked


def test_read_once_until_something_is_written(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count_reads(catalogue, monkeypatch)
    selections = Selections(catalogue, 4)
    cats = selections.matching(labelled("cat"))
    assert selections.matching(labelled("cat")) is cats
    assert selections.members("label") is selections.members("label")
    assert asked == [labelled("cat"), "label"]
    first, second, third = cats.tolist()
    catalogue.update([second], label="dog")
    assert selections.matching(labelled("cat")).tolist() == [first, third]
    assert selections.members("label").values == ("cat", "dog")
    assert asked == [labelled("cat"), "label"] * 2


def test_those_kept_longest_go_first(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = count_reads(catalogue, monkeypatch)
    selections = Selections(catalogue, 1)
    for label in ("cat", "dog", "dog", "cat"):
        selections.matching(labelled(label))
    assert asked == [labelled("cat"), labelled("dog"), labelled("cat")]
