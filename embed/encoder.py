"""Pictures to class probabilities and L2-normalised embeddings, in one forward pass."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from embed.bundle import Bundle
from embed.pictures import RGB

Precision = Literal["auto", "float32", "bfloat16"]


class Encoding(NamedTuple):
    """``probabilities`` float32 ``(n, classes)``, ``embeddings`` float32 ``(n, dimension)``.

    Each row of ``probabilities`` sums to one; each embedding has length one.
    """

    probabilities: NDArray[np.float32]
    embeddings: NDArray[np.float32]


class PictureEncoder(Protocol):
    """What the search engine needs of an encoder; ``Encoder`` is the real one."""

    @property
    def digest(self) -> str:
        """The digest of the model that makes the embeddings."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""

    @property
    def dimension(self) -> int:
        """Length of an embedding."""

    @property
    def input_size(self) -> int:
        """Shorter side of a picture, in pixels, below which detail is lost to the encoder."""

    def fit(self, picture: RGB) -> RGB:
        """Scale and crop a picture to what ``encode`` uses of it, to keep many in memory."""

    def encode(self, pictures: Sequence[RGB] | RGB) -> Encoding:
        """RGB pictures of any size to probabilities and embeddings, in the order given."""


class Encoder:
    """Runs a bundle's network over pictures.

    Safe to call from several threads: one forward pass runs at a time, on all of torch's threads,
    which is faster than passes that compete for the cores.
    """

    def __init__(
        self, bundle: Bundle, batch_size: int = 250, precision: Precision = "auto"
    ) -> None:
        """Prepare the network.

        Args:
            bundle: the trained model.
            batch_size: pictures in one forward pass; bounds memory.
            precision: ``bfloat16`` is about twice as fast on a CPU with instructions for it, and
                embeddings stay within cosine 0.999 of ``float32``; ``auto`` picks by the CPU.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected at least 1")
        self.bundle = bundle
        self.batch_size = batch_size
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if precision == "auto":
            # A GPU's and a CPU's bfloat16 both need hardware for it to be of use.
            fast = (
                torch.cuda.is_bf16_supported()
                if self.device.type == "cuda"
                else torch.cpu._is_avx512_bf16_supported()
            )
            precision = "bfloat16" if fast else "float32"
        self.precision: Precision = precision
        self._digest = bundle.digest
        self._network = bundle.network().to(self.device)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._lock = threading.Lock()

    @property
    def digest(self) -> str:
        """The bundle's digest."""
        return self._digest

    @property
    def classes(self) -> tuple[str, ...]:
        """The bundle's classes."""
        return self.bundle.classes

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self._network.dimension

    @property
    def input_size(self) -> int:
        """Side of the network's input, pixels."""
        return self.bundle.preprocess.input_size

    def fit(self, picture: RGB) -> RGB:
        """Scale and crop to uint8 ``(input_size, input_size, 3)``, as ``encode`` does first."""
        return self.bundle.preprocess.fit(picture)

    def encode(self, pictures: Sequence[RGB] | RGB) -> Encoding:
        """Classify and embed pictures.

        Args:
            pictures: RGB arrays uint8 ``(h, w, 3)`` of any sizes, or one array ``(n, h, w, 3)``.

        Returns:
            probabilities ``(n, classes)`` and embeddings ``(n, dimension)``, float32.
        """
        probabilities = np.empty((len(pictures), len(self.classes)), np.float32)
        embeddings = np.empty((len(pictures), self.dimension), np.float32)
        for start in range(0, len(pictures), self.batch_size):
            rows = slice(start, start + self.batch_size)
            batch = self.bundle.preprocess.stack(pictures[rows])
            logits, features = self._forward(batch)
            probabilities[rows] = F.softmax(logits / self.bundle.temperature, dim=1).numpy()
            embeddings[rows] = F.normalize(features, dim=1).numpy()
        return Encoding(probabilities, embeddings)

    def logits(self, pictures: Sequence[RGB] | RGB) -> torch.Tensor:
        """Logits before the temperature, float32 ``(n, classes)``: for evaluation."""
        batches = [
            self._forward(self.bundle.preprocess.stack(pictures[start : start + self.batch_size]))
            for start in range(0, len(pictures), self.batch_size)
        ]
        return torch.cat([logits for logits, _ in batches])

    def _forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.bundle.preprocess.normalise(batch.to(self.device))
        reduced = self.precision == "bfloat16"
        with (
            self._lock,
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=reduced),
        ):
            output = self._network(x)
        return output.logits.float().cpu(), output.features.float().cpu()
