"""Tests are found by name: a module of the service is tested in its namesake."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "search_api" / "service"


MODULES = sorted(path.relative_to(SERVICE) for path in SERVICE.rglob("*.py") if path.stem[0] != "_")


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_of_the_service_has_its_namesake(module: Path) -> None:
    tests = ROOT / "tests" / "search_api" / "service" / module.with_name(f"test_{module.name}")
    assert tests.is_file()
    assert "\ndef test_" in tests.read_text("utf-8")
