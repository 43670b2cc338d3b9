"""Which stored picture an added one is: the one with its key or, of a file, with its place."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from index.contract import Catalogue, IndexInputError
from index.payload import check_text, nfc, spellings
from index.records import Entry, Payload

PREFIX = "key:"
"""What the source of an added picture with a key begins with."""

_FILE, _PLACE = "file", "path_sha256"
_LONGEST_KEY = 1000


@dataclass(frozen=True)
class Place:
    """Where the file of an added picture is.

    Another content at the same place is a replacement; another place is another picture, even with
    the same name.

    Attributes:
        name: names the place in the payload, without revealing the path.
        key: the preferred key.
        longer: keys to use where another picture has that, best first.
        others: further keys that the picture may have been given before.
    """

    name: str
    key: str
    longer: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @staticmethod
    def of(file: Path, key: str, prefix: str = "") -> Place:
        """The place of a file.

        Args:
            file: its path.
            key: its path within what is added, which need not be unique.
            prefix: comes before all keys.
        """
        path = file.resolve()
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
        parts = path.parts[1:]
        ends = ["/".join(parts[-length:]) for length in range(1, len(parts) + 1)]
        ends = [end for end in ends if len(end) <= _LONGEST_KEY and _is_text(end)]
        longer = [end for end in ends if end.count("/") > key.count("/")]
        return Place(
            name,
            prefix + key,
            tuple(prefix + one for one in (*longer, f"{key}#{name}")),
            tuple(prefix + one for one in ends if one not in longer),
        )


@dataclass(frozen=True)
class Identity:
    """Which picture is added.

    Attributes:
        source: its source in the catalogue.
        entry: what is stored under it now, or None.
        same: whether that has the same content.
    """

    source: str
    entry: Entry | None = None
    same: bool = False

    @property
    def key(self) -> str | None:
        """Its key, if it has one."""
        return self.source.removeprefix(PREFIX) if self.source.startswith(PREFIX) else None


@dataclass(frozen=True)
class Wanted:
    """A picture to be identified: its ``content`` hash and, if any, its ``key`` or ``place``."""

    content: str
    key: str | None = None
    place: Place | None = None

    def possible_keys(self) -> tuple[str, ...]:
        """All keys that it may be stored under."""
        if self.place is not None:
            return (self.place.key, *self.place.longer, *self.place.others)
        return () if self.key is None else (self.key,)


def identify(catalogue: Catalogue, pictures: Sequence[Wanted]) -> list[Identity]:
    """Which picture each of these is.

    One with a key is what is stored under it. A file is what was added from its place; otherwise
    what an earlier version, which kept no places, stored with the same content under one of its
    keys; otherwise a new picture with the first of its keys that no other has. Keys that look alike
    are one.

    Raises:
        IndexInputError: a key is given twice, or is no text.
    """
    sources = {
        source for one in pictures for key in one.possible_keys() for source in _sources(key)
    }
    stored = catalogue.of_sources(sorted(sources)) if sources else {}
    claimed: set[str] = set()
    found = []
    for one in pictures:
        if one.place is not None:
            identity = _of_place(one.place, one.content, stored, claimed)
        elif one.key is not None:
            identity = _of_key(one.key, one.content, stored, claimed)
        else:
            identity = Identity(f"added:{uuid.uuid4().hex}")
        claimed.add(identity.source)
        found.append(identity)
    return found


def with_place(payload: Payload, place: Place | None) -> Payload:
    """The payload of a new picture with its place."""
    about = payload.get(_FILE)
    if place is None or not isinstance(about, dict):
        return payload
    return {**payload, _FILE: {**about, _PLACE: place.name}}


def _of_key(key: str, content: str, stored: dict[str, Entry], claimed: set[str]) -> Identity:
    entry = _stored(key, stored)
    # Composed, unless an earlier version has stored it otherwise.
    source = nfc(PREFIX + key) if entry is None else entry.source
    if source in claimed:
        raise IndexInputError(f"the key {key!r} is given more than once; expected each key once")
    return Identity(source, entry, entry is not None and entry.content_hash == content)


def _of_place(place: Place, content: str, stored: dict[str, Entry], claimed: set[str]) -> Identity:
    keys = (place.key, *place.longer, *place.others)
    entries = [entry for key in keys if (entry := _stored(key, stored)) is not None]
    unclaimed = [entry for entry in entries if entry.source not in claimed]
    for entry in unclaimed:
        if _place_of(entry) == place.name:
            return Identity(entry.source, entry, entry.content_hash == content)
    for entry in unclaimed:
        if _place_of(entry) is None and entry.content_hash == content:
            return Identity(entry.source, entry, same=True)
    for key in (place.key, *place.longer):
        source = nfc(PREFIX + key)
        if source not in claimed and _stored(key, stored) is None:
            return Identity(source)
    raise IndexInputError(f"other pictures have all keys of {place.key!r}; use --prefix or --key")


def _stored(key: str, stored: dict[str, Entry]) -> Entry | None:
    return next((stored[source] for source in _sources(key) if source in stored), None)


def _sources(key: str) -> tuple[str, ...]:
    """The sources that a picture with this key may have."""
    return spellings(PREFIX + check_text(key, "key"))


def _place_of(entry: Entry) -> object:
    about = entry.payload.get(_FILE)
    return about.get(_PLACE) if isinstance(about, dict) else None


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
