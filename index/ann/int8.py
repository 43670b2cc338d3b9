"""Scans int8 codes for rows that provably include the best of an exact search.

A vector is rotated, so that its length spreads over all components, and rounded to whole multiples
of one scale. The product of two such codes is an integer that a CPU computes several times faster
than that of the vectors, and it differs from theirs by no more than the lengths of what rounding
took away allow (Cauchy-Schwarz). So no row whose integer is further below the k-th best than twice
that bound can be among the best k. The products are NumKong's, which chooses its instructions
(AVX2, VNNI, AMX, NEON, SVE) when it is imported; where it has none, there are no codes.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.contract import Ids, Vectors

try:
    import numkong
except ImportError:  # no wheel for this platform
    numkong = None  # type: ignore[assignment]

_BLOCK = 64
"""Codes are rotated in blocks, and padded to whole ones; their rows fill whole cache lines."""
_PIECE = 32_768
_STEP = 1024
_LARGEST = 127
# Rotation in float32: two rounds, each a sum of _BLOCK terms, with the usual bound on its rounding.
_ROUNDING = 2 * 1.01 * _BLOCK * math.sqrt(_BLOCK) * 2.0**-24
# Scores that differ by less may be equal in float32, and then the smaller id comes first.
_SAME = 4e-7
_AT_ONCE = 2**18
_QUERIES = 32
_GROUPS = (32, 8)
_NONE = np.iinfo(np.int32).min

Codes8 = NDArray[np.int8]
Integers = NDArray[np.int32]
Floats = NDArray[np.floating[Any]]
T = TypeVar("T")


@functools.cache
def available() -> bool:
    """Whether NumKong has instructions for int8 products here, and they are right."""
    if numkong is None or not any(on for name, on in _capabilities().items() if name != "serial"):
        return False
    codes = np.random.default_rng(0).integers(-_LARGEST, _LARGEST + 1, (70, 2 * _BLOCK), np.int8)
    codes[:2], codes[2:4] = _LARGEST, -_LARGEST
    found = np.empty((40, len(codes)), np.int32)
    _products(codes[:40], numkong.dots_pack(codes, dtype="int8"), found)
    wide = codes.astype(np.int32)
    return np.array_equal(found, wide[:40] @ wide.T)


def _capabilities() -> dict[str, bool]:
    found: dict[str, bool] = numkong.get_capabilities()
    return found


def _products(codes: Codes8, packed: Any, out: Integers) -> None:
    """Products of query ``codes`` (nq, d) with a packed piece, into contiguous ``out`` (nq, s)."""
    numkong.dots_packed(
        codes, packed, out=numkong.from_pointer(out.ctypes.data, out.shape, "int32", owner=out)
    )


@dataclass(frozen=True)
class Codes:
    """The codes of ``count`` vectors, in packed pieces of ``size`` rows; the last may be padded.

    A vector is ``scale`` times its code, rotated back, but for a remainder no longer than ``rest``.
    ``longest`` is the largest length of a vector, ``uneven`` how far a length is from 1 at most,
    and ``rounding`` how wrong a measured length may be.
    """

    pieces: list[Any]
    count: int
    size: int
    scale: float
    rest: float
    longest: float
    uneven: float
    rounding: float

    @classmethod
    def of(cls, xb: Vectors) -> Codes:
        """Encode vectors float32 (n, d), n at least 1, as `index.vectors.as_vectors` returns."""
        n, d = xb.shape
        pieces = -(-n // _PIECE)
        size = -(-n // (pieces * _GROUPS[0])) * _GROUPS[0]
        largest = max(float(np.abs(_rotated(part)).max()) for part in _parts(xb))
        scale = np.float32(largest / _LARGEST)
        codes = np.zeros((size, _padded(d)), np.int8)
        packed, rests = [], []
        for start in range(0, n, size):
            done = 0
            for part in _parts(xb[start : start + size]):
                codes[done : done + len(part)], rest = _encoded(_rotated(part), scale)
                rests.append(float(rest.max()))
                done += len(part)
            packed.append(numkong.dots_pack(codes, dtype="int8"))
        ends = [float(end(_lengths(part))) for part in _parts(xb) for end in (np.min, np.max)]
        longest, uneven = max(ends), max(abs(end - 1) for end in ends)
        rounding = _sum_rounding(d)
        return cls(
            packed,
            n,
            size,
            float(scale),
            max(rests),
            longest + rounding,
            uneven + rounding,
            rounding,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(piece.nbytes for piece in self.pieces)

    def candidates(
        self, xq: Vectors, k: int, rows: Ids | None, most: int, threads: int
    ) -> list[Ids | None]:
        """For each query of ``xq`` (nq, d), rows that include its best ``k``, in any order.

        Only among the ascending ``rows``, if given. None for a query of which more than ``most``
        rows would pass, as where many vectors are nearly equal, and for all if ``k`` is too large.
        """
        groups = next((size for size in _GROUPS if 2 * k * size <= self.size), None)
        if groups is None:
            return [None] * len(xq)
        cap = None if rows is None else self._cap(rows)
        found: list[Ids | None] = []
        for start in range(0, len(xq), _QUERIES):
            found += self._passing(xq[start : start + _QUERIES], k, groups, cap, most, threads)
        return found

    def _cap(self, rows: Ids) -> Integers:
        cap = np.full(len(self.pieces) * self.size, _NONE, np.int32)
        cap[rows] = np.iinfo(np.int32).max
        return cap.reshape(len(self.pieces), 1, self.size)

    def _passing(
        self, xq: Vectors, k: int, groups: int, cap: Integers | None, most: int, threads: int
    ) -> list[Ids | None]:
        rotated = _rotated(xq)
        scales = np.abs(rotated).max(axis=1) / np.float32(_LARGEST)
        codes, rest = _encoded(rotated, scales[:, None])
        window = self._window(_lengths(xq).astype(np.float64), scales.astype(np.float64), rest)
        if len(xq) == 1:
            rows = self._passing_one(codes, float(window[0]), k, groups, cap, threads)
            return [rows if len(rows) <= most else None]
        scan = _Scan(self, codes, window, k, groups, cap)
        return scan.rows(self._shared(scan.over, threads), most)

    def _shared(self, over: Callable[[int, int], T], threads: int) -> list[T]:
        """What ``over`` returns for the pieces, each of some threads taking consecutive ones."""
        shares = min(threads, len(self.pieces))
        ends = [len(self.pieces) * i // shares for i in range(shares + 1)]
        others = [_pool().submit(over, *ends[i : i + 2]) for i in range(1, shares)]
        return [over(0, ends[1]), *(other.result() for other in others)]

    def _passing_one(
        self,
        codes: Codes8,
        window: float,
        k: int,
        groups: int,
        cap: Integers | None,
        threads: int,
    ) -> Ids:
        """`_Scan` for one query in fewer steps: each costs as much as its arithmetic."""
        scores = np.empty((len(self.pieces), 1, self.size), np.int32)

        def over(first: int, last: int) -> None:
            for piece in range(first, last):
                _products(codes, self.pieces[piece], scores[piece])

        self._shared(over, threads)
        if cap is not None:
            np.minimum(scores, cap, out=scores)
        every = scores.ravel()
        every[self.count :] = _NONE
        table = every.reshape(groups, -1)
        tops = table.max(axis=0)
        kth = int(np.partition(tops, len(tops) - k)[len(tops) - k])
        least = max(kth - int(window), _NONE + 1)
        column = (tops >= least).nonzero()[0]
        member, hit = (table[:, column] >= least).nonzero()
        rows: Ids = member * len(tops) + column[hit]
        return rows

    def _window(self, length: Floats, scale: Floats, rest: Floats) -> Floats:
        """How far below the k-th best integer one of the best k may be, for each query (nq,).

        Given its length, the scale of its codes, and a bound on the length of what they leave.
        """
        bound = (length + self.rounding) * self.rest + rest * (self.longest + self.rest)
        # Where a score is near 1, the lengths are divided by.
        uneven = 1.01 * (self.uneven + self.rounding + np.abs(length - 1))
        return 2 * (bound + uneven + _SAME) / (self.scale * scale) // 1 + 2


class _Hits(NamedTuple):
    """What passed in some pieces, each (m,): queries, rows, and integers."""

    query: Ids
    row: Ids
    value: Integers


class _Scan(NamedTuple):
    """A scan of all pieces for some queries, which several threads may share."""

    of: Codes
    queries: Codes8
    window: Floats
    k: int
    groups: int
    cap: Integers | None

    def over(self, first: int, last: int) -> tuple[Integers, list[_Hits]]:
        """Scan pieces ``first`` to ``last``, this one excluded.

        Returns the best k maxima of groups, (nq, k), and what passed.
        """
        nq, size = len(self.queries), self.of.size
        columns = size // self.groups
        step = min(max(1, _AT_ONCE // (nq * size)), last - first)
        buffer = np.empty((step, nq, size), np.int32)
        best = np.empty((nq, 0), np.int32)
        hits: list[_Hits] = []
        for start in range(first, last, step):
            scores = buffer[: last - start]
            self._products(start, scores)
            # Reads all integers once, and from then on only the maxima of groups.
            table = scores.reshape(-1, self.groups, columns)
            tops = table.max(axis=1)
            # The k-th largest maximum is at most the k-th largest integer.
            pool = tops.reshape(-1, nq, columns).swapaxes(0, 1).reshape(nq, -1)
            pool = np.concatenate((best, pool), axis=1)
            pool.partition(pool.shape[1] - self.k, axis=1)
            best = pool[:, -self.k :]
            least = np.tile(self._least(best), len(scores))
            cell, column = np.divmod((tops >= least[:, None]).ravel().nonzero()[0], columns)
            values = table[cell, :, column]
            passed = (values >= least[cell, None]).ravel().nonzero()[0]
            hit, member = np.divmod(passed, self.groups)
            piece, query = np.divmod(cell[hit], nq)
            row = (start + piece) * size + member * columns + column[hit]
            hits.append(_Hits(query, row, values.ravel()[passed]))
        return best, hits

    def _products(self, start: int, out: Integers) -> None:
        """Products with the pieces from ``start`` on, into ``out`` (pieces, nq, size)."""
        for piece, scores in enumerate(out, start):
            _products(self.queries, self.of.pieces[piece], scores)
        if self.cap is not None:
            np.minimum(out, self.cap[start : start + len(out)], out=out)
        padding = (start + len(out)) * self.of.size - self.of.count
        if padding > 0:
            out[-1, :, self.of.size - padding :] = _NONE

    def _least(self, best: Integers) -> Integers:
        """The least integer (nq,) that one of the best k may have."""
        least: Integers = np.maximum(best.min(axis=1) - self.window, _NONE + 1).astype(np.int32)
        return least

    def rows(self, parts: list[tuple[Integers, list[_Hits]]], most: int) -> list[Ids | None]:
        """The rows of each query that pass after all; None instead of more than ``most``."""
        best = np.concatenate([best for best, _ in parts], axis=1)
        least = self._least(np.partition(best, best.shape[1] - self.k, axis=1)[:, -self.k :])
        every = [hits for _, found in parts for hits in found]
        query, row, value = (np.concatenate(column) for column in zip(*every, strict=True))
        kept = value >= least[query]
        query, row = query[kept], row[kept]
        row = row[query.argsort(kind="stable")]
        ends = np.bincount(query, minlength=len(least)).cumsum()
        return [part if len(part) <= most else None for part in np.split(row, ends[:-1])]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads for a share of a scan each; the calling thread takes one share itself."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="int8-scan")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


@functools.cache
def _rotation(blocks: int) -> tuple[Vectors, Vectors, Vectors]:
    """Signs for two rounds, each (blocks * 64,), and an orthogonal matrix (64, 64) of +-1/8."""
    hadamard = np.ones((1, 1), np.float32)
    while len(hadamard) < _BLOCK:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (2, blocks * _BLOCK))
    return signs[0], signs[1], hadamard / np.float32(math.sqrt(_BLOCK))


def _padded(d: int) -> int:
    return -(-d // _BLOCK) * _BLOCK


def _parts(xb: Vectors) -> Iterator[Vectors]:
    """Rows as few at a time as a cache holds."""
    return (xb[start : start + _STEP] for start in range(0, len(xb), _STEP))


def _lengths(x: Vectors) -> Vectors:
    """Of each row, (n,), wrong by at most `_sum_rounding`."""
    lengths: Vectors = np.sqrt(np.einsum("ij,ij->i", x, x))
    return lengths


def _sum_rounding(d: int) -> float:
    """By how much the root of a float32 sum of ``d`` squares, about 1, may be wrong."""
    return 1.01 * d * 2.0**-24


def _rotated(x: Vectors) -> Vectors:
    """Rows of ``x`` (n, d), padded to whole blocks and rotated, float32 (n, blocks * 64).

    The second round takes its blocks across those of the first, so every component depends on all.
    """
    n, d = x.shape
    blocks = _padded(d) // _BLOCK
    first, second, hadamard = _rotation(blocks)
    # Two arrays take turns, because new ones would cost more than the arithmetic.
    given = np.zeros((n, blocks * _BLOCK), np.float32)
    np.multiply(x, first[:d], out=given[:, :d])
    turned = given.reshape(-1, _BLOCK) @ hadamard
    across = turned.reshape(n, blocks, _BLOCK).swapaxes(1, 2)
    np.multiply(across, second.reshape(_BLOCK, blocks), out=given.reshape(n, _BLOCK, blocks))
    np.matmul(given.reshape(-1, _BLOCK), hadamard, out=turned)
    return turned.reshape(n, -1)


def _encoded(rotated: Vectors, scale: Any) -> tuple[Codes8, Floats]:
    """Codes int8 (n, d), and bounds (n,) on the length of what each leaves of its vector.

    ``scale`` float32 is one for all or (n, 1). Overwrites ``rotated``.
    """
    rotated *= np.float32(1) / scale
    whole = np.rint(rotated)
    rotated -= whole
    rest = _lengths(rotated).astype(np.float64)
    rest *= np.asarray(scale, np.float64).reshape(-1) * (1 + rotated.shape[1] * 2.0**-23)
    # The rotation's rounding, and that of the division.
    return whole.astype(np.int8), rest + _ROUNDING + 1e-6
