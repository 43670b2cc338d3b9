from pathlib import Path

import faiss
import numpy as np
import pytest

from index.ann.exact import ExactIndex
from index.contract import IndexFileError
from tests.index.vectors import assert_same, filled, random_vectors


@pytest.mark.parametrize("count", [0, 1, 500])
def test_save_and_load(tmp_path: Path, count: int) -> None:
    xb, xq = random_vectors(count, 16, seed=0), random_vectors(20, 16, seed=1)
    index = filled(np.arange(count) * 2, xb)
    path = tmp_path / "index.faiss"
    path.write_bytes(b"what stood there before")
    index.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["index.faiss"]
    loaded = ExactIndex.load(path)
    assert (loaded.dimension, loaded.kind, loaded.count()) == (16, "exact", count)
    assert_same(loaded.search(xq, 9), index.search(xq, 9))
    loaded.add([10**6], xq[:1])
    assert loaded.search(xq[:1], 1).ids.tolist() == [[10**6]]


def test_the_file_is_an_ordinary_faiss_file(tmp_path: Path) -> None:
    xb = random_vectors(100, 16, seed=0)
    filled(np.arange(100) + 7, xb).save(tmp_path / "index.faiss")
    _, ids = faiss.read_index(str(tmp_path / "index.faiss")).search(xb[:10], 1)
    assert ids[:, 0].tolist() == list(range(7, 17))


def test_ids_in_any_order_are_loaded(tmp_path: Path) -> None:
    xb = random_vectors(10, 8, seed=0)
    other = faiss.IndexIDMap2(faiss.IndexFlatIP(8))
    other.add_with_ids(xb, np.arange(10)[::-1].copy())
    faiss.write_index(other, str(tmp_path / "other.faiss"))
    np.testing.assert_array_equal(
        ExactIndex.load(tmp_path / "other.faiss").vectors(np.arange(10)), xb[::-1]
    )


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index.faiss"
    filled([1], random_vectors(1, 8, seed=0)).save(path)

    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        filled([1, 2], random_vectors(2, 8, seed=0)).save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["index.faiss"]
    assert ExactIndex.load(path).count() == 1


@pytest.mark.parametrize("size", [0, 3, 40, 73, 74, 100, -8, -1])
def test_truncated_files_are_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "index.faiss"
    filled(np.arange(20), random_vectors(20, 8, seed=0)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:size])
    with pytest.raises(IndexFileError, match=r"index\.faiss: has \d+ bytes"):
        ExactIndex.load(path)
    path.write_bytes(content + b"\x00")
    with pytest.raises(IndexFileError, match="expected"):
        ExactIndex.load(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    xb = random_vectors(20, 8, seed=0)
    l2 = faiss.IndexIDMap2(faiss.IndexFlatL2(8))
    hnsw = faiss.IndexIDMap2(faiss.IndexHNSWFlat(8, 4, faiss.METRIC_INNER_PRODUCT))
    plain = faiss.IndexFlatIP(8)
    for index, message in (
        (l2, "IxF2"),
        (hnsw, "IHN"),
    ):
        index.add_with_ids(xb, np.arange(20))
        faiss.write_index(index, str(path))
        with pytest.raises(IndexFileError, match=message):
            ExactIndex.load(path)
    plain.add(xb)
    faiss.write_index(plain, str(path))
    with pytest.raises(IndexFileError, match="IxFI"):
        ExactIndex.load(path)
    path.write_bytes(b"\x89PNG" + bytes(500))
    with pytest.raises(IndexFileError, match="PNG"):
        ExactIndex.load(path)
    with pytest.raises(IndexFileError, match="No such file"):
        ExactIndex.load(tmp_path / "missing.faiss")
    with pytest.raises(IndexFileError, match="directory"):
        ExactIndex.load(tmp_path)


def test_files_with_wrong_content_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    xb = random_vectors(3, 8, seed=0)
    for vectors, ids, message in (
        (xb * 2, [1, 2, 3], "has length 2"),
        (xb, [1, 2, 2], "more than once"),
        (xb, [1, 2, -1], "holds -1"),
    ):
        index = faiss.IndexIDMap2(faiss.IndexFlatIP(8))
        index.add_with_ids(vectors, np.array(ids))
        faiss.write_index(index, str(path))
        with pytest.raises(IndexFileError, match=message):
            ExactIndex.load(path)


def test_a_header_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    filled(np.arange(20), random_vectors(20, 8, seed=0)).save(path)
    content = bytearray(path.read_bytes())
    for offset in (8, 45):
        content[offset : offset + 8] = (2**40).to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(IndexFileError, match="for 1099511627776 vectors"):
        ExactIndex.load(path)
