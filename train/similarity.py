"""Whether what is found is alike beyond the class: finer groups, and altered copies of a picture.

Everything works on plain arrays, a block of queries at a time, so that 10,000 queries among 60,000
pictures need some hundred megabytes.
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
Numbers = NDArray[np.int64]

BLOCK = 256
"""Queries compared with the gallery at a time."""


@dataclass(frozen=True)
class GroupSearch:
    """How often what is found is of the query's own group; ``precision_at`` by rank, 0..1."""

    queries: int
    gallery: int
    precision_at: dict[int, float]


@dataclass(frozen=True)
class CopySearch:
    """How often a picture is found by an altered copy of it.

    Attributes:
        queries: pictures altered, each in every way.
        gallery: pictures searched in, the unaltered ones among them.
        recall_at: by alteration, the share found among the first k, by k. ``mean`` is the mean
            over the single alterations, ``all`` has all of them on one picture.
    """

    queries: int
    gallery: int
    recall_at: dict[str, dict[int, float]]


def nearest(xq: Vectors, xb: Vectors, k: int) -> tuple[Vectors, Numbers]:
    """The ``k`` most similar of ``xb (n, d)`` to each of ``xq (nq, d)``, best first.

    Returns:
        scores float32 ``(nq, k)``, cosine similarities for vectors of length one, and rows of
        ``xb`` int64 ``(nq, k)``; ``k`` is cut to ``n``.
    """
    k = min(k, len(xb))
    scores = np.empty((len(xq), k), np.float32)
    rows = np.empty((len(xq), k), np.int64)
    for start in range(0, len(xq), BLOCK):
        part = slice(start, start + BLOCK)
        found = xq[part] @ xb.T
        first = np.argpartition(found, -k, axis=1)[:, -k:]
        values = np.take_along_axis(found, first, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        scores[part] = np.take_along_axis(values, order, axis=1)
        rows[part] = np.take_along_axis(first, order, axis=1)
    return scores, rows


def group_search(
    xq: Vectors, yq: Numbers, xb: Vectors, yb: Numbers, ranks: tuple[int, ...] = (1, 10)
) -> GroupSearch:
    """Search among the pictures that have a group, by those that have one.

    Args:
        xq: embeddings of the queries, of length one, ``(nq, d)``.
        yq: their groups ``(nq,)``, -1 for none.
        xb: embeddings of the gallery, of length one, ``(n, d)``.
        yb: their groups ``(n,)``, -1 for none.
        ranks: how many of the first found are looked at.

    Raises:
        ValueError: no query, or fewer pictures of the gallery than the largest rank, have a group.
    """
    asked, there = yq >= 0, yb >= 0
    if not asked.any() or there.sum() < max(ranks):
        raise ValueError(
            f"{asked.sum()} queries and {there.sum()} pictures of the gallery have a group;"
            f" expected at least 1 and {max(ranks)}"
        )
    groups = yb[there]
    _, rows = nearest(xq[asked], xb[there], max(ranks))
    same = groups[rows] == yq[asked, None]
    precision = {k: float(same[:, :k].mean()) for k in ranks}
    return GroupSearch(int(asked.sum()), len(groups), precision)


def copy_search(
    altered: dict[str, Vectors], xb: Vectors, rows: Numbers, ranks: tuple[int, ...] = (1, 10)
) -> CopySearch:
    """Search for pictures by altered copies of them.

    Args:
        altered: by the name of the alteration, embeddings of the copies, of length one
            ``(nq, d)``.
        xb: embeddings of the gallery, of length one ``(n, d)``.
        rows: which of the gallery each copy was made from ``(nq,)``.
        ranks: within how many of the first found it counts.
    """
    recall = {}
    for name, xq in altered.items():
        ahead = np.concatenate(
            [
                _ahead(xq[start : start + BLOCK] @ xb.T, rows[start : start + BLOCK])
                for start in range(0, len(xq), BLOCK)
            ]
        )
        recall[name] = {k: float((ahead < k).mean()) for k in ranks}
    single = [found for name, found in recall.items() if name != "all"]
    recall["mean"] = {k: float(np.mean([found[k] for found in single])) for k in ranks}
    return CopySearch(len(rows), len(xb), recall)


def _ahead(scores: Vectors, rows: Numbers) -> Numbers:
    """How many of each line of ``scores`` are above that of its row; an equal one is not."""
    own = np.take_along_axis(scores, rows[:, None], axis=1)
    ahead: Numbers = (scores > own).sum(axis=1)
    return ahead


def reduce(fitted_to: Vectors, dimension: int) -> Callable[[Vectors], Vectors]:
    """Principal components of ``fitted_to (n, d)``, then length one again.

    Returns:
        what takes ``(m, d)`` to ``(m, dimension)``.

    Raises:
        ValueError: ``dimension`` is not in 1..d.
    """
    if not 1 <= dimension <= fitted_to.shape[1]:
        raise ValueError(f"dimension is {dimension}; expected 1 to {fitted_to.shape[1]}")
    mean = fitted_to.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = fitted_to - mean
    _, directions = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    kept = directions[:, ::-1][:, :dimension].astype(np.float32)

    def apply(x: Vectors) -> Vectors:
        y = (x - mean) @ kept
        lengths = np.linalg.norm(y, axis=1, keepdims=True)
        found: Vectors = y / np.maximum(lengths, 1e-12)
        return found

    return apply


def altered_copies(pictures: RGB, seed: int = 0) -> dict[str, RGB]:
    """Copies of each picture as they go about: cropped, turned, brightened, compressed, mirrored.

    Args:
        pictures: uint8 ``(n, h, w, 3)``.
        seed: of all that is random.

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
    # Black corners would be a mark of their own; people who straighten a picture cut them off.
    border = max(image.size) // 4
    padded = np.pad(np.asarray(image), ((border, border), (border, border), (0, 0)), "reflect")
    turned = Image.fromarray(padded, "RGB").rotate(degrees, Image.Resampling.BICUBIC)
    return turned.crop((border, border, border + image.width, border + image.height))


def _light(image: Image.Image, random: np.random.Generator) -> Image.Image:
    brighter = ImageEnhance.Brightness(image).enhance(random.uniform(0.7, 1.3))
    return ImageEnhance.Contrast(brighter).enhance(random.uniform(0.7, 1.3))


def _jpeg(image: Image.Image) -> Image.Image:
    data = encode_jpeg(np.asarray(image, dtype=np.uint8), quality=40)
    return Image.open(io.BytesIO(data)).convert("RGB")
