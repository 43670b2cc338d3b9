from __future__ import annotations

import numpy as np
import pytest

from embed.scenes import SCENES, render


@pytest.mark.parametrize("scene", sorted(SCENES))
def test_a_seed_gives_one_picture(scene: str) -> None:
    picture = render(scene, 3)
    assert picture.shape == (32, 32, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, render(scene, 3))
    assert not np.array_equal(picture, render(scene, 4))
    assert picture.std() > 10, "a picture, not a plain colour"


def test_ten_scenes() -> None:
    assert len(SCENES) == 10


@pytest.mark.parametrize("seed", range(5))
def test_colours_are_near_those_named(seed: int) -> None:
    # The upper left corner is sky: within 30 of the scene's colour, and noise of 6.
    assert np.abs(render("sunset", seed)[0, 0].astype(int) - (245, 150, 90)).max() <= 36
    assert render("night sky", seed).mean() < 110
    # The bottom row of a sunset is sea.
    assert np.abs(render("sunset", seed)[31, 31].astype(int) - (60, 60, 110)).max() <= 36


def test_unknown_scene() -> None:
    with pytest.raises(KeyError, match="moon"):
        render("moon", 0)
