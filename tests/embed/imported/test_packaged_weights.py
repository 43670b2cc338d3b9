from __future__ import annotations

import pytest
import timm
import torch

from embed.imported.packaged_weights import PACKAGES, packaged_state, packaged_weights

NETWORK = "tf_efficientnet_lite0"


def test_a_network_without_a_package() -> None:
    assert packaged_weights("resnet50") is None
    assert set(PACKAGES) == {f"tf_efficientnet_lite{n}" for n in (0, 1, 2)}


def test_the_package_has_timms_tensors_in_timms_order() -> None:
    path = packaged_weights(NETWORK)
    assert path is not None
    state = packaged_state(NETWORK, path)
    own = timm.create_model(NETWORK).state_dict()
    assert len(state) == 296
    assert {n: v.shape for n, v in state.items()} == {n: v.shape for n, v in own.items()}


@pytest.mark.slow
def test_logits_equal_those_of_the_original_package_to_the_last_bit() -> None:
    original = pytest.importorskip("efficientnet_lite_pytorch")
    path = packaged_weights(NETWORK)
    assert path is not None
    theirs = original.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(path))
    ours = timm.create_model(NETWORK)
    ours.load_state_dict(packaged_state(NETWORK, path))
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours.eval()(x), theirs.eval()(x))
