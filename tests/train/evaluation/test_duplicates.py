from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from train.evaluation.duplicates import near_duplicates


def pictures(n: int, seed: int = 0, size: int = 32) -> Tensor:
    """Smooth blotches with some texture, all different, uint8 ``(n, 3, size, size)``."""
    generator = torch.Generator().manual_seed(seed)
    coarse, fine = (torch.randn(n, 3, side, side, generator=generator) for side in (4, 16))
    x = sum(
        weight * F.interpolate(part, size=size, mode="bilinear")
        for weight, part in ((60, coarse), (25, fine))
    )
    return (x + 128).clamp(0, 255).byte()


def compressed(picture: Tensor) -> Tensor:
    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=60)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)


def test_the_same_brighter_mirrored_and_compressed() -> None:
    gallery = pictures(100)
    queries = torch.stack(
        [
            gallery[3],
            pictures(1, seed=5)[0],
            gallery[7].flip(-1),
            (gallery[12].float() * 0.8 + 30).byte(),
            compressed(gallery[20]),
        ]
    )
    rows, found, scores = near_duplicates(queries, gallery)
    assert dict(zip(rows.tolist(), found.tolist(), strict=True)) == {0: 3, 2: 7, 3: 12, 4: 20}
    assert np.all(np.diff(scores) <= 0)
    assert scores[0] > 0.999
    assert rows.dtype == found.dtype == np.int64


def test_other_pictures_are_no_duplicates() -> None:
    rows, _, _ = near_duplicates(pictures(200, seed=1), pictures(500, seed=2))
    assert len(rows) == 0


def test_the_same_sky_with_another_texture_is_no_duplicate() -> None:
    sky = torch.linspace(80, 220, 32).view(1, 1, 32, 1).expand(2, 3, 32, 32)
    noise = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    two = (sky + 5 * noise).byte()
    # As thumbnails they are one, so the mean is about a half.
    assert len(near_duplicates(two[:1], two[1:])[0]) == 0
    assert len(near_duplicates(two[:1], two[1:], threshold=0.4)[0]) == 1


def test_nothing_to_compare() -> None:
    none, one = torch.zeros(0, 3, 32, 32, dtype=torch.uint8), pictures(1)
    for queries, gallery in ((none, one), (one, none)):
        assert [len(part) for part in near_duplicates(queries, gallery)] == [0, 0, 0]


def test_larger_pictures() -> None:
    large = pictures(6, size=96)
    rows, found, _ = near_duplicates(large[2:3], large)
    assert (rows.tolist(), found.tolist()) == ([0], [2])
