"""Every FAISS index holds vectors of a width that FAISS scans with SIMD, whatever their dimension.

FAISS's scalar quantisers are ten times slower otherwise, and nothing else shows it.
"""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from index.ann import build, kinds
from index.ann.approximate import ApproximateIndex, inner
from index.ann.factory import KINDS, STEP, padding
from index.ann.quick_lists import QuickLists
from index.contract import Searchable, Vectors
from tests.index.vectors import assert_same, brute_force, built, filled, random_vectors

N = 400
IDS = 3 * np.arange(N) + 5
DIMENSIONS = (1, 3, 16, 17, 266)
# A kind with a name is one of FAISS's indexes unless it is listed here.
NAMED = [kind for kind in KINDS if kind not in ("auto", "exact")]
STRINGS = [
    "IVF4,SQ4",
    "IVF4,SQ6",
    "IVF4,SQfp16",
    "IVF4,Flat",
    "HNSW8",
    "HNSW8,SQ8",
    "HNSW8,SQ8_direct",
    "IVF4,RaBitQ",
]


BEFORE = {"ivf": "IVF8,SQ8", "hnsw": "HNSW32_SQ8", "rabitq": "RR17,IVF8,RaBitQ"}


def widths(index: Any) -> list[int]:
    """The dimensions of FAISS's innermost index, of what stores its codes, and of its quantiser."""
    found = [inner(index)]
    if hasattr(found[0], "storage"):
        found.append(faiss.downcast_index(found[0].storage))
    found += [one.sq for one in found if hasattr(one, "sq")]
    return [int(one.d) for one in found]


def searched_widely(index: Searchable, xq: Vectors, k: int) -> Any:
    """The nearest, found with the greatest effort."""
    assert isinstance(index, ApproximateIndex)
    index.parameters.update(effort=N, rescored=75)
    return index.search(xq, k)


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("kind", [*NAMED, *STRINGS, "PCAR1,IVF4,SQ8", "RR1,IVF4,SQ8"])
def test_widths_suit_simd_and_answers_are_those_of_brute_force(kind: str, d: int) -> None:
    xb = random_vectors(N, d, seed=d)
    index = built(IDS, xb, d, kind)
    assert isinstance(index, ApproximateIndex), "a new kind needs its own check of its width here"
    assert index.dimension == d
    assert all(width % STEP == 0 for width in widths(index._parts.index))
    assert index.vectors(IDS).tobytes() == xb.tobytes()
    if kind.startswith(("PCAR1,", "RR1,")):  # one dimension says little about the others
        return
    xq = random_vectors(5, d, seed=99)
    answer, truth = searched_widely(index, xq, 5), brute_force(IDS, xb, xq, 5)
    if d == 1:  # of vectors that all are 1 or -1, any five are the nearest
        assert answer.scores.tolist() == truth.scores.tolist()
    else:
        assert_same(answer, truth)


@pytest.mark.parametrize("d", DIMENSIONS)
def test_quick_lists(d: int) -> None:
    lists = QuickLists(filled(IDS, random_vectors(N, d, seed=d)))
    assert all(width % STEP == 0 for width in widths(lists._lists))
    assert lists.nearest(random_vectors(3, d, seed=1), 2).ids.shape == (3, 2)


@pytest.mark.parametrize(
    ("text", "d", "expected"),
    [
        ("IVF8,SQ8", 272, "IVF8,SQ8"),
        ("IVF8,SQ8", 266, "Pad272,IVF8,SQ8"),
        ("HNSW32_SQ8", 266, "Pad272,HNSW32_SQ8"),
        ("PCAR128,IVF8,SQ8", 266, "PCAR128,IVF8,SQ8"),
        ("PCA100,IVF8,SQ8", 266, "PCA100,Pad112,IVF8,SQ8"),
        ("RR266,IVF8,RaBitQ", 266, "RR272,IVF8,RaBitQ"),
        ("OPQ7_70,IVF8,SQ8", 266, "OPQ7_70,Pad80,IVF8,SQ8"),
        # The parts of a PQ are those of the vectors where these can be divided, as ever.
        ("IVF8,PQ14", 266, "IVF8,PQ14"),
        ("OPQ14,IVF8,PQ14x4fs", 266, "OPQ14,IVF8,PQ14x4fs"),
        ("IVF8,PQ16", 266, "Pad272,IVF8,PQ16"),
        ("PCA100,HNSW8_PQ14", 266, "PCA100,Pad112,HNSW8_PQ14"),
    ],
)
def test_what_is_padded(text: str, d: int, expected: str) -> None:
    assert padding(text, d) == expected
    assert build.create(text, d).d == d


@pytest.mark.parametrize("kind", [*NAMED, "IVF4,SQ8"])
def test_files_of_before_open(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier versions wrote FAISS indexes of the vectors' own dimension, and other graphs."""
    xb = random_vectors(N, 17, seed=4)
    with monkeypatch.context() as patch:
        patch.setattr(build, "padding", lambda factory, dimension: factory)
        patch.setattr(build, "factory_of", lambda kind, *_: BEFORE.get(kind, kind))
        patch.setattr(kinds, "factory_of", build.factory_of)
        index = built(IDS, xb, 17, kind)
    assert isinstance(index, ApproximateIndex)
    assert 17 in widths(index._parts.index)
    del index.parameters["spare"]  # as they had none
    index.save(tmp_path)
    loaded = kinds.load(tmp_path, kind, index.parameters, index.recall)
    xq = random_vectors(5, 17, seed=99)
    assert_same(searched_widely(loaded, xq, 5), brute_force(IDS, xb, xq, 5))
