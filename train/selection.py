"""Which training pictures an epoch spends its time on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Selection:
    """Train the middle of a run on the pictures that are still hard.

    Most of CIFAR-10 is learned within a few epochs and teaches little afterwards. The idea is
    airbench96_faster's (github.com/KellerJordan/cifar10-airbench), which ranks by a small proxy
    network; here the network's own last loss on each picture serves, which costs nothing.

    Attributes:
        hardest: share of the pictures, those with the largest last loss, that an epoch keeps, 0..1.
        others: share of the pictures drawn at random from the rest, 0..1, so that none is
            forgotten and every loss is renewed now and then.
        first: share of the epochs at the start that use everything.
        last: share of the epochs at the end that use everything.
    """

    hardest: float = 1.0
    others: float = 0.0
    first: float = 0.25
    last: float = 0.1

    def __post_init__(self) -> None:
        for name in ("hardest", "others", "first", "last"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        if not 0.0 < self.hardest + self.others <= 1.0:
            raise ValueError(
                f"hardest + others is {self.hardest + self.others}; expected above 0, at most 1"
            )

    def choose(self, losses: Tensor, epoch: int, epochs: int, generator: Generator) -> Tensor:
        """The pictures of one epoch, in random order.

        Args:
            losses: each picture's last training loss, float32 ``(n,)`` on the CPU.
            epoch: which epoch, from 0.
            epochs: how many there are.
            generator: source of the randomness.

        Returns:
            int64 ``(m,)``, distinct rows, ``m <= n``.
        """
        n = len(losses)
        order = torch.randperm(n, generator=generator)
        middle = round(self.first * epochs) <= epoch < epochs - round(self.last * epochs)
        if not middle or self.hardest + self.others >= 1.0:
            return order
        # Ranked through a random order, so that equal losses are not chosen by position.
        ranked = order[losses[order].argsort(descending=True)]
        kept = max(round(self.hardest * n), 1)
        hardest, rest = ranked[:kept], ranked[kept:]
        drawn = rest[torch.randperm(len(rest), generator=generator)[: round(self.others * n)]]
        chosen = torch.cat([hardest, drawn])
        return chosen[torch.randperm(len(chosen), generator=generator)]
