"""The kinds of index that a generation may hold: choosing, building, writing and reading them.

``exact``  scans every vector.
``ivf``    inverted lists of 8-bit codes; the memory-mapped vectors score the candidates.
``hnsw``   a graph over 8-bit codes on one scale (`index.ann.byte_codes`), scored likewise; slower
           to build, faster to search beyond some 100,000 vectors.
``rabitq`` inverted lists of 1-bit codes (Gao and Long 2024, arXiv:2405.12497) of the rotated
           vectors, reduced to 128 dimensions if they have more. 32 bytes per vector,
           memory-mapped like the vectors: for more vectors than fit in memory.
``auto``   one of these, by count and memory.

Anything else is a FAISS factory string, for experts: see `index.ann.factory`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from index.ann.approximate import ApproximateIndex
from index.ann.build import create, factory_of, train
from index.ann.exact import ExactIndex
from index.ann.factory import KINDS, parse
from index.ann.vector_files import Pieces, mapped_files, write_pieces
from index.contract import Ids, Searchable, UnknownKindError, Vectors
from index.memory import machine_memory

EXACT_FILE = "index.faiss"
TARGET_RECALL = 0.999

_EXACT_BELOW = 200_000
_IVF_BELOW = 300_000
_MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class Built:
    """How an index was built, for the manifest; see `index.contract.Manifest`."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    recall: Mapping[str, float] | None = None


def choose(count: int, dimension: int, memory: int | None = None) -> str:
    """The kind that ``auto`` selects; ``memory`` in bytes, by default all of the machine's."""
    if memory is None:
        memory = machine_memory()
    if 5 * count * dimension > _MEMORY_SHARE * memory:
        return "rabitq"
    if count < _EXACT_BELOW:
        return "exact"
    return "ivf" if count < _IVF_BELOW else "hnsw"


@dataclass(frozen=True)
class Collected:
    """The input of an index of ``kind``: ascending ``ids`` int64 (n,) and ``xb`` float32 (n, d).

    They are in memory for an exact index and otherwise memory-mapped from files in ``folder``.
    """

    kind: str
    ids: Ids
    xb: Vectors
    folder: Path | None = None


def collect(pieces: Pieces, count: int, dimension: int, kind: str, folder: Path) -> Collected:
    """Collect ``count`` vectors piece by piece, in bounded memory unless the index is exact.

    Files for an approximate index are written into ``folder``, which must be on the store's disk
    and exist until the index is published.

    Raises as `index.ann.vector_files.write_pieces` does.
    """
    if not count:
        kind = "exact"  # FAISS cannot train another kind on nothing
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
    """Build an index from what `collect` returned; see `build`."""
    ids, xb, folder = collected.ids, collected.xb, collected.folder
    dimension = xb.shape[1]
    chosen = choose(len(ids), dimension) if collected.kind == "auto" else collected.kind
    auto = collected.kind == "auto"
    tried = {"exact": (), "hnsw": ("hnsw", "ivf") if auto else ("hnsw",)}.get(chosen, (chosen,))
    for kind in tried:
        index = _approximate(ids, xb, dimension, kind, target, folder)
        # Where `auto` selects rabitq, there is no memory for an exact index.
        reached = index.recall is None or index.recall["value"] >= target or chosen == "rabitq"
        if not auto or reached:
            if folder is None:
                return index
            index.save(folder)
            kind, parameters, recall = index.kind, index.parameters, index.recall
            del index  # its codes are in memory; those of the loaded one are memory-mapped
            return ApproximateIndex.load(folder, kind, parameters, recall)
    exact = ExactIndex(dimension)
    if len(ids):
        exact.add(ids, np.asarray(xb))
    return exact


def check(kind: str, dimension: int, count: int | None = None) -> None:
    """Raise IndexInputError unless ``kind`` is known or a usable factory string.

    ``count`` is the number of vectors of ``dimension``, or None if it is not known yet. Calls
    nothing of FAISS.
    """
    if kind not in KINDS:
        parse(kind, dimension, count)


def description(index: Searchable) -> Built:
    """How the index was built, and its recall then."""
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
        numbers = (parameters["effort"], parameters["rescored"])
        if not all(type(number) is int and 0 < number < 2**31 for number in numbers):
            raise UnknownKindError(f"has effort and rescored {numbers}; expected positive integers")
        return ApproximateIndex.load(folder, kind, parameters, recall)
    raise UnknownKindError(f"has kind {kind!r} without its parameters; expected 'exact'")


def _approximate(
    ids: Ids, xb: Vectors, dimension: int, kind: str, target: float, folder: Path | None
) -> ApproximateIndex:
    check(kind, dimension, len(ids))
    factory = factory_of(kind, len(ids), dimension)
    index = create(factory, dimension)
    name = kind if kind in KINDS else f"factory {factory}"
    return train(ids, xb, index, name, factory, target, folder)
