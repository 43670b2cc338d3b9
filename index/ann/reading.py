"""Reading FAISS files that may have been made to do harm.

A checksum next to a file says that it was copied whole, not where it came from.
"""

import threading
from pathlib import Path
from typing import Any

import faiss

_limits = threading.Lock()


def read_index(path: Path, flags: int = 0) -> Any:
    """The index in a file; what it says of its sizes may not exceed the size of the file.

    Raises RuntimeError or MemoryError, as FAISS does, for a file that it cannot read.
    """
    library: Any = faiss
    size = max(path.stat().st_size, 1)
    with _limits:  # these are of the whole process
        before = (
            library.get_deserialization_vector_byte_limit(),
            library.get_deserialization_loop_limit(),
        )
        library.set_deserialization_vector_byte_limit(size)
        library.set_deserialization_loop_limit(size)
        try:
            return library.read_index(str(path), flags)
        finally:
            library.set_deserialization_vector_byte_limit(before[0])
            library.set_deserialization_loop_limit(before[1])


def valid_lists(index: Any) -> bool:
    """Whether the inverted lists hold rows that exist, as many as the index has vectors."""
    library: Any = faiss
    lists = library.downcast_InvertedLists(index.invlists)
    total = 0
    for number in range(lists.nlist):
        size = lists.list_size(number)
        if not size:
            continue
        rows = library.rev_swig_ptr(lists.get_ids(number), size)
        if rows.min() < 0 or rows.max() >= index.ntotal:
            return False
        total += size
    return bool(total == index.ntotal)
