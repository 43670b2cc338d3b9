from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from train.augment import Augmenter, _cutout, _rotate, cutmix
from train.recipe import Augment

NOTHING = Augment(flip="none", translate=0)


def numbered(n: int = 6, size: int = 8) -> Tensor:
    """Pictures whose every pixel differs from its neighbours."""
    generator = Generator().manual_seed(1)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator).byte()


def batch(augment: Augment, pictures: Tensor, epoch: int = 0, seed: int = 0) -> Tensor:
    augmenter = Augmenter(pictures, augment, seed=5)
    return augmenter.batch(torch.arange(len(pictures)), epoch, Generator().manual_seed(seed))


def test_nothing_is_the_picture_as_float() -> None:
    pictures = numbered()
    out = batch(NOTHING, pictures)
    assert out.dtype == torch.float32
    assert torch.equal(out, pictures.float())


def test_the_index_chooses() -> None:
    pictures = numbered()
    out = Augmenter(pictures, NOTHING, 0).batch(torch.tensor([4, 1, 4]), 0, Generator())
    assert torch.equal(out, pictures[[4, 1, 4]].float())


def test_alternating_flip_shows_both_sides_in_two_epochs() -> None:
    pictures = numbered(40).float()
    first, second, third = (
        batch(Augment(flip="alternating", translate=0), pictures.byte(), epoch, seed=epoch)
        for epoch in (0, 1, 2)
    )
    mirrored = pictures.flip(-1)
    assert torch.equal(second, first.flip(-1))
    assert torch.equal(third, first)
    as_is = (first == pictures).flatten(1).all(1)
    assert torch.equal(first[~as_is], mirrored[~as_is])
    assert 8 <= int(as_is.sum()) <= 32, "about half starts mirrored"


def test_alternating_flip_leaves_the_caller_its_pictures() -> None:
    pictures = numbered()
    before = pictures.clone()
    Augmenter(pictures, Augment(flip="alternating"), 0)
    assert torch.equal(pictures, before)


def test_random_flip_is_about_half() -> None:
    pictures = numbered(200)
    out = batch(Augment(flip="random", translate=0), pictures)
    as_is = (out == pictures).flatten(1).all(1)
    assert torch.equal(out[~as_is], pictures[~as_is].flip(-1).float())
    assert 70 <= int(as_is.sum()) <= 130


def test_translation_reflects_the_border() -> None:
    row = torch.tensor([10, 20, 30, 40], dtype=torch.uint8)
    picture = row.expand(1, 3, 4, 4).contiguous()
    out = batch(Augment(flip="none", translate=1), picture.expand(60, 3, 4, 4))
    # Shifted by one, the neighbour of the border is seen again beyond it.
    expected = {(20, 10, 20, 30), (10, 20, 30, 40), (20, 30, 40, 30)}
    assert {tuple(int(v) for v in one[0, 2]) for one in out} == expected
    upright = picture.transpose(2, 3).contiguous()
    out = batch(Augment(flip="none", translate=1), upright.expand(60, 3, 4, 4))
    assert {tuple(int(v) for v in one[1, :, 0]) for one in out} == expected


def test_translation_must_be_smaller_than_the_picture() -> None:
    with pytest.raises(ValueError, match=r"translate is 8 pixels; expected less than .* side of 8"):
        Augmenter(numbered(), Augment(translate=8), 0)


def test_cutout_by_hand() -> None:
    x = torch.zeros(2, 3, 4, 4)
    x[:, :, 0, 0] = 16.0  # each channel's mean is 1
    centre = torch.tensor([[[2], [3]], [[2], [0]]])  # (row, column): (2, 2) and (3, 0)
    out = _cutout(x, 2, centre)
    assert out[0, 1].tolist() == [[16, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert out[1, 2].tolist() == [[16, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]


def test_cutout_area() -> None:
    pictures = torch.zeros(300, 3, 16, 16, dtype=torch.uint8)
    pictures[:, :, ::2] = 200
    out = batch(Augment(flip="none", translate=0, cutout=6), pictures)
    changed = (out != pictures).all(1).flatten(1).sum(1)
    assert int(changed.max()) == 36
    assert int(changed.min()) >= 9, "a corner keeps a quarter of the square"


def test_rotate_by_nothing_is_the_identity() -> None:
    x = numbered().float()
    torch.testing.assert_close(_rotate(x, torch.zeros(6)), x, atol=1e-3, rtol=0)


def test_rotate_by_a_quarter() -> None:
    x = numbered().float()
    turned = _rotate(x, torch.full((6,), 90.0))
    torch.testing.assert_close(turned, torch.rot90(x, 1, (2, 3)), atol=0.05, rtol=0)


def test_brightness_and_contrast_stay_in_bounds() -> None:
    pictures = numbered(50)
    brighter = batch(Augment(flip="none", translate=0, brightness=0.1), pictures)
    shift = (brighter - pictures).abs()
    assert 20 < float(shift.max()) <= 25.5 + 1e-3
    assert 0 <= float(brighter.min()) <= float(brighter.max()) <= 255
    grey = torch.full((4, 3, 8, 8), 100, dtype=torch.uint8)
    same = batch(Augment(flip="none", translate=0, contrast=0.9), grey)
    torch.testing.assert_close(same, grey.float())


def test_one_generator_one_batch() -> None:
    everything = Augment("random", 2, 15.0, 0.2, 0.2, 3)
    pictures = numbered()
    assert torch.equal(batch(everything, pictures, seed=3), batch(everything, pictures, seed=3))
    assert not torch.equal(batch(everything, pictures, seed=3), batch(everything, pictures, seed=4))


def test_cutmix_by_hand() -> None:
    x = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 16, 16).contiguous()
    before, labels = x.clone(), torch.tensor([0, 1, 2, 0, 1, 2])
    shares = []
    for seed in range(20):
        mixed, truth = cutmix(x, labels, 3, Generator().manual_seed(seed))
        assert torch.equal(x, before)
        foreign = mixed != x
        rows, columns = foreign[:, 0].any(0).any(1), foreign[:, 0].any(0).any(0)
        box = rows[:, None] & columns[None]
        share = float(box.float().mean())
        for i in range(6):
            inside = mixed[i][:, box].unique().tolist()
            assert len(inside) <= 1, "one box of one other picture"
            other = int(inside[0]) if inside else i
            expected = torch.zeros(3)
            expected[labels[i]] += 1 - share
            expected[labels[other]] += share
            torch.testing.assert_close(truth[i], expected)
        shares.append(share)
    assert min(shares) < 0.2 and max(shares) > 0.5
