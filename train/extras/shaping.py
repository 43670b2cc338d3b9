"""Shapes the embedding after training: the class in a few dimensions, likeness in the rest.

A classifier's last features collapse each class towards a point (Papyan et al. 2020,
arXiv:2008.08186), so that "similar" comes to mean "of the same class". The maps before them still
hold colour, texture and pose. After training, the classifier's input is replaced by two parts,
concatenated:

- class: the last features projected onto the directions that the classifier reads, as many as there
  are classes. The other directions carry only noise; the logits do not change.
- likeness: the pooled maps of the middle stage, projected so that copies of a picture (cropped,
  rotated, brightened, compressed, mirrored) come close together and different pictures far apart:
  linear discriminant analysis with each picture as its own class, as in whitening for image
  retrieval (Mikolajczyk & Matas 2007, doi:10.1109/ICCV.2007.4408875; Radenovic et al. 2018,
  arXiv:1711.02512), each direction scaled by its reliability (Ioffe 2006,
  doi:10.1007/11744085_41). The solution has a closed form and uses no labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from embed.architecture import Architecture, Backbone
from embed.bundle import Bundle
from embed.precision import autocast
from embed.preprocess import Preprocess
from embed.resnet import WhitenedResNet, build
from train.evaluation.similarity import altered_copies
from train.imported import unfitted
from train.recipe import Shaping

BatchProgress = Callable[[Iterator[Tensor], int], Iterator[Tensor]]


def check_shaping(shaping: Shaping, architecture: Architecture | Backbone) -> None:
    """Raise ValueError unless the network is a ``whitened-resnet`` with enough channels."""
    if isinstance(architecture, Backbone) or architecture.name != "whitened-resnet":
        raise ValueError(
            f"the architecture is {architecture.name}; expected whitened-resnet, the only one whose"
            " embedding can be shaped"
        )
    channels = 2 * shaping.rows * architecture.widths[1]
    if shaping.likeness > channels:
        raise ValueError(
            f"likeness is {shaping.likeness}; expected at most {channels}, the channels of the"
            " pooled maps"
        )


def shape(
    bundle: Bundle,
    pictures: Tensor,
    shaping: Shaping,
    seed: int = 0,
    progress: BatchProgress = lambda batches, total: batches,
) -> Bundle:
    """The same model with a shaped embedding; its logits change by rounding only.

    Args:
        bundle: a ``whitened-resnet``; an existing shape is replaced.
        pictures: its training pictures, uint8 ``(n, 3, size, size)``.
        shaping: the settings.
        seed: random seed for the choice of pictures and the altered copies.
        progress: wraps the batches to show progress: (batches, number of batches).

    Raises:
        ValueError: as ``check_shaping``.
    """
    check_shaping(shaping, bundle.architecture)
    assert isinstance(bundle.architecture, Architecture)
    plain = unshaped(bundle).network()
    assert isinstance(plain, WhitenedResNet)
    generator = Generator().manual_seed(seed)
    chosen = torch.randperm(len(pictures), generator=generator)[: shaping.pictures]
    originals = pictures[chosen].permute(0, 2, 3, 1).numpy()
    copies = [originals, *altered_copies(originals, seed).values()]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plain.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain.rows, plain.pooling = shaping.rows, "middle"
    last, pooled = _pooled(plain, bundle.preprocess, copies, progress)
    plain.cpu()

    architecture = replace(
        bundle.architecture, likeness=shaping.likeness, rows=shaping.rows, pooling="middle"
    )
    shaped = build(architecture)
    assert isinstance(shaped, WhitenedResNet)
    kept = {n: t for n, t in plain.state_dict().items() if not n.startswith("head.")}
    shaped.load_state_dict(kept, strict=False)
    assert shaped.compress is not None and shaped.likeness is not None
    with torch.no_grad():
        matrix, offset = discriminants(pooled, shaping.likeness)
        shaped.likeness.weight.copy_(matrix)
        shaped.likeness.bias.copy_(offset)
        directions = torch.linalg.svd(plain.head.weight, full_matrices=False)[2]  # (c, w3)
        projected = last[0] @ directions.T
        mean = projected.mean(0)
        # The network normalises the likeness part to length 1, so the class part has the weight.
        scale = (projected - mean).norm(dim=1).mean() * shaping.weight
        shaped.compress.weight.copy_(directions / scale)
        shaped.compress.bias.copy_(-mean / scale)
        shaped.head.weight.zero_()
        head = plain.head.weight @ directions.T / plain.dimension  # (classes, c)
        shaped.head.weight[:, : len(directions)] = head * scale
        shaped.head.bias.copy_(head @ mean)
    return replace(
        bundle,
        architecture=architecture,
        weights={
            name: (t.half().float() if t.is_floating_point() else t).numpy()
            for name, t in shaped.state_dict().items()
        },
    )


def unshaped(bundle: Bundle) -> Bundle:
    """The same model without the shape of its embedding; its features are the last features.

    That of an imported network is its fit to a corpus (``embed.imported.fitting``).
    """
    if isinstance(bundle.architecture, Backbone):
        return unfitted(bundle)
    return replace(
        bundle,
        architecture=bundle.architecture.plain(),
        weights={name: tensor.numpy() for name, tensor in plain_weights(bundle).items()},
    )


def plain_weights(bundle: Bundle) -> dict[str, Tensor]:
    """The weights of a bundle without the shape of its embedding; the logits do not change.

    For a ``whitened-resnet`` the two linear layers between last features and logits become one.
    """
    weights = {name: torch.tensor(w) for name, w in bundle.weights.items()}
    if isinstance(bundle.architecture, Backbone) or not bundle.architecture.likeness:
        return weights
    network = bundle.network()
    assert isinstance(network, WhitenedResNet) and network.compress is not None
    class_dimensions, last = network.compress.weight.shape
    head = network.head.weight.detach()[:, :class_dimensions] @ network.compress.weight.detach()
    kept = {n: w for n, w in weights.items() if n.split(".")[0] not in ("compress", "likeness")}
    del kept["head.bias"]  # it undoes the centring of the class part
    return kept | {"head.weight": head * last}


def discriminants(views: Tensor, dimensions: int, shrink: float = 0.1) -> tuple[Tensor, Tensor]:
    """The directions in which pictures differ from each other more than from their own copies.

    Args:
        views: float32 ``(copies, n, d)``; row ``i`` of each copy is of the same picture.
        dimensions: number of directions, at most ``d``.
        shrink: shrinkage of the covariance within pictures towards its mean variance, 0..1
            (Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4).

    Returns:
        matrix ``(dimensions, d)`` and offset ``(dimensions,)``: ``x @ matrix.T + offset`` has mean
        zero over ``views``. Its standard deviation in each direction is the share of the variance
        between pictures: near one where copies stay together, less where they do not.

    Raises:
        ValueError: more dimensions than ``d``.
    """
    d = views.shape[-1]
    if dimensions > d:
        raise ValueError(f"dimensions is {dimensions}; expected at most {d}")
    flat = views.reshape(-1, d)
    mean = flat.mean(0)
    deviation = flat.std(0).clamp(min=1e-6)
    z = ((views - mean) / deviation).double()
    residuals = (z - z.mean(0)).reshape(-1, d)
    within = residuals.T @ residuals / len(residuals)
    within = (1 - shrink) * within + shrink * within.trace() / d * torch.eye(d)
    variances, axes = torch.linalg.eigh(within)
    whiten = axes / variances.clamp(min=1e-12).sqrt()
    centres = z.mean(0) @ whiten
    between, rotation = torch.linalg.eigh(centres.T @ centres / len(centres))
    variance = between.flip(0)[:dimensions].clamp(min=0)  # that within pictures is one
    reliability = variance / (1 + variance)
    best = rotation.flip(1)[:, :dimensions] * reliability / (1 + variance).sqrt()
    matrix = (whiten @ best).T.float() / deviation
    return matrix, -(matrix @ mean)


@torch.no_grad()
def _pooled(
    network: WhitenedResNet,
    preprocess: Preprocess,
    copies: list[NDArray[np.uint8]],
    progress: BatchProgress,
) -> tuple[Tensor, Tensor]:
    """Last features and pooled maps of each copy, float32 ``(copies, n, ...)``."""
    device = next(network.parameters()).device
    network.eval()
    stacked = torch.from_numpy(np.concatenate(copies)).permute(0, 3, 1, 2)
    batches = stacked.split(500)  # type: ignore[no-untyped-call]
    lasts, pools = [], []
    for batch in progress(iter(batches), len(batches)):
        x = preprocess.normalise(batch.to(device))
        with autocast(device):
            last, pooled = network.pooled(x)
        lasts.append(last.float().cpu())
        pools.append(pooled.float().cpu())
    shaped = (len(copies), len(copies[0]), -1)
    return torch.cat(lasts).view(shaped), torch.cat(pools).view(shaped)
