"""Attacks on the store: small in the suite, in full by `make torture-index`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.torture.conftest import show


@dataclass(frozen=True)
class Counts:
    """How often to repeat each attack."""

    kills: int = 6
    flips: int = 150
    switches: int = 5
    queries: int = 200
    filters: int = 30
    milvus_kills: int = 1
    pairs: int = 6
    stateful_minutes: float = 0
    interruptions: int = 1
    storms: int = 2
    exhausting: int = 4


FULL = Counts(
    kills=100,
    flips=1000,
    switches=100,
    queries=1000,
    filters=200,
    milvus_kills=10,
    pairs=40,
    interruptions=2,
    stateful_minutes=9,
    storms=40,
    exhausting=50,
)
COUNTS = FULL if os.environ.get("LOOKALIKE_TORTURE") == "full" else Counts()
_figures: list[tuple[str, str]] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.torture)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    show(terminalreporter, "torture of the index", _figures)


@pytest.fixture(scope="session")
def counted() -> Callable[[str, str], None]:
    """Adds a line to the table at the end."""
    return lambda name, value: _figures.append((name, value))
