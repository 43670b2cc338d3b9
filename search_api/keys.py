"""Who may use the API: keys and what each allows, origins, hosts, proxies, secrets in files."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

log = logging.getLogger(__name__)

SHORTEST_KEY = 16
"""Characters; shorter keys can be guessed."""

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Hosts, as in a URL, that always mean the machine that asks."""


class KeyFormatError(ValueError):
    """A key or a key file cannot be used."""


class Level(IntEnum):
    """What a key allows and what a request needs; each level includes those below it."""

    OPEN = 0
    READ = 1
    WRITE = 2


@dataclass(frozen=True, repr=False)
class Keys:
    """SHA-256 digests of the keys; the keys themselves are not kept. Falsy if there are none."""

    read: frozenset[bytes] = frozenset()
    write: frozenset[bytes] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.read or self.write)

    @staticmethod
    def of(read: Iterable[str] = (), write: Iterable[str] = ()) -> Keys:
        """Keys from their text.

        Raises:
            KeyFormatError: a key is too short or contains anything but printable ASCII.
        """
        return Keys(frozenset(map(_checked, read)), frozenset(map(_checked, write)))

    def __or__(self, other: Keys) -> Keys:
        return Keys(self.read | other.read, self.write | other.write)

    def level(self, key: str) -> Level:
        """What ``key`` allows.

        Takes the same time for any key: its digest is compared, in constant time, with every known
        digest.
        """
        digest = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        level = Level.OPEN
        for digests, allowed in ((self.read, Level.READ), (self.write, Level.WRITE)):
            for known in digests:
                level = max(level, allowed if hmac.compare_digest(digest, known) else Level.OPEN)
        return level


@dataclass(frozen=True)
class Access:
    """Keys, and whose requests are accepted.

    Attributes:
        keys: if there are none, anyone who can reach the address may do anything.
        origins: for CORS, such as ``https://shop.example``; if there are none, pages of other
            origins can neither read a response nor change anything.
        hosts: what requests may name as their host besides the loopback names, in lower case; if
            there are none, requests for any other host are refused unless there are keys.
        proxies: addresses and networks whose ``X-Forwarded-For`` and ``-Proto`` are believed.
    """

    keys: Keys = field(default_factory=Keys)
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()


def read_keys(read: str, write: str, file: Path | None) -> Keys:
    """The keys of an instance.

    Args:
        read: keys for searching, separated by commas or spaces.
        write: keys for changing the index as well, in the same form.
        file: a file with one further key per line, as ``read KEY`` or ``write KEY``; lines that
            start with ``#`` are comments.

    Raises:
        KeyFormatError: a key or the file cannot be used.
    """
    keys = Keys.of(read.replace(",", " ").split(), write.replace(",", " ").split())
    return keys | _read_file(file) if file else keys


def read_secret(file: Path) -> str:
    """The only word in a file, such as a key for another server.

    Raises:
        KeyFormatError: the file cannot be read, or holds anything else.
    """
    words = _text_of(file).split()
    if len(words) != 1:
        # They are not quoted: they may be keys.
        raise KeyFormatError(
            f"{file} holds {len(words)} words; expected the key or token and nothing else"
        )
    return words[0]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked(key: str) -> bytes:
    if len(key) < SHORTEST_KEY or not (key.isascii() and key.isprintable()):
        raise KeyFormatError(
            f"a key has {len(key)} characters; expected {SHORTEST_KEY} or more printable ASCII"
            " characters without spaces, for example from: openssl rand -hex 32"
        )
    return hashlib.sha256(key.encode()).digest()


def _read_file(file: Path) -> Keys:
    lines = _text_of(file).splitlines()
    found: dict[str, list[str]] = {"read": [], "write": []}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or words[0] not in found:
            # The line is not quoted: it may contain a key.
            raise KeyFormatError(f"line {number} of {file}: expected `read KEY` or `write KEY`")
        found[words[0]].append(words[1])
    if not (found["read"] or found["write"]):
        raise KeyFormatError(f"the key file {file} has no keys; add a line such as `write KEY`")
    return Keys.of(found["read"], found["write"])


def _text_of(file: Path) -> str:
    try:
        text = file.read_text("utf-8")
        mode = file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFormatError(f"the key file {file} cannot be read ({error})") from error
    # systemd lets only the service read its credentials, whatever the group's bits say.
    given = Path(os.environ.get("CREDENTIALS_DIRECTORY") or os.devnull)
    if mode & (0o004 if file.parent == given else 0o044):
        log.warning(
            "other users can read the key file %s (mode %04o); run chmod 600 on it",
            *(file, mode & 0o777),
        )
    return text
