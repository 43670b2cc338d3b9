"""From an RGB picture to the network's input, everywhere but in training's augmentation.

Validation, embedding and serving all use this, so that they agree about every picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

if TYPE_CHECKING:
    import torch

RGB = NDArray[np.uint8]
"""One picture: uint8 ``(height, width, 3)``, sRGB values."""
Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)


Resize = Literal["fit", "crop", "squeeze", "pad"]
Interpolation = Literal["bilinear", "bicubic"]
_DECODED = 2
"""How many times the side that a network needs a JPEG is decoded at, at least: at its native scales
pixels are averaged in blocks, which would be seen in embeddings (docs/benchmarks.md)."""


@dataclass(frozen=True)
class Preprocess:
    """Scale to a square of ``input_size`` pixels (antialiased) and normalise.

    Attributes:
        input_size: side of the square input, pixels.
        mean: per-channel mean of pixel values in 0..1 that the network was trained with.
        std: per-channel standard deviation, likewise.
        resize: how a picture becomes square. ``fit``: the largest central square, scaled.
            ``crop``: the shorter side scaled to ``input_size / crop``, then a central crop, as timm
            and torchvision evaluate. ``squeeze``: the whole picture, its sides scaled unequally.
            ``pad``: the whole picture, with bars of the mean colour.
        crop: share of the scaled shorter side that ``crop`` keeps, above 0, at most 1.
        interpolation: ``bilinear`` or ``bicubic``.
    """

    input_size: int = 32
    mean: tuple[float, float, float] = CIFAR10_MEAN
    std: tuple[float, float, float] = CIFAR10_STD
    resize: Resize = "fit"
    crop: float = 1.0
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        if self.input_size < 1:
            raise ValueError(f"input_size is {self.input_size}; expected at least 1 pixel")
        if self.resize not in get_args(Resize):
            raise ValueError(
                f"resize is {self.resize!r}; expected one of {', '.join(get_args(Resize))}"
            )
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is {self.crop}; expected a share above 0, at most 1")
        if self.interpolation not in get_args(Interpolation):
            raise ValueError(
                f"interpolation is {self.interpolation!r}; expected one of"
                f" {', '.join(get_args(Interpolation))}"
            )

    @property
    def shorter_side(self) -> int:
        """The shorter side that a picture is scaled to before any crop, pixels."""
        if self.resize != "crop":
            return self.input_size
        return int(self.input_size / self.crop + 1e-6)  # as timm, which rounds down

    @property
    def decoded_side(self) -> int:
        """The shorter side that a JPEG should be decoded at, or more, before `fit`, pixels."""
        return _DECODED * self.shorter_side

    def fit(self, picture: RGB | Image.Image, box: Box | None = None) -> RGB:
        """Make one picture uint8 ``(input_size, input_size, 3)``.

        Args:
            picture: uint8 ``(h, w, 3)``, or an image of the mode "RGB".
            box: the part of it that is the picture, where not all of the pixels at its edges are.
        """
        size = self.input_size
        if isinstance(picture, np.ndarray):
            if picture.shape == (size, size, 3) and self.shorter_side == size:
                return picture
            picture = Image.fromarray(picture, "RGB")
        image, method = picture, Image.Resampling[self.interpolation.upper()]
        box = box or (0, 0, image.width, image.height)
        w, h = box[2] - box[0], box[3] - box[1]
        if self.resize == "crop":
            image = self._cropped(image, method, box)
        elif self.resize == "squeeze":
            image = image.resize((size, size), method, box)
        elif self.resize == "pad":
            r, g, b = (round(255 * value) for value in self.mean)
            sides = (size, round(h / w * size)) if w >= h else (round(w / h * size), size)
            image = image.resize((max(1, sides[0]), max(1, sides[1])), method, box)
            image = ImageOps.pad(image, (size, size), method=method, color=(r, g, b))
        else:
            side = min(w, h)
            left, top = box[0] + (w - side) / 2, box[1] + (h - side) / 2
            image = image.resize((size, size), method, (left, top, left + side, top + side))
        return np.array(image, dtype=np.uint8)

    def _cropped(self, image: Image.Image, method: Image.Resampling, box: Box) -> Image.Image:
        """Rounded as torchvision's Resize and CenterCrop do."""
        short, size = self.shorter_side, self.input_size
        w, h = box[2] - box[0], box[3] - box[1]
        sides = (short, int(short * h // w)) if w <= h else (int(short * w // h), short)
        left, top = round((sides[0] - size) / 2), round((sides[1] - size) / 2)
        return image.resize(sides, method, box).crop((left, top, left + size, top + size))

    def stack(self, pictures: Sequence[RGB] | RGB) -> NDArray[np.uint8]:
        """Pictures to one uint8 array ``(n, input_size, input_size, 3)``.

        Those that have the input's size already are taken as ``fit`` returned them.
        """
        shape = (self.input_size, self.input_size, 3)
        if isinstance(pictures, np.ndarray) and pictures.shape[1:] == shape:
            return np.ascontiguousarray(pictures)
        return np.stack([p if p.shape == shape else self.fit(p) for p in pictures])

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for JSON; ``from_dict`` reads it back."""
        values = asdict(self)
        # Left out, so that bundles older than these fields keep their digest.
        for name, default in (("resize", "fit"), ("crop", 1.0), ("interpolation", "bilinear")):
            if values[name] == default:
                del values[name]
        return values

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Preprocess:
        """Inverse of ``to_dict``. Raises ValueError or TypeError for unknown values or fields."""
        return Preprocess(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """uint8 ``(n, 3, h, w)`` to normalised float32 of the same shape, channels last."""
        import torch  # the rest of this module works without it

        mean = torch.tensor(self.mean, device=batch.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=batch.device).view(1, 3, 1, 1)
        values = (batch.float() / 255.0 - mean) / std
        return values.contiguous(memory_format=torch.channels_last)
