"""Who may do what: API keys, and what each request needs."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

SHORTEST_KEY = 16
"""Characters; what is shorter can be guessed."""

READ_ONLY_POSTS = frozenset(
    {"/v1/search", "/v1/search/batch", "/v1/classify", "/v1/recommend", "/v1/recommend/images"}
)
"""The only POST paths that change nothing and so need no write key. Every other request that is
not GET, HEAD or OPTIONS needs one, also on routes that do not exist yet."""

# The programs of the pages hold no data and come with every copy of this project. What they show,
# they fetch with the key that the visitor gives them.
OPEN_PATHS = frozenset(
    {"/", "/livez", "/readyz", "/healthz", "/docs", "/redoc", "/openapi.json"}
    | {"/docs/oauth2-redirect"}
)
OPEN_PREFIXES = ("/static/", "/static-offline-docs/")


class KeyFormatError(ValueError):
    """A key, or the file of keys, cannot be used."""


class Level(IntEnum):
    """What a key opens, and what a request needs; each level includes those below it."""

    OPEN = 0
    READ = 1
    WRITE = 2


def needed(method: str, path: str) -> Level:
    """What a request needs once keys are set: writing, unless it is known to only read."""
    if method in ("GET", "HEAD", "OPTIONS"):
        if path in OPEN_PATHS or path.startswith(OPEN_PREFIXES):
            return Level.OPEN
        return Level.READ
    if method == "POST" and path in READ_ONLY_POSTS:
        return Level.READ
    return Level.WRITE


@dataclass(frozen=True, repr=False)
class Keys:
    """SHA-256 digests of the keys; the keys themselves are not kept. Falsy where there are none."""

    read: frozenset[bytes] = frozenset()
    write: frozenset[bytes] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.read or self.write)

    @staticmethod
    def of(read: Iterable[str] = (), write: Iterable[str] = ()) -> Keys:
        """Keys from their text.

        Raises:
            KeyFormatError: a key is too short or holds other than printable ASCII.
        """
        return Keys(frozenset(map(_checked, read)), frozenset(map(_checked, write)))

    def __or__(self, other: Keys) -> Keys:
        return Keys(self.read | other.read, self.write | other.write)

    def level(self, key: str) -> Level:
        """What ``key`` opens.

        In a time that depends neither on the key nor on which one it equals: digests are compared,
        in constant time, and always all of them.
        """
        digest = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        level = Level.OPEN
        for digests, opens in ((self.read, Level.READ), (self.write, Level.WRITE)):
            for known in digests:
                level = max(level, opens if hmac.compare_digest(digest, known) else Level.OPEN)
        return level


@dataclass(frozen=True)
class Access:
    """Keys, and the origins whose pages may call the API.

    Attributes:
        keys: none: everybody who can reach the address may do everything.
        origins: for CORS, such as ``https://shop.example``; none: pages of other origins get no
            answer, and cannot change anything.
    """

    keys: Keys = field(default_factory=Keys)
    origins: tuple[str, ...] = ()


def key_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The key that a request sends: ``Authorization: Bearer KEY`` or ``api-key: KEY``."""
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    key = headers.get(b"api-key", b"").decode("latin-1").strip()
    return key or None


def read_keys(read: str, write: str, file: Path | None) -> Keys:
    """The keys of an instance.

    Args:
        read: keys that may search, separated by commas or spaces.
        write: keys that may also change the index, likewise.
        file: a file with a line ``read KEY`` or ``write KEY`` for each further key; lines that
            begin with ``#`` are comments.

    Raises:
        KeyFormatError: a key or the file cannot be used.
    """
    keys = Keys.of(read.replace(",", " ").split(), write.replace(",", " ").split())
    return keys | _read_file(file) if file else keys


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
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFormatError(f"the key file {file} cannot be read ({error})") from error
    found: dict[str, list[str]] = {"read": [], "write": []}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or words[0] not in found:
            # The line is not quoted: it may hold a key.
            raise KeyFormatError(f"line {number} of {file} is not `read KEY` or `write KEY`")
        found[words[0]].append(words[1])
    if not (found["read"] or found["write"]):
        raise KeyFormatError(f"the key file {file} has no keys; add a line `write KEY`")
    return Keys.of(found["read"], found["write"])
