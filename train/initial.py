"""Starting from a trained model: its layers kept, its statistics and its classifier made anew."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embed.architecture import Architecture
from embed.bundle import PRETRAINED, Bundle
from embed.precision import autocast
from embed.preprocess import Preprocess
from embed.resnet import ResNet18, WhitenedResNet
from train.data import Split

_REPLACED = ("head", "compress", "likeness")
SETTLING = 2000
"""Pictures that the statistics of batch normalisation are taken from."""
HEAD_DECAY = 1e-4
"""Weight decay of a new classifier on features of variance ``1 / dimension``: of 1e-5 to 0.1, in
powers of ten, the best or next to it on the validation splits of three sets of photographs
(``benchmarks/finetune.py``: flowers, things, hands), 400 to 500 pictures to learn from."""


def read_init(name: str | None) -> Bundle | None:
    """The bundle that a recipe's ``init`` names, None for fresh weights.

    Raises:
        BundleError: there is none, or it is damaged.
    """
    if name is None:
        return None
    return Bundle.load(PRETRAINED if name == "pretrained" else Path(name))


def architecture_for(bundle: Bundle, size: int, classes: int, dropout: float) -> Architecture:
    """The bundle's network for ``classes`` other classes and pictures of ``size`` pixels.

    Its stages get maps of about the size that they were trained with. A shaped embedding is left
    off: it is made after training.
    """
    old = bundle.architecture
    if old.name != "whitened-resnet":
        return replace(old, classes=classes, dropout=dropout)
    shrink = max(size * old.shrink // bundle.preprocess.input_size, 1)
    return replace(old.plain(), classes=classes, dropout=dropout, shrink=shrink)


def preprocess_for(bundle: Bundle, size: int) -> Preprocess:
    """The bundle's preprocessing at another size: its layers expect its mean and deviation."""
    return replace(bundle.preprocess, input_size=size)


def adopt(
    network: nn.Module,
    bundle: Bundle,
    preprocess: Preprocess,
    train: Split,
    weights: Tensor,
    smoothing: float,
) -> None:
    """Give ``network`` the bundle's layers and a classifier fitted to their features.

    Statistics of batch normalisation are taken from the new pictures first (Li et al. 2016,
    arXiv:1603.04779). The classifier is fitted before anything else moves: gradients from a random
    one would spoil the layers that were worth keeping (Kumar et al. 2022, arXiv:2202.10054).

    Args:
        network: built for the new classes, otherwise as the bundle's.
        bundle: the trained model.
        preprocess: of the new pictures.
        train: what to learn from.
        weights: of each class in the loss, float32 ``(classes,)``.
        smoothing: of the labels, 0..1.
    """
    assert isinstance(network, WhitenedResNet | ResNet18)
    old = {name: torch.tensor(w) for name, w in bundle.weights.items()}
    kept = {name: w for name, w in old.items() if name.partition(".")[0] not in _REPLACED}
    network.load_state_dict({**network.state_dict(), **kept})
    settle(network, preprocess, train.pictures)
    features = features_of(network, preprocess, train.pictures)
    device = weights.device
    fit_head(network, features.to(device), train.labels.to(device), weights, smoothing)


@torch.no_grad()
def settle(network: nn.Module, preprocess: Preprocess, pictures: Tensor) -> None:
    """Take the statistics of batch normalisation from unchanged pictures, all with one weight.

    The running ones remember the last few batches only, and those were augmented; with the small
    batches of a small set they are noise (Wu and Johnson 2021, arXiv:2105.07576).
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    was_training = network.training
    network.train()
    some = pictures[:: max(len(pictures) // SETTLING, 1)][:SETTLING]
    # Shuffled, for a folder's pictures come class by class, and always the same.
    order = torch.randperm(len(some), generator=torch.Generator().manual_seed(0))
    for _ in _forward(network, preprocess, some[order]):
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
    """Fit the classifier alone, by L-BFGS: multinomial logistic regression on the features.

    Its weights are held small (``HEAD_DECAY``): a few hundred pictures can be told apart by as many
    features in ways that say nothing of others.

    Args:
        network: whose ``head`` is set; its features are plain.
        features: float32 ``(n, dimension)``.
        labels: int64 ``(n,)``.
        weights: of each class in the loss, float32 ``(classes,)``.
        smoothing: of the labels, 0..1.
    """
    head = network.head
    classes, d = head.weight.shape
    # To a variance of 1/d each, so that the decay means the same for every network and feature.
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


def in_batches(pictures: Tensor) -> Iterator[Tensor]:
    """Equal parts of ``pictures``, of 500 of 32 pixels at most, fewer of larger ones."""
    most = max(500 * 32 * 32 // pictures.shape[-1] ** 2, 16)
    yield from pictures.tensor_split(max(math.ceil(len(pictures) / most), 1))


def _forward(network: nn.Module, preprocess: Preprocess, pictures: Tensor) -> Iterator[Tensor]:
    device = next(network.parameters()).device
    for batch in in_batches(pictures):
        with autocast(device):
            features = network(preprocess.normalise(batch.to(device))).features
        yield features.float().cpu()
