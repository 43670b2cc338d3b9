from __future__ import annotations

import torch
from torch import Tensor, nn

from embed.resnet import Output
from train.extras.batch_selection import BatchSelector
from train.recipe import BatchSelection


class Echo(nn.Module):
    """Logits are the first pixels times a weight that starts at one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Output:
        logits = x[:, :, 0, 0] * self.weight
        return Output(logits, logits)


def selector(keep: float, every: int = 2) -> tuple[BatchSelector, Echo]:
    network = Echo()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    return BatchSelector(BatchSelection(keep, every=every), network, [optimiser], 0.0), network


def batch() -> tuple[Tensor, Tensor]:
    """Eight pictures of class 0, the later the more they look like class 1."""
    x = torch.zeros(8, 3, 4, 4)
    x[:, 0, 0, 0] = torch.linspace(3, -3, 8)
    x[:, 1, 0, 0] = torch.linspace(-3, 3, 8)
    return x, torch.zeros(8, dtype=torch.int64)


def test_the_pictures_with_the_largest_loss_are_kept() -> None:
    rows = selector(0.25)[0].hardest(*batch(), step=1)
    assert sorted(rows.tolist()) == [6, 7]


def test_the_proxy_learns_from_what_it_keeps_every_so_many_steps() -> None:
    select, network = selector(0.25, every=2)
    select.hardest(*batch(), step=1)
    assert torch.equal(network.weight, torch.ones(3))
    select.hardest(*batch(), step=2)
    # Rows 6 and 7 are wrong the more, the larger the weights: both must fall.
    assert network.weight[0] < 1 and network.weight[1] < 1
    assert network.weight.grad is None


def test_its_state_can_be_kept() -> None:
    one, network = selector(0.5)
    one.hardest(*batch(), step=0)
    other, restored = selector(0.5)
    other.load_state_dict(one.state_dict())
    assert torch.equal(restored.weight, network.weight)
    assert not torch.equal(restored.weight, torch.ones(3))
