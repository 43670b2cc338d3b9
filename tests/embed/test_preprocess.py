from __future__ import annotations

import json
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from embed.pictures import RGB
from embed.preprocess import CIFAR10_MEAN, CIFAR10_STD, Preprocess, Resize
from tests.embed.helpers import noise


def test_defaults_are_those_of_cifar10() -> None:
    assert Preprocess() == Preprocess(32, CIFAR10_MEAN, CIFAR10_STD)


def test_values_by_hand() -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:] = (0, 51, 255)
    preprocess = Preprocess(mean=(0.5, 0.2, 0.4), std=(0.25, 0.5, 0.2))
    x = preprocess.normalise(torch.from_numpy(preprocess.stack([picture])).permute(0, 3, 1, 2))
    assert x.shape == (1, 3, 32, 32)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    # (0 - 0.5) / 0.25, (0.2 - 0.2) / 0.5, (1 - 0.4) / 0.2
    assert x[0, :, 3, 4].tolist() == pytest.approx([-2.0, 0.0, 3.0], abs=1e-6)


def test_a_picture_of_the_right_size_is_untouched() -> None:
    picture = noise(32, 32)
    assert Preprocess().fit(picture) is picture


def test_non_square_is_cropped_around_its_centre() -> None:
    picture = np.zeros((32, 96, 3), np.uint8)
    picture[:, :32] = (255, 0, 0)
    picture[:, 32:64] = noise(32, 32)
    picture[:, 64:] = (0, 0, 255)
    assert np.array_equal(Preprocess().fit(picture), picture[:, 32:64])
    upright = picture.transpose(1, 0, 2)
    assert np.array_equal(Preprocess().fit(upright), upright[32:64])


def test_scaling_averages_rather_than_picks() -> None:
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[:, ::2] = 255
    fitted = Preprocess().fit(picture)
    assert np.abs(fitted.astype(int) - 127.5).max() <= 8


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (31, 33), (5000, 3)])
def test_any_size_fits(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 77, np.uint8)
    fitted = Preprocess(input_size=16).fit(picture)
    assert fitted.shape == (16, 16, 3)
    assert (fitted == 77).all()


def test_list_and_array_agree(pictures: RGB) -> None:
    preprocess = Preprocess()
    assert np.array_equal(preprocess.stack(pictures), preprocess.stack(list(pictures)))
    large = np.stack([noise(40, 50), noise(40, 50)[::-1]])
    assert np.array_equal(preprocess.stack(large), preprocess.stack(list(large)))


def test_stack_keeps_order_and_values(pictures: RGB) -> None:
    stacked = Preprocess().stack(pictures)
    assert stacked.dtype == np.uint8
    assert np.array_equal(stacked[3], pictures[3])


def test_the_arguments_are_not_changed(pictures: RGB) -> None:
    before = pictures.copy()
    Preprocess().stack(pictures)
    assert np.array_equal(pictures, before)


def test_cropping_equals_that_of_torchvision_and_timm() -> None:
    picture = noise(300, 401)
    preprocess = Preprocess(224, resize="crop", crop=0.875, interpolation="bicubic")
    assert preprocess.shorter_side == 256
    theirs = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
        ]
    )(Image.fromarray(picture))
    assert np.array_equal(preprocess.fit(picture), np.asarray(theirs))


def test_cropping_also_crops_a_picture_of_the_inputs_size() -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[4:28, 4:28] = 255
    preprocess = Preprocess(32, resize="crop", crop=0.5)
    fitted = preprocess.fit(picture)
    assert (fitted == 255).all()
    assert np.array_equal(preprocess.stack([fitted]), fitted[None])  # taken as fitted already


def test_squeezing_and_padding_keep_the_edges() -> None:
    picture = np.full((40, 80, 3), 100, np.uint8)
    picture[:, :20] = (255, 0, 0)
    squeezed = Preprocess(20, resize="squeeze").fit(picture)
    assert squeezed[10, 0].tolist() == [255, 0, 0]
    assert squeezed[10, 19].tolist() == [100, 100, 100]
    padded = Preprocess(20, mean=(0.2, 0.4, 0.6), resize="pad").fit(picture)
    assert padded[0, 0].tolist() == [51, 102, 153]
    assert padded[10, 0].tolist() == [255, 0, 0]
    assert padded[10, 19].tolist() == [100, 100, 100]


@pytest.mark.parametrize("resize", get_args(Resize))
def test_a_box_is_the_picture(resize: Resize) -> None:
    preprocess = Preprocess(20, resize=resize, crop=0.9)
    for h, w in ((40, 60), (61, 37)):
        picture = noise(h, w)
        fitted = preprocess.fit(picture)
        assert np.array_equal(preprocess.fit(Image.fromarray(picture), (0, 0, w, h)), fitted)
        framed = np.pad(picture, ((3, 4), (1, 2), (0, 0)), mode="edge")
        boxed = preprocess.fit(framed, (1, 3, 1 + w, 3 + h)).astype(int)
        # Filters at the edges see pixels beyond the box.
        assert np.array_equal(boxed[7:-7, 7:-7], fitted[7:-7, 7:-7])


def test_a_plain_dict_and_back() -> None:
    assert set(Preprocess().to_dict()) == {"input_size", "mean", "std"}
    for made in (Preprocess(), Preprocess(224, resize="crop", crop=0.9, interpolation="bicubic")):
        assert Preprocess.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize(
    "wrong", [{"input_size": 0}, {"resize": "zoom"}, {"crop": 0.0}, {"interpolation": "nearest"}]
)
def test_wrong_values_are_named(wrong: dict[str, Any]) -> None:
    (name, value), *_ = wrong.items()
    with pytest.raises(ValueError, match=f"{name} is {value!r}"):
        Preprocess(**wrong)
