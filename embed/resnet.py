"""The networks. A forward pass returns the logits and the features that the classifier reads."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from embed.architecture import Architecture


class Output(NamedTuple):
    """What a network returns: ``logits (n, classes)`` and ``features (n, dimension)``."""

    logits: Tensor
    features: Tensor


class Stage(nn.Module):
    """Convolve, halve the resolution, then one or two residual convolutions.

    Pooling comes between convolution and normalisation, and the normalisations have a bias but no
    scale, both as in airbench94 (Jordan 2024, arXiv:2404.00498). The skip connection around the
    later convolutions makes this network residual (He et al. 2015, arXiv:1512.03385).
    """

    def __init__(self, channels_in: int, channels_out: int, depth: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels_in, channels_out)
        self.norm1 = _BiasNorm(channels_out)
        self.conv2 = _conv3x3(channels_out, channels_out)
        self.norm2 = _BiasNorm(channels_out)
        self.deep = depth == 3
        if self.deep:
            self.conv3 = _conv3x3(channels_out, channels_out)
            self.norm3 = _BiasNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Float ``(n, in, h, w)`` to ``(n, out, h // 2, w // 2)``."""
        return self.maps(x)[1]

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The stage's last two maps, each ``(n, out, h // 2, w // 2)``."""
        before = x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        y = self.norm2(self.conv2(x))
        if self.deep:
            before = F.gelu(y)
            y = self.norm3(self.conv3(before))
        return before, F.gelu(x + y)


class WhitenedResNet(nn.Module):
    """A small residual network for 32x32 pictures that learns fast.

    The first layer is a fixed 2x2 convolution that whitens patches (set from training pictures by
    ``whiten``); convolutions start as the identity (Dirac); the classifier's output is scaled down
    so that the first updates shape the features. All three come from airbench94
    (arXiv:2404.00498).
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        w1, w2, w3 = architecture.widths
        self.stem = nn.Conv2d(3, 24, kernel_size=2)
        self.stem.weight.requires_grad = False
        depth = architecture.depth
        self.stages = nn.Sequential(
            Stage(24, w1, depth), Stage(w1, w2, depth), Stage(w2, w3, depth)
        )
        self.dropout = nn.Dropout(architecture.dropout)
        self.compress: nn.Linear | None = None
        self.likeness: nn.Linear | None = None
        self.rows = architecture.rows
        self.pooling = architecture.pooling
        if architecture.likeness:
            class_dimensions = min(w3, architecture.classes)
            parts = self.rows if self.rows > 1 else 2
            pooled = parts * (w1 + w2) + w3
            if self.pooling == "middle":
                pooled = 2 * self.rows * w2
            self.compress = nn.Linear(w3, class_dimensions)
            self.likeness = nn.Linear(pooled, architecture.likeness)
            self.dimension: int = class_dimensions + architecture.likeness
            self.head = nn.Linear(self.dimension, architecture.classes)
        else:
            self.dimension = w3
            self.head = nn.Linear(w3, architecture.classes, bias=False)
            with torch.no_grad():
                self.head.weight /= self.head.weight.std()
        self.shrink = architecture.shrink

    def forward(self, x: Tensor) -> Output:
        """Normalised pictures ``(n, 3, 32, 32)``, or of any size from 16 times ``shrink``."""
        if self.compress is None or self.likeness is None:
            last = self.stages(self._first(x))  # (n, w3, 3, 3)
            features = F.adaptive_max_pool2d(last, 1).flatten(1)  # (n, w3)
            return Output(self.classify(self.dropout(features)), features)
        last, pooled = self.pooled(x)
        likeness = F.normalize(self.likeness(pooled))
        features = torch.cat([self.compress(last), likeness], 1)
        return Output(self.classify(features), features)

    def classify(self, features: Tensor) -> Tensor:
        """Features ``(n, dimension)`` to logits ``(n, classes)``."""
        logits: Tensor = self.head(features)
        return logits / self.dimension if self.likeness is None else logits

    def pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled maps that features with ``likeness`` are computed from.

        Args:
            x: normalised pictures ``(n, 3, 32, 32)``.

        Returns:
            the maxima of the last map ``(n, w3)``, and the input of ``likeness``. That is, for
            ``middle``, the means of the second stage's last two maps over each of ``rows`` rows,
            with columns weighted by a cosine window ``(n, 2 * rows * w2)``. For ``stages``, it is
            the means of each stage's last map, those of the first two stages over each row
            ``(n, rows * (w1 + w2) + w3)``; for one row, the means of all three and the maxima of
            the first two ``(n, 2 * (w1 + w2) + w3)``.
        """
        pairs = []
        x = self._first(x)
        for stage in self.stages:
            pairs.append(stage.maps(x))  # type: ignore[operator]
            x = pairs[-1][1]
        maps = [last for _, last in pairs]
        maxima = maps[-1].amax((2, 3))
        if self.pooling == "middle":
            return maxima, torch.cat([_centred_rows(m, self.rows) for m in pairs[1]], 1)
        if self.rows > 1:
            rows = [F.adaptive_avg_pool2d(m, (self.rows, 1)).flatten(1) for m in maps[:2]]
            return maxima, torch.cat([*rows, maps[-1].mean((2, 3))], 1)
        means = [m.mean((2, 3)) for m in maps]
        return maxima, torch.cat([*means, *(m.amax((2, 3)) for m in maps[:2])], 1)

    def _first(self, x: Tensor) -> Tensor:
        """The first layer's outputs, ``(n, 24, 31, 31)`` for pictures of 32 pixels."""
        if self.training:
            x = self.stem(x)
        else:
            # Whitening amplifies small differences of pixels, and bfloat16's rounding with them.
            with torch.autocast(x.device.type, enabled=False):
                x = self.stem(x.float())
        x = F.gelu(x)
        if self.shrink > 1:
            # Average the strength of nearby edges and colours instead of shrinking the picture:
            # detail finer than a pixel of the result still counts.
            x = F.avg_pool2d(x, self.shrink)
        return x

    @torch.no_grad()
    def whiten(self, pictures: Tensor, eps: float = 5e-4) -> None:
        """Set the first layer so that its outputs on patches of ``pictures`` are uncorrelated.

        Args:
            pictures: normalised float32 ``(n, 3, h, w)``; a few thousand suffice.
            eps: added to each variance, so that directions of mere noise are not amplified.
        """
        patches = pictures.unfold(2, 2, 1).unfold(3, 2, 1)  # (n, 3, h-1, w-1, 2, 2)
        flat = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 12).float()
        variances, directions = torch.linalg.eigh(flat.T @ flat / len(flat))
        filters = (directions / (variances + eps).sqrt()).T.reshape(12, 3, 2, 2)
        self.stem.weight.copy_(torch.cat([filters, -filters]))
        self.stem.bias.zero_()  # type: ignore[union-attr]


class ResNet18(nn.Module):
    """torchvision's resnet18 with a stem for small pictures: 3x3, stride 1, no max-pooling.

    He et al. 2015 (arXiv:1512.03385), section 4.2, use this stem for CIFAR-10.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        # Only this network needs torchvision; the default one is served without importing it.
        from torchvision.models import resnet18

        self.trunk = resnet18(weights=None)
        self.trunk.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
        self.trunk.maxpool = nn.Identity()
        self.dimension: int = int(self.trunk.fc.in_features)
        self.trunk.fc = nn.Identity()
        self.dropout = nn.Dropout(architecture.dropout)
        self.head = nn.Linear(self.dimension, architecture.classes)

    def forward(self, x: Tensor) -> Output:
        """Normalised pictures ``(n, 3, h, w)``."""
        features = self.trunk(x)  # (n, 512)
        return Output(self.classify(self.dropout(features)), features)

    def classify(self, features: Tensor) -> Tensor:
        """Features ``(n, 512)`` to logits ``(n, classes)``."""
        logits: Tensor = self.head(features)
        return logits


def build(architecture: Architecture) -> WhitenedResNet | ResNet18:
    """The network that ``architecture`` names, with fresh weights."""
    if architecture.name == "resnet18":
        return ResNet18(architecture)
    return WhitenedResNet(architecture)


def count_flops(architecture: Architecture, input_size: int = 32) -> int:
    """FLOPs (2 x MAC) of a forward pass of one picture ``(1, 3, input_size, input_size)``."""
    network = build(architecture).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, input_size, input_size))
    return int(counter.get_total_flops())


class _BiasNorm(nn.BatchNorm2d):
    """Batch normalisation with a learned bias and a fixed scale of one."""

    def __init__(self, channels: int) -> None:
        # High momentum (each batch counts 0.4), because a quick run has few steps.
        super().__init__(channels, momentum=0.4)
        self.weight.requires_grad = False


def _centred_rows(x: Tensor, rows: int) -> Tensor:
    """Means ``(n, c * rows)`` of maps ``(n, c, h, w)`` over rows, middle columns weighted most.

    The subject of a picture is more often in its middle than at its sides.
    """
    window = torch.signal.windows.cosine(int(x.shape[-1]), device=x.device)
    return F.adaptive_avg_pool2d(x * (window / window.mean()), (rows, 1)).flatten(1)


def _conv3x3(channels_in: int, channels_out: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[:channels_in])
    return conv
