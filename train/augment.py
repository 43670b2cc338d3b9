"""Random changes to training pictures, a batch of tensors at a time."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from train.recipe import Augment


class Augmenter:
    """Makes augmented batches of one training set.

    The whole set stays in memory as uint8; only a batch at a time becomes float. All randomness
    comes from the generator passed in, so that an epoch can be repeated exactly.
    """

    def __init__(self, pictures: Tensor, augment: Augment, seed: int) -> None:
        """Keep the set, mirrored in part under ``alternating``.

        Args:
            pictures: uint8 ``(n, 3, size, size)``.
            augment: the changes, for this size of pictures.
            seed: chooses the pictures that start mirrored under ``alternating``.

        Raises:
            ValueError: ``translate`` is as large as the pictures.
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
        self._pictures = pictures

    def batch(self, index: Tensor, epoch: int, generator: Generator) -> Tensor:
        """Augmented pictures before normalisation.

        Args:
            index: rows of the set, int64 ``(b,)``.
            epoch: odd epochs mirror all pictures under ``alternating``.
            generator: source of all other randomness, on the CPU.

        Returns:
            float32 ``(b, 3, size, size)``, values about 0..255.
        """
        a, b = self.augment, len(index)
        shift = torch.randint(0, 2 * a.translate + 1, (2, b), generator=generator)
        x = self._pictures[index].float()  # (b, 3, size, size)
        if a.translate:
            x = F.pad(x, (a.translate,) * 4, "reflect")
            windows = x.unfold(2, self.size, 1).unfold(3, self.size, 1)
            x = windows[torch.arange(b), :, shift[0], shift[1]]
        if a.flip == "alternating" and epoch % 2:
            x = x.flip(-1)
        elif a.flip == "random":
            mirrored = torch.rand(b, generator=generator) < 0.5
            x = torch.where(mirrored.to(x.device).view(-1, 1, 1, 1), x.flip(-1), x)
        if a.rotate:
            x = _rotate(x, _uniform(b, a.rotate, generator, x.device))
        if a.brightness or a.contrast:
            mean = x.mean((1, 2, 3), keepdim=True)
            contrast = 1 + _uniform(b, a.contrast, generator, x.device).view(-1, 1, 1, 1)
            brightness = 255 * _uniform(b, a.brightness, generator, x.device).view(-1, 1, 1, 1)
            x = ((x - mean) * contrast + mean + brightness).clamp(0, 255)
        if a.cutout:
            x = _cutout(x, a.cutout, torch.randint(0, self.size, (2, b, 1), generator=generator))
        return x


def cutmix(x: Tensor, labels: Tensor, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Replace a random box of each picture, the same for all, by that of another in the batch.

    Args:
        x: pictures float32 ``(b, 3, size, size)``; not modified.
        labels: int64 ``(b,)``.
        classes: number of classes.
        generator: source of all randomness, on the CPU.

    Returns:
        the mixed pictures, and the share of each class in them, float32 ``(b, classes)``.
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


def _uniform(n: int, largest: float, generator: Generator, device: torch.device) -> Tensor:
    return ((torch.rand(n, generator=generator) * 2 - 1) * largest).to(device)


def _rotate(x: Tensor, degrees: Tensor) -> Tensor:
    angle = degrees * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _cutout(x: Tensor, side: int, centre: Tensor) -> Tensor:
    """Set a square around ``centre (2, b, 1)`` to the mean; parts outside are cut off."""
    offsets = torch.arange(x.shape[-1], device=x.device) - centre.to(x.device)  # (2, b, size)
    inside = (offsets >= -(side // 2)) & (offsets < side - side // 2)
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]  # (b, 1, size, size)
    return torch.where(square, x.mean((2, 3), keepdim=True), x)
