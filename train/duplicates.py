"""Pictures of which the gallery holds nearly the same: measured on them, a model has it easy.

Barz and Denzler 2020 (arXiv:1902.00423) found such doubles for 3.3 % of CIFAR-10's test pictures.
Here they are found on the pixels, not by the model that is measured: candidates by small
thumbnails, also mirrored, and then by the mean of two correlations, that of the thumbnails and that
of what is left when the local mean is taken away, edges and texture. Two skies are alike as
thumbnails, their clouds do not coincide; two framed pictures share edges, not what they show. Of
the first 1,500 test pictures of CIFAR-10 some 40 are found so, nearly all of them rightly.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from train.similarity import nearest

CANDIDATES = 5
THRESHOLD = 0.75
"""Mean correlation from which two pictures count as nearly the same."""
_THUMBNAIL, _SIDE = 8, 32


def near_duplicates(
    queries: Tensor, gallery: Tensor, threshold: float = THRESHOLD
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Pairs of nearly the same picture.

    Args:
        queries: uint8 ``(nq, 3, size, size)``.
        gallery: uint8 ``(n, 3, size, size)``.
        threshold: least mean of the two correlations, 0..1.

    Returns:
        rows of queries, rows of the gallery and correlations, each ``(m,)``: the best of each
        query that has one, the surest first.
    """
    best = np.full(len(queries), -1.0, np.float32)
    which = np.zeros(len(queries), np.int64)
    if len(queries) == 0 or len(gallery) == 0:
        return which[:0], which[:0], best[:0]
    thumbnails = _thumbnails(gallery)
    for mirrored in (False, True):
        asked = queries.flip(-1) if mirrored else queries
        alike, rows = nearest(_thumbnails(asked), thumbnails, CANDIDATES)
        for start in range(0, len(asked), 500):
            part = slice(start, start + 500)
            texture = _texture(asked[part])
            for column, scores in zip(rows[part].T, alike[part].T, strict=True):
                same = (texture * _texture(gallery[torch.from_numpy(column)])).sum(1).numpy()
                found = (same + scores) / 2
                better = found > best[part]
                best[part][better] = found[better]
                which[part][better] = column[better]
    rows = np.flatnonzero(best >= threshold)
    rows = rows[np.argsort(-best[rows], kind="stable")]
    return rows, which[rows], best[rows]


def _thumbnails(pictures: Tensor) -> NDArray[np.float32]:
    """Small, without their mean, of length one: float32 ``(n, 192)``."""
    small = torch.cat(
        [
            F.adaptive_avg_pool2d(part.float(), _THUMBNAIL).flatten(1)
            for part in pictures.split(500)  # type: ignore[no-untyped-call]
        ]
    )
    return F.normalize(small - small.mean(1, keepdim=True)).numpy()


def _texture(pictures: Tensor) -> Tensor:
    """What differs from the local mean, at 32 pixels, of length one: float32 ``(n, 3072)``."""
    x = F.adaptive_avg_pool2d(pictures.float(), _SIDE)
    local = F.avg_pool2d(F.pad(x, (2,) * 4, "reflect"), 5, stride=1)
    return F.normalize((x - local).flatten(1))
