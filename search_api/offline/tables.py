"""Tables of classes and tags, as CSV, JSON Lines or Parquet."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from index.files import fsync_file, fsync_folder
from search_api.file_modes import users_files
from search_api.service.results import Prediction, Tagged
from search_api.text import printable

FORMATS = (".csv", ".jsonl", ".parquet")
COLUMNS = (
    *("path", "class", "confidence", "tags", "tag_shares", "error"),
    *("nearest_class", "grade", "source"),
)

# What spreadsheets take for the beginning of a formula (OWASP, CSV Injection); with apostrophes
# before it, so that removing one gives every value back.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\0\uff1d\uff0b\uff0d\uff20]")

Add = Callable[[Sequence[Tagged]], None]


class TagTableError(ValueError):
    """A table cannot be written under the given name."""


def check(path: Path) -> None:
    """Check that a table can be written to ``path``. Raises TagTableError."""
    if path.suffix.lower() not in FORMATS:
        raise TagTableError(
            f"{path} ends in {path.suffix!r}; expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        )
    if not path.parent.is_dir():
        raise TagTableError(f"the folder {path.parent} does not exist; create it first")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise TagTableError(
                f"{path} needs pyarrow, which is not installed; run"
                " pip install 'lookalike[parquet]', or write .csv or .jsonl"
            ) from None


@contextmanager
def table(path: Path) -> Iterator[Add]:
    """Gives a function that adds rows; the file appears, complete, when the block succeeds.

    CSV joins tags and their shares with ``;``, and text in it is safe to open in a spreadsheet, see
    `cell`. The other formats have lists and the text as it is, and JSON Lines also has the
    probabilities. Without ``class`` and ``error``, a picture is none of the classes. A row
    has both if only the picture's sidecar file could not be written.

    Raises:
        TagTableError: see `check`.
    """
    check(path)
    begin = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[path.suffix.lower()]
    partial = path.with_name(f".{path.name}.partial")
    try:
        with users_files():
            partial.touch()
        with begin(partial) as add:
            yield add
        fsync_file(partial)
        partial.replace(path)
        fsync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def row(result: Tagged) -> dict[str, Any]:
    """The values of a result by the names in ``COLUMNS``."""
    prediction = result.prediction
    return {
        "path": printable(str(result.path)),
        "class": prediction.label if prediction else None,
        "confidence": round(prediction.confidence, 6) if prediction else None,
        "tags": [word for word, _ in result.tags],
        "tag_shares": [round(share, 4) for _, share in result.tags],
        "error": None if result.error is None else printable(result.error),
        "nearest_class": prediction.nearest_class if prediction else None,
        "grade": prediction.grade if prediction else None,
        "source": prediction.source if prediction else None,
    }


def cell(text: str) -> str:
    """The text with an apostrophe before it if a spreadsheet would take it for a formula.

    The name of a picture, a label or a tag may be anybody's. To get the text back, remove one
    apostrophe where such a character follows the first apostrophes.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def prediction_values(prediction: Prediction | None) -> dict[str, Any]:
    """The members of a prediction in JSON, all of them null without one."""
    if prediction is None:
        return dict.fromkeys(
            ("class", "confidence", "nearest_class", "grade", "source", "probabilities")
        )
    return {
        "class": prediction.label,
        "confidence": round(prediction.confidence, 6),
        "nearest_class": prediction.nearest_class,
        "grade": prediction.grade,
        "source": prediction.source,
        "probabilities": {name: round(p, 6) for name, p in prediction.probabilities.items()},
    }


@contextmanager
def _csv(path: Path) -> Iterator[Add]:
    with path.open("w", encoding="utf-8", newline="") as file:
        # Text in quotes: where `;` separates cells, the first after one would begin a new cell.
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(COLUMNS)

        def add(results: Sequence[Tagged]) -> None:
            for values in map(row, results):
                safe = {k: cell(v) if isinstance(v, str) else v for k, v in values.items()}
                safe["tags"] = ";".join(map(cell, values["tags"]))
                safe["tag_shares"] = ";".join(map(str, values["tag_shares"]))
                writer.writerow(safe.values())

        yield add


@contextmanager
def _jsonl(path: Path) -> Iterator[Add]:
    with path.open("w", encoding="utf-8") as file:

        def add(results: Sequence[Tagged]) -> None:
            for result in results:
                values = row(result)
                if result.prediction is not None:
                    values["probabilities"] = prediction_values(result.prediction)["probabilities"]
                file.write(json.dumps(values, ensure_ascii=False) + "\n")

        yield add


@contextmanager
def _parquet(path: Path) -> Iterator[Add]:
    import pyarrow as pa
    from pyarrow import parquet

    text, number = pa.string(), pa.float64()
    types = (text, text, number, pa.list_(text), pa.list_(number), *[text] * 4)
    schema = pa.schema(list(zip(COLUMNS, types, strict=True)))
    with parquet.ParquetWriter(path, schema) as writer:

        def add(results: Sequence[Tagged]) -> None:
            writer.write_table(pa.Table.from_pylist([row(r) for r in results], schema))

        yield add
