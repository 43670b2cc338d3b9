"""Weights of the classes in the loss, for classes of unequal size."""

from __future__ import annotations

import torch
from torch import Tensor


def class_weights(labels: Tensor, classes: int, balance: float) -> Tensor:
    """The weight in the loss of a picture of each class.

    By the effective number of pictures, ``(1 - b**n) / (1 - b)``, in which each further picture of
    a class adds less than the one before (Cui et al. 2019, arXiv:1901.05555). A weighted loss
    rather than balanced sampling, so that each epoch shows every picture once, none of a small
    class a dozen times, and batch normalisation sees the true mix of classes.

    Args:
        labels: int64 ``(n,)``, with at least one picture of each class.
        classes: number of classes.
        balance: ``b``, 0 <= b < 1. 0 weights all pictures equally; towards 1, all classes.

    Returns:
        float32 ``(classes,)``; its mean over the pictures is 1.
    """
    counts = torch.bincount(labels.cpu(), minlength=classes).double()
    weights = (1 - balance) / (1 - balance**counts)
    mean = (weights * counts).sum() / counts.sum()
    return (weights / mean).float()
