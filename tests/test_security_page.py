"""What SECURITY.md names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "SECURITY.md").read_text("utf-8")


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`((?:tests|docs|deploy|requirements)/[\w./-]*)`", TEXT)))
)
def test_files_exist(name: str) -> None:
    assert (ROOT / name).exists()


def test_make_knows_the_targets() -> None:
    rules = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"`make\s([\w-]+)`", TEXT):
        assert re.search(rf"^{target}:", rules, re.MULTILINE), target


def test_variables_are_documented() -> None:
    known = "".join(path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md"))
    for name in set(re.findall(r"LOOKALIKE_\w+", TEXT)):
        assert name in known
