"""Classes of unequal size."""

from __future__ import annotations

import torch
from torch import Tensor


def class_weights(labels: Tensor, classes: int, balance: float) -> Tensor:
    """How much a picture of each class counts in the loss.

    By the effective number of pictures, ``(1 - b**n) / (1 - b)``, in which each further picture of
    a class adds less than the one before (Cui et al. 2019, arXiv:1901.05555). A weighted loss
    rather than balanced sampling: every picture is seen once an epoch, none of a small class a
    dozen times, and batch normalisation sees the classes as they are.

    Args:
        labels: int64 ``(n,)``.
        classes: how many there are; each has a picture.
        balance: ``b``, 0 <= b < 1. 0 weighs all pictures alike; towards 1 all classes.

    Returns:
        float32 ``(classes,)``; its mean over the pictures is 1.
    """
    counts = torch.bincount(labels.cpu(), minlength=classes).double()
    weights = (1 - balance) / (1 - balance**counts)
    mean = (weights * counts).sum() / counts.sum()
    return (weights / mean).float()
