"""Text that can be stored and printed, whatever it came from."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with escapes for what UTF-8 cannot encode, as in some file names."""
    return text.encode("utf-8", "backslashreplace").decode()
