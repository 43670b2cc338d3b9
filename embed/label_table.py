"""A table of pictures: a CSV file with their labels and, optionally, splits, tags and more."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from embed.folders.names import nfc

ENDINGS = (".csv", ".tsv", ".tab", ".txt")
COLUMNS = ("file", "label", "split", "tags")
DELIMITERS = (",", ";", "\t", "|")
_TAG_SEPARATORS = re.compile("[,;|]")
# UTF-32 first: its mark starts with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Without leading zeros, which a stock number has and a number loses.
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
# An exponent alone, as in 12e5, may be part of a name; a signed one, as in 1e-05, is a number.
_DECIMAL = re.compile(
    r"-?(0|[1-9][0-9]{0,17})?\.[0-9]+([eE][+-]?[0-9]{1,2})?"
    r"|-?(0|[1-9][0-9]{0,17})[eE][+-][0-9]{1,2}"
)
_DECLARED = re.compile(r'"?sep=(.)[^\r\n]*(?:\r\n|\r|\n)', re.IGNORECASE)


class TableError(ValueError):
    """The table cannot be used; the message names the line."""


@dataclass(frozen=True)
class Row:
    """A picture in a table.

    Attributes:
        file: its path below the table's folder.
        label: None where empty.
        split: None where empty.
        tags: of the column ``tags``; None if there is no such column.
        payload: the values of the further columns, None where empty; numbers where the whole
            column holds numbers.
    """

    file: str
    label: str | None
    split: str | None
    tags: tuple[str, ...] | None = None
    payload: Mapping[str, int | float | str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """What was read.

    Attributes:
        rows: in the file's order.
        ignored: the names of the columns that were not kept.
    """

    rows: list[Row]
    ignored: tuple[str, ...] = ()


def read_table(path: Path, splits: dict[str, str], payload: bool = False) -> Table:
    """The rows of a CSV file whose first line names its columns.

    ``file`` (relative to the table's folder) and ``label`` are required, ``split`` and ``tags``
    are optional. Empty lines are skipped. Columns are separated by commas, semicolons, tabs or
    vertical bars, which the first line shows; tags likewise, or they are a list as JSON or Python
    writes it. Empty cells at the end of a line may be missing.

    Args:
        path: the file, in UTF-8 or UTF-16, with or without a byte order mark.
        splits: the values allowed under ``split``, in lower case, and the split each one means.
        payload: keep the further columns.

    Raises:
        TableError: not a readable table; the message names the first unusable line.
    """
    try:
        text = _decoded(path, path.read_bytes())
    except OSError as error:
        raise TableError(f"{path} cannot be read as a CSV table: {error.strerror}") from error
    try:
        return _table(path, text, splits, payload)
    except csv.Error as error:
        raise TableError(f"{path} cannot be read as a CSV table: {error}") from error


def _decoded(path: Path, data: bytes) -> str:
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    begin = data[:256]
    if encoding is None and 3 * begin.count(0) > len(begin):
        # The text of its first line is ASCII, so every other byte is zero.
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    try:
        return data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TableError(
            f"{path} cannot be read as a CSV table: line {line} is not {encoding or 'UTF-8'}"
            f" (byte 0x{data[error.start]:02x}); save it as UTF-8, which spreadsheets call"
            " “CSV UTF-8”"
        ) from error


def _table(path: Path, text: str, splits: dict[str, str], payload: bool) -> Table:
    declared = _DECLARED.match(text)  # how Excel is told
    skipped = 1 if declared else 0
    if declared:
        text = text[declared.end() :]
    while blank := re.match(r"[\s,;|]*?(?:\r\n|\r|\n)", text):
        text, skipped = text[blank.end() :], skipped + 1
    delimiter = declared[1] if declared else _delimiter(re.split("[\r\n]", text, maxsplit=1)[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header = _header(path, next(reader, []), 1 + skipped, payload)
    columns = {name: header.index(name) for name in COLUMNS if name in header}
    further = {name: at for at, name in enumerate(header) if name and name not in COLUMNS}
    least = 1 + max(columns[name] for name in COLUMNS[:2])
    rows: list[Row] = []
    values: list[list[str]] = []
    seen: dict[str, int] = {}
    for fields in reader:
        if not any(field.strip() for field in fields):
            continue
        number = reader.line_num + skipped
        line = f"{path}, line {number}"
        # Spreadsheets leave out empty cells at the end of some lines, and add some to others.
        if len(fields) >= least:
            fields += [""] * (len(header) - len(fields))
        if len(fields) < least or any(field.strip() for field in fields[len(header) :]):
            raise TableError(
                f"{line}: {len(fields)} fields; expected {len(header)}, as in the header"
                f" (a name that contains {delimiter!r} needs quotes)"
            )
        row = _row({n: fields[at].strip() for n, at in columns.items()}, line, splits, path.parent)
        if row.file in seen:
            raise TableError(f"{line}: {row.file} is already in line {seen[row.file]}; remove one")
        seen[row.file] = number
        rows.append(row)
        values.append([fields[at].strip() for at in further.values()] if payload else [])
    if not rows:
        raise TableError(f"{path} has no lines below its header; expected one per picture")
    if not payload:
        return Table(rows, tuple(further))
    columns_of = [_typed(column) for column in zip(*values, strict=True)]
    return Table(
        [
            replace(
                row,
                payload={name: column[n] for name, column in zip(further, columns_of, strict=True)},
            )
            for n, row in enumerate(rows)
        ]
    )


def _delimiter(header: str) -> str:
    """The one that separates ``file`` and ``label``; a comma if none does."""
    for delimiter in DELIMITERS:
        names = {name.strip().strip('"').strip().lower() for name in header.split(delimiter)}
        if names.issuperset(COLUMNS[:2]):
            return delimiter
    return DELIMITERS[0]


def _header(path: Path, names: Sequence[str], line: int, payload: bool) -> list[str]:
    """The names of the columns; those known here in lower case."""
    header = [nfc(name.strip()) for name in names]
    header = [name.lower() if name.lower() in COLUMNS else name for name in header]
    if any(name not in header for name in COLUMNS[:2]):
        raise TableError(
            f"{path}, line {line}: the columns are {', '.join(header) or 'none'}; expected a header"
            " with file, label and, optionally, split and tags, each once, separated by commas,"
            " semicolons, tabs or vertical bars"
        )
    used = set(header) - {""} if payload else COLUMNS
    doubled = [name for name in header if name in used and header.count(name) > 1]
    if doubled:
        raise TableError(
            f"{path}, line {line}: the column {doubled[0]} occurs more than once; expected each"
            " once"
        )
    return header


def _row(found: Mapping[str, str], line: str, splits: dict[str, str], folder: Path) -> Row:
    split = found.get("split", "").lower()
    if split and split not in splits:
        raise TableError(
            f"{line}: split is {found['split']!r}; expected {', '.join(splits)} or nothing"
        )
    tags = None
    if "tags" in found:
        tags = tuple(dict.fromkeys(t for tag in _listed(found["tags"]) if (t := tag.strip())))
    return Row(
        _inside(found["file"], line, folder), found["label"] or None, splits.get(split), tags
    )


def _listed(text: str) -> list[str]:
    """The tags of a cell: a list as JSON or as Python writes it, or separated."""
    if not (text.startswith("[") and text.endswith("]")):
        return _TAG_SEPARATORS.split(text)
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text)
        if all(isinstance(tag, str) for tag in found):
            return list(found)
    return [tag.strip().strip("'\"") for tag in _TAG_SEPARATORS.split(text[1:-1])]


def _inside(name: str, line: str, folder: Path) -> str:
    """The path below ``folder``; it may be given as an absolute one, or with steps up."""
    file = PurePosixPath(posixpath.normpath(name.replace("\\", "/")))
    for root in (folder.absolute(), folder.resolve()):
        if file.is_relative_to(root):
            file = file.relative_to(root)
    if not file.parts or file.is_absolute() or ".." in file.parts or "\0" in name or not name:
        raise TableError(f"{line}: file is {name!r}; expected a path below the table's folder")
    return file.as_posix()


def _typed(column: Sequence[str]) -> list[int | float | str | None]:
    """The values of a column, None where empty: all numbers, or all text."""
    found = [value for value in column if value]
    if all(_INTEGER.fullmatch(value) for value in found):
        return [int(value) if value else None for value in column]
    if all(_INTEGER.fullmatch(value) or _DECIMAL.fullmatch(value) for value in found):
        return [float(value) if value else None for value in column]
    return [value or None for value in column]
