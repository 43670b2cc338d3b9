"""Tables of classes and tags in each format."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from search_api.offline import tables
from search_api.service.results import Prediction, Tagged

CAT = Prediction(
    "cat", 0.96875, {"cat": 0.96875, "dog": 0.03125}, "cat", "much like the stored ones", "store"
)
NONE = replace(CAT, label=None, confidence=0.1, grade="unlike the stored ones")
RESULTS = [
    Tagged(Path("a;1.jpg"), CAT, (("tabby", 0.7), ("striped, grey", 0.3))),
    Tagged(Path("b\udc80.png"), error="the file is empty"),
]


def write(path: Path, results: Sequence[Tagged]) -> None:
    with tables.table(path) as add:
        add(results[:1])
        add(results[1:])


def test_shares_and_confidence_are_rounded() -> None:
    cat = replace(CAT, confidence=2 / 3, probabilities={"cat": 2 / 3})
    result = Tagged(Path("a.jpg"), cat, (("tabby", 1 / 3),))
    values = tables.row(result)
    assert (values["confidence"], values["tag_shares"]) == (0.666667, [0.3333])


def test_csv(tmp_path: Path) -> None:
    write(tmp_path / "tags.csv", RESULTS)
    with (tmp_path / "tags.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        [
            *("path", "class", "confidence", "tags", "tag_shares", "error"),
            *("nearest_class", "grade", "source"),
        ],
        [
            *("a;1.jpg", "cat", "0.96875", "tabby;striped, grey", "0.7;0.3", ""),
            *("cat", "much like the stored ones", "store"),
        ],
        ["b\\x80.png", "", "", "", "", "the file is empty", "", "", ""],
    ]


def test_none_of_the_classes_is_an_empty_class(tmp_path: Path) -> None:
    values = tables.row(Tagged(Path("a.jpg"), NONE))
    assert (values["class"], values["confidence"], values["nearest_class"]) == (None, 0.1, "cat")
    write(tmp_path / "tags.csv", [Tagged(Path("a.jpg"), NONE), RESULTS[0]])
    lines = (tmp_path / "tags.csv").read_text("utf-8").splitlines()
    empty = '""'
    assert lines[1] == ",".join(
        [
            *('"a.jpg"', empty, "0.1", empty, empty, empty),
            *('"cat"', '"unlike the stored ones"', '"store"'),
        ]
    )


FORMULAS = [
    "=1+1",
    "+1",
    "-2",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\0=1",
    "\uff1d1",
    "'=1",
    "''-1",
]
HARMLESS = ["cat.jpg", "'s-Hertogenbosch", "", "a=1", "1;=2", "''", "0.5"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_spreadsheet_takes_no_text_for_a_formula(tmp_path: Path, text: str) -> None:
    """A picture's name, a class and a tag may be anybody's."""
    evil = replace(CAT, label=text, nearest_class=text)
    tags = ((text, 0.7), ("b", 0.2), (text, 0.1))
    write(tmp_path / "tags.csv", [Tagged(Path(text), evil, tags, error=text), RESULTS[0]])
    with (tmp_path / "tags.csv").open(encoding="utf-8", newline="") as file:
        found = next(iter(csv.DictReader(file)))
    for name in ("path", "class", "error", "nearest_class"):
        assert found[name] == f"'{text}"
    assert found["tags"].split(";") == [f"'{text}", "b", f"'{text}"]
    assert (found["confidence"], found["tag_shares"]) == ("0.96875", "0.7;0.2;0.1")
    # Where `;` separates cells, an unquoted one would begin a new cell.
    raw = (tmp_path / "tags.csv").read_bytes().decode()
    assert f"\"'{text};b;'{text}\"" in raw


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_is_left_alone(text: str) -> None:
    assert tables.cell(text) == text


@pytest.mark.parametrize("text", FORMULAS + HARMLESS)
def test_the_text_can_be_got_back(text: str) -> None:
    """As docs/api.md says."""
    assert (
        re.sub(r"^'('*[=+\-@\t\r\n\0\uff1d\uff0b\uff0d\uff20])", r"\1", tables.cell(text)) == text
    )


def test_numbers_stay_numbers_and_other_formats_exact(tmp_path: Path) -> None:
    write(
        tmp_path / "tags.jsonl", [Tagged(Path("=1.jpg"), replace(CAT, confidence=-0.5)), *RESULTS]
    )
    first = json.loads((tmp_path / "tags.jsonl").read_text("utf-8").splitlines()[0])
    assert (first["path"], first["confidence"]) == ("=1.jpg", -0.5)
    write(tmp_path / "tags.csv", [Tagged(Path("=1.jpg"), replace(CAT, confidence=-0.5)), *RESULTS])
    assert '"\'=1.jpg","cat",-0.5,' in (tmp_path / "tags.csv").read_text("utf-8")


def test_jsonl(tmp_path: Path) -> None:
    write(tmp_path / "tags.jsonl", RESULTS)
    first, second = map(json.loads, (tmp_path / "tags.jsonl").read_text("utf-8").splitlines())
    assert first == {
        "path": "a;1.jpg",
        "class": "cat",
        "confidence": 0.96875,
        "tags": ["tabby", "striped, grey"],
        "tag_shares": [0.7, 0.3],
        "error": None,
        "nearest_class": "cat",
        "grade": "much like the stored ones",
        "source": "store",
        "probabilities": {"cat": 0.96875, "dog": 0.03125},
    }
    assert (second["class"], second["tags"], second["error"]) == (None, [], "the file is empty")


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "tags.parquet", RESULTS)
    found = parquet.read_table(tmp_path / "tags.parquet").to_pylist()
    assert found == [tables.row(result) for result in RESULTS]


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(tables.TagTableError, match=r"pip install 'lookalike\[parquet\]'"):
        tables.check(tmp_path / "tags.parquet")


@pytest.mark.parametrize(
    ("name", "words"),
    [("tags.xlsx", r"ends in '\.xlsx'; expected \.csv"), ("none/tags.csv", "none does not exist")],
)
def test_other_names_are_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(tables.TagTableError, match=words):
        tables.check(tmp_path / name)
    tables.check(tmp_path / "TAGS.CSV")


def test_a_table_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("old")
    with pytest.raises(KeyError), tables.table(tmp_path / "tags.csv") as add:
        add(RESULTS)
        raise KeyError
    assert (tmp_path / "tags.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["tags.csv"]
