from __future__ import annotations

import pytest
import torch

from train.extras.class_weights import class_weights

LABELS = torch.tensor([0] * 90 + [1] * 9 + [2])


def test_zero_weighs_all_pictures_alike() -> None:
    assert class_weights(LABELS, 3, 0.0).tolist() == [1.0, 1.0, 1.0]


def test_effective_numbers_by_hand() -> None:
    # b = 0.5: 1 picture counts as 1, 9 as 2 (1 - 1/512), 90 as 2.
    weights = class_weights(LABELS, 3, 0.5)
    assert (weights / weights[0]).tolist() == pytest.approx([1.0, 1 / (1 - 2**-9), 2.0])


def test_towards_one_all_classes_weigh_alike() -> None:
    weights = class_weights(LABELS, 3, 0.999999)
    assert (weights * torch.tensor([90, 9, 1])).tolist() == pytest.approx([100 / 3] * 3, rel=1e-3)


@pytest.mark.parametrize("balance", [0.0, 0.9, 0.999])
def test_the_mean_over_the_pictures_is_one(balance: float) -> None:
    weights = class_weights(LABELS, 3, balance)
    assert weights.dtype == torch.float32
    assert float(weights[LABELS].mean()) == pytest.approx(1.0)
    assert class_weights(torch.arange(8) % 4, 4, balance).tolist() == pytest.approx([1.0] * 4)
