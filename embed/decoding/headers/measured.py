"""What a format's module reads from a header; `embed.decoding.header` makes a `Header` of it."""

from __future__ import annotations

from dataclasses import dataclass


class UnreadableError(ValueError):
    """A header is damaged, or uses something that is not known here."""


@dataclass(frozen=True)
class Measured:
    """Size and cost of a picture.

    Attributes:
        width: in pixels.
        height: in pixels.
        memory: estimated bytes to decode it.
        excess: what it has far too much of, for people; empty if nothing.
    """

    width: int
    height: int
    memory: int
    excess: str = ""

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height
