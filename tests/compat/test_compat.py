"""What revision 6b53b91 made opens, and gives the same results.

``made_by_6b53b91`` holds a small one of each kind of artefact, and ``expected.json`` what that
revision itself got from them; `make.py` made both. The artefacts are never made again: users have
their like. Where a test fails, the program has changed, and it has to read them all the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.compat.observations import OBSERVATIONS, observe
from train.recipe import RecipeError, read_recipe

pytestmark = pytest.mark.slow

ARTEFACTS = Path(__file__).parent / "made_by_6b53b91"
CLI = "search_api.cli.main"
"""The module with the command line's ``main``."""

ROUNDING = 2e-5
LOOSER = {
    "bundles": 1e-3,  # kernels of another CPU
    "pictures": 0.02,  # the runtime may compute in bfloat16
    "run": 0.01,  # rounding grows from step to step
    "training": 0.01,
}
"""By how much numbers may differ, where it is not a matter of rounding alone."""


@cache
def expected() -> dict[str, Any]:
    values: dict[str, Any] = json.loads((ARTEFACTS / "expected.json").read_text())
    return values


def differences(found: Any, wanted: Any, tolerance: float, where: str = "") -> Iterator[str]:
    """What is not as expected; members of objects that are new do not matter."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name, value in wanted.items():
            if name in found:
                yield from differences(found[name], value, tolerance, f"{where}/{name}")
            else:
                yield f"{where}/{name} is missing; expected {value!r:.200}"
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            yield from differences(one, other, tolerance, f"{where}/{number}")
    elif isinstance(wanted, float) and isinstance(found, float):
        if found != pytest.approx(wanted, rel=tolerance, abs=tolerance):
            yield f"{where} is {found}; expected {wanted} to {tolerance}"
    elif type(found) is not type(wanted) or found != wanted:
        yield f"{where} is {found!r:.500}; expected {wanted!r:.500}"


@pytest.mark.parametrize("observation", OBSERVATIONS, ids=lambda observation: observation.__name__)
def test_gives_the_same(observation: Any, tmp_path: Path) -> None:
    name = observation.__name__
    found = observe(observation, ARTEFACTS, tmp_path, CLI)
    wanted = expected()[name]
    if name == "recipes":
        wanted = {recipe: _without_selection(values) for recipe, values in wanted.items()}
    wrong = list(differences(found, wanted, LOOSER.get(name, ROUNDING)))
    assert not wrong, "\n".join(wrong)


def _without_selection(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without a field that is gone, which did nothing with these values."""
    assert recipe["selection"]["hardest"] + recipe["selection"]["others"] == 1
    return {name: value for name, value in recipe.items() if name != "selection"}


def test_a_recipe_that_selects_pictures_is_refused() -> None:
    """The one field of recipes that this version no longer has, where it would do something."""
    with pytest.raises(RecipeError, match=r"selection keeps 50% .* remove the field selection"):
        read_recipe(str(ARTEFACTS / "recipes" / "selection.json"))


def test_differences_are_found() -> None:
    wanted = {"a": [1, 0.5], "b": {"c": None}}
    assert not list(differences({"a": [1, 0.5001], "b": {"c": None, "d": 1}}, wanted, 0.001))
    for wrong in ({"a": [1, 0.5]}, {**wanted, "a": [1, 0.6]}, {**wanted, "a": [1]}, [], None):
        assert list(differences(wrong, wanted, 0.001))
    assert list(differences({**wanted, "a": [True, 0.5]}, wanted, 0.001))
