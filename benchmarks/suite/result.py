"""What a part of `make bench` is given, and what it returns."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_STARTED = time.monotonic()


@dataclass(frozen=True)
class Work:
    """Where a part finds what it measures.

    Attributes:
        data: the folder that contains CIFAR-10.
        folder: kept from part to part and from run to run, ignored by git; see `suite.prepared`.
        short: as little as shows that the part works; its figures are not kept.
    """

    data: Path
    folder: Path
    short: bool = False

    def say(self, text: str) -> None:
        """Tell who waits what is measured now, with the seconds since the part started."""
        print(f"    {time.monotonic() - _STARTED:4.0f} s  {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Headline:
    """A row of the README's table.

    Attributes:
        what: was measured, with its unit.
        ours: Lookalike's figure.
        peer: what it is compared with, with its figure.
        ratio: how many times better ours is.
    """

    what: str
    ours: str
    peer: str
    ratio: float


@dataclass(frozen=True)
class Result:
    """What a part found.

    Attributes:
        text: Markdown: its tables, and lines about what they show.
        n: of how many measurements and pictures, for the stamp.
        threads: for the stamp.
        models: names of those in `machine.digests` that the figures depend on; none where the
            figures are the same for every model.
        packages: distributions whose versions matter.
        headlines: for the README.
    """

    text: str
    n: str
    threads: str
    models: Sequence[str] = ("model",)
    packages: Sequence[str] = ()
    headlines: Sequence[Headline] = field(default_factory=tuple)
    ratios: dict[str, float] = field(default_factory=dict)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; None is an empty cell."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"{len(columns)} columns, but the row {row}")
        lines.append("| " + " | ".join("" if cell is None else str(cell) for cell in row) + " |")
    return "\n".join(lines)
