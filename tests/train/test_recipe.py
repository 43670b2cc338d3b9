from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from embed.architecture import Architecture
from embed.bundle import Bundle
from embed.resnet import build, count_flops
from train.recipe import (
    BEST,
    QUICK,
    RECIPES,
    RESNET18,
    Augment,
    BatchSelection,
    Recipe,
    RecipeError,
    Shaping,
    read_recipe,
    recipe_of,
)


@pytest.mark.parametrize("recipe", [*RECIPES.values(), Recipe(widths=(24, 48, 96), patience=3)])
def test_round_trip_through_json(recipe: Recipe) -> None:
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_named_recipes() -> None:
    assert list(RECIPES) == ["quick", "best", "best-taught", "finetune", "probe", "resnet18"]
    assert all(recipe.name == name for name, recipe in RECIPES.items())
    assert read_recipe("quick") is QUICK
    assert RESNET18.architecture == "resnet18"


def test_the_best_network_keeps_within_its_limits() -> None:
    architecture = Architecture(widths=BEST.widths, depth=BEST.depth)
    parameters = sum(p.numel() for p in build(architecture).parameters())
    assert 7.9e6 < parameters < 8.3e6  # fp16 in a file under 16 MiB
    assert 0.8e9 < count_flops(architecture) < 1.0e9


def test_missing_fields_take_their_defaults() -> None:
    values = {"epochs": 3, "augment": {"flip": "none"}, "proxy": {"keep": 0.5}}
    assert Recipe.from_dict(values) == Recipe(
        epochs=3, augment=Augment(flip="none"), proxy=BatchSelection(keep=0.5)
    )
    assert Recipe.from_dict({}) == Recipe()


@pytest.mark.parametrize(
    "selection",
    [
        {"hardest": 1.0, "others": 0.0, "first": 0.25, "last": 0.1},
        {"hardest": 0.75, "others": 0.25},
        {},
    ],
)
def test_a_selection_of_all_pictures_in_an_older_recipe_is_dropped(
    selection: dict[str, float],
) -> None:
    values = {"epochs": 3, "selection": selection}
    assert Recipe.from_dict(values) == Recipe(epochs=3)
    assert values == {"epochs": 3, "selection": selection}


def test_a_selection_of_some_pictures_is_refused() -> None:
    with pytest.raises(
        RecipeError, match="selection keeps 70% of the pictures; this version always trains on all"
    ):
        Recipe.from_dict({"selection": {"hardest": 0.5, "others": 0.2}})
    with pytest.raises(RecipeError, match="the recipe cannot be used"):
        Recipe.from_dict({"selection": {"hardest": "some"}})


def test_the_recipe_of_a_bundle_trained_with_a_selection(tiny_bundle: Bundle) -> None:
    values = {"epochs": 3, "selection": {"hardest": 0.5, "others": 0.2}}
    bundle = dataclasses.replace(tiny_bundle, training={"recipe": values})
    assert recipe_of(bundle) == Recipe(epochs=3)
    assert recipe_of(tiny_bundle) == Recipe()


def test_the_callers_dict_is_not_changed() -> None:
    values = {"augment": {"flip": "none"}, "widths": [24, 24, 24]}
    Recipe.from_dict(values)
    assert values == {"augment": {"flip": "none"}, "widths": [24, 24, 24]}


def test_unknown_fields_are_named_with_those_expected() -> None:
    with pytest.raises(RecipeError, match=r"unknown recipe field epoch, rate; expected .*batch_s"):
        Recipe.from_dict({"rate": 1, "epoch": 3})
    with pytest.raises(RecipeError, match=r"cannot be used: .*'zoom'"):
        Recipe.from_dict({"augment": {"zoom": 2}})


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("epochs", 0, "at least 1"),
        ("batch_size", 1, "at least 2"),
        ("lr", 0.0, "above 0"),
        ("momentum", 1.0, "0 <= momentum < 1"),
        ("weight_decay", -0.1, "at least 0"),
        ("warmup", 1.0, "0 <= warmup < 1"),
        ("label_smoothing", 1.0, "0 <= smoothing < 1"),
        ("low_resolution", 8, "at least 16 pixels"),
        ("low_share", 1.0, "0 <= low_share < 1"),
        ("validation", 0.0, "0 < validation <= 0.5"),
        ("validation", 0.6, "0 < validation <= 0.5"),
        ("size", 31, "32 to 224 pixels"),
        ("size", 225, "32 to 224 pixels"),
        ("test", 0.6, "0 <= test <= 0.5"),
        ("class_balance", 1.0, "0 <= class_balance < 1"),
        ("init", "", "none or a bundle"),
        ("old_rate", 1.5, "0 <= old_rate <= 1"),
        ("patience", 0, "at least 1"),
        ("optimiser", "lion", "muon, sgd or adamw"),
        ("schedule", "step", "linear or cosine"),
    ],
)
def test_out_of_range(field: str, value: object, expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict({field: value})
    assert f"{field} is {value!r}; expected {expected}" in str(caught.value)


@pytest.mark.parametrize(
    "values", [{"epochs": "many"}, {"augment": 3}, {"widths": 64}, {"augment": {"flip": "up"}}]
)
def test_wrong_kinds_of_values(values: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="the recipe cannot be used"):
        Recipe.from_dict(values)


def test_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"name": "mine", "epochs": 2}))
    assert read_recipe(str(path)) == Recipe(name="mine", epochs=2)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"'slow' is neither a named recipe \(quick, best, best-taught, .*\) nor"
    ):
        read_recipe("slow")
    path = tmp_path / "mine.json"
    path.write_text("{")
    with pytest.raises(RecipeError, match="nor a JSON file with one"):
        read_recipe(str(path))
    path.write_text("[1]")
    with pytest.raises(RecipeError, match="holds list; expected a JSON object"):
        read_recipe(str(path))


def test_another_size_shifts_and_covers_the_same_share() -> None:
    augment = Augment(translate=3, cutout=12, rotate=10, brightness=0.1)
    assert augment.at(32) == augment
    assert augment.at(112) == Augment(translate=10, cutout=42, rotate=10, brightness=0.1)


@pytest.mark.parametrize(("keep", "size", "kept"), [(0.5, 1000, 500), (0.1, 8, 2), (1.0, 7, 7)])
def test_how_many_are_kept(keep: float, size: int, kept: int) -> None:
    assert BatchSelection(keep=keep).kept(size) == kept


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (Augment, {"flip": "up"}, "flip is 'up'; expected none, random or alternating"),
        (Augment, {"translate": -1}, "translate is -1; expected at least 0"),
        (Augment, {"cutout": -2}, "cutout is -2; expected at least 0"),
        (Augment, {"cutmix": 1.5}, r"cutmix is 1\.5; expected 0 to 1"),
        (BatchSelection, {"keep": 0.0}, "keep is 0.0; expected above 0, at most 1"),
        (BatchSelection, {"every": 0}, "every is 0; expected at least 1"),
        (Shaping, {"likeness": -1}, "likeness is -1; expected at least 0"),
        (Shaping, {"rows": 0}, "rows is 0; expected at least 1"),
        (Shaping, {"weight": 0.0}, "weight is 0.0; expected a number above 0"),
        (Shaping, {"pictures": 1}, "pictures is 1; expected at least 2"),
    ],
)
def test_parts_out_of_range(part: type, values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        part(**values)
