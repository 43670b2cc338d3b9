"""Names of files and folders, which may be any bytes, as text that can be stored and compared."""

from __future__ import annotations

import re
import unicodedata

# What Python makes of a byte that is not UTF-8.
_BYTE = re.compile("[\udc80-\udcff]")


def is_utf8(name: str) -> bool:
    """Whether the name is UTF-8 on disk, so that it can be stored and sent."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def escaped(name: str) -> str:
    """The name with escapes, such as ``\\xe9``, for its bytes that are not UTF-8."""
    if is_utf8(name):
        return name
    bytes_escaped = _BYTE.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", name)
    return bytes_escaped.encode("utf-8", "backslashreplace").decode()


def nfc(text: str) -> str:
    """The text with composed characters, so that what looks alike is alike."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)
