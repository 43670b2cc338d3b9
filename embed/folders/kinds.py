"""What kinds of files a folder holds besides pictures, and why they are not taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


class Skipped(NamedTuple):
    """Why a file, or all files of a folder, are not taken.

    Attributes:
        kind: what it is, in words that several have in common: ``.mov``, ``links``.
        reason: a sentence for people.
        files: how many files this stands for: more than one for a folder.
    """

    kind: str
    reason: str
    files: int = 1


def count_kinds(skipped: Iterable[Skipped]) -> dict[str, int]:
    """How many files are skipped of each kind, the most frequent first."""
    counts = Counter[str]()
    for one in skipped:
        counts[one.kind] += one.files
    return dict(sorted(counts.items(), key=lambda found: (-found[1], found[0])))
