"""The networks. One forward pass returns the logits and the features that the classifier reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

ArchitectureName = Literal["whitened-resnet", "resnet18"]


class Output(NamedTuple):
    """What a network returns: ``logits (n, classes)`` and ``features (n, dimension)``."""

    logits: Tensor
    features: Tensor


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build a network; stored in the bundle beside its weights.

    Attributes:
        name: ``whitened-resnet`` (the default) or ``resnet18`` (torchvision's, CIFAR stem).
        classes: number of classes.
        widths: channels of the three stages of ``whitened-resnet``, even numbers; half the last is
            the dimension of the features. ``resnet18`` has its own (512) and ignores them.
        dropout: share of the features dropped before the classifier while training, 0..1.
    """

    name: ArchitectureName = "whitened-resnet"
    classes: int = 10
    widths: tuple[int, int, int] = (64, 256, 256)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ("whitened-resnet", "resnet18"):
            raise ValueError(
                f"architecture {self.name!r} is not known; expected 'whitened-resnet' or 'resnet18'"
            )
        if self.classes < 2:
            raise ValueError(f"classes is {self.classes}; a classifier needs at least 2")
        if len(self.widths) != 3 or min(self.widths) < 24 or any(w % 2 for w in self.widths):
            raise ValueError(f"widths is {self.widths}; expected three even numbers of at least 24")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}; expected 0 <= dropout < 1")

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for JSON; ``from_dict`` reads it back."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Architecture:
        """Inverse of ``to_dict``. Raises ValueError or TypeError for what it does not know."""
        return Architecture(**{**values, "widths": tuple(values["widths"])})


class Stage(nn.Module):
    """Convolve, halve the resolution, then one residual convolution.

    The pooling stands between convolution and normalisation, and the normalisations have a bias
    but no scale, both as in airbench94 (Jordan 2024, arXiv:2404.00498). The skip around the
    second convolution is what makes this network residual (He et al. 2015, arXiv:1512.03385).
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = MirrorConv(channels_in, channels_out)
        self.norm1 = MirrorNorm(channels_out)
        self.conv2 = MirrorConv(channels_out, channels_out)
        self.norm2 = MirrorNorm(channels_out)

    def forward(self, x: Tensor, partner: Tensor | None = None) -> Tensor:
        """Float ``(n, in, h, w)`` to ``(n, out, (h - 1) // 2, (w - 1) // 2)``, h and w odd."""
        # Windows of 3 cover an odd width from edge to edge, so a mirrored picture pools alike.
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x, partner), 3, stride=2)))
        return F.gelu(x + self.norm2(self.conv2(x)))


class MirrorConv(nn.Module):
    """A 3x3 convolution whose output for a mirrored picture is the mirrored output.

    Channels come in pairs, ``i`` and ``i + channels / 2``, that change places when the picture is
    mirrored. Only the filters of the first half are learned; those of the second half are the
    same filters mirrored, reading the partners of the input channels. Group-equivariant
    convolution (Cohen and Welling 2016, arXiv:1602.07576) for the group of the mirror.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        half = channels_out // 2
        conv = nn.Conv2d(channels_in, half, kernel_size=3, bias=False)
        # Starts as the identity on as many channels as there are (Dirac), as airbench94 does.
        nn.init.dirac_(conv.weight.data[: min(channels_in, half)])
        self.weight = conv.weight

    def forward(self, x: Tensor, partner: Tensor | None = None) -> Tensor:
        """Float ``(n, in, h, w)`` to ``(n, out, h, w)``.

        ``partner`` int64 ``(in,)`` gives each input channel's partner where they are not halves.
        """
        mirrored = self.weight.flip(-1)
        if partner is None:
            mirrored = mirrored.roll(mirrored.shape[1] // 2, dims=1)
        else:
            mirrored = mirrored[:, partner]
        weight = torch.cat([self.weight, mirrored]).contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, weight, padding=1)


class MirrorNorm(nn.Module):
    """Batch normalisation with a learned bias and no scale, the same for both of a pair."""

    running_mean: Tensor
    running_var: Tensor
    # A short memory (0.4 is new), because a quick run has few steps.
    momentum, eps = 0.4, 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels // 2))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Float ``(n, channels, h, w)``, the same shape."""
        bias = self.bias.repeat(2)
        if self.training:
            return F.batch_norm(
                x, self.running_mean, self.running_var, None, bias, True, self.momentum, self.eps
            )
        half = len(self.bias)
        mean, variance = (
            (stat + stat.roll(half)) / 2 for stat in (self.running_mean, self.running_var)
        )
        return F.batch_norm(x, mean, variance, None, bias, False, self.momentum, self.eps)


class WhitenedResNet(nn.Module):
    """A small residual network for 32x32 pictures that learns fast.

    The first layer is a fixed 2x2 convolution that whitens patches (set from training pictures
    by ``whiten``), and the classifier is scaled down so that the first updates shape the
    features; both from airbench94 (arXiv:2404.00498). Built of mirror-equivariant parts: the
    features of a picture and of its mirror image are the same, which training would otherwise
    have to teach by showing both.
    """

    partner: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        w1, w2, w3 = architecture.widths
        self.stem = nn.Conv2d(3, 24, kernel_size=2)
        self.stem.weight.requires_grad = False
        self._set_stem(torch.randn(6, 6), torch.randn(6, 6))
        # Filters 0..5 and 12..17 are symmetric, so their own partners; 6..11 are antisymmetric,
        # and their partners their negatives, 18..23.
        number = torch.arange(24)
        partner = torch.where(number % 12 < 6, number, (number + 12) % 24)
        self.register_buffer("partner", partner, persistent=False)
        self.stages = nn.ModuleList([Stage(24, w1), Stage(w1, w2), Stage(w2, w3)])
        self.dropout = nn.Dropout(architecture.dropout)
        self.dimension: int = w3 // 2
        self.head = nn.Linear(self.dimension, architecture.classes, bias=False)
        with torch.no_grad():
            self.head.weight /= self.head.weight.std()

    def forward(self, x: Tensor) -> Output:
        """Normalised pictures ``(n, 3, 32, 32)``; other even sizes from 16 up work too."""
        bias = self.stem.bias
        assert bias is not None
        bias = (bias + bias[self.partner]) / 2
        x = F.gelu(F.conv2d(x, self.stem.weight, bias))  # (n, 24, 31, 31)
        partner: Tensor | None = self.partner
        for stage in self.stages:  # (n, w1, 15, 15), (n, w2, 7, 7), (n, w3, 3, 3)
            x = stage(x, partner)
            partner = None
        pooled = F.adaptive_max_pool2d(x, 1).flatten(1)  # (n, w3)
        features = pooled[:, : self.dimension] + pooled[:, self.dimension :]  # (n, w3 / 2)
        logits = self.head(self.dropout(features)) / (2 * self.dimension)
        return Output(logits, features)

    @torch.no_grad()
    def whiten(self, pictures: Tensor, eps: float = 5e-4) -> None:
        """Set the first layer so that its outputs on patches of ``pictures`` are uncorrelated.

        Args:
            pictures: normalised float32 ``(n, 3, h, w)``; a few thousand suffice. Their mirror
                images count as much.
            eps: added to each variance, so that noise directions are not blown up.
        """
        patches = pictures.unfold(2, 2, 1).unfold(3, 2, 1)  # (n, 3, h-1, w-1, 2, 2)
        flat = patches.permute(0, 2, 3, 5, 1, 4).reshape(-1, 2, 6).float()  # left, right halves
        # With mirror images counted in, the sum of the halves is uncorrelated to the difference.
        whitened = []
        for part in ((flat[:, 0] + flat[:, 1]) / 2**0.5, (flat[:, 0] - flat[:, 1]) / 2**0.5):
            variances, directions = torch.linalg.eigh(part.T @ part / len(part))
            whitened.append((directions / (variances + eps).sqrt()).T)
        self._set_stem(*whitened)

    @torch.no_grad()
    def _set_stem(self, even: Tensor, odd: Tensor) -> None:
        """Symmetric and antisymmetric filters from left halves ``(6, 6)``, and their negatives."""
        even, odd = even.reshape(6, 3, 2, 1), odd.reshape(6, 3, 2, 1)
        filters = torch.cat([torch.cat([even, even], 3), torch.cat([odd, -odd], 3)]) / 2**0.5
        self.stem.weight.copy_(torch.cat([filters, -filters]))
        self.stem.bias.zero_()  # type: ignore[union-attr]


class ResNet18(nn.Module):
    """torchvision's resnet18 with the stem for small pictures: 3x3, stride 1, no max-pool.

    He et al. 2015 (arXiv:1512.03385), section 4.2, names this stem for CIFAR-10.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        # Only this network needs torchvision; serving the default one does without its import.
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
        return Output(self.head(self.dropout(features)), features)


def build(architecture: Architecture) -> WhitenedResNet | ResNet18:
    """The network that ``architecture`` names, with fresh weights."""
    if architecture.name == "resnet18":
        return ResNet18(architecture)
    return WhitenedResNet(architecture)


def count_flops(architecture: Architecture, input_size: int = 32) -> int:
    """FLOPs (2 x MAC) of one forward pass of one picture ``(1, 3, input_size, input_size)``."""
    network = build(architecture).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, input_size, input_size))
    return int(counter.get_total_flops())
