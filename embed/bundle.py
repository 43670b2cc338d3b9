"""A trained model on disk: a folder with ``bundle.json``, ``weights.safetensors`` and a card.

It contains no pickles, so opening a bundle from a stranger cannot run code.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from embed.architecture import Architecture, Backbone, read_architecture
from embed.preprocess import Preprocess

if TYPE_CHECKING:
    from embed.backbones import BackboneNetwork
    from embed.resnet import ResNet18, WhitenedResNet

FORMAT_VERSION = 2
"""Since 2, the digest covers what makes embeddings; in 1, also what makes class scores of them."""
MANIFEST = "bundle.json"
WEIGHTS = "weights.safetensors"
CARD = "MODEL_CARD.md"
PRETRAINED = Path(__file__).parent / "pretrained"
_CLASSIFIER = "head."
"""Where the names of the classifier's weights begin, in every network."""


class BundleError(ValueError):
    """A bundle is missing, damaged, inconsistent or in a newer format."""


@dataclass(frozen=True)
class Bundle:
    """A trained classifier and everything needed to use it.

    Attributes:
        architecture: the network to build.
        preprocess: how a picture becomes the network's input.
        classes: class names in the order of the logits.
        weights: the network's state, name to array. Floating-point arrays of our own networks are
            fp16 on disk, those of other libraries float32, as they came.
        temperature: divides the logits before the softmax so that confidence matches accuracy
            (Guo et al. 2017, arXiv:1706.04599); fitted on the validation split.
        metrics: measurements, name to value; for people, not used by the program.
        training: recipe, versions, seed and the like; also for people.
        format_version: of the file; determines what ``digest`` covers.
    """

    architecture: Architecture | Backbone
    preprocess: Preprocess
    classes: tuple[str, ...]
    weights: dict[str, NDArray[Any]] = field(repr=False)
    temperature: float = 1.0
    metrics: dict[str, Any] = field(default_factory=dict, repr=False)
    training: dict[str, Any] = field(default_factory=dict, repr=False)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if len(self.classes) != self.architecture.classes:
            raise BundleError(
                f"the bundle names {len(self.classes)} classes but its network has"
                f" {self.architecture.classes} outputs; expected one name for each output"
            )
        if not self.temperature > 0:
            raise BundleError(f"temperature is {self.temperature}; expected a number above 0")

    @property
    def digest(self) -> str:
        """``sha256:`` and 64 hex digits over weights, architecture and preprocessing.

        The classifier and its classes are left out: bundles with the same digest make the same
        embeddings, and an index belongs to one digest. (Format 1 includes them.)
        """
        return self._digest_of(self._encoded_weights())

    @property
    def content_digest(self) -> str:
        """As ``digest``, and also over the classifier and its classes."""
        return _digest(self._content(), _sha256(self._encoded_weights()))

    def network(self) -> WhitenedResNet | ResNet18 | BackboneNetwork:
        """The network with these weights in float32, in evaluation mode.

        Raises:
            BundleError: the weights do not fit the architecture, or its library lacks it.
        """
        # Imported here: reading a bundle, or serving it with another runtime, needs no torch.
        import torch

        network: WhitenedResNet | ResNet18 | BackboneNetwork
        if isinstance(self.architecture, Backbone):
            from embed.backbones import BackboneError, build_backbone

            try:
                network = build_backbone(self.architecture, self.preprocess.input_size)
            except BackboneError as error:
                raise BundleError(str(error)) from error
        else:
            from embed.resnet import build

            network = build(self.architecture)
        try:
            network.load_state_dict({n: torch.tensor(w) for n, w in self.weights.items()})
        except RuntimeError as error:
            raise BundleError(
                f"the weights do not fit the architecture {self.architecture.name!r}:"
                f" {' '.join(str(error).split())[:300]}"
            ) from error
        return network.eval()

    def save(self, folder: Path, card: str = "") -> None:
        """Write the bundle to ``folder``, replacing an older bundle there.

        Args:
            folder: the destination; created if needed.
            card: the text of the model card, Markdown.

        Raises:
            BundleError: a weight is out of range for fp16.
        """
        folder.mkdir(parents=True, exist_ok=True)
        weights = self._encoded_weights()
        manifest = {
            "format_version": self.format_version,
            "digest": self._digest_of(weights),
            **self._content(),
            "temperature": self.temperature,
            "metrics": self.metrics,
            "training": self.training,
            "files": {WEIGHTS: _sha256(weights)},
        }
        manifest["checksum"] = _digest(manifest)
        _write(folder / WEIGHTS, weights)
        _write(folder / CARD, card.encode())
        _write(folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())

    @staticmethod
    def load(folder: Path) -> Bundle:
        """Read a bundle and check every checksum in it.

        Raises:
            BundleError: not a bundle, a newer format, or changed since it was saved.
        """
        path = folder / MANIFEST
        try:
            manifest = json.loads(path.read_bytes())
            checksum = manifest.pop("checksum")
        except FileNotFoundError:
            raise BundleError(
                f"no model in {folder}: {MANIFEST} is missing; train one with"
                f" `lookalike train --out {folder}` or choose another with --bundle"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{path} cannot be read as a bundle: {error}") from error
        version = manifest.get("format_version")
        if version not in (1, FORMAT_VERSION):
            raise BundleError(
                f"{path} has bundle format {version!r}, this program reads 1 to {FORMAT_VERSION};"
                " use the version of Lookalike that made it, or train again"
            )
        if (found := _digest(manifest)) != checksum:
            raise BundleError(
                f"{path} was changed after it was saved: its checksum is {found}, expected"
                f" {checksum}; restore the file"
            )
        try:
            encoded = (folder / WEIGHTS).read_bytes()
        except OSError as error:
            raise BundleError(f"{folder / WEIGHTS} cannot be read: {error.strerror}") from error
        if (found := _sha256(encoded)) != manifest["files"][WEIGHTS]:
            raise BundleError(
                f"{folder / WEIGHTS} is damaged: its checksum is {found}, expected"
                f" {manifest['files'][WEIGHTS]}; restore the file"
            )
        try:
            arrays = safetensors.numpy.load(encoded)
            bundle = Bundle(
                architecture=read_architecture(manifest["architecture"]),
                preprocess=Preprocess.from_dict(manifest["preprocess"]),
                classes=tuple(manifest["classes"]),
                weights={
                    name: array.astype(np.float32) if _is_float(array) else array
                    for name, array in arrays.items()
                },
                temperature=float(manifest["temperature"]),
                metrics=manifest["metrics"],
                training=manifest["training"],
                format_version=version,
            )
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"the bundle in {folder} is inconsistent: {error}") from error
        # Indexes are checked against this digest, so it must be that of what was read.
        if (found := bundle._digest_of(encoded)) != manifest["digest"]:
            raise BundleError(
                f"{path} states the digest {manifest['digest']}, but its content has {found};"
                " restore the bundle"
            )
        return bundle

    def _content(self) -> dict[str, Any]:
        return {
            "architecture": self.architecture.to_dict(),
            "preprocess": self.preprocess.to_dict(),
            "classes": list(self.classes),
        }

    def _digest_of(self, encoded: bytes) -> str:
        """The digest, given what `_encoded_weights` returns."""
        content = self._content()
        if self.format_version == 1:
            return _digest(content, _sha256(encoded))
        architecture = content["architecture"]
        for name in ("classes", "head_reads"):
            architecture.pop(name, None)
        embeds = {n: w for n, w in self.weights.items() if not n.startswith(_CLASSIFIER)}
        return _digest(architecture, content["preprocess"], _sha256(self._encode(embeds)))

    def _encoded_weights(self) -> bytes:
        return self._encode(self.weights)

    def _encode(self, weights: dict[str, NDArray[Any]]) -> bytes:
        if isinstance(self.architecture, Backbone):
            return safetensors.numpy.save(
                {n: np.ascontiguousarray(w).reshape(w.shape) for n, w in sorted(weights.items())}
            )
        halves: dict[str, NDArray[Any]] = {}
        for name, array in sorted(weights.items()):
            half = array
            if _is_float(array):
                with np.errstate(over="ignore"):
                    half = array.astype(np.float16)
                if not np.isfinite(half).all():
                    raise BundleError(
                        f"weight {name!r} has values that fp16 cannot hold (largest"
                        f" {float(np.abs(array).max()):.3g}, limit 65504): training diverged;"
                        " train again with a lower learning rate"
                    )
            halves[name] = np.ascontiguousarray(half).reshape(half.shape)
        return safetensors.numpy.save(halves)


def _is_float(array: NDArray[Any]) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


def _digest(*parts: Any) -> str:
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()
    return f"sha256:{_sha256(canonical)}"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    """Replace ``path`` atomically: a reader sees either the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
