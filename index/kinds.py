"""The kinds of index that a generation may hold: how each is written and read back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from index.local import ExactIndex
from index.neighbours import Searchable

EXACT_FILE = "index.faiss"


class UnknownKindError(ValueError):
    """A kind that this version of Lookalike does not have."""


@dataclass(frozen=True)
class Built:
    """What the manifest keeps of how an index was built; see `index.manifest.Manifest`."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    recall: Mapping[str, float] | None = None


def description(index: Searchable) -> Built:
    """How the index was built and how good it was then."""
    return Built()


def save(index: Searchable, folder: Path) -> tuple[str, ...]:
    """Write the index into the folder; return the names of its files."""
    if isinstance(index, ExactIndex):
        index.save(folder / EXACT_FILE)
        return (EXACT_FILE,)
    raise UnknownKindError(f"has kind {index.kind!r}, which cannot be saved")


def load(folder: Path, kind: str, parameters: Mapping[str, Any]) -> Searchable:
    """Read what `save` wrote.

    Raises UnknownKindError, and IndexFileError if a file cannot be used.
    """
    if kind == "exact":
        return ExactIndex.load(folder / EXACT_FILE)
    raise UnknownKindError(f"has kind {kind!r}; expected 'exact'")
