"""FAISS files in which numbers were changed, with checksums that match."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.index.ann.test_reading import attack
from tests.torture.index.conftest import COUNTS


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "rabitq", "IVF8,PQ4x4", "OPQ4_8,IVF8,SQ8"])
def test_changed_numbers(kind: str, tmp_path: Path) -> None:
    attack(kind, tmp_path, COUNTS.flips // 5)
