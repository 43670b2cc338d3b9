"""The number of the last acknowledged commit, in a file next to the catalogue.

SQLite's write-ahead log has a checksum for each frame. When the log is read after a crash, a
damaged frame ends it, and that commit and all later ones are silently lost. Opening the catalogue
detects this by comparing its own count of commits with this file. The file also says which history
and which file the commits belong to, so that another catalogue in its place is noticed.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from index.files import fsync_file, fsync_folder, write_atomically
from index.temporaries import temporary_file

_RECORD = struct.Struct("<q16sQI")
"""Number, epoch, inode and the CRC-32 of their bytes: short enough for a disk to write it all or
not at all."""
_FIRST_RECORD = struct.Struct("<qI")
"""The number and the CRC-32 of its bytes, as before there were epochs."""


class WatermarkError(ValueError):
    """The file is damaged; the message names it."""


class Acknowledged(NamedTuple):
    """The ``number`` of a commit, the catalogue's ``epoch`` then, and the ``inode`` of its file.

    ``epoch`` is empty and ``inode`` 0 if they are not known.
    """

    number: int
    epoch: str = ""
    inode: int = 0


class CommitWatermark:
    """A file that holds the highest commit number recorded by any process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Acknowledged | None:
        """What is recorded; None without a file, or with one that a power cut left empty.

        Raises WatermarkError if it is damaged.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WatermarkError(f"{self.path}: cannot be read: {error.strerror}") from error
        return self._parse(data)

    def advance(self, done: Acknowledged) -> None:
        """Record that this commit is on disk, unless a higher number is recorded.

        Only the creation of the file is synced: after a power cut it may hold an earlier number
        and so detect less, but never a commit that was not made. Failing to write it does not make
        the commit less durable, so nothing is raised.
        """
        with suppress(OSError), self._open() as handle:
            data = os.pread(handle, _RECORD.size + 1, 0)
            if self._number_or_zero(data) < done.number:
                self._write(handle, len(data), done)

    def reset(self) -> None:
        """Remove the file, because the catalogue that it belonged to no longer exists."""
        with suppress(OSError):
            self.path.unlink()

    @contextmanager
    def _open(self) -> Iterator[int]:
        """The file, locked, and created if needed: whole and durable, or not at all."""
        handle = self._locked()
        try:
            yield handle
        finally:
            os.close(handle)

    def _locked(self) -> int:
        while True:
            try:
                handle = os.open(self.path, os.O_RDWR)
            except FileNotFoundError:
                self._create()
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                # Another process may have replaced it while this one waited.
                if self.path.exists() and self.path.stat().st_ino == os.fstat(handle).st_ino:
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def _create(self) -> None:
        with temporary_file(self.path) as temporary:
            temporary.write_bytes(_packed(Acknowledged(0)))
            fsync_file(temporary)
            try:
                os.link(temporary, self.path)
            except FileExistsError:
                pass  # another process was first
            except OSError:  # a file system without links
                temporary.replace(self.path)
        fsync_folder(self.path.parent)

    def _write(self, handle: int, size: int, done: Acknowledged) -> None:
        if size == _RECORD.size:
            os.pwrite(handle, _packed(done), 0)
        else:  # a new length may not reach the disk in one piece
            write_atomically(self.path, lambda path: _write_bytes(path, _packed(done)))

    def _number_or_zero(self, data: bytes) -> int:
        try:
            found = self._parse(data)
        except WatermarkError:
            return 0
        return 0 if found is None else found.number

    def _parse(self, data: bytes) -> Acknowledged | None:
        if not data.strip(b"\0"):
            return None
        if len(data) == _RECORD.size:
            number, epoch, inode, _ = _RECORD.unpack(data)
            found = Acknowledged(number, epoch.hex() if any(epoch) else "", inode)
            if data == _packed(found):
                return found
        if len(data) == _FIRST_RECORD.size:
            number, checksum = _FIRST_RECORD.unpack(data)
            if checksum == zlib.crc32(data[:8]):
                return Acknowledged(number)
        raise WatermarkError(
            f"{self.path}: is damaged ({len(data)} bytes; expected {_RECORD.size} with a matching "
            "checksum)"
        )


def _packed(done: Acknowledged) -> bytes:
    data = _RECORD.pack(done.number, bytes.fromhex(done.epoch), done.inode, 0)[:-4]
    return data + struct.pack("<I", zlib.crc32(data))


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)
