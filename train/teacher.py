"""Going on from a trained model that teaches what it answers on average over two views.

A network is better on a picture and its mirror image together than on either, and a served one sees
a picture once. So the model that a run starts from is its teacher: where boxes of pictures are
exchanged (``augment.cutmix``) it has learned nothing by heart, and its answer, averaged over both
views, is what one view should give. Sources: Hinton et al. 2015 (arXiv:1503.02531); a teacher that
sees the mixed pictures that the student sees, Beyer et al. 2022 (arXiv:2106.05237); a model that
teaches its like, Furlanello et al. 2018 (arXiv:1805.04770).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embed.precision import autocast

DISTIL_MEMORY = 0.05
"""Share of the newest batch in the statistics of batch normalisation: they are of some 20 batches,
not of the last two or three as in a quick run, whose weights change more."""


def remember(network: nn.Module, share: float) -> None:
    """Let batch normalisation take ``share`` 0..1 of its running statistics from each batch."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = share


class Teacher:
    """Targets of a trained model and of the labels together."""

    def __init__(self, network: nn.Module, share: float) -> None:
        """Use ``network``, which answers for ``share`` 0..1 of a target."""
        self._network = network.eval().requires_grad_(False)
        self._share = share

    @torch.no_grad()
    def target(self, x: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        """What the student should answer.

        Args:
            x: normalised pictures float32 ``(b, 3, h, w)``.
            labels: int64 ``(b,)``, or the share of each class, float32 ``(b, classes)``.
            smoothing: of the labels, 0..1; the teacher learned from labels as smooth.

        Returns:
            probabilities float32 ``(b, classes)``.
        """
        with autocast(x.device):
            views = [self._network(view).logits.float() for view in (x, x.flip(-1))]
        taught = torch.stack([logits.softmax(1) for logits in views]).mean(0)
        classes = taught.shape[1]
        shares = labels if labels.ndim > 1 else F.one_hot(labels, classes).float()
        shares = shares * (1 - smoothing) + smoothing / classes
        return shares.lerp(taught, self._share)


def averaged(new: dict[str, Tensor], old: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """The weights and statistics ``share`` 0..1 of the way from ``old`` to ``new``.

    Along the straight line between a model and what it became at a low rate the loss is no higher
    than at its ends, and lower in between (Wortsman et al. 2022, arXiv:2109.01903).
    """
    return {
        name: old[name].float().lerp(tensor.float(), share)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in new.items()
    }
