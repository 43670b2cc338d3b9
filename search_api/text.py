"""Text that can be stored and printed, whatever it came from."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from embed.folders.names import escaped

SHOWN = 200
"""Characters of an input that an error text repeats."""


def shortened(text: str, most: int = SHOWN) -> str:
    """The text, or its start and its length if it has more than ``most`` characters."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def unknown_name(kind: str, name: str, known: Iterable[str], meant: str | None = None) -> str:
    """What to say of a name that is not known: the nearest one that is, and all of them.

    Args:
        kind: what it is the name of, such as "parameter".
        name: the name.
        known: the names that are known.
        meant: the one that is meant, where that is clear for another reason.
    """
    names = list(known)
    near = difflib.get_close_matches(name[:100].lower(), names, 1)
    meant = meant or (near[0] if near else None)
    nearest = f"; did you mean {meant!r}?" if meant else ";"
    expected = ", ".join(names) if names else "none here"
    return f"unknown {kind} {shortened(name, 50)!r}{nearest} expected {expected}"


def parsed_json(text: str) -> Any:
    """JSON that was written by hand, as filters are.

    Raises:
        ValueError: it is no JSON, is nested too deep, or has a member twice.
    """
    try:
        return json.loads(text, object_pairs_hook=members)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The members of an object in JSON.

    Raises:
        ValueError: one is there twice, of which only the last would count.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(
            f"an object in the JSON has {shortened(twice, 50)!r} twice; send each member once"
        )
    return found


def printable(text: str) -> str:
    """The text with escapes for what UTF-8 cannot encode, as in some file names."""
    return escaped(text)


# Among them what begins a command to a terminal, and what changes the direction of writing.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def displayed(text: str, lines: bool = False) -> str:
    """The text with escapes for what would disturb a terminal and, unless ``lines``, for breaks."""
    text = _CONTROLS.sub(_escape, printable(text))
    return text if lines else re.sub(r"[\t\n]", _escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class PublicText:
    """Leaves absolute paths of this machine out of texts for clients.

    A path in one of ``roots`` becomes relative to it, any other its last part; a root itself
    becomes its name.
    """

    # Not after a letter, as in "and/or", nor in a URL; nor one of the API's own paths.
    _OTHER = re.compile(
        r"(?<![\w/:.<>{}])/(?!v1/|static/|static-offline-docs/)"
        r"(?:[^\s/'\"`,;:()\[\]]+/)+([^\s'\"`,;:()\[\]/]*)"
    )

    def __init__(self, roots: Iterable[Path]) -> None:
        found = {str(way) for root in roots for way in (root.absolute(), root.resolve())}
        longest_first = sorted(found - {"/"}, key=len, reverse=True)
        self._root = re.compile(
            r"(?<![\w/])(?:" + "|".join(map(re.escape, longest_first)) + r")(/(?=\w)|(?![\w.-]))"
        )

    def __call__(self, text: str) -> str:
        """The text without absolute paths."""
        if "/" not in text:
            return text
        return self._OTHER.sub(r"\1", self._root.sub(self._relative, text))

    @staticmethod
    def _relative(found: re.Match[str]) -> str:
        return "" if found[1] else Path(found[0]).name
