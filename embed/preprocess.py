"""From an RGB picture to the network's input, everywhere but in training's augmentation.

Validation, embedding and serving all use this, so that they agree about every picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from embed.pictures import RGB

if TYPE_CHECKING:
    import torch

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True)
class Preprocess:
    """Scale the shorter side to ``input_size`` (antialiased bilinear), centre-crop, normalise.

    Attributes:
        input_size: side of the square input, pixels.
        mean: per-channel mean of pixel values in 0..1 that the network was trained with.
        std: per-channel standard deviation, likewise.
    """

    input_size: int = 32
    mean: tuple[float, float, float] = CIFAR10_MEAN
    std: tuple[float, float, float] = CIFAR10_STD

    def fit(self, rgb: RGB) -> RGB:
        """Scale and centre-crop one picture to uint8 ``(input_size, input_size, 3)``."""
        size = self.input_size
        if rgb.shape == (size, size, 3):
            return rgb
        image = Image.fromarray(rgb, "RGB")
        fitted = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
        return np.array(fitted, dtype=np.uint8)

    def stack(self, pictures: Sequence[RGB] | RGB) -> NDArray[np.uint8]:
        """Pictures of any size to one uint8 array ``(n, input_size, input_size, 3)``."""
        size = self.input_size
        if isinstance(pictures, np.ndarray) and pictures.shape[1:] == (size, size, 3):
            return np.ascontiguousarray(pictures)
        return np.stack([self.fit(picture) for picture in pictures])

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """uint8 ``(n, 3, h, w)`` to normalised float32 of the same shape, channels last."""
        import torch  # the rest of this module works without it

        mean = torch.tensor(self.mean, device=batch.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=batch.device).view(1, 3, 1, 1)
        values = (batch.float() / 255.0 - mean) / std
        return values.contiguous(memory_format=torch.channels_last)
