"""Embeddings in files that an index memory-maps, written piece by piece in bounded memory.

While an index is built, everything that grows with the number of vectors, except FAISS's own codes,
is in files. They are written once, read by row, and hard-linked into the generation.
"""

import mmap
import os
import resource
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from index.ann.scan import best_of
from index.contract import Ids, IndexInputError, Neighbours, Vectors
from index.temporaries import remove_if_free, remove_orphans, temporary_folder
from index.vectors import as_new_ids, as_vectors

IDS_FILE = "ids.npy"
VECTORS_FILE = "vectors.npy"
PIECE = 20_000
"""The number of vectors processed at a time."""
_FOLDER = "building"
_CHECKED = 1_000_000
_REQUESTED = 1024
"""Rows that are requested from the disk at a time; a page or two each."""
_CAN_ADVISE = hasattr(mmap, "MADV_RANDOM") and hasattr(mmap, "MADV_WILLNEED")

Pieces = Iterable[tuple[Ids, Vectors]]
"""Ids int64 (m,), ascending from piece to piece, and their vectors float32 (m, d)."""


@contextmanager
def workspace(root: Path) -> Iterator[Path]:
    """An empty folder on the store's disk, removed afterwards; first, what a crash left there is.

    The caller must hold the store's build lock.
    """
    remove_orphans(root)
    remove_if_free(root / _FOLDER)  # of an earlier version, which had one folder for all
    with temporary_folder(root, f"{_FOLDER}-") as folder:
        yield folder


def write_pieces(pieces: Pieces, count: int, dimension: int, folder: Path) -> None:
    """Write ``count`` ids and vectors as two ``.npy`` files.

    Raises IndexInputError for vectors and ids as `ExactIndex.add` does, for ids that do not ascend
    and if there are not ``count`` of them; OSError if the disk is full.
    """
    last, done = -1, 0
    # Not memory-mapped: on a full disk a write raises, but a mapping kills the process.
    with (folder / IDS_FILE).open("wb") as ids_file, (folder / VECTORS_FILE).open("wb") as xb_file:
        _header(ids_file, "<i8", (count,))
        _header(xb_file, "<f4", (count, dimension))
        for ids, xb in pieces:
            xb = as_vectors(xb, dimension, "xb")
            ids = as_new_ids(ids, len(xb))
            if not len(ids):
                continue
            if ids[0] <= last or (np.diff(ids) <= 0).any():
                raise IndexInputError("ids do not ascend; sort ids and vectors")
            ids_file.write(ids.astype("<i8", copy=False).data)
            xb_file.write(xb.astype("<f4", copy=False).data)
            last, done = int(ids[-1]), done + len(ids)
    if done != count:
        raise IndexInputError(f"got {done} vectors; expected {count}")


def _header(file: BinaryIO, descr: str, shape: tuple[int, ...]) -> None:
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def mapped_files(folder: Path) -> tuple[Ids, Vectors]:
    """What `write_pieces` wrote, memory-mapped for reading.

    Raises ValueError or OSError for a damaged file. No pickle is read.
    """
    ids = np.load(folder / IDS_FILE, mmap_mode="r", allow_pickle=False)
    xb = np.load(folder / VECTORS_FILE, mmap_mode="r", allow_pickle=False)
    # Plain arrays over the same mapping, because np.memmap slows every small access down.
    return np.asarray(ids), np.asarray(xb)


class ScatteredRows:
    """The vectors of `mapped_files`, mapped a second time for reading isolated rows.

    The system reads ahead of every access to a mapping, which suits a scan. For isolated rows it
    would read a hundred times as much as needed and evict what is cached, so here it does not.
    Then a row that is not in memory is waited for when it is touched, one after the other.
    `best_of` requests all of them first, which a disk serves several times as fast.

    Safe to use from several threads.

    Attributes:
        xb: float32 (n, d), read-only.
    """

    def __init__(self, folder: Path) -> None:
        """Map the file in the folder. Raises as `mapped_files` does."""
        xb = np.load(folder / VECTORS_FILE, mmap_mode="r", allow_pickle=False)
        mapping = xb.base
        self._mapping = mapping if isinstance(mapping, mmap.mmap) and _CAN_ADVISE else None
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_RANDOM)
        self.xb: Vectors = np.asarray(xb)
        self._row_bytes = self.xb.strides[0] if self.xb.ndim == 2 else 0
        self._first = xb.offset % mmap.ALLOCATIONGRANULARITY
        self._reading = True

    def best_of(self, ids: Ids, xq: Vectors, k: int, rows: Ids) -> Neighbours:
        """`index.ann.scan.best_of` among these rows, which are read from the disk all at once.

        Requesting rows that are in memory would cost something, so it is done only while searches
        have to read: one that did not have to turns it off, one that had to, on.
        """
        if not self._reading:
            before = _blocks_read()
            found = best_of(ids, self.xb, xq, k, rows)
            self._reading = _blocks_read() != before
            return found
        before = _blocks_read()
        step = max(1, _REQUESTED // max(rows.shape[1], 1))
        parts = []
        for start in range(0, max(len(xq), 1), step):
            some = slice(start, start + step)
            self._request(rows[some])
            parts.append(best_of(ids, self.xb, xq[some], k, rows[some]))
        self._reading = before < 0 or _blocks_read() != before
        return Neighbours(
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.ids for part in parts]),
        )

    def _request(self, rows: Ids) -> None:
        if self._mapping is None:
            return
        starts = self._first + np.unique(rows[rows >= 0]) * self._row_bytes
        pages = starts // mmap.PAGESIZE * mmap.PAGESIZE
        lengths = starts + self._row_bytes - pages
        for page, length in zip(pages.tolist(), lengths.tolist(), strict=True):
            self._mapping.madvise(mmap.MADV_WILLNEED, page, length)


def _blocks_read() -> int:
    """Blocks that this thread has read from disks so far; -1 where the system does not count."""
    if not hasattr(resource, "RUSAGE_THREAD"):
        return -1
    return resource.getrusage(resource.RUSAGE_THREAD).ru_inblock


def ascending(ids: Ids) -> bool:
    """Whether ids int64 (n,) ascend from 0 or more; checked piece by piece."""
    if len(ids) and ids[0] < 0:
        return False
    starts = range(0, len(ids), _CHECKED)
    return all((np.diff(ids[start : start + _CHECKED + 1]) > 0).all() for start in starts)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link the file ``source`` as ``target`` or, if that is on another disk, copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
