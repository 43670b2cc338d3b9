"""The blocks between markers in a document that figures are written into.

    <!-- bench: index -->
    > Measured: model sha256:…; revision …

    | index | …
    <!-- /bench -->

A part of `make bench` writes the block of its name. Other blocks are measured by hand, with a stamp
of the same form.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

_BEGIN = re.compile(r"<!-- bench: ([a-z0-9-]+) -->")
_END = "<!-- /bench -->"
_STAMP = "> Measured: "
_RULE = re.compile(r"\|(\s*:?-+:?\s*\|)+")


class MarkerError(ValueError):
    """Markers in a document do not belong together."""


@dataclass(frozen=True)
class Block:
    """Lines ``start`` to ``end`` of a document, without their markers; counted from zero."""

    name: str
    start: int
    end: int
    lines: list[str]

    @property
    def stamp(self) -> str | None:
        """What the figures belong to, in one line."""
        for i, line in enumerate(self.lines):
            if line.startswith(_STAMP):
                rest = self.lines[i:]
                quoted = [x[1:] for x in rest[: _first_other(rest)]]
                return " ".join(" ".join(quoted).split()).removeprefix(_STAMP[2:])
        return None

    @property
    def has_table(self) -> bool:
        return any(map(is_table, self.lines))


def is_table(line: str) -> bool:
    """Whether this is the line below the head of a Markdown table."""
    return _RULE.fullmatch(line.strip()) is not None


def blocks(text: str) -> dict[str, Block]:
    """The blocks of a document by name.

    Raises:
        MarkerError: a block is not closed, is opened within another or twice, or is closed without
            having been opened.
    """
    found: dict[str, Block] = {}
    name, start = None, 0
    lines = text.splitlines()
    for i, line in enumerate(lines):
        opening = _BEGIN.fullmatch(line.strip())
        if opening and name is not None:
            raise MarkerError(f"line {i + 1}: `{line}` within the block {name!r}; close that first")
        if opening and opening[1] in found:
            raise MarkerError(f"line {i + 1}: there is a block {opening[1]!r} already")
        if opening:
            name, start = opening[1], i + 1
        elif line.strip() == _END and name is None:
            raise MarkerError(f"line {i + 1}: `{line}` closes nothing")
        elif line.strip() == _END:
            found[name] = Block(name, start, i, lines[start:i])
            name = None
        elif "<!-- bench" in line or "<!-- /bench" in line:
            raise MarkerError(
                f"line {i + 1}: `{line}` is no marker; expected `<!-- bench: name -->`"
            )
    if name is not None:
        raise MarkerError(f"the block {name!r} of line {start} is never closed: add `{_END}`")
    return found


def block_of(path: Path, name: str) -> Block:
    """The block of a document.

    Raises:
        MarkerError: the document has no such block, or its markers are broken.
    """
    block = blocks(path.read_text("utf-8")).get(name)
    if block is None:
        raise MarkerError(
            f"{path.name} has no block {name!r}: put `<!-- bench: {name} -->` and `{_END}`"
            " where its tables belong"
        )
    return block


def write(path: Path, name: str, stamp: str, text: str) -> None:
    """Replace a block; the rest of the document stays as it is.

    Raises:
        MarkerError: the document has no such block, or its markers are broken.
    """
    block = block_of(path, name)
    # The stamp is not broken at hyphens: a date and a name stay whole.
    head = textwrap.wrap(
        stamp, 98, initial_indent=_STAMP, subsequent_indent="> ", break_on_hyphens=False
    )
    lines = path.read_text("utf-8").splitlines()
    lines[block.start : block.end] = ["", *head, "", *text.strip().splitlines(), ""]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _first_other(lines: list[str]) -> int:
    return next((i for i, line in enumerate(lines) if not line.startswith(">")), len(lines))
