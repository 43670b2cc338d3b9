from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from embed.corpus import sample
from tests.train.helpers import QUICK, colours
from train.data import load_dataset
from train.loop import train
from train.recipe import Recipe, RecipeError, Shaping
from train.setup import fit_batch, set_up


def test_preprocessing_is_measured_on_the_training_pictures() -> None:
    data = load_dataset(sample(per_class=20))
    values = data.train.pictures.double() / 255
    preprocess = set_up(QUICK, data, resume=False).preprocess
    assert preprocess.mean == pytest.approx(values.mean((0, 2, 3)).tolist(), abs=1e-4)
    expected = values.std((0, 2, 3), correction=0).tolist()
    assert preprocess.std == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(architecture="resnet18", shaping=Shaping(8)), "is resnet18; expected whitened"),
        (dataclasses.replace(QUICK, shaping=Shaping(97)), "likeness is 97; expected at most 96"),
    ],
)
def test_a_shape_that_cannot_be_made_is_refused_before_the_training(
    recipe: Recipe, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=f"the embedding cannot be shaped: .*{message}"):
        train(recipe, colours(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wanted", "pictures", "expected"),
    [(1000, 48_000, 1000), (1000, 2000, 100), (1000, 500, 32), (16, 500, 16), (1000, 20, 20)],
)
def test_small_sets_get_small_batches(wanted: int, pictures: int, expected: int) -> None:
    assert fit_batch(wanted, pictures) == expected
