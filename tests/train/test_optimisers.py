from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from embed.architecture import Architecture
from embed.resnet import build
from train.optimisers import Muon, lr_factor, make_optimisers, make_schedules, orthogonalise
from train.recipe import Recipe


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (24, 24)])
def test_orthogonalise_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    u, _, vt = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    # Values that differ by a factor of five, in any scale.
    matrix = 1000 * u @ torch.diag(torch.linspace(0.2, 1.0, len(vt))) @ vt
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert 0.3 < float(values.min()) <= float(values.max()) < 1.3


def test_orthogonalise_keeps_the_directions() -> None:
    torch.manual_seed(0)
    u, _, vt = torch.linalg.svd(torch.randn(8, 20), full_matrices=False)
    matrix = u @ torch.diag(torch.linspace(0.3, 1.0, 8)) @ vt
    out = u.T @ orthogonalise(matrix) @ vt.T
    assert float((out - torch.diag(out.diag())).abs().max()) < 0.05
    assert float(out.diag().min()) > 0.3


def test_orthogonalise_of_zero_is_zero() -> None:
    assert torch.equal(orthogonalise(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_muon_reduces_a_loss() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3, bias=False)
    target = nn.Conv2d(3, 8, 3, bias=False)
    with torch.no_grad():
        target.weight *= 8**0.5 / target.weight.norm()
    x = torch.randn(16, 3, 8, 8)
    optimiser = Muon(conv.parameters(), lr=0.03, momentum=0.6)
    losses = []
    for _ in range(60):
        loss = (conv(x) - target(x).detach()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


def test_muon_step_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]).view(1, 2, 1, 1))
    weight.grad = torch.tensor([[0.0, 2.0]]).view(1, 2, 1, 1)
    optimiser = Muon([weight], lr=0.5, momentum=0.6)
    optimiser.step()
    # Rescaled to norm sqrt(1), so (0.6, 0.8); the update is a unit direction times its value.
    gain = float(orthogonalise(torch.tensor([[0.0, 5.0]]))[0, 1])
    assert 0.3 < gain < 1.3
    assert weight.flatten().tolist() == pytest.approx([0.6, 0.8 - 0.5 * gain], abs=1e-5)
    assert optimiser.state[weight]["momentum_buffer"].flatten().tolist() == [0.0, 2.0]


def test_muon_momentum_is_nesterovs() -> None:
    weight = nn.Parameter(torch.tensor([[1.0, 0.0]]).view(1, 2, 1, 1))
    optimiser = Muon([weight], lr=0.01, momentum=0.5)
    for gradient in ([1.0, 0.0], [0.0, 1.0]):
        before = weight.detach().flatten() / weight.detach().norm()
        weight.grad = torch.tensor(gradient).view(1, 2, 1, 1)
        optimiser.step()
    # Buffer: 0.5 * (1, 0) + (0, 1). Update: (0, 1) + 0.5 * (0.5, 1), so 1 : 6.
    step = before - weight.detach().flatten()
    assert float(step[1] / step[0]) == pytest.approx(6.0, rel=0.05)


@pytest.mark.parametrize("optimiser", ["muon", "sgd", "adamw"])
@pytest.mark.parametrize("name", ["whitened-resnet", "resnet18"])
def test_every_trainable_parameter_is_optimised_once(name: str, optimiser: str) -> None:
    network = build(Architecture(name, classes=3, widths=(24, 24, 32)))  # type: ignore[arg-type]
    recipe = Recipe(optimiser=optimiser)  # type: ignore[arg-type]
    held = [
        id(p)
        for made in make_optimisers(network, recipe, recipe.batch_size)
        for group in made.param_groups
        for p in group["params"]
    ]
    trainable = [id(p) for p in network.parameters() if p.requires_grad]
    assert sorted(held) == sorted(trainable)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_biases_do_not_decay(optimiser: str) -> None:
    network = build(Architecture(classes=3, widths=(24, 24, 32)))
    recipe = Recipe(optimiser=optimiser, lr=0.02, weight_decay=0.3)  # type: ignore[arg-type]
    (made,) = make_optimisers(network, recipe, recipe.batch_size)
    for group in made.param_groups:
        assert group["lr"] == 0.02
        biases = {p.ndim == 1 for p in group["params"]}
        assert biases == {group["weight_decay"] == 0.0}


@pytest.mark.parametrize(
    ("schedule", "warmup", "progress", "expected"),
    [
        ("linear", 0.0, 0.0, 1.0),
        ("linear", 0.0, 0.25, 0.75),
        ("linear", 0.0, 1.0, 0.0),
        ("linear", 0.5, 0.0, 0.05),
        ("linear", 0.5, 0.25, 0.5),
        ("linear", 0.5, 0.5, 1.0),
        ("linear", 0.5, 0.75, 0.5),
        ("cosine", 0.0, 0.0, 1.0),
        ("cosine", 0.0, 0.5, 0.5),
        ("cosine", 0.0, 1.0, 0.0),
        ("cosine", 0.2, 0.1, 0.5),
        # A third of the way down: (1 + cos(pi / 3)) / 2
        ("cosine", 0.25, 0.5, 0.75),
    ],
)
def test_lr_factor(schedule: str, warmup: float, progress: float, expected: float) -> None:
    recipe = Recipe(schedule=schedule, warmup=warmup)  # type: ignore[arg-type]
    assert lr_factor(progress, recipe) == pytest.approx(expected)


def test_schedules_scale_each_group_from_its_own_peak() -> None:
    recipe = Recipe(optimiser="muon", lr=0.2, schedule="linear", warmup=0.0, epochs=8)
    network = build(Architecture(classes=3, widths=(24, 24, 32)))
    optimisers = make_optimisers(network, recipe, recipe.batch_size)
    peaks = [group["lr"] for made in optimisers for group in made.param_groups]
    schedules = make_schedules(optimisers, recipe)
    for schedule in schedules:
        schedule.step(6.0)
    rates = [group["lr"] for made in optimisers for group in made.param_groups]
    assert rates == pytest.approx([peak / 4 for peak in peaks])
    assert schedules[0].last_lr == pytest.approx(0.05)


def test_a_step_of_muons_recipe_moves_what_it_should() -> None:
    torch.manual_seed(0)
    network = build(Architecture(classes=3, widths=(24, 24, 32)))
    recipe = dataclasses.replace(Recipe(), optimiser="muon", lr=0.1, batch_size=4)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    network(torch.randn(4, 3, 32, 32)).logits.square().mean().backward()
    for optimiser in make_optimisers(network, recipe, recipe.batch_size):
        optimiser.step()
    moved = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in network.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("optimiser", ["muon", "sgd", "adamw"])
@pytest.mark.parametrize("share", [0.25, 0.0])
def test_old_layers_learn_at_a_lower_rate(optimiser: str, share: float) -> None:
    network = build(Architecture(classes=3, widths=(24, 24, 32)))
    recipe = Recipe(optimiser=optimiser, lr=0.2, old_rate=share)  # type: ignore[arg-type]

    def rates(recipe: Recipe) -> dict[str, float]:
        by_parameter = {
            id(p): group["lr"]
            for made in make_optimisers(network, recipe, 100)
            for group in made.param_groups
            for p in group["params"]
        }
        return {n: by_parameter[id(p)] for n, p in network.named_parameters() if p.requires_grad}

    fresh, tuned = rates(recipe), rates(dataclasses.replace(recipe, init="pretrained"))
    assert fresh["stages.1.conv2.weight"] == 0.2
    for name, rate in fresh.items():
        expected = rate if name.startswith("head") else share * rate
        assert tuned[name] == pytest.approx(expected), name
