"""What every runtime promises."""

from __future__ import annotations

import numpy as np
import pytest

from embed.bundle import PRETRAINED, Bundle
from embed.runtime.openvino import OpenVinoRuntime
from embed.runtime.pytorch import TorchRuntime
from embed.scenes import SCENES, render

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("runtime", [OpenVinoRuntime, TorchRuntime])
def test_bfloat16_keeps_the_embedding(runtime: type[OpenVinoRuntime | TorchRuntime]) -> None:
    """Including that of smooth pictures, whose edges are small differences of large numbers."""
    bundle = Bundle.load(PRETRAINED)
    rng = np.random.default_rng(0)
    scenes = np.stack([render(name, seed) for name in SCENES for seed in range(4)])
    smooth = rng.uniform(20, 235, (16, 1, 1, 3)) + np.linspace(0, 18, 32)[:, None, None]
    pictures = np.concatenate((scenes, np.broadcast_to(smooth, (16, 32, 32, 3)).astype(np.uint8)))
    exact = TorchRuntime(bundle, "float32").run(pictures).features
    found = runtime(bundle, "bfloat16").run(pictures).features
    cosines = (exact * found).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(found, axis=1)
    assert cosines.min() > 0.999
