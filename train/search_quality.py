"""How well a search works beyond the class of what is found: all that an evaluation measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embed.encoder import PictureEncoder
from embed.pictures import RGB
from train.data import Dataset, Split
from train.measures import Retrieval, retrieval
from train.similarity import (
    CopySearch,
    GroupSearch,
    Numbers,
    Vectors,
    altered_copies,
    copy_search,
    group_search,
)

COPIES = 2000
"""Pictures of which altered copies are made, at most."""
HELD_OUT = 10
"""One query in so many is searched for among the others of the split."""


@dataclass(frozen=True)
class SearchQuality:
    """What a search finds.

    Attributes:
        dimension: numbers in an embedding.
        known: pictures of the evaluated split, searched for among those learned from.
        held_out: a tenth of the split, searched for among the rest of it: pictures learned by
            heart do not help; None where that leaves no class to find.
        groups: the same as ``known`` by finer words than the class; None where there are none.
        copies: pictures searched for by altered copies of them, among all.
    """

    dimension: int
    known: Retrieval
    held_out: Retrieval | None
    groups: GroupSearch | None
    copies: CopySearch


def evaluated(data: Dataset) -> tuple[str, Split, dict[str, Split]]:
    """The split to measure on, by name, and those to search in.

    The test split, searched for among training and validation pictures; where there is none, the
    validation split, searched for among the training pictures.
    """
    if data.test is not None:
        return "test", data.test, {"train": data.train, "validation": data.validation}
    return "validation", data.validation, {"train": data.train}


def pictures_of(split: Split) -> RGB:
    """Pictures uint8 ``(n, size, size, 3)``, as an encoder takes them."""
    pictures: RGB = split.pictures.permute(0, 2, 3, 1).numpy()
    return pictures


def search_quality(
    encoder: PictureEncoder,
    queries: Split,
    known: Sequence[Split],
    xq: Vectors,
    xb: Vectors,
    seed: int = 0,
) -> SearchQuality:
    """Measure all kinds of search with one model.

    Args:
        encoder: the model; it embeds the altered copies.
        queries: the evaluated split.
        known: the splits to search in.
        xq: embeddings of the queries ``(nq, d)``.
        xb: embeddings of the known pictures, split by split ``(n, d)``.
        seed: of what is held out and altered.
    """
    yq = queries.labels.numpy()
    yb = np.concatenate([split.labels.numpy() for split in known])
    copied = min(len(xq), max(COPIES * 64**2 // max(queries.pictures.shape[-1], 64) ** 2, 100))
    altered = {
        name: encoder.encode(pictures).embeddings
        for name, pictures in altered_copies(pictures_of(queries)[:copied], seed).items()
    }
    return SearchQuality(
        dimension=xq.shape[1],
        known=retrieval(xq, yq, xb, yb),
        held_out=_held_out(xq, yq, seed),
        groups=_groups(queries, known, xq, xb),
        copies=copy_search(altered, np.concatenate([xq, xb]), np.arange(copied)),
    )


def encoded(
    encoder: PictureEncoder, queries: Split, known: Sequence[Split]
) -> tuple[Vectors, Vectors]:
    """Embeddings of the queries and of the known pictures, split by split."""
    xb = [encoder.encode(pictures_of(split)).embeddings for split in known]
    return encoder.encode(pictures_of(queries)).embeddings, np.concatenate(xb)


def _held_out(xq: Vectors, yq: Numbers, seed: int) -> Retrieval | None:
    drawn = np.zeros(len(xq), bool)
    rows = np.random.default_rng(seed).choice(len(xq), len(xq) // HELD_OUT, replace=False)
    drawn[rows] = True
    if not np.isin(yq[drawn], yq[~drawn]).any():
        return None
    return retrieval(xq[drawn], yq[drawn], xq[~drawn], yq[~drawn])


def _groups(queries: Split, known: Sequence[Split], xq: Vectors, xb: Vectors) -> GroupSearch | None:
    if queries.groups is None or any(split.groups is None for split in known):
        return None
    gallery = np.concatenate([split.groups.numpy() for split in known if split.groups is not None])
    try:
        return group_search(xq, queries.groups.numpy(), xb, gallery)
    except ValueError:  # too few pictures have a word
        return None
