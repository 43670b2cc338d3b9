"""Text that can be stored and printed, whatever it came from."""

from __future__ import annotations

SHOWN = 200
"""Characters of an input that an error text repeats."""


def shortened(text: str, most: int = SHOWN) -> str:
    """The text, or its start and its length if it has more than ``most`` characters."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def printable(text: str) -> str:
    """The text with escapes for what UTF-8 cannot encode, as in some file names."""
    return text.encode("utf-8", "backslashreplace").decode()
