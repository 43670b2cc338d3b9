from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from embed.bundle import Bundle
from embed.resnet import build
from tests.train.helpers import QUICK, colours
from train.extras.shaping import plain_weights, shape
from train.extras.teacher import Teacher, average_weights, set_batch_norm_momentum
from train.loop import predict, train
from train.optimisers import make_optimisers
from train.recipe import Augment, BatchSelection, Recipe, RecipeError, Shaping

TAUGHT = dataclasses.replace(
    QUICK,
    epochs=1,
    low_share=0.0,
    dropout=0.0,
    proxy=BatchSelection(),
    augment=Augment(flip="none", translate=0, cutmix=1.0),
    distil=0.5,
    init="pretrained",
    old_rate=0.5,
)


class _Logits(NamedTuple):
    logits: Tensor


class _LeftMinusRight(nn.Module):
    """Two classes: log 3 for what is on the left, 0 for what is on the right."""

    def forward(self, x: Tensor) -> _Logits:
        left = x[:, :1, 0, 0]
        return _Logits(torch.cat([left * torch.log(torch.tensor(3.0)), 0 * left], 1))


def test_the_target_is_of_labels_and_of_the_mean_over_a_picture_and_its_mirror_image() -> None:
    x = torch.zeros(1, 3, 2, 2)
    x[..., 0] = 1.0  # seen: (3/4, 1/4); mirrored: (1/2, 1/2); on average (5/8, 3/8)
    found = Teacher(_LeftMinusRight(), share=0.5).target(x, torch.tensor([1]), smoothing=0.2)
    # The label, smoothed, is (0.1, 0.9).
    assert found[0].tolist() == pytest.approx([(0.625 + 0.1) / 2, (0.375 + 0.9) / 2], abs=5e-3)
    mixed = torch.tensor([[0.25, 0.75]])
    alone = Teacher(_LeftMinusRight(), share=0.0).target(x, mixed, smoothing=0.0)
    assert alone.tolist() == mixed.tolist()


def test_without_its_shape_a_model_answers_the_same(tiny_bundle: Bundle) -> None:
    data = colours()
    plain = build(tiny_bundle.architecture).eval()
    plain.load_state_dict(plain_weights(tiny_bundle))
    shaped = shape(tiny_bundle, data.train.pictures, Shaping(likeness=5, pictures=24))
    again = build(tiny_bundle.architecture).eval()
    again.load_state_dict(plain_weights(shaped))
    x = tiny_bundle.preprocess.normalise(data.test.pictures if data.test else torch.empty(0))
    with torch.no_grad():
        before, after = plain(x).logits, again(x).logits
    assert before.std() > 0.01
    assert torch.allclose(before, after, atol=0.02 * float(before.abs().max()))


def test_momentum_of_the_statistics() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1, momentum=0.4))
    set_batch_norm_momentum(network, 0.25)
    network(torch.full((2, 1, 2, 2), 8.0))
    assert network[0].running_mean.item() == pytest.approx(2.0)


def test_distillation_starts_from_all_weights_of_init(tiny_bundle: Bundle, tmp_path: Path) -> None:
    data = dataclasses.replace(colours(), classes=tiny_bundle.classes)
    tiny_bundle.save(tmp_path / "tiny")
    still = dataclasses.replace(TAUGHT, init=str(tmp_path / "tiny"), old_rate=0.0)
    made = train(still, data, tmp_path / "still")
    for name in ("head.weight", "stages.0.norm1.bias", "stem.weight"):
        assert (made.weights[name] == tiny_bundle.weights[name]).all(), name
    moved = train(dataclasses.replace(still, old_rate=0.5), data, tmp_path / "moved")
    assert (moved.weights["head.weight"] != tiny_bundle.weights["head.weight"]).any()


def test_a_resumed_run_repeats_an_uninterrupted_one(tiny_bundle: Bundle, tmp_path: Path) -> None:
    data = dataclasses.replace(colours(), classes=tiny_bundle.classes)
    tiny_bundle.save(tmp_path / "tiny")
    recipe = dataclasses.replace(TAUGHT, init=str(tmp_path / "tiny"), epochs=3)
    whole = train(recipe, data, tmp_path / "whole")

    def stop(epoch: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, tmp_path / "cut", report=stop)
    rest = train(recipe, data, tmp_path / "cut", resume=True)
    assert rest.digest == whole.digest


def test_the_classes_must_be_those_of_init(tiny_bundle: Bundle, tmp_path: Path) -> None:
    data = dataclasses.replace(colours(), classes=("x", "y", "z"))
    tiny_bundle.save(tmp_path / "tiny")
    recipe = dataclasses.replace(TAUGHT, init=str(tmp_path / "tiny"))
    with pytest.raises(RecipeError, match=r"distil is 0\.5, but .* the data has x, y, z"):
        train(recipe, data, tmp_path / "run")


@pytest.mark.parametrize(("distil", "share"), [(0.0, 1.0), (0.5, 0.2)])
def test_the_kept_classifier_learns_at_the_old_rate(
    tiny_bundle: Bundle, distil: float, share: float
) -> None:
    network = build(tiny_bundle.architecture)
    fresh = Recipe(optimiser="muon", lr=0.2)
    old = dataclasses.replace(fresh, init="pretrained", old_rate=0.2, distil=distil)
    rates = [
        make_optimisers(network, recipe, 100)[1].param_groups[1]["lr"] for recipe in (fresh, old)
    ]
    assert rates[1] == pytest.approx(rates[0] * share)


def test_teaching_needs_a_model_to_start_from() -> None:
    with pytest.raises(RecipeError, match=r"distil is 0\.5; expected 0 without init"):
        Recipe(distil=0.5)


def test_weights_are_averaged_and_counts_are_not() -> None:
    old = {"w": torch.tensor([0.0, 4.0]), "batches": torch.tensor(10)}
    new = {"w": torch.tensor([4.0, 8.0]), "batches": torch.tensor(30)}
    found = average_weights(new, old, 0.25)
    assert found["w"].tolist() == [1.0, 5.0]
    assert found["batches"].item() == 30


def test_a_run_keeps_the_average(tiny_bundle: Bundle, tmp_path: Path) -> None:
    data = dataclasses.replace(colours(), classes=tiny_bundle.classes)
    tiny_bundle.save(tmp_path / "tiny")
    whole = dataclasses.replace(TAUGHT, init=str(tmp_path / "tiny"))
    new = train(whole, data, tmp_path / "whole").weights["head.weight"]
    old = tiny_bundle.weights["head.weight"]
    half = train(dataclasses.replace(whole, average=0.5), data, tmp_path / "half")
    logits = predict(half.network(), half.preprocess, data.validation.pictures)
    loss = torch.nn.functional.cross_entropy(logits, data.validation.labels)
    assert half.metrics["validation_loss"] == pytest.approx(float(loss), abs=1e-3)
    assert abs(new - old).max() > 0.01
    assert half.weights["head.weight"] == pytest.approx((new + old) / 2, abs=2e-3)


def test_nothing_to_average_with() -> None:
    with pytest.raises(RecipeError, match=r"average is 0\.5; expected 1 without distil"):
        Recipe(average=0.5)
