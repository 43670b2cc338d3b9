"""Distillation: the model that training continues from teaches its mean over two views.

A network predicts better from a picture and its mirror image together than from either, but a
served network sees each picture once. So the starting model becomes the teacher: its prediction
averaged over both views is the target for one view, on pictures mixed by CutMix
(``Augment.cutmix``), which it has not memorised. Sources: Hinton et al. 2015 (arXiv:1503.02531); a
teacher that sees the same mixed pictures as the student, Beyer et al. 2022 (arXiv:2106.05237); a
teacher of the same architecture, Furlanello et al. 2018 (arXiv:1805.04770).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embed.precision import autocast

BATCH_NORM_MOMENTUM = 0.05
"""Weight of the newest batch in the running statistics of batch normalisation, which thus cover
some 20 batches; a quick run, whose weights change faster, uses only the last two or three."""


def set_batch_norm_momentum(network: nn.Module, momentum: float) -> None:
    """Set the weight 0..1 of each new batch in the running statistics of batch normalisation."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum


class Teacher:
    """Makes targets from a trained model's predictions and the labels."""

    def __init__(self, network: nn.Module, share: float) -> None:
        """Use ``network``, whose predictions have the weight ``share`` 0..1 in the target."""
        self._network = network.eval().requires_grad_(False)
        self._share = share

    @torch.no_grad()
    def target(self, x: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        """The target probabilities for the student.

        Args:
            x: normalised pictures float32 ``(b, 3, h, w)``.
            labels: int64 ``(b,)``, or the share of each class, float32 ``(b, classes)``.
            smoothing: label smoothing, 0..1; the teacher was trained with it too.

        Returns:
            float32 ``(b, classes)``.
        """
        with autocast(x.device):
            views = [self._network(view).logits.float() for view in (x, x.flip(-1))]
        predicted = torch.stack([logits.softmax(1) for logits in views]).mean(0)
        classes = predicted.shape[1]
        shares = labels if labels.ndim > 1 else F.one_hot(labels, classes).float()
        shares = shares * (1 - smoothing) + smoothing / classes
        return shares.lerp(predicted, self._share)


def average_weights(
    new: dict[str, Tensor], old: dict[str, Tensor], share: float
) -> dict[str, Tensor]:
    """The weights and statistics ``share`` 0..1 of the way from ``old`` to ``new``.

    On the straight line between a model and its fine-tuned successor the loss is no higher than at
    the ends, and lower in between (Wortsman et al. 2022, arXiv:2109.01903).
    """
    return {
        name: old[name].float().lerp(tensor.float(), share)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in new.items()
    }
