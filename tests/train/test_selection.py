from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from train.selection import Selection

LOSSES = torch.arange(20) / 20  # the last are the hardest
MIDDLE = Selection(hardest=0.25, others=0.1, first=0.2, last=0.1)


def choose(selection: Selection, epoch: int, losses: Tensor = LOSSES, seed: int = 0) -> list[int]:
    chosen = selection.choose(losses, epoch, 10, Generator().manual_seed(seed))
    return [int(i) for i in chosen]


@pytest.mark.parametrize("epoch", [0, 1, 9])
def test_first_and_last_epochs_use_everything(epoch: int) -> None:
    assert sorted(choose(MIDDLE, epoch)) == list(range(20))


@pytest.mark.parametrize("epoch", [2, 8])
def test_the_middle_uses_the_hardest_and_a_few_others(epoch: int) -> None:
    chosen = choose(MIDDLE, epoch)
    assert len(chosen) == len(set(chosen)) == 7
    assert {15, 16, 17, 18, 19} < set(chosen)


def test_others_are_drawn_anew() -> None:
    others = {i for seed in range(40) for i in choose(MIDDLE, 5, seed=seed) if i < 15}
    assert others == set(range(15))


def test_equal_losses_are_not_chosen_by_position() -> None:
    seen = {i for seed in range(40) for i in choose(MIDDLE, 5, torch.zeros(20), seed)}
    assert seen == set(range(20))


def test_pictures_never_seen_count_as_hardest() -> None:
    losses = LOSSES.clone()
    losses[3] = torch.inf
    assert 3 in choose(Selection(hardest=0.05, first=0.0), 5, losses)


def test_the_default_uses_everything() -> None:
    assert sorted(choose(Selection(), 5)) == list(range(20))


def test_the_order_is_random_and_repeatable() -> None:
    assert choose(MIDDLE, 5, seed=1) == choose(MIDDLE, 5, seed=1)
    assert choose(MIDDLE, 0, seed=1) != choose(MIDDLE, 0, seed=2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hardest": 1.5}, "hardest is 1.5; expected 0 to 1"),
        ({"hardest": 0.8, "others": 0.4}, r"hardest \+ others is 1\.2.*; expected above 0"),
        ({"hardest": 0.0}, r"hardest \+ others is 0\.0; expected above 0, at most 1"),
    ],
)
def test_bad_values(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Selection(**values)
