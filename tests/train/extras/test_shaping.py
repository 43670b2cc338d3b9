from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from embed.architecture import Architecture
from embed.bundle import Bundle
from embed.preprocess import Preprocess
from embed.resnet import WhitenedResNet, build
from tests.train.helpers import coloured
from train.extras.shaping import discriminants, shape, unshaped
from train.recipe import Shaping

PICTURES = coloured(10).pictures


@pytest.fixture(scope="module")
def plain() -> Bundle:
    torch.manual_seed(0)
    architecture = Architecture(classes=3, widths=(24, 24, 32))
    weights = {
        name: (t.half().float() if t.is_floating_point() else t).numpy()
        for name, t in build(architecture).state_dict().items()
    }
    return Bundle(architecture, Preprocess(), ("a", "b", "c"), weights)


@pytest.fixture(scope="module")
def shaped(plain: Bundle) -> Bundle:
    return shape(plain, PICTURES, Shaping(likeness=12, weight=0.5))


def outputs(bundle: Bundle) -> tuple[Tensor, Tensor]:
    network = bundle.network()
    with torch.no_grad():
        logits, features = network(bundle.preprocess.normalise(PICTURES))
    return logits, features


def test_the_logits_stay(plain: Bundle, shaped: Bundle) -> None:
    before, after = outputs(plain)[0], outputs(shaped)[0]
    assert before.std() > 0.01
    assert torch.allclose(before, after, atol=0.01 * float(before.abs().max()))


def test_the_features_are_the_class_and_likeness_of_length_one(shaped: Bundle) -> None:
    features = outputs(shaped)[1]
    assert features.shape == (30, 3 + 12)
    assert torch.allclose(features[:, 3:].norm(dim=1), torch.ones(30), atol=1e-3)
    # Twice as long as the likeness, whose weight is a half; about, because the scale is taken
    # from the pictures under bfloat16.
    assert features[:, :3].norm(dim=1).mean() == pytest.approx(2.0, rel=0.1)


def test_the_classifier_reads_the_class_part_only(shaped: Bundle) -> None:
    network = shaped.network()
    assert isinstance(network, WhitenedResNet)
    assert network.head.weight[:, :3].abs().max() > 0
    assert network.head.weight[:, 3:].abs().max() == 0


def test_seeds_choose_pictures_and_copies(plain: Bundle, shaped: Bundle) -> None:
    few = Shaping(likeness=12, weight=0.5, pictures=9)
    one, same, other = (shape(plain, PICTURES, few, seed).digest for seed in (1, 1, 2))
    assert one == same != other
    assert shape(plain, PICTURES, Shaping(likeness=12, weight=0.5)).digest == shaped.digest


def test_progress_sees_every_batch(plain: Bundle) -> None:
    seen: list[tuple[int, int]] = []

    def progress(batches: Iterator[Tensor], total: int) -> Iterator[Tensor]:
        for batch in batches:
            seen.append((len(batch), total))
            yield batch

    shape(plain, PICTURES, Shaping(likeness=4, pictures=20), progress=progress)
    assert seen == [(140, 1)]  # 20 pictures and six copies of each


def test_an_existing_shape_is_replaced(shaped: Bundle) -> None:
    same = shape(shaped, PICTURES, Shaping(likeness=12, weight=0.5))
    (before, features), (after, again) = outputs(shaped), outputs(same)
    assert torch.allclose(before, after, atol=0.02 * float(before.abs().max()))
    # But for rounding; the class part may be turned about its origin, which changes no similarity.
    assert torch.allclose(features @ features.T, again @ again.T, atol=0.1)
    assert same.architecture == shaped.architecture
    other = shape(shaped, PICTURES, Shaping(likeness=5, weight=1.0, rows=1))
    assert outputs(other)[1].shape == (30, 3 + 5)
    assert (other.architecture.likeness, other.architecture.rows) == (5, 1)


def test_a_shape_is_taken_off(plain: Bundle, shaped: Bundle) -> None:
    off = unshaped(shaped)
    assert off.architecture == plain.architecture
    assert torch.equal(outputs(off)[1], outputs(plain)[1])
    assert torch.allclose(outputs(off)[0], outputs(plain)[0], atol=0.02)
    assert unshaped(plain).digest == plain.digest


def test_a_shape_of_an_older_version_is_replaced(shaped: Bundle) -> None:
    architecture = dataclasses.replace(shaped.architecture, likeness=6, rows=3, pooling="stages")
    weights = {name: t.numpy() for name, t in build(architecture).state_dict().items()}
    kept = {n: w for n, w in shaped.weights.items() if weights[n].shape == w.shape}
    kept["head.weight"] = shaped.weights["head.weight"][:, : 3 + 6]
    old = dataclasses.replace(shaped, architecture=architecture, weights={**weights, **kept})
    new = shape(old, PICTURES, Shaping(likeness=12, weight=0.5))
    assert new.architecture == shaped.architecture
    assert torch.allclose(outputs(old)[0], outputs(new)[0], atol=0.05)


def test_what_cannot_be_shaped_is_refused(plain: Bundle) -> None:
    architecture = Architecture("resnet18", classes=3)
    weights = {name: t.numpy() for name, t in build(architecture).state_dict().items()}
    resnet = dataclasses.replace(plain, architecture=architecture, weights=weights)
    with pytest.raises(ValueError, match="is resnet18; expected whitened-resnet"):
        shape(resnet, PICTURES, Shaping(likeness=4))
    with pytest.raises(ValueError, match="likeness is 200; expected at most 96"):
        shape(plain, PICTURES, Shaping(likeness=200))


def test_discriminants_find_what_copies_keep() -> None:
    generator = torch.Generator().manual_seed(0)
    kept = torch.randn(500, 1, generator=generator)
    changed = torch.randn(4, 500, 1, generator=generator)
    small = 0.1 * torch.randn(4, 500, 1, generator=generator)
    # The third channel is the first one and what changes: only the difference tells pictures apart.
    views = torch.cat([10 * changed + 3, small + kept + 5 * changed, 7 + 0 * changed], dim=2)
    matrix, offset = discriminants(views, 2, shrink=1e-3)
    found = views @ matrix.T + offset
    assert found[..., 0].std() == pytest.approx(1, abs=0.05)
    assert abs(float(torch.corrcoef(torch.stack([found[0, :, 0], kept[:, 0]]))[0, 1])) > 0.98
    # The second direction does not tell them apart, and is small compared with the first.
    assert found.mean(0)[:, 1].std() < 0.2
    assert torch.isfinite(found).all()
    # With the variance within taken to be more alike in all directions, so small a one is missed.
    matrix = discriminants(views, 2, shrink=0.1)[0]
    first = (views @ matrix.T)[0, :, 0]
    assert abs(float(torch.corrcoef(torch.stack([first, kept[:, 0]]))[0, 1])) < 0.7


def test_directions_are_as_long_as_copies_stay_together() -> None:
    generator = torch.Generator().manual_seed(0)
    kept = torch.randn(1, 4000, 2, generator=generator)
    changed = torch.randn(6, 4000, 2, generator=generator)
    # Variance between pictures 16 in one channel and 1 in the other, within them 1 in both: of six
    # copies 5/6 are seen within and 1/6 between.
    views = 3 + torch.tensor([1.0, 4.0]) * kept + changed
    matrix, offset = discriminants(views, 2, shrink=0.0)
    found = views @ matrix.T + offset
    assert found.mean((0, 1)).abs().max() < 1e-3
    assert found.flatten(0, 1).std(0).tolist() == pytest.approx([97 / 102, 7 / 12], abs=0.02)
    assert float(matrix[0].abs().argmax()) == 1


def test_a_bundle_keeps_how_it_was_shaped(shaped: Bundle, tmp_path: Any) -> None:
    shaped.save(tmp_path)
    loaded = Bundle.load(tmp_path)
    assert loaded.digest == shaped.digest
    assert loaded.architecture == dataclasses.replace(shaped.architecture, likeness=12)
    assert torch.equal(outputs(loaded)[1], outputs(shaped)[1])
