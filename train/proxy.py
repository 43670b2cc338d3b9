"""Which pictures of a batch are worth a step: a small network beside the large one decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from embed.precision import autocast


@dataclass(frozen=True)
class Proxy:
    """Train on the hardest part of each batch, chosen by a small network's loss.

    Most augmented pictures are easy and teach little. A proxy with a twentieth of the cost sees
    them all, and the large network only those with the largest loss of the proxy. This halves
    the FLOPs of airbench96_faster at equal accuracy, which is where it comes from
    (github.com/KellerJordan/cifar10-airbench; the idea goes back to Coleman et al. 2020,
    arXiv:1906.11829).

    Attributes:
        keep: share of each batch that the large network trains on, 0..1; 1: no proxy.
        widths: channels of the proxy's stages.
        every: the proxy itself learns from every so manyth batch, of the pictures that are kept.
    """

    keep: float = 1.0
    widths: tuple[int, int, int] = (32, 64, 64)
    every: int = 4

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 1.0:
            raise ValueError(f"keep is {self.keep}; expected above 0, at most 1")
        if self.every < 1:
            raise ValueError(f"every is {self.every}; expected at least 1")
        object.__setattr__(self, "widths", tuple(self.widths))

    def kept(self, batch_size: int) -> int:
        """How many pictures of a batch are trained on; at least 2, if there are as many."""
        return min(max(round(self.keep * batch_size), 2), batch_size)


class Chooser:
    """A proxy network while it learns."""

    def __init__(
        self, proxy: Proxy, network: nn.Module, optimisers: list[Optimizer], smoothing: float
    ) -> None:
        """Train ``network`` with ``optimisers``, whose rates are set from outside."""
        self._proxy = proxy
        self._network = network
        self._optimisers = optimisers
        self._smoothing = smoothing

    def hardest(self, x: Tensor, labels: Tensor, step: int) -> Tensor:
        """The rows of a batch to train on; now and then the proxy learns from them.

        Args:
            x: normalised pictures float32 ``(b, 3, h, w)``.
            labels: int64 ``(b,)``, or the share of each class, float32 ``(b, classes)``.
            step: number of the batch in its epoch.

        Returns:
            int64 ``(k,)``, distinct rows.
        """
        learns = step % self._proxy.every == 0
        self._network.train()
        with torch.set_grad_enabled(learns), autocast(x.device):
            logits = self._network(x).logits
        losses = F.cross_entropy(
            logits.float(), labels, label_smoothing=self._smoothing, reduction="none"
        )
        hardest = losses.detach().topk(self._proxy.kept(len(x)), sorted=False).indices
        if learns:
            losses[hardest].mean().backward()  # type: ignore[no-untyped-call]
            for optimiser in self._optimisers:
                optimiser.step()
            self._network.zero_grad()
        return hardest

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint needs."""
        return {
            "network": self._network.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of ``state_dict``."""
        self._network.load_state_dict(state["network"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
