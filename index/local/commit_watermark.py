"""The number of the last acknowledged commit, in a file next to the catalogue.

SQLite's write-ahead log has a checksum for each frame. When the log is read after a crash, a
damaged frame ends it, and that commit and all later ones are silently lost. Opening the catalogue
detects this by comparing its own count of commits with this file.
"""

import fcntl
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

_RECORD = struct.Struct("<qI")
"""The number and the CRC-32 of its bytes: short enough for a disk to write it all or not at all."""


class WatermarkError(ValueError):
    """The file is damaged; the message names it."""


class CommitWatermark:
    """A file that holds the highest commit number recorded by any process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> int:
        """The number, or 0 if there is no file. Raises WatermarkError if it is damaged."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise WatermarkError(f"{self.path}: cannot be read: {error.strerror}") from error
        return self._number(data)

    def advance(self, number: int) -> None:
        """Record that the commit ``number`` is on disk, unless a higher one is recorded.

        The write is not synced: after a power failure the file may hold an earlier number and so
        detect less, but never a commit that was not made. Failing to write it does not make the
        commit less durable, so nothing is raised.
        """
        with suppress(OSError):
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                data = os.pread(handle, _RECORD.size + 1, 0)
                if not data or self._number_or_zero(data) < number:
                    os.pwrite(handle, self._record(number), 0)
                    os.ftruncate(handle, _RECORD.size)
            finally:
                os.close(handle)

    def reset(self) -> None:
        """Remove the file, because the catalogue that it belonged to no longer exists."""
        with suppress(OSError):
            self.path.unlink()

    def _number_or_zero(self, data: bytes) -> int:
        try:
            return self._number(data)
        except WatermarkError:
            return 0

    def _number(self, data: bytes) -> int:
        if len(data) == _RECORD.size:
            number, _ = _RECORD.unpack(data)
            if data == self._record(number):
                return int(number)
        raise WatermarkError(
            f"{self.path}: is damaged ({len(data)} bytes; expected {_RECORD.size} with a matching "
            "checksum)"
        )

    @staticmethod
    def _record(number: int) -> bytes:
        return _RECORD.pack(number, zlib.crc32(number.to_bytes(8, "little")))
