"""What is done to training pictures, on whole batches of tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


@dataclass(frozen=True)
class Augment:
    """Random changes that keep a picture's class.

    Pixels are those of a picture of 32 pixels; ``at`` gives the same for another size.

    Attributes:
        flip: mirror left to right: ``random`` half of the time, or ``alternating``, each picture
            every other epoch (Jordan 2024, arXiv:2404.00498, section 3.6), or ``none``.
        translate: largest shift in pixels, each direction; the border is reflected.
        rotate: largest turn in degrees, either way.
        brightness: largest change added to all pixels, as a share of the full range, 0..1.
        contrast: largest change of the distance from the picture's mean, as a share, 0..1.
        cutout: side in pixels of a square set to the mean (DeVries 2017, arXiv:1708.04552).
        cutmix: share of the batches in which a box of each picture comes from another one, and the
            label with it, by its area (Yun et al. 2019, arXiv:1905.04899), 0..1.
    """

    flip: Literal["none", "random", "alternating"] = "random"
    translate: int = 4
    rotate: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    cutout: int = 0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if self.flip not in ("none", "random", "alternating"):
            raise ValueError(f"flip is {self.flip!r}; expected none, random or alternating")
        for name in ("translate", "rotate", "brightness", "contrast", "cutout", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 0")
        if self.cutmix > 1:
            raise ValueError(f"cutmix is {self.cutmix}; expected 0 to 1")

    def at(self, size: int) -> Augment:
        """What shifts and covers the same share of a picture of ``size`` pixels."""
        scale = size / 32
        return replace(
            self, translate=round(self.translate * scale), cutout=round(self.cutout * scale)
        )


class Augmenter:
    """Gives augmented batches of one training set.

    The whole set stays in memory as uint8; only a batch at a time becomes float. Everything
    random comes from the generator passed in, so that an epoch can be repeated exactly.
    """

    def __init__(self, pictures: Tensor, augment: Augment, seed: int) -> None:
        """Keep the set, its border already reflected.

        Args:
            pictures: uint8 ``(n, 3, size, size)``.
            augment: what to do.
            seed: decides which pictures start mirrored under ``alternating``.
        """
        self.augment = augment
        self.size = pictures.shape[-1]
        if augment.translate >= self.size:
            raise ValueError(
                f"translate is {augment.translate} pixels; expected less than the picture's"
                f" side of {self.size}"
            )
        if augment.flip == "alternating":
            generator = Generator().manual_seed(seed)
            first = torch.rand(len(pictures), generator=generator) < 0.5
            pictures = pictures.clone()
            pictures[first] = pictures[first].flip(-1)
        pad = augment.translate
        if pad:
            # pad() reflects floats only; in slices, so that the copy stays small.
            pictures = torch.cat(
                [
                    F.pad(part.float(), (pad,) * 4, "reflect").byte()
                    for part in pictures.split(2000)  # type: ignore[no-untyped-call]
                ]
            )
        self._windows = pictures.unfold(2, self.size, 1).unfold(3, self.size, 1)

    def batch(self, index: Tensor, epoch: int, generator: Generator) -> Tensor:
        """Augmented pictures before normalisation.

        Args:
            index: which pictures, int64 ``(b,)``.
            epoch: its parity decides the alternating flip.
            generator: source of all other randomness, on the CPU.

        Returns:
            float32 ``(b, 3, size, size)``, values about 0..255.
        """
        a, b = self.augment, len(index)
        shift = torch.randint(0, 2 * a.translate + 1, (2, b), generator=generator)
        x = self._windows[index, :, shift[0], shift[1]].float()  # (b, 3, size, size)
        if a.flip == "alternating" and epoch % 2:
            x = x.flip(-1)
        elif a.flip == "random":
            mirrored = torch.rand(b, generator=generator) < 0.5
            x = torch.where(mirrored.to(x.device).view(-1, 1, 1, 1), x.flip(-1), x)
        if a.rotate:
            x = _rotate(x, _uniform(b, a.rotate, generator, x))
        if a.brightness or a.contrast:
            mean = x.mean((1, 2, 3), keepdim=True)
            contrast = 1 + _uniform(b, a.contrast, generator, x).view(-1, 1, 1, 1)
            brightness = 255 * _uniform(b, a.brightness, generator, x).view(-1, 1, 1, 1)
            x = ((x - mean) * contrast + mean + brightness).clamp(0, 255)
        if a.cutout:
            x = _cutout(x, a.cutout, torch.randint(0, self.size, (2, b, 1), generator=generator))
        return x


def cutmix(x: Tensor, labels: Tensor, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Put one box of each picture, the same for all, into another picture of the batch.

    Args:
        x: pictures float32 ``(b, 3, size, size)``; not changed.
        labels: int64 ``(b,)``.
        classes: number of classes.
        generator: source of all randomness, on the CPU.

    Returns:
        the pictures, and the share of each class in them, float32 ``(b, classes)``.
    """
    size = x.shape[-1]
    area, *centre = torch.rand(3, generator=generator).tolist()
    half = size * math.sqrt(area) / 2
    (top, bottom), (left, right) = (
        (max(round(c * size - half), 0), min(round(c * size + half), size)) for c in centre
    )
    partner = torch.randperm(len(x), generator=generator).to(x.device)
    x = x.clone()
    x[:, :, top:bottom, left:right] = x[partner, :, top:bottom, left:right]
    share = (bottom - top) * (right - left) / size**2
    shares = F.one_hot(labels, classes).float()
    return x, shares.lerp(shares[partner], share)


def _uniform(n: int, largest: float, generator: Generator, like: Tensor) -> Tensor:
    return ((torch.rand(n, generator=generator) * 2 - 1) * largest).to(like.device)


def _rotate(x: Tensor, degrees: Tensor) -> Tensor:
    angle = degrees * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _cutout(x: Tensor, side: int, centre: Tensor) -> Tensor:
    """Grey out a square around ``centre (2, b, 1)``; what leaves the picture is cut off."""
    offsets = torch.arange(x.shape[-1], device=x.device) - centre.to(x.device)  # (2, b, size)
    inside = (offsets >= -(side // 2)) & (offsets < side - side // 2)
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]  # (b, 1, size, size)
    return torch.where(square, x.mean((2, 3), keepdim=True), x)
