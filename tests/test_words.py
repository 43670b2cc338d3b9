"""No help text, error text, doc or identifier uses a word that `CONTRIBUTING.md` says to avoid."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("embed", "index", "train", "search_api")
OLD_NAMES = re.compile(r'fold[-_]least|fold[-_]share|--beside\b|"beside"', re.IGNORECASE)
"""Options of earlier versions that still work, and a key in the files that evaluations write."""
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def words_to_avoid() -> list[str]:
    """The last column of the glossary, shorter words after the phrases that contain them."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\|.*\|.*\|(.*)\|$", text.partition("## Glossary")[2], re.MULTILINE)
    words = [word.strip() for row in rows[2:] for word in row.split(",") if word.strip()]
    return sorted(words, key=len, reverse=True)


def files() -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix in (".py", ".js", ".html", ".css"):
                yield path
    yield from sorted((ROOT / "docs").glob("*.md"))
    yield from (ROOT / "README.md", ROOT / "docs" / "openapi.json")
    # The glossary itself has to name them.
    yield ROOT / "CONTRIBUTING.md"


def found_in(text: str, pattern: re.Pattern[str]) -> list[str]:
    """Lines with a word to avoid; identifiers count by their parts."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        parts = CAMEL.sub(" ", OLD_NAMES.sub("", line)).replace("_", " ")
        if pattern.search(parts):
            found.append(f"{number}: {line.strip()[:120]}")
    return found


@pytest.fixture(scope="module")
def pattern() -> re.Pattern[str]:
    words = words_to_avoid()
    assert {"aside", "shelf", "company", "go over to", "lanes"} <= set(words)
    return re.compile(rf"\b({'|'.join(map(re.escape, words))})\b", re.IGNORECASE)


@pytest.mark.parametrize(
    "line",
    [
        "folds what was added into it",
        "class Aside:",
        "self._shelf_path = 3",
        "the service goes over to it",
        "COMPANY = 8",
    ],
)
def test_the_check_finds_them(line: str, pattern: re.Pattern[str]) -> None:
    assert found_in(line, pattern) == [f"1: {line}"]


def test_ordinary_words_and_old_options_pass(pattern: re.Pattern[str]) -> None:
    assert not found_in("a folder of airplanes; besides, --fold-least and planes", pattern)


@pytest.mark.parametrize("path", [*files()], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_word_to_avoid(path: Path, pattern: re.Pattern[str]) -> None:
    text = path.read_text("utf-8")
    if path.name == "CONTRIBUTING.md":
        text = text.partition("## Glossary")[0]
    assert found_in(text, pattern) == []
