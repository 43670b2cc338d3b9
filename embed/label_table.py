"""A table of pictures: a CSV file with their labels and, optionally, their splits."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath
from typing import NamedTuple

COLUMNS = ("file", "label", "split")


class TableError(ValueError):
    """The table cannot be used; the message names the line."""


class Row(NamedTuple):
    """``file`` as a path below the table's folder; ``label`` and ``split`` None where empty."""

    file: str
    label: str | None
    split: str | None


def read_table(path: Path, splits: dict[str, str]) -> list[Row]:
    """The rows of a CSV file whose first line names its columns.

    ``file`` (relative to the table's folder) and ``label`` are required, ``split`` is optional;
    other columns are ignored. Empty lines are skipped.

    Args:
        path: the file, UTF-8, with or without a byte order mark.
        splits: the values allowed under ``split``, in lower case, and the split each one means.

    Raises:
        TableError: not a readable table; the message names the first unusable line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _rows(path, csv.reader(file, strict=True), splits)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path} cannot be read as a CSV table: {error}") from error


def _rows(path: Path, reader: csv._reader, splits: dict[str, str]) -> list[Row]:  # type: ignore[name-defined]
    header = [name.strip().lower() for name in next(reader, [])]
    missing = [name for name in COLUMNS[:2] if name not in header]
    doubled = [name for name in COLUMNS if header.count(name) > 1]
    if missing or doubled:
        raise TableError(
            f"{path}, line 1: the columns are {', '.join(header) or 'none'}; expected a header"
            " with file, label and, optionally, split, each once, separated by commas"
        )
    columns = {name: header.index(name) for name in COLUMNS if name in header}
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for fields in reader:
        if not any(field.strip() for field in fields):
            continue
        line = f"{path}, line {reader.line_num}"
        if len(fields) != len(header):
            raise TableError(
                f"{line}: {len(fields)} fields; expected {len(header)}, as in the header"
                " (a name that contains a comma needs quotes)"
            )
        found = {name: fields[column].strip() for name, column in columns.items()}
        source = _inside(found["file"], line)
        if source in seen:
            raise TableError(f"{line}: {source} is already in line {seen[source]}; remove one")
        split = found.get("split", "").lower()
        if split and split not in splits:
            raise TableError(
                f"{line}: split is {found['split']!r}; expected {', '.join(splits)} or nothing"
            )
        seen[source] = reader.line_num
        rows.append(Row(source, found["label"] or None, splits.get(split)))
    if not rows:
        raise TableError(f"{path} has no lines below its header; expected one per picture")
    return rows


def _inside(name: str, line: str) -> str:
    file = PurePosixPath(name.replace("\\", "/"))
    if not name or file.is_absolute() or ".." in file.parts or "\0" in name:
        raise TableError(f"{line}: file is {name!r}; expected a path below the table's folder")
    return file.as_posix()
