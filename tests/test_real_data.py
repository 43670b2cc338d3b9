"""The shipped model on real CIFAR-10 pictures, with the code that serves."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from embed.bundle import PRETRAINED, Bundle
from embed.corpus import CIFAR10_CLASSES, CIFAR10_FOLDER, ArrayCorpus, cifar10
from embed.encoder import Encoder
from embed.pictures import encode_png
from embed.resnet import count_flops
from search_api.service.engine import SearchEngine
from search_api.service.page import Page
from tests.search_api.conftest import rebuild

pytestmark = pytest.mark.slow


def root() -> Path | None:
    shared = Path(__file__).parents[2] / "shared"
    roots = [Path(os.environ["LOOKALIKE_DATA"])] if "LOOKALIKE_DATA" in os.environ else []
    return next((root for root in [*roots, shared] if (root / CIFAR10_FOLDER).is_dir()), None)


needs_cifar10 = pytest.mark.skipif(
    root() is None, reason="CIFAR-10 is neither in LOOKALIKE_DATA nor in ../shared"
)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(PRETRAINED)


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> Encoder:
    return Encoder(bundle)


class Part(ArrayCorpus):
    """The first pictures of each split of CIFAR-10."""

    def __init__(self, whole: ArrayCorpus, train: int, test: int) -> None:
        counts = {"train": train, "test": test}
        super().__init__(
            "part of CIFAR-10",
            whole.classes,
            lambda: {
                split: (pictures[: counts[split]], labels[: counts[split]])
                for split, (pictures, labels) in whole.splits.items()
            },
        )


@pytest.fixture(scope="module")
def part() -> Part:
    found = root()
    assert found is not None
    return Part(cifar10(found), train=3000, test=1000)


def test_the_shipped_model(bundle: Bundle) -> None:
    assert bundle.classes == CIFAR10_CLASSES
    assert bundle.metrics["split"] == "test"
    assert bundle.metrics["accuracy"] >= 0.93
    assert count_flops(bundle.architecture) <= 1.0e9
    assert (PRETRAINED / "weights.safetensors").stat().st_size <= 16 * 2**20
    card = (PRETRAINED / "MODEL_CARD.md").read_text()
    assert bundle.digest in card


@needs_cifar10
def test_accuracy_on_a_part_of_the_test_set(encoder: Encoder, part: Part) -> None:
    pictures, labels = part.splits["test"]
    predicted = encoder.encode(pictures).probabilities.argmax(1)
    # On 1,000 pictures; the model card has the accuracy on the whole test set.
    assert float((predicted == labels).mean()) >= 0.91


@needs_cifar10
def test_bfloat16_stays_near_float32(bundle: Bundle, part: Part) -> None:
    pictures = part.splits["test"][0][:100]
    exact = Encoder(bundle, precision="float32").encode(pictures)
    fast = Encoder(bundle, precision="bfloat16").encode(pictures)
    cosine = (exact.embeddings * fast.embeddings).sum(1)
    assert float(cosine.min()) > 0.999
    agreement = exact.probabilities.argmax(1) == fast.probabilities.argmax(1)
    assert float(agreement.mean()) >= 0.99


@needs_cifar10
def test_search_finds_similar_pictures(encoder: Encoder, part: Part, tmp_path: Path) -> None:
    engine = SearchEngine(encoder, part, tmp_path / "var")
    manifest, counts = rebuild(engine)
    assert (manifest.count, counts.embedded) == (4000, 4000)
    pictures, labels = part.splits["test"]
    same_label, votes = [], []
    for row in range(50):
        result = engine.search(encode_png(pictures[row]), Page(limit=11))
        assert result.points[0].entry.source == f"test/{row:05d}"
        assert result.points[0].score == pytest.approx(1.0, abs=2e-3)
        label = part.classes[labels[row]]
        same_label += [p.entry.label == label for p in result.points[1:]]
        assert result.vote is not None
        votes.append(result.vote[0] == label)
    assert float(np.mean(same_label)) >= 0.85
    assert float(np.mean(votes)) >= 0.85
    engine.close()
