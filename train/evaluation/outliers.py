"""Outlier detection: how well a model recognises pictures unlike its classes."""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from embed import scenes
from embed.encoder import PictureEncoder
from embed.pictures import RGB
from train.evaluation.similarity import Vectors, nearest

COUNT, NEIGHBOURS = 1000, 10


@dataclass(frozen=True)
class Outliers:
    """How well one kind of outlier is distinguished from the evaluated pictures.

    AUROC: the probability that an evaluated picture scores higher than an outlier; 0.5 is chance,
    1 perfect.

    Attributes:
        kind: ``scenes``, ``noise`` or ``text``.
        pictures: number of outliers.
        by_confidence: AUROC of the probability of the predicted class; None without classes.
        by_neighbours: AUROC of the mean similarity to the 10 nearest pictures of the gallery
            (after Sun et al. 2022, arXiv:2204.06507, who take the tenth).
    """

    kind: str
    pictures: int
    by_confidence: float | None
    by_neighbours: float


def outliers(
    encoder: PictureEncoder,
    confidence: NDArray[np.float32] | None,
    xq: Vectors,
    xb: Vectors,
    count: int = COUNT,
) -> tuple[Outliers, ...]:
    """Compare the evaluated pictures with outliers of each kind.

    Args:
        encoder: the model.
        confidence: of its predictions for the evaluated pictures ``(nq,)``; None if they have
            other classes.
        xq: embeddings of the evaluated pictures ``(nq, d)``.
        xb: embeddings of the gallery ``(n, d)``.
        count: number of outliers of each kind.
    """
    similarity = _neighbour_similarity(xq, xb)
    results = []
    for kind, pictures in outlier_pictures(count).items():
        probabilities, x = encoder.encode(pictures)
        by_confidence = None if confidence is None else auroc(confidence, probabilities.max(1))
        by_neighbours = auroc(similarity, _neighbour_similarity(x, xb))
        results.append(Outliers(kind, count, by_confidence, by_neighbours))
    return tuple(results)


def outlier_count(size: int) -> int:
    """How many outliers of each kind to compare: fewer where ``size`` pixels make them slow."""
    return max(COUNT * 64**2 // max(size, 64) ** 2, 200)


def outlier_pictures(count: int, seed: int = 0) -> dict[str, RGB]:
    """Rendered scenes, noise and lines of text, ``count`` of each, uint8 ``(count, 32, 32, 3)``."""
    random = np.random.default_rng(seed)
    names = list(scenes.SCENES)
    return {
        "scenes": np.stack(
            [scenes.render(names[i % len(names)], i // len(names)) for i in range(count)]
        ),
        "noise": random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        "text": np.stack([_text(random) for _ in range(count)]),
    }


def auroc(inside: NDArray[np.float32], outside: NDArray[np.float32]) -> float:
    """The probability that one of ``inside (n,)`` exceeds one of ``outside (m,)``; ties half."""
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, "left") + np.searchsorted(ordered, inside, "right")
    return float(below.mean() / (2 * len(outside)))


def _neighbour_similarity(xq: Vectors, xb: Vectors) -> NDArray[np.float32]:
    scores, _ = nearest(xq, xb, NEIGHBOURS)
    mean: NDArray[np.float32] = scores.mean(axis=1)
    return mean


def _text(random: np.random.Generator) -> RGB:
    """Three lines of letters on paper, like part of a scanned page."""
    paper, ink = (int(value) for value in (random.integers(200, 256), random.integers(0, 90)))
    image = Image.new("RGB", (96, 96), (paper, paper, int(random.integers(180, paper + 1))))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=int(random.integers(18, 34)))
    letters = np.array(list(string.ascii_letters + string.digits))
    for line in range(3):
        words = "".join(random.choice(letters, 9))
        draw.text((int(random.integers(-8, 6)), 32 * line), words, fill=(ink,) * 3, font=font)
    return np.asarray(image.resize((32, 32), Image.Resampling.BOX), dtype=np.uint8)
