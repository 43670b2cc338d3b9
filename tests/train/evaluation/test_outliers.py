from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from embed.encoder import Encoding
from train.evaluation.outliers import auroc, outlier_count, outlier_pictures, outliers


def test_auroc_by_hand() -> None:
    # Of six pairs: 3 > 1, 3 > 2, 2 > 1 and 2 = 2 for half, 1 = 1 for half, 1 < 2.
    inside, outside = np.array([3, 2, 1], np.float32), np.array([1, 2], np.float32)
    assert auroc(inside, outside) == pytest.approx((3 + 0.5 + 0.5) / 6)
    assert auroc(inside + 5, outside) == 1.0
    assert auroc(outside, inside + 5) == 0.0
    assert auroc(inside, inside) == 0.5


def test_outliers_are_of_three_kinds() -> None:
    found = outlier_pictures(20)
    assert list(found) == ["scenes", "noise", "text"]
    for pictures in found.values():
        assert pictures.shape == (20, 32, 32, 3)
        assert pictures.dtype == np.uint8
        assert len({picture.tobytes() for picture in pictures}) == 20
    # Dark letters on light paper.
    assert found["text"].max() >= 180
    assert found["text"].min() < 150
    assert found["text"].mean() > 120
    again = outlier_pictures(20)
    assert all(np.array_equal(again[kind], pictures) for kind, pictures in found.items())


class ByBrightness:
    """Sure of dark pictures; its embedding points by the mean brightness."""

    def encode(self, pictures: NDArray[np.uint8]) -> Encoding:
        mean = pictures.reshape(len(pictures), -1).mean(1) / 255
        sure = np.stack([1 - mean / 2, mean / 2], axis=1).astype(np.float32)
        angle = mean * np.pi / 2
        return Encoding(sure, np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32))


def test_confidence_and_neighbours_tell_them_apart() -> None:
    encoder = ByBrightness()
    dark = np.random.default_rng(0).integers(0, 30, (50, 32, 32, 3)).astype(np.uint8)
    probabilities, x = encoder.encode(dark)
    found = outliers(encoder, probabilities.max(1), x, x, count=30)  # type: ignore[arg-type]
    assert [kind.kind for kind in found] == ["scenes", "noise", "text"]
    assert [kind.pictures for kind in found] == [30] * 3
    assert all(kind.by_confidence == kind.by_neighbours == 1.0 for kind in found[1:])


@pytest.mark.parametrize(("size", "count"), [(32, 1000), (64, 1000), (128, 250), (224, 200)])
def test_large_pictures_are_compared_with_fewer(size: int, count: int) -> None:
    assert outlier_count(size) == count
