"""FAISS files that match their checksums and are made to do harm; in full in tests/torture."""

import os
import random
import resource
from pathlib import Path

import faiss
import numpy as np
import pytest

from index.ann import kinds
from index.ann.approximate import ApproximateIndex
from index.ann.reading import read_index, valid_lists
from index.contract import IndexFileError, UnknownKindError
from tests.index.vectors import built, random_vectors

COUNT, D = 400, 16
XB = random_vectors(COUNT, D, 3)
HARMFUL = (2**62, 2**40, 2**33, 2**31, 2**20, COUNT + 1, 2**64 - 1)


def saved(kind: str, folder: Path) -> ApproximateIndex:
    index = built(np.arange(COUNT), XB, D, kind)
    assert isinstance(index, ApproximateIndex)
    index.save(folder)
    return index


def test_a_file_cannot_claim_more_than_its_size(tmp_path: Path) -> None:
    saved("ivf", tmp_path)
    library = faiss
    before = library.get_deserialization_vector_byte_limit()
    path = tmp_path / "index.faiss"
    data = bytearray(path.read_bytes())
    at = data.index(np.int64(10).tobytes(), 30)  # the number of lists
    data[at : at + 8] = np.int64(2**40).tobytes()
    path.write_bytes(data)
    with pytest.raises((RuntimeError, MemoryError)):
        read_index(path)
    assert library.get_deserialization_vector_byte_limit() == before


def test_rows_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    index = saved("IVF8,Flat", tmp_path)
    stored = faiss.read_index(str(tmp_path / "index.faiss"))
    assert valid_lists(stored)
    lists = stored.invlists
    for wrong in (COUNT, -1, 2**40):
        rows = faiss.rev_swig_ptr(faiss.downcast_InvertedLists(lists).get_ids(0), 1)
        right = int(rows[0])
        rows[0] = wrong
        assert not valid_lists(stored)
        faiss.write_index(stored, str(tmp_path / "index.faiss"))
        with pytest.raises(IndexFileError, match="expected files that match"):
            kinds.load(tmp_path, index.kind, index.parameters)
        rows[0] = right


def test_another_kind_of_index_is_refused(tmp_path: Path) -> None:
    index = saved("hnsw", tmp_path)
    flat = faiss.IndexFlatIP(D)
    flat.add(XB)
    faiss.write_index(flat, str(tmp_path / "index.faiss"))
    with pytest.raises(IndexFileError, match="expected files that match"):
        kinds.load(tmp_path, index.kind, index.parameters)


@pytest.mark.parametrize("effort", ["16", 0, -1, 2.5, True, None, 2**40])
def test_parameters_are_numbers(effort: object, tmp_path: Path) -> None:
    index = saved("ivf", tmp_path)
    with pytest.raises(UnknownKindError, match="expected positive integers"):
        kinds.load(tmp_path, index.kind, {**index.parameters, "effort": effort})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ivf", "hnsw", "rabitq"])
def test_changed_numbers_end_in_an_error_or_a_search(kind: str, tmp_path: Path) -> None:
    attack(kind, tmp_path, 30)


def attack(kind: str, folder: Path, attempts: int) -> None:
    """Change a number of the file, many times; each process that reads it ends in good order."""
    index = saved(kind, folder)
    path = folder / "index.faiss"
    good = path.read_bytes()
    rng = random.Random(0)
    for attempt in range(attempts):
        data = bytearray(good)
        at = rng.randrange(min(500, len(data) - 8) if attempt % 3 else len(data) - 8)
        width = rng.choice((4, 8))
        data[at : at + width] = (rng.choice(HARMFUL) % 2 ** (8 * width)).to_bytes(width, "little")
        path.write_bytes(data)
        assert _loaded_apart(folder, index) == 0, (at, width)


def _loaded_apart(folder: Path, index: ApproximateIndex) -> int:
    """The exit code of a process that loads and searches the index, within 2 GB and 10 s."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31))
        resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        faiss.omp_set_num_threads(1)
        try:
            found = kinds.load(folder, index.kind, index.parameters)
        except IndexFileError:
            os._exit(0)
        found.search(XB[:20], 10)
        found.search(XB[:4], 300)
        os._exit(0)
    except BaseException:  # noqa: BLE001 - seen as the exit code
        os._exit(3)
