"""What every runtime promises."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from embed.bundle import PRETRAINED, Bundle
from embed.imported.fitting import centred, projected
from embed.imported.importing import import_model
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


@pytest.mark.parametrize("network", ["test_resnet", "test_vit", "test_efficientnet"])
@pytest.mark.parametrize("fit", ["plain", "centred", "projected"])
def test_runtimes_agree_about_imported_networks(network: str, fit: str) -> None:
    torch.manual_seed(0)
    state = timm.create_model(network, num_classes=5).state_dict()
    bundle = import_model(f"timm:{network}", state, size=96)
    pictures = [render(name, seed) for name in SCENES for seed in range(4)]
    batch = np.stack([bundle.preprocess.fit(picture) for picture in pictures])
    if fit != "plain":
        features = TorchRuntime(bundle, "float32").run(batch).features
        bundle = centred(bundle, features) if fit == "centred" else projected(bundle, features, 20)
    exact = TorchRuntime(bundle, "float32").run(batch)
    found = OpenVinoRuntime(bundle, "float32").run(batch)
    scale = np.abs(exact.features).max()
    np.testing.assert_allclose(found.features, exact.features, atol=1e-3 * scale)
    np.testing.assert_allclose(found.logits, exact.logits, atol=1e-4)
