from __future__ import annotations

import pytest
import torch

from embed.architecture import Architecture, Backbone, read_architecture
from embed.backbones import BackboneError, build_backbone


@pytest.mark.parametrize(
    ("library", "model", "dimension"),
    [
        ("timm", "test_resnet", 96),
        ("timm", "test_vit", 64),
        ("timm", "test_efficientnet", 256),
        ("torchvision", "mobilenet_v3_small", 1024),
    ],
)
def test_logits_are_a_linear_function_of_the_features(
    library: str, model: str, dimension: int
) -> None:
    network = build_backbone(Backbone(library, model, classes=5), 96).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        logits, features = network(torch.randn(2, 3, 96, 96))
        assert features.shape == (2, dimension)
        assert network.head is not None
        assert torch.equal(logits, network.head(features))
    assert logits.shape == (2, 5)


def test_without_classes_there_are_no_logits() -> None:
    network = build_backbone(Backbone("timm", "test_resnet"), 64).eval()
    with torch.no_grad():
        logits, features = network(torch.randn(3, 3, 64, 64))
    assert logits.shape == (3, 0)
    assert features.shape == (3, 96)


def test_a_projection_reads_unit_features_and_a_head_reads_the_unit_embedding() -> None:
    backbone = Backbone(
        "timm", "test_resnet", 4, centred=True, projection=7, head_reads="embedding"
    )
    network = build_backbone(backbone, 64).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        network.centre += 0.1  # type: ignore[operator]
        logits, features = network(x)
        pooled = network.body(x)
        unit = pooled / pooled.norm(dim=1, keepdim=True)
        assert network.projection is not None and network.head is not None
        assert network.centre is not None
        torch.testing.assert_close(features, network.projection(unit - network.centre))
        embedding = features / features.norm(dim=1, keepdim=True)
        torch.testing.assert_close(logits, network.head(embedding))
    assert network.dimension == 7


@pytest.mark.parametrize(
    ("library", "model", "size", "words"),
    [
        ("timm", "no_such_network", 64, "timm has no network 'no_such_network'"),
        ("torchvision", "fcn_resnet50", 64, "no classification network 'fcn_resnet50'"),
        ("torchvision", "squeezenet1_1", 64, "has no linear classifier over pooled features"),
        ("timm", "test_vit", 50, "50 pixels"),
    ],
)
def test_what_cannot_work_is_refused(library: str, model: str, size: int, words: str) -> None:
    with pytest.raises(BackboneError, match=words):
        build_backbone(Backbone(library, model), size)  # type: ignore[arg-type]


def test_plain_dicts() -> None:
    for made in (
        Architecture(classes=3),
        Backbone("timm", "resnet18", 3, centred=True, projection=2),
    ):
        assert read_architecture(made.to_dict()) == made
    with pytest.raises(TypeError):
        read_architecture({"library": "timm", "model": "a", "unknown": 1})
    with pytest.raises(ValueError, match="library is 'keras'"):
        read_architecture({"library": "keras", "model": "a"})
