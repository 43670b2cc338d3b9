"""From pictures to class probabilities and L2-normalised embeddings, in one forward pass."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from embed.bundle import Bundle
from embed.pictures import RGB
from embed.preprocess import Preprocess
from embed.runtime.protocol import Precision, Raw, RuntimeName
from embed.runtime.select import make_runtime


class Encoding(NamedTuple):
    """``probabilities`` float32 ``(n, classes)``, ``embeddings`` float32 ``(n, dimension)``.

    Each row of ``probabilities`` sums to 1, unless the model has no classes; each embedding has
    length 1.
    """

    probabilities: NDArray[np.float32]
    embeddings: NDArray[np.float32]


class PictureEncoder(Protocol):
    """What the search engine needs from an encoder; ``Encoder`` implements it."""

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
        """Length in pixels that a picture's shorter side needs, or detail is lost."""

    @property
    def preprocess(self) -> Preprocess:
        """What ``fit`` does, for others to do where they decode a picture."""

    def fit(self, picture: RGB) -> RGB:
        """Scale and crop a picture to the part that ``encode`` uses, to keep many in memory."""

    def encode(self, pictures: Sequence[RGB] | RGB, *, spare: bool = False) -> Encoding:
        """The probabilities and embeddings of RGB pictures of any size, in the order given.

        ``spare`` leaves cores free for other work.
        """


class Encoder:
    """Runs a bundle's network on pictures.

    Safe to call from several threads. A forward pass that is alone uses all of the runtime's
    threads; otherwise each runs on one of a few workers with an equal share of the threads, which
    is faster than letting passes compete for the cores.
    """

    def __init__(
        self,
        bundle: Bundle,
        batch_size: int = 64,
        precision: Precision = "auto",
        runtime: RuntimeName = "auto",
        threads: int | None = None,
        cache: Path | None = None,
    ) -> None:
        """Prepare the network.

        Args:
            bundle: the trained model.
            batch_size: pictures in one forward pass; bounds memory.
            precision: ``bfloat16`` is about twice as fast on a CPU with instructions for it.
                Embeddings of our own networks keep a cosine above 0.999 to those of ``float32``,
                and of the photo encoder mostly above 0.99; ``auto`` chooses by the hardware.
            runtime: ``openvino`` or ``torch``; ``auto`` chooses the fastest that works.
            threads: CPU threads; None for one per core.
            cache: private folder in which a runtime keeps the network it has exported.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected at least 1")
        self.bundle = bundle
        self.batch_size = batch_size
        self.runtime = make_runtime(bundle, runtime, precision, threads, cache)
        self._digest = bundle.digest
        self._dimension = int(self.runtime.run(self._blank()).features.shape[1])
        self._lock = threading.Lock()
        self._running = 0
        self._idle_workers: SimpleQueue[int] = SimpleQueue()
        for worker in range(self.runtime.workers):
            self._idle_workers.put(worker)

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
        return self._dimension

    @property
    def input_size(self) -> int:
        """Length in pixels that a picture's shorter side needs, or detail is lost."""
        return self.bundle.preprocess.shorter_side

    @property
    def preprocess(self) -> Preprocess:
        """The bundle's preprocessing."""
        return self.bundle.preprocess

    @property
    def precision(self) -> Precision:
        """The precision of the forward pass, ``float32`` or ``bfloat16``."""
        return self.runtime.precision

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return self.runtime.device

    def fit(self, picture: RGB) -> RGB:
        """Scale and crop to uint8 ``(input_size, input_size, 3)``, the first step of ``encode``."""
        return self.bundle.preprocess.fit(picture)

    def encode(self, pictures: Sequence[RGB] | RGB, *, spare: bool = False) -> Encoding:
        """Classify and embed pictures.

        Args:
            pictures: RGB arrays uint8 ``(h, w, 3)`` of any sizes, or one array ``(n, h, w, 3)``.
                Those of the network's input size are taken as ``fit`` returned them.
            spare: use one worker's share of the threads, leaving cores free for other work.

        Returns:
            probabilities ``(n, classes)`` and embeddings ``(n, dimension)``, float32.
        """
        logits, features = self.raw(pictures, spare=spare)
        return Encoding(_softmax(logits / self.bundle.temperature), normalise(features))

    def raw(self, pictures: Sequence[RGB] | RGB, *, spare: bool = False) -> Raw:
        """Logits before division by the temperature, and features before normalisation."""
        logits = np.empty((len(pictures), len(self.classes)), np.float32)
        features = np.empty((len(pictures), self.dimension), np.float32)
        for start in range(0, len(pictures), self.batch_size):
            rows = slice(start, start + self.batch_size)
            batch = self.bundle.preprocess.stack(pictures[rows])
            logits[rows], features[rows] = self._pass(batch, spare)
        return Raw(logits, features)

    def _pass(self, batch: NDArray[np.uint8], spare: bool) -> Raw:
        with self._lock:
            alone = self._running == 0 and not spare
            self._running += 1
        try:
            if alone and self.runtime.workers > 1:
                return self.runtime.run(batch)
            worker = self._idle_workers.get()
            try:
                return self.runtime.run(batch, worker)
            finally:
                self._idle_workers.put(worker)
        finally:
            with self._lock:
                self._running -= 1

    def _blank(self) -> NDArray[np.uint8]:
        size = self.bundle.preprocess.input_size
        return np.zeros((1, size, size, 3), np.uint8)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    shares: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def normalise(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features float32 ``(n, d)`` with rows of length one."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    # A picture with all features zero keeps a zero vector instead of becoming NaN.
    embeddings: NDArray[np.float32] = features / np.maximum(lengths, 1e-12)
    return embeddings
