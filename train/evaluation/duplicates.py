"""Finds near-duplicates of the gallery's pictures, which make an evaluation too favourable.

Barz and Denzler 2020 (arXiv:1902.00423) found duplicates of 3.3 % of CIFAR-10's test pictures. Here
they are found from the pixels, not by the evaluated model: candidates by their thumbnails, also
mirrored, then a score that is the mean of two correlations, between the thumbnails and between
edges and texture (the difference from the local mean). Two skies look alike as thumbnails, but
their clouds do not coincide; two framed pictures share edges, but not content. Among the first
1,500 test pictures of CIFAR-10 it finds some 40 duplicates, nearly all of them real.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from train.evaluation.similarity import nearest

CANDIDATES = 5
THRESHOLD = 0.75
"""Mean correlation from which two pictures count as near-duplicates."""
_THUMBNAIL, _SIDE = 8, 32


def near_duplicates(
    queries: Tensor, gallery: Tensor, threshold: float = THRESHOLD
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Pairs of near-duplicates.

    Args:
        queries: uint8 ``(nq, 3, size, size)``.
        gallery: uint8 ``(n, 3, size, size)``.
        threshold: minimum mean of the two correlations, 0..1.

    Returns:
        rows of queries int64, rows of the gallery int64 and mean correlations float32, each
        ``(m,)``: the best match of each query that has one, highest correlation first.
    """
    best = np.full(len(queries), -1.0, np.float32)
    match = np.zeros(len(queries), np.int64)
    if len(queries) == 0 or len(gallery) == 0:
        return match[:0], match[:0], best[:0]
    thumbnails = _thumbnails(gallery)
    for mirrored in (False, True):
        views = queries.flip(-1) if mirrored else queries
        scores, candidates = nearest(_thumbnails(views), thumbnails, CANDIDATES)
        for start in range(0, len(views), 500):
            part = slice(start, start + 500)
            texture = _texture(views[part])
            for rows, thumbnail_score in zip(candidates[part].T, scores[part].T, strict=True):
                texture_score = (texture * _texture(gallery[torch.from_numpy(rows)])).sum(1).numpy()
                score = (texture_score + thumbnail_score) / 2
                better = score > best[part]
                best[part][better] = score[better]
                match[part][better] = rows[better]
    duplicates = np.flatnonzero(best >= threshold)
    duplicates = duplicates[np.argsort(-best[duplicates], kind="stable")]
    return duplicates, match[duplicates], best[duplicates]


def _thumbnails(pictures: Tensor) -> NDArray[np.float32]:
    """Small pictures minus their mean, of length one: float32 ``(n, 192)``."""
    small = torch.cat(
        [
            F.adaptive_avg_pool2d(part.float(), _THUMBNAIL).flatten(1)
            for part in pictures.split(500)  # type: ignore[no-untyped-call]
        ]
    )
    return F.normalize(small - small.mean(1, keepdim=True)).numpy()


def _texture(pictures: Tensor) -> Tensor:
    """The difference from the local mean, at 32 pixels, of length one: float32 ``(n, 3072)``."""
    x = F.adaptive_avg_pool2d(pictures.float(), _SIDE)
    local = F.avg_pool2d(F.pad(x, (2,) * 4, "reflect"), 5, stride=1)
    return F.normalize((x - local).flatten(1))
