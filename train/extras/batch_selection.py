"""Selects the pictures of each batch to train on, by the loss of a small proxy network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from embed.precision import autocast
from train.recipe import BatchSelection


class BatchSelector:
    """The proxy network, which keeps learning while it selects."""

    def __init__(
        self,
        settings: BatchSelection,
        proxy: nn.Module,
        optimisers: list[Optimizer],
        smoothing: float,
    ) -> None:
        """Train ``proxy`` with ``optimisers``, whose learning rates the caller sets."""
        self._settings = settings
        self._proxy = proxy
        self._optimisers = optimisers
        self._smoothing = smoothing

    def hardest(self, x: Tensor, labels: Tensor, step: int) -> Tensor:
        """The rows of a batch to train on; at every n-th step the proxy also learns from them.

        Args:
            x: normalised pictures float32 ``(b, 3, h, w)``.
            labels: int64 ``(b,)``, or the share of each class, float32 ``(b, classes)``.
            step: number of the batch in its epoch, from 0.

        Returns:
            int64 ``(k,)``, distinct rows.
        """
        learns = step % self._settings.every == 0
        self._proxy.train()
        with torch.set_grad_enabled(learns), autocast(x.device):
            logits = self._proxy(x).logits
        losses = F.cross_entropy(
            logits.float(), labels, label_smoothing=self._smoothing, reduction="none"
        )
        hardest = losses.detach().topk(self._settings.kept(len(x)), sorted=False).indices
        if learns:
            losses[hardest].mean().backward()  # type: ignore[no-untyped-call]
            for optimiser in self._optimisers:
                optimiser.step()
            self._proxy.zero_grad()
        return hardest

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint needs."""
        return {
            "network": self._proxy.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of ``state_dict``."""
        self._proxy.load_state_dict(state["network"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
