"""Fine-tuning: starts from a trained model with fresh statistics and a fresh classifier."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embed.architecture import Architecture
from embed.bundle import Bundle
from embed.precision import autocast
from embed.preprocess import Preprocess
from embed.resnet import ResNet18, WhitenedResNet
from train.data import Split, in_batches

_REPLACED = ("head", "compress", "likeness")
BATCH_NORM_PICTURES = 2000
"""Maximum number of pictures that batch-normalisation statistics are computed from."""
HEAD_DECAY = 1e-4
"""Weight decay of a new classifier on features of variance ``1 / dimension``. Among powers of ten
from 1e-5 to 0.1, the best or second best on the validation splits of three sets of photographs
(``benchmarks/finetune.py``: flowers, things, hands) with 400 to 500 training pictures."""


def architecture_for(bundle: Bundle, size: int, classes: int, dropout: float) -> Architecture:
    """The bundle's network for ``classes`` new classes and pictures of ``size`` pixels.

    Its stages get maps of about the size that they were trained with. A shaped embedding is
    dropped; it is recomputed after training.
    """
    old = bundle.architecture
    assert isinstance(old, Architecture)
    if old.name != "whitened-resnet":
        return replace(old, classes=classes, dropout=dropout)
    shrink = max(size * old.shrink // bundle.preprocess.input_size, 1)
    return replace(old.plain(), classes=classes, dropout=dropout, shrink=shrink)


def preprocess_for(bundle: Bundle, size: int) -> Preprocess:
    """The bundle's preprocessing at another size; its layers expect its mean and deviation."""
    return replace(bundle.preprocess, input_size=size)


def initialise(
    network: nn.Module,
    bundle: Bundle,
    preprocess: Preprocess,
    train: Split,
    weights: Tensor,
    smoothing: float,
) -> None:
    """Give ``network`` the bundle's layers and a classifier fitted to their features.

    Batch normalisation first takes its statistics from the new pictures (Li et al. 2016,
    arXiv:1603.04779). The classifier is fitted before any other layer trains: gradients from a
    random one would spoil layers worth keeping (Kumar et al. 2022, arXiv:2202.10054).

    Args:
        network: built for the new classes, otherwise the same as the bundle's.
        bundle: the trained model.
        preprocess: for the new pictures.
        train: the new training split.
        weights: of each class in the loss, float32 ``(classes,)``.
        smoothing: label smoothing, 0..1.
    """
    assert isinstance(network, WhitenedResNet | ResNet18)
    old = {name: torch.tensor(w) for name, w in bundle.weights.items()}
    kept = {name: w for name, w in old.items() if name.partition(".")[0] not in _REPLACED}
    network.load_state_dict({**network.state_dict(), **kept})
    recompute_batch_norm(network, preprocess, train.pictures)
    features = features_of(network, preprocess, train.pictures)
    device = weights.device
    fit_head(network, features.to(device), train.labels.to(device), weights, smoothing)


@torch.no_grad()
def recompute_batch_norm(network: nn.Module, preprocess: Preprocess, pictures: Tensor) -> None:
    """Compute the batch-normalisation statistics as a mean over unaugmented pictures.

    Running statistics cover only the last few batches, of augmented pictures; with the small
    batches of a small set they are noise (Wu and Johnson 2021, arXiv:2105.07576).
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    was_training = network.training
    network.train()
    sample = pictures[:: max(len(pictures) // BATCH_NORM_PICTURES, 1)][:BATCH_NORM_PICTURES]
    # Shuffled because a folder's pictures come class by class; with a fixed seed.
    order = torch.randperm(len(sample), generator=torch.Generator().manual_seed(0))
    for _ in _forward(network, preprocess, sample[order]):
        pass
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(was_training)


def features_of(network: nn.Module, preprocess: Preprocess, pictures: Tensor) -> Tensor:
    """Features float32 ``(n, dimension)`` of uint8 pictures ``(n, 3, size, size)``, on the CPU."""
    was_training = network.training
    network.eval()
    with torch.no_grad():
        features = torch.cat(list(_forward(network, preprocess, pictures)))
    network.train(was_training)
    return features


def fit_head(
    network: WhitenedResNet | ResNet18,
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    smoothing: float,
) -> None:
    """Fit only the classifier, by L-BFGS: multinomial logistic regression on the features.

    Weight decay (``HEAD_DECAY``) keeps it from separating a few hundred pictures by chance
    differences among as many features.

    Args:
        network: its ``head`` is set; its embedding must not be shaped.
        features: float32 ``(n, dimension)``.
        labels: int64 ``(n,)``.
        weights: of each class in the loss, float32 ``(classes,)``.
        smoothing: label smoothing, 0..1.
    """
    head = network.head
    classes, d = head.weight.shape
    # Scaled to a variance of 1/d, so that the decay means the same for every network and feature.
    spread = (features.std(0, correction=0) + 1e-3) * math.sqrt(d)
    scaled = features / spread
    weight = torch.zeros(classes, d, device=features.device, requires_grad=True)
    bias = torch.zeros(classes, device=features.device, requires_grad=head.bias is not None)
    parameters = [weight] if head.bias is None else [weight, bias]
    optimiser = torch.optim.LBFGS(parameters, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = F.linear(scaled, weight, bias)
        loss = F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)
        loss = loss + 0.5 * HEAD_DECAY * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        gain = network.dimension if isinstance(network, WhitenedResNet) else 1
        head.weight.copy_(weight / spread * gain)
        if head.bias is not None:
            head.bias.copy_(bias)


def _forward(network: nn.Module, preprocess: Preprocess, pictures: Tensor) -> Iterator[Tensor]:
    device = next(network.parameters()).device
    for batch in in_batches(pictures):
        with autocast(device):
            features = network(preprocess.normalise(batch.to(device))).features
        yield features.float().cpu()
