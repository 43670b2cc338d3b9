"""The kinds of index that a generation may hold: how each is chosen, built, written and read.

``exact``  every vector is looked at.
``ivf``    inverted lists of 8-bit codes; the vectors, mapped from the disk, score the candidates.
``hnsw``   a graph over 8-bit codes, likewise; slower to build, faster beyond some 100,000.
``rabitq`` inverted lists of 1-bit codes (Gao and Long 2024, arXiv:2405.12497) of the rotated
           vectors, reduced to 128 dimensions where they have more. 32 bytes a vector, mapped from
           the disk as the vectors are: for more vectors than the memory holds.
``auto``   one of these, by count and memory.

Anything else is taken for a FAISS factory string of an IVF or HNSW index, for experts.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from index.approximate import ApproximateIndex
from index.building import Pieces, mapped_files, pieces_of, write_pieces
from index.local import ExactIndex
from index.neighbours import Ids, IndexInputError, Searchable, Vectors, as_new_ids, as_vectors
from index.training import RECALL_K, create, factory_of, train

__all__ = ["KINDS", "RECALL_K", "TARGET_RECALL", "Built", "Collected", "UnknownKindError"]

EXACT_FILE = "index.faiss"
KINDS = ("auto", "exact", "ivf", "hnsw", "rabitq")
TARGET_RECALL = 0.999

_EXACT_BELOW = 200_000
_IVF_BELOW = 300_000
_MEMORY_SHARE = 0.5


class UnknownKindError(ValueError):
    """A kind that this version of Lookalike does not have."""


@dataclass(frozen=True)
class Built:
    """What the manifest keeps of how an index was built; see `index.manifest.Manifest`."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    recall: Mapping[str, float] | None = None


def choose(count: int, dimension: int, memory: int | None = None) -> str:
    """The kind that ``auto`` means for so many vectors; ``memory`` in bytes, by default all."""
    if memory is None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 5 * count * dimension > _MEMORY_SHARE * memory:
        return "rabitq"
    if count < _EXACT_BELOW:
        return "exact"
    return "ivf" if count < _IVF_BELOW else "hnsw"


@dataclass(frozen=True)
class Collected:
    """What an index of ``kind`` is to be built from.

    ``ids`` int64 (n,) ascend, ``xb`` is float32 (n, d). They are in memory for an exact index and,
    for any other, mapped from files in ``folder``.
    """

    kind: str
    ids: Ids
    xb: Vectors
    folder: Path | None = None


def collect(pieces: Pieces, count: int, dimension: int, kind: str, folder: Path) -> Collected:
    """Take ``count`` vectors piece by piece, so that a million million need no more memory.

    Files for an approximate index are written into ``folder``, which must be on the store's disk
    and stay until the index is published.

    Raises as `index.building.write_pieces` does.
    """
    chosen = choose(count, dimension) if kind == "auto" else kind
    if chosen != "exact":
        write_pieces(pieces, count, dimension, folder)
        return Collected(kind, *mapped_files(folder), folder)
    ids, xb = np.empty(count, np.int64), np.empty((count, dimension), np.float32)
    done = 0
    for some, vectors in pieces:
        ids[done : done + len(some)] = some
        xb[done : done + len(some)] = vectors
        done += len(some)
    return Collected(kind, ids[:done], xb[:done])


def build_collected(collected: Collected, target: float = TARGET_RECALL) -> Searchable:
    """Build what `collect` has prepared; see `build`."""
    ids, xb, folder = collected.ids, collected.xb, collected.folder
    dimension = xb.shape[1]
    chosen = choose(len(ids), dimension) if collected.kind == "auto" else collected.kind
    auto = collected.kind == "auto"
    tried = {"exact": (), "hnsw": ("hnsw", "ivf") if auto else ("hnsw",)}.get(chosen, (chosen,))
    for kind in tried:
        index = _approximate(ids, xb, dimension, kind, target, folder)
        # For so many that `auto` takes rabitq there is no memory for an exact one.
        reached = index.recall is None or index.recall["value"] >= target or chosen == "rabitq"
        if not auto or reached:
            if folder is None:
                return index
            index.save(folder)
            kind, parameters, recall = index.kind, index.parameters, index.recall
            del index  # its codes are in memory; those of the file need not be
            return ApproximateIndex.load(folder, kind, parameters, recall)
    exact = ExactIndex(dimension)
    if len(ids):
        exact.add(ids, np.asarray(xb))
    return exact


def build(
    ids: Ids, xb: Vectors, dimension: int, kind: str = "auto", target: float = TARGET_RECALL
) -> Searchable:
    """Build an index over ``xb`` float32 (n, dimension) under ``ids`` int64 (n,), ascending.

    An approximate one is set to the least effort that finds, on the average, the share ``target``
    of the true 10 nearest of held-out queries; ``auto`` takes an exact one where none does.

    Raises IndexInputError for vectors and ids as `ExactIndex.add` does, and for a kind or factory
    string that cannot be used or cannot be built from so few vectors.
    """
    if len(ids) != len(xb):
        raise IndexInputError(f"got {len(ids)} ids for {len(xb)} vectors; expected one id each")
    last = -1
    for some, vectors in pieces_of(ids, xb):
        as_vectors(vectors, dimension, "xb")
        some = as_new_ids(some, len(some))
        if some[0] <= last or (np.diff(some) <= 0).any():
            raise IndexInputError("ids do not ascend; sort ids and vectors")
        last = int(some[-1])
    xb = xb.reshape(len(ids), dimension)
    return build_collected(Collected(kind, np.asarray(ids, np.int64), xb), target)


def check(kind: str, dimension: int) -> None:
    """Raise IndexInputError unless ``kind`` is known or a factory string that can be used."""
    if kind not in KINDS:
        create(kind, dimension, ", ".join(KINDS))


def description(index: Searchable) -> Built:
    """How the index was built and how good it was then."""
    if isinstance(index, ApproximateIndex):
        return Built(index.parameters, index.recall)
    return Built()


def save(index: Searchable, folder: Path) -> tuple[str, ...]:
    """Write the index into the folder; return the names of its files."""
    if isinstance(index, ApproximateIndex):
        return index.save(folder)
    if isinstance(index, ExactIndex):
        index.save(folder / EXACT_FILE)
        return (EXACT_FILE,)
    raise UnknownKindError(f"has kind {index.kind!r}, which cannot be saved")


def load(
    folder: Path,
    kind: str,
    parameters: Mapping[str, Any],
    recall: Mapping[str, float] | None = None,
) -> Searchable:
    """Read what `save` wrote.

    Raises UnknownKindError, and IndexFileError if a file cannot be used.
    """
    if kind == "exact":
        return ExactIndex.load(folder / EXACT_FILE)
    if {"factory", "effort", "rescored"} <= parameters.keys():
        return ApproximateIndex.load(folder, kind, parameters, recall)
    raise UnknownKindError(f"has kind {kind!r} without its parameters; expected 'exact'")


def _approximate(
    ids: Ids, xb: Vectors, dimension: int, kind: str, target: float, folder: Path | None
) -> ApproximateIndex:
    factory = factory_of(kind, len(ids), dimension)
    index = create(factory, dimension, ", ".join(KINDS))
    name = kind if kind in KINDS else f"factory {factory}"
    return train(ids, xb, index, name, factory, target, folder)
