"""The names of stored bytes: ``sha256:`` and 64 hexadecimal digits."""

import hashlib
import re

from index.contract import BlobError

PREFIX = "sha256:"
DIGEST = re.compile(r"[0-9a-f]{64}")


def digest_of(name: str) -> str:
    """The hexadecimal digits of a name. Raises BlobError for anything that is not one."""
    digest = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or not DIGEST.fullmatch(digest):
        raise BlobError(f"{name!r} names no stored bytes; expected {PREFIX} and 64 hex digits")
    return digest


def check(data: bytes, digest: str, where: str) -> bytes:
    """Return ``data`` if it has this SHA-256, else raise BlobError."""
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise BlobError(f"{where} is damaged, its SHA-256 is {found}; add the picture again")
    return data
