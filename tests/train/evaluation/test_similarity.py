from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from train.evaluation.similarity import (
    BLOCK,
    CopySearch,
    GroupSearch,
    altered_copies,
    copy_search,
    group_search,
    nearest,
)


def on_circle(*degrees: float) -> NDArray[np.float32]:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def unit(rows: int, dimension: int, seed: int = 0) -> NDArray[np.float32]:
    x = np.random.default_rng(seed).normal(size=(rows, dimension))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_nearest_by_hand() -> None:
    scores, rows = nearest(on_circle(0, 90), on_circle(60, 10, 80, 30), 3)
    assert rows.tolist() == [[1, 3, 0], [2, 0, 3]]
    assert scores[0] == pytest.approx(np.cos(np.deg2rad([10, 30, 60])), abs=1e-6)
    assert nearest(on_circle(0), on_circle(1, 2), 10)[1].tolist() == [[0, 1]]


def test_nearest_agrees_with_sorting_over_several_blocks() -> None:
    xq, xb = unit(BLOCK + 20, 8), unit(300, 8, seed=1)
    scores, rows = nearest(xq, xb, 5)
    expected = np.argsort(-(xq @ xb.T), axis=1)[:, :5]
    assert np.array_equal(rows, expected)
    assert np.all(np.diff(scores, axis=1) <= 0)


def test_groups_by_hand() -> None:
    # Nearest to 0 degrees among those with a group: 10 (group 7), 20 (group 3); 5 has none.
    found = group_search(
        on_circle(0, 45), np.array([7, -1]), on_circle(5, 10, 20), np.array([-1, 7, 3]), (1, 2)
    )
    assert found == GroupSearch(queries=1, gallery=2, precision_at={1: 1.0, 2: 0.5})


def test_groups_there_must_be() -> None:
    with pytest.raises(ValueError, match="0 queries and 2 pictures of the gallery have a group"):
        group_search(on_circle(0), np.array([-1]), on_circle(5, 6), np.array([1, 1]), (1,))
    with pytest.raises(ValueError, match="expected at least 1 and 10"):
        group_search(on_circle(0), np.array([1]), on_circle(5, 6), np.array([1, 1]))


def test_copies_by_hand() -> None:
    xb = on_circle(0, 90, 40)
    # The copy of 0 lies nearer to 40, that of 90 stays where it was.
    altered = {"turned": on_circle(30, 90), "same": on_circle(0, 90), "all": on_circle(180, 270)}
    found = copy_search(altered, xb, np.array([0, 1]), ranks=(1, 2))
    assert found == CopySearch(
        queries=2,
        gallery=3,
        recall_at={
            "turned": {1: 0.5, 2: 1.0},
            "same": {1: 1.0, 2: 1.0},
            "all": {1: 0.0, 2: 0.0},
            "mean": {1: 0.75, 2: 1.0},
        },
    )


def test_a_duplicate_in_the_gallery_is_no_mistake() -> None:
    found = copy_search({"same": on_circle(0)}, on_circle(0, 0, 90), np.array([1]), ranks=(1,))
    assert found.recall_at["same"] == {1: 1.0}


def test_altered_copies_are_what_they_say() -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, 16:] = 200
    pictures = np.stack([picture] * 8)
    copies = altered_copies(pictures, seed=3)
    assert list(copies) == ["crop", "rotation", "light", "jpeg", "mirror", "all"]
    for made in copies.values():
        assert made.shape == pictures.shape
        assert made.dtype == np.uint8
        assert not np.array_equal(made, pictures)
    assert np.array_equal(copies["mirror"], pictures[:, :, ::-1])
    # A crop of a picture of two halves still has both, the edge between them near the middle.
    edges = np.abs(np.diff(copies["crop"][0, 16, :, 0].astype(int))).argmax()
    assert 8 <= edges <= 24
    # Turned by at most 15 degrees: the top of the edge moves by less than 16 * tan(15) + 1 pixels.
    tops = np.abs(np.diff(copies["rotation"][:, 0, :, 0].astype(int), axis=1)).argmax(1)
    assert 2 <= np.abs(tops - 15).max() <= 6
    # No black corner: the left half stays dark, the right bright.
    assert copies["rotation"][0, [0, -1], -1].min() > 150
    again = altered_copies(pictures, seed=3)
    assert all(np.array_equal(again[name], made) for name, made in copies.items())
    assert not np.array_equal(altered_copies(pictures, seed=4)["crop"], copies["crop"])
