"""Every order of the steps of what is done to one store at once: see `tests.index.local`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.index.local import test_bytes_protocol as protocol
from tests.torture.index.conftest import COUNTS

stepped = protocol.stepped
template = protocol.template


def test_whoever_refers_to_bytes_has_them(
    template: Path,
    tmp_path: Path,
    stepped: pytest.MonkeyPatch,
    counted: Callable[[str, str], None],
) -> None:
    tried = 0
    for names in protocol.TOGETHER:
        tried += protocol.orders(template, tmp_path, names, COUNTS.interruptions)
    assert tried > 100
    counted(
        f"{tried} orders of the steps of {len(protocol.TOGETHER)} sets of adding, deleting, making,"
        " restoring and deleting snapshots, sweeps",
        "whoever refers to bytes has them; whole snapshots; no deadlock",
    )
