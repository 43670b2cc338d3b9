from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from embed.corpus import SPLITS
from embed.label_table import Row, Table, TableError, read_table


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
    assert read_table(path, SPLITS) == Table(
        [
            Row("a.png", "cat", "train"),
            Row("deep/b.png", "dog, small", "test"),
            Row("c.png", None, None),
            Row("deep/d.png", "ship", "val"),
        ],
        ("note",),
    )


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label\r\nä.png,Kätzchen\r\n", "utf-8-sig")
    assert read_table(path, SPLITS).rows == [Row("ä.png", "Kätzchen", None)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_what_spreadsheets_write(tmp_path: Path, encoding: str) -> None:
    path = table(tmp_path, "file\tlabel\r\nä.png\tKätzchen, weiß\r\n", encoding)
    assert read_table(path, SPLITS).rows == [Row("ä.png", "Kätzchen, weiß", None)]


@pytest.mark.parametrize(
    "text",
    [
        "file;label\na.png;x, y\n",
        'sep=;\n"file";"label"\na.png;x, y\n',
        "sep=|\r\nfile|label\r\na.png|x, y\r\n",
        'File,Label\na.png,"x, y"\n',
    ],
)
def test_delimiters(tmp_path: Path, text: str) -> None:
    assert read_table(table(tmp_path, text), SPLITS).rows == [Row("a.png", "x, y", None)]


def test_tags(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label,Tags\na.png,cat,red; small|red\nb.png,cat,\n")
    assert [row.tags for row in read_table(path, SPLITS).rows] == [("red", "small"), ()]


def test_further_columns_as_payload(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "file,label,Price,year,stock number,seen\n"
        "a.png,cat,1.50,1990,00123,2024-05-01\n"
        "b.png,cat,2,,00124,\n",
    )
    found = read_table(path, SPLITS, payload=True)
    assert [row.payload for row in found.rows] == [
        {"Price": 1.5, "year": 1990, "stock number": "00123", "seen": "2024-05-01"},
        {"Price": 2.0, "year": None, "stock number": "00124", "seen": None},
    ]
    assert found.ignored == ()


def test_a_column_twice_matters_only_where_it_is_kept(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label,note,note\na.png,cat,1,2\n")
    assert len(read_table(path, SPLITS).rows) == 1
    with pytest.raises(TableError, match="the column note occurs more than once"):
        read_table(path, SPLITS, payload=True)


@pytest.mark.parametrize(
    "text",
    [
        "file;label;note\ra.png;cat, small;x\rb.png;dog;\r",
        "SEP=;\rfile;label;note\ra.png;cat, small;x\rb.png;dog;\r",
        '"sep=;"\r\nfile;label;note\r\na.png;cat, small;x\r\nb.png;dog;\r\n',
        "sep=;;\nfile;label;note\na.png;cat, small;x\nb.png;dog;\n",
        "\n;;\nfile;label;note\na.png;cat, small;x\nb.png;dog;\n",
        "file;label;note\na.png;cat, small;x;;\nb.png;dog\n",
    ],
)
def test_what_spreadsheets_leave_out_and_add(tmp_path: Path, text: str) -> None:
    found = read_table(table(tmp_path, text), SPLITS, payload=True)
    assert found.rows == [
        Row("a.png", "cat, small", None, None, {"note": "x"}),
        Row("b.png", "dog", None, None, {"note": None}),
    ]


def test_a_line_is_named_as_it_is_numbered_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="line 5: 3 fields; expected 2"):
        read_table(table(tmp_path, "\n\n\nfile,label\nb,c.png,cat\n"), SPLITS)


def test_other_spellings_of_a_path(tmp_path: Path) -> None:
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    text = f"file,label\n{tmp_path}/cats/a.png,cat\n{link}/b.png,cat\n./x/../cats/c.png,cat\n"
    table(tmp_path, text)
    names = [row.file for row in read_table(link / "labels.csv", SPLITS).rows]
    assert names == ["cats/a.png", "b.png", "cats/c.png"]
    with pytest.raises(TableError, match=r"line 3: cats/a.png is already in line 2"):
        read_table(table(tmp_path, "file,label\ncats/a.png,x\ncats/x/..//a.png,x\n"), SPLITS)


def test_tags_as_a_list(tmp_path: Path) -> None:
    text = """file\tlabel\ttags
a.png\tcat\t["red, dark", "big"]
b.png\tcat\t['red', 'big']
c.png\tcat\t[]
d.png\tcat\t[red; big]
e.png\tcat\t[1, 2]
"""
    text = text.replace('["red, dark", "big"]', '"[""red, dark"", ""big""]"')
    found = [row.tags for row in read_table(table(tmp_path, text), SPLITS).rows]
    assert found == [("red, dark", "big"), ("red", "big"), (), ("red", "big"), ("1", "2")]


def test_numbers_as_programs_write_them(tmp_path: Path) -> None:
    text = "file,label,small,number,café\na.png,cat,1e-05,12e5,x\nb.png,cat,.5,13e5,y\n"
    path = table(tmp_path, unicodedata.normalize("NFD", text))
    assert read_table(path, SPLITS, payload=True).rows[0].payload == {
        "small": 1e-05,
        "number": "12e5",
        "café": "x",
    }


def test_a_null_character_in_utf_8(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label,note\na.png,cat,x\0y\n")
    assert read_table(path, SPLITS, payload=True).rows[0].payload == {"note": "x\0y"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the columns are none; expected a header with file, label"),
        ("a.png,cat\n", "line 1: the columns are a.png, cat; expected"),
        ("name;label\n", "separated by commas, semicolons"),
        ("file;label\na.png;cat;x\n", "line 2: 3 fields; expected 2"),
        ("file,label,file\na,b,c\n", "the column file occurs more than once"),
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
    with pytest.raises(TableError, match="cannot be read as a CSV table: No such file"):
        read_table(tmp_path / "none.csv", SPLITS)
    path = table(tmp_path, "file,label\na.png,cat\n\xff.png,ü\n", "latin-1")
    with pytest.raises(TableError, match=r"line 3 is not UTF-8 \(byte 0xff\); save it as UTF-8"):
        read_table(path, SPLITS)
