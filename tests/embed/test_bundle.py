from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embed.architecture import Architecture
from embed.bundle import CARD, FORMAT_VERSION, MANIFEST, PRETRAINED, WEIGHTS, Bundle, BundleError
from embed.preprocess import Preprocess


@pytest.fixture
def saved(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    full = dataclasses.replace(
        tiny_bundle, metrics={"accuracy": 0.5}, training={"recipe": {"seed": 3, "lr": 0.1}}
    )
    full.save(tmp_path / "model", card="# Card\n")
    return tmp_path / "model"


def rewrite_manifest(folder: Path, **changes: Any) -> None:
    """Change the manifest and update its checksum, as a forger would."""
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["checksum"]
    manifest |= changes
    canonical = json.dumps([manifest], sort_keys=True, separators=(",", ":")).encode()
    manifest["checksum"] = f"sha256:{hashlib.sha256(canonical).hexdigest()}"
    (folder / MANIFEST).write_text(json.dumps(manifest))


SHIPPED = "sha256:88dd8f5dd20672613088b759fb8b106693a7e41df8d9599a2805da163e601ff7"


def refused(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    return str(caught.value)


def test_round_trip(saved: Path, tiny_bundle: Bundle) -> None:
    loaded = Bundle.load(saved)
    assert loaded.architecture == tiny_bundle.architecture
    assert loaded.preprocess == tiny_bundle.preprocess
    assert loaded.classes == ("red", "green", "blue")
    assert loaded.temperature == 1.5
    assert loaded.metrics == {"accuracy": 0.5}
    assert loaded.training == {"recipe": {"seed": 3, "lr": 0.1}}
    assert loaded.digest == tiny_bundle.digest
    assert loaded.weights.keys() == tiny_bundle.weights.keys()
    for name, array in tiny_bundle.weights.items():
        assert loaded.weights[name].dtype == array.dtype
        assert np.array_equal(loaded.weights[name], array), name
    assert (saved / CARD).read_text() == "# Card\n"
    assert sorted(path.name for path in saved.iterdir()) == sorted([MANIFEST, WEIGHTS, CARD])


def test_network_gives_the_same_logits(saved: Path, tiny_bundle: Bundle) -> None:
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(Bundle.load(saved).network()(x).logits, tiny_bundle.network()(x).logits)
    assert not tiny_bundle.network().training


def test_saving_over_an_older_bundle(saved: Path, tiny_bundle: Bundle) -> None:
    dataclasses.replace(tiny_bundle, temperature=2.0).save(saved)
    assert Bundle.load(saved).temperature == 2.0


def test_digest_format(tiny_bundle: Bundle) -> None:
    kind, _, digits = tiny_bundle.digest.partition(":")
    assert kind == "sha256"
    assert len(digits) == 64
    assert int(digits, 16) > 0


def test_digest_changes_with_what_changes_embeddings(tiny_bundle: Bundle) -> None:
    weights = dict(tiny_bundle.weights)
    weights["stem.weight"] = weights["stem.weight"] + 0.5
    others = [
        dataclasses.replace(tiny_bundle, weights=weights),
        dataclasses.replace(tiny_bundle, preprocess=Preprocess(mean=(0.5, 0.5, 0.5))),
        dataclasses.replace(tiny_bundle, preprocess=Preprocess(resize="squeeze")),
        dataclasses.replace(
            tiny_bundle,
            architecture=dataclasses.replace(tiny_bundle.architecture, dropout=0.1),
        ),
    ]
    assert len({tiny_bundle.digest, *(other.digest for other in others)}) == 5


def test_digest_does_not_change_with_the_rest(tiny_bundle: Bundle) -> None:
    other = dataclasses.replace(
        tiny_bundle, temperature=3.0, metrics={"a": 1}, training={"minutes": 2}
    )
    assert other.digest == tiny_bundle.digest


def test_another_classifier_leaves_the_digest(tiny_bundle: Bundle) -> None:
    weights = dict(tiny_bundle.weights)
    weights["head.weight"] = np.zeros((4, 32), np.float32)
    other = dataclasses.replace(
        tiny_bundle,
        weights=weights,
        classes=("a", "b", "c", "d"),
        architecture=dataclasses.replace(tiny_bundle.architecture, classes=4),
    )
    assert other.digest == tiny_bundle.digest
    assert other.content_digest != tiny_bundle.content_digest


def test_a_bundle_of_format_1_keeps_its_digest(tmp_path: Path) -> None:
    shipped = Bundle.load(PRETRAINED)
    assert shipped.format_version == 1
    assert shipped.digest == shipped.content_digest == SHIPPED
    shipped.save(tmp_path)
    assert Bundle.load(tmp_path).digest == SHIPPED


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.9])
def test_a_flipped_bit_is_refused_by_name(saved: Path, name: str, where: float) -> None:
    data = bytearray((saved / name).read_bytes())
    data[int(where * len(data))] ^= 1
    (saved / name).write_bytes(data)
    assert str(saved / name) in refused(saved)


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
@pytest.mark.parametrize("length", [0, 100])
def test_a_truncated_file_is_refused_by_name(saved: Path, name: str, length: int) -> None:
    (saved / name).write_bytes((saved / name).read_bytes()[:length])
    assert str(saved / name) in refused(saved)


@pytest.mark.parametrize("content", ["[]", "3", '"text"', "null", "{}"])
def test_other_json_is_refused(saved: Path, content: str) -> None:
    (saved / MANIFEST).write_text(content)
    assert f"{saved / MANIFEST} cannot be read as a bundle" in refused(saved)


def test_a_missing_bundle_says_what_to_do(tmp_path: Path) -> None:
    message = refused(tmp_path / "none")
    assert message.startswith(f"no model in {tmp_path / 'none'}: bundle.json is missing")
    assert "lookalike train --out" in message


def test_missing_weights(saved: Path) -> None:
    (saved / WEIGHTS).unlink()
    assert refused(saved) == f"{saved / WEIGHTS} cannot be read: No such file or directory"


def test_newer_format(saved: Path) -> None:
    rewrite_manifest(saved, format_version=FORMAT_VERSION + 1)
    assert f"has bundle format 3, this program reads 1 to {FORMAT_VERSION}" in refused(saved)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def test_a_pickle_for_weights_is_refused_and_runs_nothing(saved: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    pickled = pickle.dumps(Bomb(str(mark)))
    (saved / WEIGHTS).write_bytes(pickled)
    rewrite_manifest(saved, files={WEIGHTS: hashlib.sha256(pickled).hexdigest()})
    assert f"the bundle in {saved} is inconsistent" in refused(saved)
    assert not mark.exists()
    pickle.loads(pickled)
    assert mark.exists(), "the bomb must work, or this test proves nothing"


def test_forged_content_does_not_match_the_digest(saved: Path) -> None:
    rewrite_manifest(saved, temperature=1.0, preprocess=Preprocess(16).to_dict())
    assert "but its content has sha256:" in refused(saved)


@pytest.mark.parametrize(
    "changes",
    [{"classes": ["red", "green"]}, {"temperature": 0}, {"preprocess": {}},
     {"architecture": {"name": "vgg", "classes": 3, "widths": [24, 24, 32]}}],
)  # fmt: skip
def test_inconsistent_content(saved: Path, changes: dict[str, Any]) -> None:
    rewrite_manifest(saved, **changes)
    assert "is inconsistent" in refused(saved)


def test_weights_of_another_architecture(tiny_bundle: Bundle) -> None:
    other = dataclasses.replace(
        tiny_bundle, architecture=Architecture(classes=3, widths=(24, 32, 32))
    )
    with pytest.raises(BundleError, match="do not fit the architecture 'whitened-resnet'"):
        other.network()


def test_weights_beyond_fp16_are_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    weights = dict(tiny_bundle.weights)
    weights["head.weight"] = np.full_like(weights["head.weight"], 1e6)
    with pytest.raises(BundleError, match=r"'head.weight' has values that fp16 cannot hold"):
        dataclasses.replace(tiny_bundle, weights=weights).save(tmp_path / "model")
    assert not (tmp_path / "model" / MANIFEST).exists()


def test_the_shipped_bundle_has_the_digest_it_states() -> None:
    stored = json.loads((PRETRAINED / MANIFEST).read_text())["digest"]
    assert Bundle.load(PRETRAINED).digest == stored


def test_a_bundle_is_read_without_torch(saved: Path) -> None:
    code = (
        "import sys; from embed.bundle import Bundle; from pathlib import Path;"
        "Bundle.load(Path(sys.argv[1])); print('torch' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(saved)], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "False"
