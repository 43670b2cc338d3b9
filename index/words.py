"""The words of a text, as text matches of filters compare them."""

import re
import unicodedata
from collections.abc import Collection
from functools import lru_cache

_ASCII = re.compile(r"[a-z0-9]+")
# Scripts without spaces, whose characters are words on their own; as in Unicode's UAX 29.
_ALONE = ("CJK ", "HIRAGANA ")


@lru_cache(4)  # several conditions compare the same text
def words_of(text: str) -> frozenset[str]:
    """The words of ``text``: letters and digits with their marks; all else separates them.

    Case and Unicode's forms of the same character make no difference. A Chinese character or a
    hiragana is a word.
    """
    if text.isascii():
        return frozenset(_ASCII.findall(text.lower()))
    plain = unicodedata.normalize("NFD", text).casefold()
    plain = unicodedata.normalize("NFC", plain)
    return frozenset("".join(map(_spaced, plain)).split())


def has_words(text: str, wanted: Collection[str]) -> bool:
    """Whether ``text`` has all words ``wanted``, which `words_of` found."""
    return words_of(text).issuperset(wanted)


@lru_cache(20_000)
def _spaced(character: str) -> str:
    """The character, if it belongs to a word; spaces around one that is a word by itself."""
    if unicodedata.category(character)[0] not in "LNM":
        return " "
    return f" {character} " if unicodedata.name(character, "").startswith(_ALONE) else character
