"""Which engine keeps a store, and where its added pictures are: remembered in the store's folder.

A store in SQLite and FAISS whose added pictures are in its folder needs no such file.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from index.files import write_atomically
from search_api.settings import StoreLocation

FILE = "store.json"


class LocationFileError(ValueError):
    """The file is damaged; the message names it and what to do."""


def keep_location(location: StoreLocation) -> None:
    """Remember where the store is, without the token of Milvus; nothing if nothing has changed."""
    path = location.var / FILE
    milvus = location.milvus
    values: dict[str, Any] = {}
    if milvus is not None:
        values = {"uri": _absolute(milvus.uri), "prefix": milvus.prefix, "flush": milvus.flush}
    if location.pictures is not None:
        values["pictures"] = _absolute(location.pictures)
    if path.exists() if not values else read_location(location.var) != values:
        text = json.dumps(values, indent=1) + "\n"
        with suppress(OSError):  # a store that can only be read
            write_atomically(path, lambda temporary: _write(temporary, text))


def read_location(var: Path) -> dict[str, Any]:
    """What is remembered: ``uri``, ``prefix`` and ``flush`` of Milvus, and ``pictures``.

    Raises:
        LocationFileError: the file is damaged.
    """
    path = var / FILE
    try:
        values = json.loads(path.read_bytes())
        if not isinstance(values, dict):
            raise ValueError("it is not an object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LocationFileError(
            f"{path} cannot be read ({error}); delete it, and name the store's place once with"
            " --index milvus, --milvus-uri, --milvus-prefix and --pictures"
        ) from error
    return values


def _absolute(place: str) -> str:
    """A path that means the same from any folder; a URL as it is."""
    return place if "://" in place else os.path.abspath(place)  # noqa: PTH100 - a link may be moved


def _write(path: Path, text: str) -> None:
    path.write_text(text)
