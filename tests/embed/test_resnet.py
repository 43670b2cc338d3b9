from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from embed.architecture import Architecture
from embed.resnet import WhitenedResNet, build, count_flops

SMALL = Architecture(classes=3, widths=(24, 24, 32), dropout=0.5)
RESNET18 = Architecture("resnet18", classes=3, dropout=0.5)


def inputs(n: int = 4, size: int = 32) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("architecture", "dimension"), [(SMALL, 32), (RESNET18, 512)])
def test_shapes_and_the_head_reads_the_features(architecture: Architecture, dimension: int) -> None:
    network = build(architecture).eval()
    with torch.no_grad():
        logits, features = network(inputs())
        head = network.head(features)
    assert network.dimension == dimension
    assert logits.shape == (4, 3)
    assert features.shape == (4, dimension)
    scale = dimension if architecture is SMALL else 1
    torch.testing.assert_close(logits, head / scale)


@pytest.mark.parametrize("size", [16, 24, 33, 64])
def test_other_input_sizes(size: int) -> None:
    with torch.no_grad():
        assert build(SMALL).eval()(inputs(2, size)).features.shape == (2, 32)


def test_dropout_only_while_training() -> None:
    torch.manual_seed(0)
    network = build(SMALL)
    assert not torch.equal(network.train()(inputs()).logits, network(inputs()).logits)
    network.eval()
    assert torch.equal(network(inputs()).logits, network(inputs()).logits)


def test_a_batch_is_its_pictures_one_by_one() -> None:
    network = build(SMALL).eval()
    with torch.no_grad():
        together = network(inputs()).logits
        alone = torch.cat([network(x[None]).logits for x in inputs()])
    torch.testing.assert_close(together, alone)


def test_whitened_outputs_are_uncorrelated_with_unit_variance() -> None:
    network = build(SMALL)
    assert isinstance(network, WhitenedResNet)
    # Neighbouring pixels and channels correlated, as in photographs.
    smooth = nn.functional.avg_pool2d(inputs(200), 3, stride=1)
    smooth = smooth + smooth.mean(1, keepdim=True)
    network.whiten(smooth, eps=0.0)
    with torch.no_grad():
        out = network.stem(smooth).permute(1, 0, 2, 3).flatten(1)  # (24, n)
    second_moment = out[:12] @ out[:12].T / out.shape[1]
    torch.testing.assert_close(second_moment, torch.eye(12), atol=1e-2, rtol=0)
    torch.testing.assert_close(out[12:], -out[:12])


def test_whiten_bounds_directions_without_variance() -> None:
    network = build(SMALL)
    assert isinstance(network, WhitenedResNet)
    network.whiten(torch.ones(2, 3, 8, 8), eps=0.01)
    # A direction of variance zero is multiplied by at most 1 / sqrt(eps).
    norms = network.stem.weight.flatten(1).norm(dim=1)
    assert float(norms.max()) == pytest.approx(10.0, rel=1e-3)


def test_what_is_not_trained() -> None:
    frozen = {name for name, p in build(SMALL).named_parameters() if not p.requires_grad}
    norms = {f"stages.{i}.norm{j}.weight" for i in range(3) for j in (1, 2)}
    assert frozen == norms | {"stem.weight"}


def test_residual_path_carries_the_input() -> None:
    stage = build(SMALL).stages[0].eval()  # type: ignore[union-attr, operator, index]
    with torch.no_grad():
        stage.conv2.weight.zero_()
        x = inputs(1, 8).repeat(1, 8, 1, 1)
        halved = nn.functional.gelu(stage.norm1(nn.functional.max_pool2d(stage.conv1(x), 2)))
        torch.testing.assert_close(stage(x), nn.functional.gelu(halved))


def test_parameters_by_hand() -> None:
    def stage(i: int, o: int) -> int:
        return 9 * i * o + 9 * o * o + 4 * o  # two convolutions; scale and bias twice

    expected = (24 * 12 + 24) + stage(24, 24) + stage(24, 24) + stage(24, 32) + 3 * 32
    assert sum(p.numel() for p in build(SMALL).parameters()) == expected


def test_flops_by_hand() -> None:
    # 2 x MAC. stem: 31 x 31 positions; each stage convolves before and after halving.
    stem = 31 * 31 * 24 * 12
    first = 31 * 31 * 24 * 24 * 9 + 15 * 15 * 24 * 24 * 9
    second = 15 * 15 * 24 * 24 * 9 + 7 * 7 * 24 * 24 * 9
    third = 7 * 7 * 24 * 32 * 9 + 3 * 3 * 32 * 32 * 9
    assert count_flops(SMALL) == 2 * (stem + first + second + third + 32 * 3)


def test_flops_of_the_shipped_networks() -> None:
    assert count_flops(Architecture()) == 236_294_720
    assert count_flops(Architecture("resnet18")) == 1_110_845_440


def test_shrinking_the_first_layer_keeps_the_cost() -> None:
    def flops(size: int, shrink: int) -> int:
        return count_flops(Architecture(shrink=shrink), size)

    plain = flops(32, 1)
    for size, shrink in ((64, 2), (128, 4), (224, 7)):
        # The increase is the first layer on more pixels; 31 by 31 may become 32 by 32.
        assert plain < flops(size, shrink) < 1.25 * plain
    assert flops(64, 1) > 3.9 * plain
    with torch.no_grad():
        network = build(Architecture(classes=3, widths=(24, 24, 32), shrink=3)).eval()
        assert network(inputs(2, 100)).logits.shape == (2, 3)


@pytest.mark.parametrize("depth", [2, 3])
def test_a_stage_gives_its_last_two_maps(depth: int) -> None:
    network = build(Architecture(classes=3, widths=(24, 24, 32), depth=depth)).eval()
    assert isinstance(network, WhitenedResNet)
    stage = network.stages[1]
    x = torch.rand(2, 24, 15, 15)
    read: list[Tensor] = []
    last = stage.conv3 if depth == 3 else stage.conv2
    last.register_forward_hook(lambda module, inputs, output: read.append(inputs[0]))
    with torch.no_grad():
        before, after = stage.maps(x)
        assert torch.equal(after, stage(x))
    assert torch.equal(before, read[0])  # what the last convolution of the stage reads
    assert before.shape == after.shape == (2, 24, 7, 7)


def with_maps(
    monkeypatch: pytest.MonkeyPatch, network: nn.Module, *pairs: tuple[Tensor, Tensor]
) -> WhitenedResNet:
    assert isinstance(network, WhitenedResNet)
    for stage, pair in zip(network.stages, pairs, strict=True):
        monkeypatch.setattr(stage, "maps", lambda x, pair=pair: pair)
    return network


def test_likeness_is_pooled_from_rows_of_the_middle_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    middle = Architecture(
        classes=3, widths=(24, 24, 32), likeness=4, rows=2, pooling="middle", depth=3
    )
    before = torch.zeros(1, 24, 4, 3)
    # The columns have weights 0.75, 1.5 and 0.75.
    before[:, 0, :2] = torch.tensor([2.0, 8.0, 2.0])
    before[:, 0, 2:] = torch.tensor([0.0, 0.0, 4.0])
    after = torch.full((1, 24, 4, 3), 7.0)
    last = torch.arange(9.0).view(1, 1, 3, 3).expand(1, 32, 3, 3)
    other = torch.full((1, 24, 15, 15), 100.0)
    network = with_maps(monkeypatch, build(middle), (other, other), (before, after), (-last, last))
    told, pooled = network.pooled(torch.zeros(1, 3, 32, 32))
    assert told.tolist() == [[8.0] * 32]
    assert pooled.shape == (1, 2 * 2 * 24)
    assert pooled[0, :4].tolist() == pytest.approx([5.0, 1.0, 0.0, 0.0])
    assert pooled[0, 48:].tolist() == pytest.approx([7.0] * 48)
    assert network.likeness is not None and network.likeness.in_features == 96


def test_in_older_bundles_likeness_is_pooled_from_the_first_maps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = build(Architecture(classes=3, widths=(24, 24, 32), likeness=4, rows=3))
    first = torch.zeros(1, 24, 15, 15)
    first[:, 0, :5], first[:, 0, 5:10], first[:, 0, 10:] = 1.0, 2.0, 6.0
    last = torch.arange(9.0).view(1, 1, 3, 3).expand(1, 32, 3, 3)
    second = torch.ones(1, 24, 7, 7)
    network = with_maps(monkeypatch, old, (-first, first), (-second, second), (-last, last))
    told, pooled = network.pooled(torch.zeros(1, 3, 32, 32))
    assert told.tolist() == [[8.0] * 32]
    assert pooled.shape == (1, 3 * (24 + 24) + 32)
    assert pooled[0, :6].tolist() == [1.0, 2.0, 6.0, 0.0, 0.0, 0.0]
    assert pooled[0, 72:144].tolist() == [1.0] * 72
    assert pooled[0, 144:].tolist() == [4.0] * 32


def test_older_bundles_are_pooled_as_before() -> None:
    old = Architecture.from_dict(
        {
            "name": "whitened-resnet",
            "classes": 3,
            "widths": [24, 24, 32],
            "dropout": 0.0,
            "likeness": 4,
        }
    )
    assert old.rows == 1
    assert old.pooling == "stages"
    assert not {"rows", "pooling"} & set(old.to_dict())
    network = build(old)
    assert isinstance(network, WhitenedResNet)
    maxima_and_means = network.pooled(torch.rand(2, 3, 32, 32))[1]
    assert maxima_and_means.shape == (2, 2 * (24 + 24) + 32)
    assert (maxima_and_means[:, 80:] >= maxima_and_means[:, :48]).all()  # each maximum, its mean
    with pytest.raises(ValueError, match="rows is 0; expected a whole number from 1"):
        Architecture(rows=0)
    with pytest.raises(ValueError, match="pooling is 'last'; expected 'stages' or 'middle'"):
        Architecture(pooling="last")  # type: ignore[arg-type]
