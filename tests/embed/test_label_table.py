from __future__ import annotations

from pathlib import Path

import pytest

from embed.corpus import SPLITS
from embed.label_table import Row, TableError, read_table


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_rows_in_any_order_of_columns(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "Label, File ,note,split\n"
        "cat,a.png,x,train\n"
        '"dog, small",deep/b.png,,TEST\n'
        "\n"
        " ,c.png,,\n"
        "ship,deep\\d.png,,validation\n",
    )
    assert read_table(path, SPLITS) == [
        Row("a.png", "cat", "train"),
        Row("deep/b.png", "dog, small", "test"),
        Row("c.png", None, None),
        Row("deep/d.png", "ship", "val"),
    ]


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label\r\nä.png,Kätzchen\r\n", "utf-8-sig")
    assert read_table(path, SPLITS) == [Row("ä.png", "Kätzchen", None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the columns are none; expected a header with file, label"),
        ("a.png,cat\n", "line 1: the columns are a.png, cat; expected"),
        ("file;label\n", "separated by commas"),
        ("file,label,file\na,b,c\n", "each once"),
        ("file,label\n", "has no lines below its header"),
        ("file,label\na.png\n", "line 2: 1 fields; expected 2"),
        ("file,label\na.png,cat\n\nb,c.png,cat\n", "line 4: 3 fields; expected 2"),
        ("file,label\n,cat\n", "line 2: file is ''; expected a path below"),
        ("file,label\n/etc/a.png,cat\n", "line 2: file is '/etc/a.png'"),
        ("file,label\nx/../../a.png,cat\n", "expected a path below the table's folder"),
        ("file,label\na.png,cat\na.png,dog\n", "line 3: a.png is already in line 2"),
        ("file,label,split\na.png,cat,dev\n", "line 2: split is 'dev'; expected train, val"),
        ('file,label\n"a.png,cat\n', "cannot be read as a CSV table"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TableError) as caught:
        read_table(table(tmp_path, text), SPLITS)
    assert message in str(caught.value)
    assert "labels.csv" in str(caught.value)


def test_other_files(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", table(tmp_path, "file,label\n\xff.png,ü\n", "latin-1")):
        with pytest.raises(TableError, match="cannot be read as a CSV table"):
            read_table(path, SPLITS)
