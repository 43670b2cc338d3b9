from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm

from embed.bundle import Bundle
from embed.encoder import Encoder
from embed.imported import fitting as projection
from embed.imported.fitting import centred, fit_embedding, projected
from embed.imported.importing import import_model
from tests.embed.helpers import noise


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return import_model("timm:test_resnet", timm.create_model("test_resnet").state_dict())


def test_it_keeps_the_directions_in_which_the_corpus_varies(bundle: Bundle) -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(96, 96)))[0].astype(np.float32)
    spread = np.zeros((500, 96), np.float32)
    spread[:, 0] = 10  # what all pictures share
    spread[:, 1:4] = rng.normal(size=(500, 3)) * (0.3, 0.2, 0.1)
    features = spread @ basis
    made = projected(bundle, features, 3)
    weight = made.weights["projection.weight"]
    # The same three directions, up to the sign, in the order of their variance.
    np.testing.assert_allclose(np.abs(weight @ basis.T[:, 1:4]), np.eye(3), atol=0.08)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    reduced = (unit - made.weights["centre"]) @ weight.T
    np.testing.assert_allclose(reduced.mean(0), 0, atol=1e-5)
    # Not whitened: the first direction stays the longest.
    assert reduced.std(0)[0] > 1.3 * reduced.std(0)[1] > 1.3 * reduced.std(0)[2]


def test_the_encoder_applies_it(bundle: Bundle, tmp_path: Path) -> None:
    features = np.abs(np.random.default_rng(1).normal(size=(40, 96))).astype(np.float32)
    made = projected(bundle, features, 8)
    made.save(tmp_path)
    assert Bundle.load(tmp_path).digest == made.digest != bundle.digest
    assert made.training["fit"] == {"of": bundle.digest, "pictures": 40, "dimension": 8}
    pictures = [noise(160, 160), noise(100, 300)]
    plain = Encoder(bundle, precision="float32").encode(pictures)
    wanted = (plain.embeddings - made.weights["centre"]) @ made.weights["projection.weight"].T
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    for runtime in ("openvino", "torch"):
        found = Encoder(made, precision="float32", runtime=runtime).encode(pictures)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.embeddings, wanted, atol=2e-4)
        np.testing.assert_allclose(found.probabilities, plain.probabilities, atol=1e-4)


def test_what_cannot_be_projected(bundle: Bundle, tiny_bundle: Bundle) -> None:
    features = np.ones((10, 96), np.float32)
    with pytest.raises(ValueError, match="dimension is 10; expected 1 to 9 for 10 pictures"):
        projected(bundle, features, 10)
    with pytest.raises(ValueError, match="whitened-resnet cannot be fitted"):
        projected(tiny_bundle, features, 3)
    rng = np.random.default_rng(2)
    once = projected(bundle, rng.normal(size=(10, 96)).astype(np.float32), 3)
    with pytest.raises(ValueError, match="that has not been fitted"):
        projected(once, features, 3)


def test_centring_takes_out_what_all_pictures_share(bundle: Bundle) -> None:
    features = np.abs(np.random.default_rng(3).normal(size=(40, 96))).astype(np.float32)
    made = centred(bundle, features)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(made.weights["centre"], unit.mean(0), atol=1e-6)
    picture = [noise(160, 160)]
    plain = Encoder(bundle, precision="float32").encode(picture).embeddings
    wanted = plain - made.weights["centre"]
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    for runtime in ("openvino", "torch"):
        found = Encoder(made, precision="float32", runtime=runtime).encode(picture)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.embeddings, wanted, atol=2e-4)


def test_how_much_is_fitted_depends_on_the_number_of_pictures(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "DIMENSION", 8)
    monkeypatch.setattr(projection, "FEWEST_PROJECTED", 16)
    monkeypatch.setattr(projection, "FEWEST_CENTRED", 4)
    features = np.random.default_rng(4).normal(size=(20, 96)).astype(np.float32)
    found = [fit_embedding(bundle, features[:n]).architecture for n in (3, 4, 15, 16, 20)]
    assert [(a.centred, a.projection) for a in found] == [  # type: ignore[union-attr]
        (False, 0), (True, 0), (True, 0), (True, 8), (True, 8),
    ]  # fmt: skip
