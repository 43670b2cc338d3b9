"""The words of a text."""

import pytest

from index.words import has_words, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", set()),
        ("?! \n", set()),
        ("IMG_0001.jpg", {"img", "0001", "jpg"}),
        ("Good-cheap, good!", {"good", "cheap"}),
        ("don't", {"don", "t"}),
        ("Stra\u00dfe STRASSE", {"strasse"}),
        ("Cafe\u0301 CAF\u00c9", {"caf\u00e9"}),
        ("\u212a \u017f \ufb01", {"k", "s", "fi"}),  # Kelvin sign, long s, a ligature
        ("\u0130stanbul", {"i\u0307stanbul"}),
        ("\u03a3\u03c3\u03c2", {"\u03c3\u03c3\u03c3"}),  # a final sigma
        ("x\u0302y", {"x\u0302y"}),  # no composed form: the mark stays in the word
        ("\u0939\u093f\u0928\u094d\u0926\u0940", {"\u0939\u093f\u0928\u094d\u0926\u0940"}),
        ("\u7ea2\u5e3d\u5b50", {"\u7ea2", "\u5e3d", "\u5b50"}),
        ("\u8d64\u3044hat", {"\u8d64", "\u3044", "hat"}),
        ("\U0001f3a9 hat\U0001f3a9", {"hat"}),
    ],
)  # fmt: skip
def test_words(text: str, words: set[str]) -> None:
    assert words_of(text) == words


def test_all_words_are_needed_whole() -> None:
    assert has_words("a good, cheap hat", words_of("CHEAP good"))
    assert not has_words("a good hat", words_of("cheap good"))
    assert not has_words("goodcheap", words_of("cheap good"))
