"""Vectors as bytes on one scale: distances, rounding, the way through a FAISS index."""

import numpy as np
import pytest

from index.ann.approximate import inner
from index.ann.build import create
from index.ann.byte_codes import ByteCodes
from tests.index.vectors import random_vectors

D, WIDTH = 20, 32
XB = random_vectors(500, D, seed=0)


def test_codes_are_bytes_whose_distances_are_those_of_the_vectors() -> None:
    codes = np.floor(ByteCodes.fitted(XB, WIDTH).encode(XB))
    assert (codes.shape, codes.dtype) == ((500, WIDTH), np.float32)
    assert np.abs(codes - 128).max() in (127, 128)
    assert (codes[:, D:] == 128).all()
    truth = ((XB[:1] - XB) ** 2).sum(axis=1)
    distances = ((codes[:1] - codes) ** 2).sum(axis=1)
    scale = distances[1:].sum() / truth[1:].sum()
    np.testing.assert_allclose(distances / scale, truth, atol=0.04)


def test_what_is_far_away_is_the_nearest_byte() -> None:
    codes = ByteCodes.fitted(XB, WIDTH).encode(np.float32([[9] * D, [-9] * D]))
    assert codes[0, :D].tolist() == [255] * D
    assert codes[1, :D].tolist() == [0] * D


def test_equal_vectors_have_codes_too() -> None:
    codes = ByteCodes.fitted(np.ones((3, 1), np.float32), 16).encode(np.ones((2, 1), np.float32))
    assert np.isfinite(codes).all()


def test_faiss_keeps_them_and_codes_as_they_do() -> None:
    index = create("HNSW8,SQ8_direct", D)
    assert ByteCodes.of(index) is None
    codes = ByteCodes.fitted(XB, WIDTH)
    codes.put_into(index)
    index.add(XB)
    kept = ByteCodes.of(index)
    assert kept is not None
    np.testing.assert_array_equal(kept.encode(XB), codes.encode(XB))
    stored = inner(index).reconstruct_n(0, 500)
    assert np.abs(stored - np.floor(codes.encode(XB))).max() <= 1


@pytest.mark.parametrize("text", ["HNSW8,SQ8", "PCAR8,IVF4,SQ8", "IVF4,SQ8", "RR20,IVF4,SQ8"])
def test_other_indexes_have_none(text: str) -> None:
    assert ByteCodes.of(create(text, D)) is None
