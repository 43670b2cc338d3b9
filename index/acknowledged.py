"""The number of the last commit that was acknowledged, beside the catalogue's file.

SQLite's write-ahead log has a checksum for each frame. A frame that is damaged ends the log when
it is read after a crash: that commit and all after it are gone, without a word. Whoever opens the
catalogue compares its own count of commits with this file, and finds out.
"""

import fcntl
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

_RECORD = struct.Struct("<qI")
"""The number, and the CRC-32 of its bytes. So short that a disk writes all of it or nothing."""


class AcknowledgedError(ValueError):
    """The file is damaged; the message names it."""


class Acknowledged:
    """A file that holds the highest number noted by any process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> int:
        """The number; 0 where there is no file. Raises AcknowledgedError if it is damaged."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise AcknowledgedError(f"{self.path}: cannot be read: {error.strerror}") from error
        return self._number(data)

    def note(self, number: int) -> None:
        """Put down that the commit ``number`` is on the disk; a lower number changes nothing.

        It is not waited for: if the power fails, the file may hold an earlier number, and finds
        out less. It never holds one that was not committed. Where it cannot be written the commit
        is no less durable, so nothing is raised.
        """
        with suppress(OSError):
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                data = os.pread(handle, _RECORD.size + 1, 0)
                if not data or self._readable(data) < number:
                    os.pwrite(handle, self._record(number), 0)
                    os.ftruncate(handle, _RECORD.size)
            finally:
                os.close(handle)

    def forget(self) -> None:
        """Remove the file, as the catalogue that it belonged to is no more."""
        with suppress(OSError):
            self.path.unlink()

    def _readable(self, data: bytes) -> int:
        try:
            return self._number(data)
        except AcknowledgedError:
            return 0

    def _number(self, data: bytes) -> int:
        if len(data) == _RECORD.size:
            number, _ = _RECORD.unpack(data)
            if data == self._record(number):
                return int(number)
        raise AcknowledgedError(
            f"{self.path}: is damaged ({len(data)} bytes; expected {_RECORD.size} with a checksum "
            "that fits)"
        )

    @staticmethod
    def _record(number: int) -> bytes:
        return _RECORD.pack(number, zlib.crc32(number.to_bytes(8, "little")))
