from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor
from torchvision import models

from embed.architecture import Backbone
from embed.bundle import Bundle
from embed.encoder import Encoder
from embed.imported.importing import ModelImportError, import_model, model_card
from embed.preprocess import Preprocess
from tests.embed.helpers import noise


@pytest.fixture(scope="module")
def resnet() -> torch.nn.Module:
    torch.manual_seed(1)
    network: torch.nn.Module = timm.create_model("test_resnet").eval()
    return network


def state_of(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_a_timm_network_answers_as_timm_does(resnet: torch.nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(state_of(resnet), file)
    import_model("timm:test_resnet", file).save(tmp_path / "bundle")
    bundle = Bundle.load(tmp_path / "bundle")

    config = timm.data.resolve_model_data_config(resnet)
    assert bundle.preprocess == Preprocess(
        160, config["mean"], config["std"], "crop", config["crop_pct"], config["interpolation"]
    )
    assert bundle.classes[:2] == ("tench", "goldfish")
    assert len(set(bundle.classes)) == 1000  # of ImageNet's two cranes, one is "crane (2)"

    pictures = [noise(200, 260), noise(170, 160)]
    transform = timm.data.create_transform(**config, is_training=False)
    from PIL import Image

    x = torch.stack([transform(Image.fromarray(picture)) for picture in pictures])
    with torch.no_grad():
        features = resnet.forward_head(resnet.forward_features(x), pre_logits=True)  # type: ignore[operator]
        logits = resnet(x)
    raw = Encoder(bundle, runtime="torch", precision="float32").raw(
        [bundle.preprocess.fit(picture) for picture in pictures]
    )
    np.testing.assert_allclose(raw.features, features.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(raw.logits, logits.numpy(), rtol=1e-4, atol=1e-5)


def test_torchvisions_own_weights_come_from_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(2)
    network = models.mobilenet_v3_small(weights=None).eval()
    weights = models.MobileNet_V3_Small_Weights.IMAGENET1K_V1
    cached = tmp_path / "hub" / "checkpoints" / Path(weights.url).name
    cached.parent.mkdir(parents=True)
    torch.save(network.state_dict(), cached)
    for source in (
        "torchvision:mobilenet_v3_small",
        "torchvision:mobilenet_v3_small:IMAGENET1K_V1",
    ):
        bundle = import_model(source)
        assert bundle.preprocess == Preprocess(
            224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "crop", 0.875, "bilinear"
        )
        assert bundle.classes[0] == "tench"
        assert str(weights.url) in bundle.training["weights"]
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(bundle.network()(x).logits, network(x))


def test_a_download_that_fails_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(ModelImportError, match=r"cannot be downloaded .* --weights"):
        import_model("torchvision:resnet18")
    monkeypatch.setattr(timm.models._builder, "load_pretrained", offline)
    with pytest.raises(ModelImportError, match=r"timm:test_vit cannot be downloaded .* --weights"):
        import_model("timm:test_vit")


def test_an_own_classifier_has_its_own_classes(tmp_path: Path) -> None:
    state = state_of(timm.create_model("test_vit", num_classes=3))
    bundle = import_model("timm:test_vit", state, classes=["scratch", "dent", "good"])
    assert bundle.classes == ("scratch", "dent", "good")
    assert import_model("timm:test_vit", state).classes == ("class 0", "class 1", "class 2")
    with pytest.raises(ModelImportError, match="2 class names were given, but the network has 3"):
        import_model("timm:test_vit", state, classes=["a", "b"])


def test_weights_without_a_classifier_make_a_bundle_without_classes(tmp_path: Path) -> None:
    state = state_of(timm.create_model("test_vit", num_classes=0))
    bundle = import_model("timm:test_vit", state)
    assert bundle.classes == ()
    bundle.save(tmp_path)
    for runtime in ("torch", "openvino"):
        encoder = Encoder(Bundle.load(tmp_path), runtime=runtime, precision="float32")  # type: ignore[arg-type]
        probabilities, embeddings = encoder.encode([noise(160, 160)])
        assert probabilities.shape == (1, 0)
        assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1)


@pytest.mark.slow
def test_a_clip_towers_last_layer_makes_the_embedding() -> None:
    network = timm.create_model("vit_base_patch32_clip_224.openai").eval()
    bundle = import_model("timm:vit_base_patch32_clip_224.openai", state_of(network))
    assert bundle.architecture == Backbone(
        "timm", "vit_base_patch32_clip_224.openai", embedding_head=512
    )
    assert bundle.classes == ()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(bundle.network()(x).features, network(x))


def test_a_transformer_can_take_another_size() -> None:
    torch.manual_seed(3)
    network = timm.create_model("test_vit").eval()
    bundle = import_model("timm:test_vit", state_of(network), size=96)
    assert bundle.preprocess.input_size == 96
    resized = timm.create_model("test_vit", img_size=96).eval()
    resized.load_state_dict(
        timm.models.vision_transformer.checkpoint_filter_fn(state_of(network), resized)
    )
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(bundle.network()(x).logits, resized(x))


def test_a_wrapped_checkpoint_is_unwrapped(resnet: torch.nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    state = {f"module.{name}": value for name, value in resnet.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, file)
    bundle = import_model("timm:test_resnet", file)
    assert bundle.digest == import_model("timm:test_resnet", state_of(resnet)).digest
    assert bundle.training["weights"] == "the file checkpoint.pth"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("resnet50", "expected torchvision:NAME"),
        ("keras:resnet50", "expected torchvision:NAME"),
        ("timm:", "expected torchvision:NAME"),
        ("timm:resnet50:IMAGENET1K_V1", "expected torchvision:NAME"),
        ("timm:no_such", "timm has no network 'no_such'"),
        ("torchvision:no_such", "no classification network 'no_such'"),
        ("torchvision:resnet50:BEST", "expected one of IMAGENET1K_V1, IMAGENET1K_V2"),
    ],
)
def test_unknown_sources(source: str, words: str) -> None:
    with pytest.raises(ModelImportError, match=words):
        import_model(source)


def test_weights_of_another_network_are_refused(resnet: torch.nn.Module) -> None:
    with pytest.raises(ModelImportError, match=r"not those of timm:test_vit \(missing: .* unknown"):
        import_model("timm:test_vit", state_of(resnet))
    state = state_of(resnet)
    state["conv1.0.weight"] = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ModelImportError, match=r"of another shape: conv1\.0\.weight"):
        import_model("timm:test_resnet", state)
    state = state_of(resnet)
    state["conv1.0.weight"][0, 0, 0, 0] = torch.nan
    with pytest.raises(ModelImportError, match=r"conv1\.0\.weight has values that are not finite"):
        import_model("timm:test_resnet", state)


class _Payload:
    def __reduce__(self) -> Any:
        return print, ("executed",)


def test_pickled_code_in_weights_is_not_executed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"weight": _Payload()}, file)
    with pytest.raises(ModelImportError, match=r"weights\.pth cannot be read as weights"):
        import_model("timm:test_resnet", file)
    assert "executed" not in capsys.readouterr().out
    (tmp_path / "weights.safetensors").write_bytes(b"no")
    with pytest.raises(ModelImportError, match="cannot be read as weights"):
        import_model("timm:test_resnet", tmp_path / "weights.safetensors")
    torch.save([1, 2], file)
    with pytest.raises(ModelImportError, match="does not hold a state dict"):
        import_model("timm:test_resnet", file)


def test_the_card_names_source_licence_and_fingerprint(resnet: torch.nn.Module) -> None:
    bundle = import_model("timm:test_resnet", state_of(resnet), origin="a disk")
    card = model_card(bundle)
    for words in ("timm:test_resnet", "a disk", "apache-2.0", bundle.training["weights_sha256"]):
        assert words in card
