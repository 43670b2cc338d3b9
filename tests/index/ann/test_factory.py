"""Factory strings: what is accepted, refused, and how large an index is estimated to be."""

import faiss
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from index.ann import kinds
from index.ann.build import create
from index.ann.byte_codes import ByteCodes
from index.ann.factory import DIRECT, KINDS, parse
from index.contract import IndexInputError
from tests.index.vectors import built, random_vectors

CODES = ("Flat", "SQ4", "SQ6", "SQ8", "SQfp16", "SQbf16", "PQ4x4")
ACCEPTED = [
    *(f"IVF8,{code}" for code in (*CODES, "PQ8x4fs", "RaBitQ")),
    "HNSW16",
    *(f"HNSW16{comma}{code}" for code in CODES for comma in ",_"),
    "IVF8_HNSW8,SQ8",
    "HNSW16,SQ8_direct",
    *(f"{transform},IVF8,SQ8" for transform in ("PCA8", "PCAR8", "RR8", "RR16", "OPQ4", "OPQ4_8")),
    "OPQ4_8,HNSW16_PQ4x4",
]
REFUSED = {
    "IVF4,PQ2x24": "a PQ of 24 bits; expected 4 to 12",
    "IVF4,PQ2x1": "expected 4 to 12",
    "IVF1073741824,Flat": r"expected one of auto, exact, .* or a FAISS factory string \[PCAd",
    "IVF99999999,Flat": "99,999,999 lists; expected at most 1,048,576",
    "IVF2000,Flat": "2,000 lists for 5,000 pictures; expected at most 1,250",
    "IVF0,Flat": "expected one of",
    "IVF-1,Flat": "expected one of",
    "IVF\u0664,Flat": "expected one of",
    "IVF\uff14,Flat": "expected one of",
    "IVF4,Flat\n": "expected one of",
    " IVF4,Flat": "expected one of",
    "IVF4": "IVF needs a comma and a code",
    "IVF4_SQ8": "IVF needs a comma and a code",
    "HNSW1": "HNSW1; expected HNSW4 to HNSW128",
    "HNSW100000": "HNSW100000; expected HNSW4 to HNSW128",
    "HNSW32,RaBitQ": "RaBitQ needs lists",
    "IVF4,SQ8_direct": "SQ8_direct needs a graph of the vectors as they are",
    "PCA64,HNSW16,SQ8_direct": "SQ8_direct needs a graph of the vectors as they are",
    "IVF4_HNSW9999,Flat": "expected HNSW4 to HNSW128",
    "PCA100000,IVF4,Flat": "the vectors have 256 dimensions",
    "RR257,IVF4,Flat": "the vectors have 256 dimensions",
    "PCA64_32,IVF4,Flat": "PCA takes one number",
    "IVF4,PQ7": "PQ7 of 256 dimensions; expected a divisor of 256",
    "PCA100,IVF4,PQ64": "PQ64 of 100 dimensions",
    "OPQ7,IVF4,PQ8": "OPQ7 of 256 dimensions",
    "IVF4,PQ16x8fs": "PQmx4fs has 4 bits",
    "IDMap,IVF4,Flat": "expected one of",
    "IVF4,Flat,Refine(SQ8)": "expected one of",
    "IVF4(IVF4(IVF4)),Flat": "expected one of",
    "PCA64,PCA32,IVF4,Flat": "expected one of",
    "IMI2x16,Flat": "expected one of",
    "Flat": "expected one of",
    "": "expected one of",
    "IVF4,Flat" * 12_000: r"kind is '.{100}\.\.\.'; expected one of",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused_before_faiss_is_called(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "index_factory", lambda *values: pytest.fail("FAISS was called"))
    with pytest.raises(IndexInputError, match=REFUSED[text]) as caught:
        kinds.check(text, 256, 5000)
    assert len(str(caught.value)) < 500


def test_without_a_number_of_pictures_the_rest_is_checked() -> None:
    assert parse("IVF2000,Flat", 256, None).lists == 2000
    with pytest.raises(IndexInputError, match="expected 4 to 12"):
        parse("IVF4,PQ2x24", 256, None)


@pytest.mark.parametrize("kind", KINDS)
def test_named_kinds_suit_any_number(kind: str) -> None:
    kinds.check(kind, 256, 0)
    kinds.check(kind, 65_536, 10**9)


def test_too_much_memory_or_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.ann.factory.available_memory", lambda: 8 * 10**9)
    kinds.check("HNSW32_SQ8", 256, 10**7)
    with pytest.raises(IndexInputError, match=r"about 53\.6 GB of memory, and 8\.0 GB may be used"):
        kinds.check("HNSW32_SQ8", 256, 10**8)
    monkeypatch.setattr("index.ann.factory.available_memory", lambda: 10**15)
    with pytest.raises(IndexInputError, match=r"operations; expected at most 1e\+15"):
        kinds.check("IVF1000000,SQ8", 256, 10**7)
    with pytest.raises(IndexInputError, match="4,096 pictures to train it on"):
        kinds.check("IVF1,PQ2x12", 256, 4000)


@pytest.mark.slow
@pytest.mark.parametrize("text", ACCEPTED)
def test_what_is_accepted_can_be_built(text: str) -> None:
    d, count = 16, 1000
    factory = parse(text, d, count)
    xb = random_vectors(count, d, 5)
    with threadpool_limits(1):  # for so little work, threads only wait for each other
        index = built(np.arange(count), xb, d, text)
    assert index.search(xb[:20], 1).ids[:, 0].tolist() == list(range(20))
    # The estimate covers what FAISS writes, and is no wild guess.
    empty = create(text, d)
    with threadpool_limits(1):
        if factory.code == DIRECT:
            ByteCodes.fitted(xb, factory.indexed(d)).put_into(empty)
        else:
            empty.train(xb)
        empty.add(xb)
    size = faiss.serialize_index(empty).nbytes
    assert size < factory.memory(d, count) < 4 * size + 4 * 10**6
