"""A picture as stored in the catalogue."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

Scalar: TypeAlias = bool | int | float | str
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Payload: TypeAlias = dict[str, Json]

Origin: TypeAlias = Literal["corpus", "added"]
"""``corpus``: the corpus holds the picture. ``added``: the store holds its bytes."""


class Stamp(NamedTuple):
    """A file's size in bytes and its modification time in nanoseconds since 1970."""

    size: int
    modified_ns: int


NO_STAMP = Stamp(-1, -1)
"""Of a picture whose file must be looked at again, whatever its size and time."""


@dataclass(frozen=True)
class PayloadBounds:
    """How large what is stored with one picture may be.

    Attributes:
        size: of the payload as JSON in UTF-8, in bytes.
        keys: in all of its objects together.
        tags: in its list ``tags``.
        chars: of each key, of each tag, and of label and split.
    """

    size: int = 64 * 2**10
    keys: int = 512
    tags: int = 256
    chars: int = 1000


@dataclass(frozen=True, slots=True)
class Record:
    """A picture to store. ``source`` is its unique name, for example a path inside the corpus.

    ``content_hash`` identifies what was embedded: ``sha256:`` and the digest of an added picture's
    bytes, ``file:`` and that of a corpus picture's file, or ``pixels:`` and the digest of its
    pixels; None if unknown. ``size`` is that of an added picture's bytes, for the store's account
    of them; entries do not have it.
    """

    source: str
    split: str | None = None
    label: str | None = None
    payload: Payload = field(default_factory=dict)
    content_hash: str | None = None
    origin: Origin = "corpus"
    size: int | None = field(default=None, kw_only=True, compare=False)


@dataclass(frozen=True, slots=True)
class Entry(Record):
    """A stored picture: a Record with its id.

    ``edited``: label or split was set by hand, so the corpus no longer overrides them.
    """

    edited: bool = False
    id: int = field(kw_only=True)
