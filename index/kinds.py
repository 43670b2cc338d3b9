"""The kinds of index that a generation may hold: how each is chosen, built, written and read.

``exact``  every vector is looked at.
``ivf``    inverted lists of 8-bit codes; the vectors in memory score the candidates.
``hnsw``   a graph over 8-bit codes, likewise; slower to build, faster beyond some 100,000.
``rabitq`` inverted lists of 1-bit codes (Gao and Long 2024, arXiv:2405.12497) and the vectors,
           both mapped from the disk: for more vectors than the memory holds.
``auto``   one of these, by count and memory.

Anything else is taken for a FAISS factory string of an IVF or HNSW index, for experts.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.approximate import ApproximateIndex, Parts, candidates
from index.local import ExactIndex
from index.neighbours import Ids, IndexInputError, Searchable, Vectors, as_new_ids, as_vectors
from index.scan import SPARE, best_of, exact_rows

EXACT_FILE = "index.faiss"
KINDS = ("auto", "exact", "ivf", "hnsw", "rabitq")
TARGET_RECALL = 0.999
RECALL_K = 10

_EXACT_BELOW = 200_000
_IVF_BELOW = 300_000
_HELD_OUT = 256
_TRAINING_PER_LIST = 64
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


def build(
    ids: Ids, xb: Vectors, dimension: int, kind: str = "auto", target: float = TARGET_RECALL
) -> Searchable:
    """Build an index over ``xb`` float32 (n, dimension) under ``ids`` int64 (n,), ascending.

    An approximate one is set to the least effort that finds, on the average, the share ``target``
    of the true 10 nearest of held-out queries; ``auto`` takes an exact one where none does.

    Raises IndexInputError for vectors and ids as `ExactIndex.add` does, and for a kind or factory
    string that cannot be used or cannot be built from so few vectors.
    """
    chosen = choose(len(ids), dimension) if kind == "auto" else kind
    if chosen != "exact":
        index = _approximate(ids, xb, dimension, chosen, target)
        if kind != "auto" or index.recall is None or index.recall["value"] >= target:
            return index
        if chosen == "rabitq":
            return index  # there is no memory for an exact one
    exact = ExactIndex(dimension)
    if len(ids):
        exact.add(ids, xb)
    return exact


def check(kind: str, dimension: int) -> None:
    """Raise IndexInputError unless ``kind`` is known or a factory string that can be used."""
    if kind not in KINDS:
        _created(kind, dimension)


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
    ids: Ids, xb: Vectors, dimension: int, kind: str, target: float
) -> ApproximateIndex:
    xb = as_vectors(xb, dimension, "xb")
    ids = as_new_ids(ids, len(xb))
    if (np.diff(ids) <= 0).any():
        raise IndexInputError("ids do not ascend; sort ids and vectors")
    lists = max(1, min(int(2 * len(ids) ** 0.5), len(ids) // 39))
    factory = {
        "ivf": f"IVF{lists},SQ8",
        "hnsw": "HNSW32_SQ8",
        "rabitq": f"IVF{lists},RaBitQ",
    }.get(kind, kind)
    if kind not in KINDS:
        kind = f"factory {factory}"
    index = _created(factory, dimension)
    # Held-out queries are not in the index while its recall is measured. FAISS's rows follow the
    # order of adding, so they are noted.
    shuffled = np.random.default_rng(0).permutation(len(ids))
    held = shuffled[: min(_HELD_OUT, len(ids) // 20)]
    places = np.concatenate((np.setdiff1d(np.arange(len(ids)), held), held))
    wide = np.int32 if len(ids) < 2**31 else np.int64
    parts = Parts(index, ids, xb, places.astype(wide))
    try:
        most = _TRAINING_PER_LIST * max(lists, 256)
        index.train(xb if len(xb) <= most else xb[np.sort(shuffled[-most:])])
        _add(parts, 0, len(ids) - len(held))
        rescored = 10 if kind == "rabitq" else 2
        effort, recall = _measured(parts, xb[held], rescored, target)
        _add(parts, len(ids) - len(held), len(ids))
    except RuntimeError as error:
        raise IndexInputError(
            f"FAISS cannot build {factory!r} over {len(ids)} vectors: {error}; use another kind"
        ) from error
    parameters = {
        "factory": factory,
        "effort": effort,
        "rescored": rescored,
        "mapped": kind == "rabitq",
    }
    return ApproximateIndex(kind, parts, parameters, recall)


def _created(factory: str, dimension: int) -> Any:
    try:
        index: Any = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise IndexInputError(
            f"kind is {factory!r}; expected one of {', '.join(KINDS)} or a FAISS factory string"
        ) from error
    if not isinstance(index, faiss.IndexIVF | faiss.IndexHNSW):
        raise IndexInputError(
            f"kind is {factory!r}, a {type(index).__name__}; expected an IVF or HNSW index"
        )
    return index


def _add(parts: Parts, start: int, stop: int) -> None:
    step = 100_000
    for first in range(start, stop, step):
        rows = parts.places[first : min(first + step, stop)]
        parts.index.add(np.ascontiguousarray(parts.xb[rows]))


def _measured(
    parts: Parts, queries: Vectors, rescored: int, target: float
) -> tuple[int, dict[str, float] | None]:
    """The least effort that reaches the target, and the recall with it."""
    inside = parts.index.ntotal
    k = min(RECALL_K, inside)
    graph = isinstance(parts.index, faiss.IndexHNSW)
    most = 4096 if graph else parts.index.nlist
    if not len(queries) or not k:
        return most, None
    rows = np.sort(parts.places[:inside]).astype(np.int64)
    truth = best_of(parts.ids, parts.xb, queries, k, exact_rows(parts.xb, queries, k, rows))
    effort = min(16, most)
    while True:
        fetch = min(max(rescored * k, k + SPARE), inside)
        found = candidates(parts, queries, fetch, effort)
        answer = best_of(parts.ids, parts.xb, queries, k, found)
        shares = [np.isin(a, b).mean() for a, b in zip(truth.ids, answer.ids, strict=True)]
        value = float(np.mean(shares))
        # So few queries tell the recall roughly: the misses must be half of what is allowed.
        if 1 - value <= (1 - target) / 2 or effort >= most:
            return effort, {"k": k, "value": round(value, 6), "queries": len(queries)}
        effort = min(most, effort + max(effort // 2, 1))
