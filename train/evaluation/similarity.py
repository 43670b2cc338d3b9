"""Search within classes: by finer labels, and by altered copies of a picture.

All functions work on plain arrays, a block of queries at a time, so that 10,000 queries among
60,000 pictures need some hundred megabytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from embed.pictures import RGB, encode_jpeg

Vectors = NDArray[np.float32]
Integers = NDArray[np.int64]

BLOCK = 256
"""Queries compared with the gallery at a time."""


@dataclass(frozen=True)
class GroupSearch:
    """How often a search by finer labels succeeds.

    Attributes:
        queries: number of queries with a finer label (group).
        gallery: number of pictures searched, those with a group.
        precision_at: by k, the share of the query's group among the first k results, 0..1.
    """

    queries: int
    gallery: int
    precision_at: dict[int, float]


@dataclass(frozen=True)
class CopySearch:
    """How often a picture is found by an altered copy of it.

    Attributes:
        queries: number of altered pictures, each altered in every way.
        gallery: number of pictures searched, including the originals.
        recall_at: by alteration and k, the share of originals among the first k results, 0..1.
            ``mean`` is the mean over the single alterations; ``all`` applies all of them to one
            picture.
    """

    queries: int
    gallery: int
    recall_at: dict[str, dict[int, float]]


def nearest(xq: Vectors, xb: Vectors, k: int) -> tuple[Vectors, Integers]:
    """The ``k`` most similar of ``xb (n, d)`` to each of ``xq (nq, d)``, best first.

    Returns:
        scores float32 ``(nq, k)``, cosine similarities for vectors of length one, and rows of
        ``xb`` int64 ``(nq, k)``; ``k`` is at most ``n``.
    """
    k = min(k, len(xb))
    scores = np.empty((len(xq), k), np.float32)
    rows = np.empty((len(xq), k), np.int64)
    for start in range(0, len(xq), BLOCK):
        part = slice(start, start + BLOCK)
        similarities = xq[part] @ xb.T
        first = np.argpartition(similarities, -k, axis=1)[:, -k:]
        values = np.take_along_axis(similarities, first, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        scores[part] = np.take_along_axis(values, order, axis=1)
        rows[part] = np.take_along_axis(first, order, axis=1)
    return scores, rows


def group_search(
    xq: Vectors, yq: Integers, xb: Vectors, yb: Integers, ranks: tuple[int, ...] = (1, 10)
) -> GroupSearch:
    """Search with the queries that have a group, among the pictures that have one.

    Args:
        xq: embeddings of the queries, of length one, ``(nq, d)``.
        yq: their groups ``(nq,)``, -1 for none.
        xb: embeddings of the gallery, of length one, ``(n, d)``.
        yb: their groups ``(n,)``, -1 for none.
        ranks: the k of ``precision_at``.

    Raises:
        ValueError: no query, or fewer pictures of the gallery than the largest rank, have a group.
    """
    query_grouped, gallery_grouped = yq >= 0, yb >= 0
    queries, groups = yq[query_grouped], yb[gallery_grouped]
    if not len(queries) or len(groups) < max(ranks):
        raise ValueError(
            f"{len(queries)} queries and {len(groups)} pictures of the gallery have a group;"
            f" expected at least 1 and {max(ranks)}"
        )
    _, rows = nearest(xq[query_grouped], xb[gallery_grouped], max(ranks))
    same = groups[rows] == queries[:, None]
    precision = {k: float(same[:, :k].mean()) for k in ranks}
    return GroupSearch(len(queries), len(groups), precision)


def copy_search(
    altered: dict[str, Vectors], xb: Vectors, rows: Integers, ranks: tuple[int, ...] = (1, 10)
) -> CopySearch:
    """Search for pictures by altered copies of them.

    Args:
        altered: embeddings of the copies, of length one ``(nq, d)``, by name of the alteration.
        xb: embeddings of the gallery, of length one ``(n, d)``.
        rows: of the originals in the gallery ``(nq,)``.
        ranks: the k of ``recall_at``.
    """
    recall = {}
    for name, xq in altered.items():
        rank = np.concatenate(
            [
                _ranks(xq[start : start + BLOCK] @ xb.T, rows[start : start + BLOCK])
                for start in range(0, len(xq), BLOCK)
            ]
        )
        recall[name] = {k: float((rank < k).mean()) for k in ranks}
    single = [recall_at for name, recall_at in recall.items() if name != "all"]
    recall["mean"] = {k: float(np.mean([recall_at[k] for recall_at in single])) for k in ranks}
    return CopySearch(len(rows), len(xb), recall)


def _ranks(scores: Vectors, rows: Integers) -> Integers:
    """The rank, from 0, of column ``rows[i]`` in line ``i`` of ``scores``; ties rank best."""
    original = np.take_along_axis(scores, rows[:, None], axis=1)
    ranks: Integers = (scores > original).sum(axis=1)
    return ranks


def altered_copies(pictures: RGB, seed: int = 0) -> dict[str, RGB]:
    """Copies as people make them: cropped, rotated, brighter or darker, compressed, mirrored.

    Args:
        pictures: uint8 ``(n, h, w, 3)``.
        seed: random seed.

    Returns:
        by name, uint8 ``(n, h, w, 3)``: ``crop`` to 80..95 % of each side, scaled back;
        ``rotation`` by up to 15 degrees either way, the corners reflected; ``light``, brightness
        and contrast by a factor of 0.7..1.3 each; ``jpeg`` of quality 40; ``mirror``; ``all`` of
        them in this order.
    """
    random = np.random.default_rng(seed)
    steps: dict[str, Callable[[Image.Image], Image.Image]] = {
        "crop": lambda image: _crop(image, random),
        "rotation": lambda image: _rotate(image, random.uniform(-15, 15)),
        "light": lambda image: _light(image, random),
        "jpeg": _jpeg,
        "mirror": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    }
    images = [Image.fromarray(picture, "RGB") for picture in pictures]
    copies = {name: _stack([step(image) for image in images]) for name, step in steps.items()}
    for step in steps.values():
        images = [step(image) for image in images]
    return copies | {"all": _stack(images)}


def _stack(images: list[Image.Image]) -> RGB:
    return np.stack([np.asarray(image, dtype=np.uint8) for image in images])


def _crop(image: Image.Image, random: np.random.Generator) -> Image.Image:
    share = random.uniform(0.80, 0.95)
    width, height = image.width * share, image.height * share
    left, top = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    return image.resize(image.size, Image.Resampling.BICUBIC, box=box)


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    # Black corners would give copies away; people who straighten a picture crop them.
    border = max(image.size) // 4
    padded = np.pad(np.asarray(image), ((border, border), (border, border), (0, 0)), "reflect")
    rotated = Image.fromarray(padded, "RGB").rotate(degrees, Image.Resampling.BICUBIC)
    return rotated.crop((border, border, border + image.width, border + image.height))


def _light(image: Image.Image, random: np.random.Generator) -> Image.Image:
    brighter = ImageEnhance.Brightness(image).enhance(random.uniform(0.7, 1.3))
    return ImageEnhance.Contrast(brighter).enhance(random.uniform(0.7, 1.3))


def _jpeg(image: Image.Image) -> Image.Image:
    data = encode_jpeg(np.asarray(image, dtype=np.uint8), quality=40)
    return Image.open(io.BytesIO(data)).convert("RGB")
