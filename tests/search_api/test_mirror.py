"""Tests are found by name: a module of the service is tested in its namesake."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "search_api" / "service"


@pytest.mark.parametrize("module", sorted(p.stem for p in SERVICE.glob("*.py") if p.stem[0] != "_"))
def test_every_module_of_the_service_has_its_namesake(module: str) -> None:
    tests = ROOT / "tests" / "search_api" / "service" / f"test_{module}.py"
    assert tests.is_file()
    assert "\ndef test_" in tests.read_text("utf-8")
