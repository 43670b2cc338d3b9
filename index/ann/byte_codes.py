"""Vectors as bytes on one scale for all dimensions, which FAISS compares in integers.

``SQ8`` has a scale for each dimension, so FAISS turns every byte into a float and scales it before
it multiplies. With one scale for all (``SQ8_direct``), the squared distance of two rows of bytes is
that of the vectors, times a constant: integer instructions suffice, and a graph is built in a third
of the time.
"""

from typing import Any, Self

import faiss
import numpy as np

from index.ann.vector_files import PIECE
from index.contract import IndexInputError, Vectors

_MOST = 255.0
_MIDDLE = 128.0


class ByteCodes:
    """The numbers from 0 to 255 that stand for a vector: its distance from a centre, scaled.

    They are kept in the FAISS index as a linear transform, so its file is complete by itself.
    """

    def __init__(self, scale: float, shift: Vectors) -> None:
        """A component x becomes ``scale * x + shift``; ``shift`` float32 (width,) is padded."""
        self._scale = np.float32(scale)
        self._shift = shift

    @classmethod
    def fitted(cls, xb: Vectors, width: int) -> Self:
        """Codes of ``width`` bytes for ``xb`` float32 (n, d), which is read in pieces, twice.

        Raises IndexInputError if there is no vector.
        """
        if not len(xb):
            raise IndexInputError("there is no vector to choose a scale by; use another kind")
        pieces = [slice(start, start + PIECE) for start in range(0, len(xb), PIECE)]
        centre = sum(xb[piece].sum(axis=0, dtype=np.float64) for piece in pieces) / len(xb)
        largest = max(float(np.abs(xb[piece] - centre).max()) for piece in pieces)
        scale = (_MIDDLE - 1) / max(largest, 1e-9)
        # FAISS drops what comes after the point, so a half is added for it to round.
        shift = np.full(width, _MIDDLE + 0.5, np.float32)
        shift[: xb.shape[1]] -= (scale * centre).astype(np.float32)
        return cls(scale, shift)

    @classmethod
    def of(cls, index: Any) -> Self | None:
        """Those of a FAISS index that `new_graph` made; None for any other."""
        if not isinstance(index, faiss.IndexPreTransform):
            return None
        chain: Any = index.chain
        if chain.size() != 1:
            return None
        first: Any = faiss.downcast_VectorTransform(chain.at(0))
        if type(first) is not faiss.LinearTransform or not first.A.size():
            return None
        if first.b.size() != faiss.downcast_index(index.index).d:
            return None
        return cls(first.A.at(0), faiss.vector_to_array(first.b))

    def put_into(self, index: Any) -> None:
        """Keep them in a FAISS index that `new_graph` made, which then is ready for vectors."""
        first: Any = faiss.downcast_VectorTransform(index.chain.at(0))
        scales = self._scale * np.eye(len(self._shift), index.d, dtype=np.float32)
        faiss.copy_array_to_vector(scales.ravel(), first.A)
        faiss.copy_array_to_vector(self._shift, first.b)
        first.is_trained = index.is_trained = True

    def encode(self, x: Vectors) -> Vectors:
        """What FAISS's inner index takes: float32 (n, width) for ``x`` float32 (n, d)."""
        codes = np.empty((len(x), len(self._shift)), np.float32)
        codes[:, x.shape[1] :] = 0
        np.multiply(x, self._scale, out=codes[:, : x.shape[1]])
        codes += self._shift
        np.maximum(codes, 0, out=codes)
        return np.minimum(codes, _MOST, out=codes)


def new_graph(links: int, dimension: int, width: int) -> Any:
    """An empty FAISS graph over bytes, ``width`` for a vector of ``dimension``."""
    library: Any = faiss
    graph = library.IndexHNSWSQ(
        width, library.ScalarQuantizer.QT_8bit_direct, links, faiss.METRIC_L2
    )
    return library.IndexPreTransform(library.LinearTransform(dimension, width, True), graph)
