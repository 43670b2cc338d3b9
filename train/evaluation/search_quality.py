"""Measures the search of a model: by class, by finer labels, and by altered copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embed.encoder import PictureEncoder
from embed.pictures import RGB
from train.data import Dataset, Split
from train.evaluation.metrics import Retrieval, retrieval
from train.evaluation.similarity import (
    CopySearch,
    GroupSearch,
    Integers,
    Vectors,
    altered_copies,
    copy_search,
    group_search,
)

COPIES = 2000
"""Maximum number of pictures to make altered copies of."""
HELD_OUT = 10
"""One picture in this many of the evaluated split is a query among the rest of the split."""


@dataclass(frozen=True)
class SearchQuality:
    """How well one model's search works.

    Attributes:
        dimension: of an embedding.
        retrieval: by class; queries from the evaluated split, the gallery from the pictures that
            the model was trained with.
        held_out: by class; a tenth of the evaluated split among the rest of it, which does not
            reward memorised pictures. None if no query has its class in the gallery.
        groups: by finer labels, otherwise as ``retrieval``; None if there are none.
        copies: by altered copies of pictures, among all pictures.
    """

    dimension: int
    retrieval: Retrieval
    held_out: Retrieval | None
    groups: GroupSearch | None
    copies: CopySearch

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for JSON, where ``retrieval`` is called ``known``."""
        return {"known" if k == "retrieval" else k: v for k, v in asdict(self).items()}


def evaluation_splits(data: Dataset) -> tuple[str, Split, dict[str, Split]]:
    """The name of the evaluated split, the split, and the splits of the gallery by name.

    The test split, with training and validation pictures as the gallery; without a test split, the
    validation split, with the training pictures as the gallery.
    """
    if data.test is not None:
        return "test", data.test, {"train": data.train, "validation": data.validation}
    return "validation", data.validation, {"train": data.train}


def pictures_of(split: Split) -> RGB:
    """The pictures of a split, uint8 ``(n, size, size, 3)``, as an encoder takes them."""
    pictures: RGB = split.pictures.permute(0, 2, 3, 1).numpy()
    return pictures


def search_quality(
    encoder: PictureEncoder,
    queries: Split,
    gallery: Sequence[Split],
    xq: Vectors,
    xb: Vectors,
    seed: int = 0,
) -> SearchQuality:
    """Measure every kind of search with one model.

    Args:
        encoder: the model; it embeds the altered copies.
        queries: the evaluated split.
        gallery: the splits to search.
        xq: embeddings of the queries ``(nq, d)``.
        xb: embeddings of the gallery, split by split ``(n, d)``.
        seed: for the held-out queries and the altered copies.
    """
    yq = queries.labels.numpy()
    yb = np.concatenate([split.labels.numpy() for split in gallery])
    copied = min(len(xq), max(COPIES * 64**2 // max(queries.pictures.shape[-1], 64) ** 2, 100))
    altered = {
        name: encoder.encode(pictures).embeddings
        for name, pictures in altered_copies(pictures_of(queries)[:copied], seed).items()
    }
    return SearchQuality(
        dimension=xq.shape[1],
        retrieval=retrieval(xq, yq, xb, yb),
        held_out=_held_out(xq, yq, seed),
        groups=_groups(queries, gallery, xq, xb),
        copies=copy_search(altered, np.concatenate([xq, xb]), np.arange(copied)),
    )


def _held_out(xq: Vectors, yq: Integers, seed: int) -> Retrieval | None:
    drawn = np.zeros(len(xq), bool)
    rows = np.random.default_rng(seed).choice(len(xq), len(xq) // HELD_OUT, replace=False)
    drawn[rows] = True
    if not np.isin(yq[drawn], yq[~drawn]).any():
        return None
    return retrieval(xq[drawn], yq[drawn], xq[~drawn], yq[~drawn])


def _groups(
    queries: Split, gallery: Sequence[Split], xq: Vectors, xb: Vectors
) -> GroupSearch | None:
    groups = [split.groups.numpy() for split in gallery if split.groups is not None]
    if queries.groups is None or len(groups) < len(gallery):
        return None
    try:
        return group_search(xq, queries.groups.numpy(), xb, np.concatenate(groups))
    except ValueError:  # too few pictures have a finer label
        return None
