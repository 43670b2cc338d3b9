"""What a process and its worker processes that decode say to each other."""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embed.decoding.pixels import RGB

READY, DECODE, PIXELS, ERROR = range(4)
_HEAD = struct.Struct("<B?IQ")
"""Kind of message; whether its body is in the shared file; bytes of its head and of its body."""
_SHARED = 8 * 2**20
"""Largest body in the shared file, which stays this large."""
_MAPPED = 2**20

Body = bytes | bytearray | mmap.mmap


@dataclass(frozen=True)
class Request:
    """To decode a picture, with some of `embed.decoding.limits.PictureLimits`.

    Attributes:
        form: the format that its header states.
        memory: how much decoding may allocate, in bytes.
        seconds: how long it may take.
        max_pixels: as in the limits.
        max_scans: as in the limits.
        at_least: as in `embed.pictures.Opened.decode`, a preprocessing as its fields.
        facts: whether to read what the file says of itself.
    """

    form: str
    memory: int
    seconds: float
    max_pixels: int
    max_scans: int
    at_least: int | dict[str, Any] | None
    facts: bool = False

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def of(head: bytes) -> Request:
        return Request(**json.loads(head))


class Channel:
    """One side of the conversation: a socket, and a file in memory for bodies of ordinary size.

    Through the socket alone, a picture takes a switch between the processes for each 200 kB. The
    file is read and written, never mapped, so that the other side can spoil what is in it, but
    cannot crash this one by truncating it.
    """

    def __init__(self, connection: socket.socket, shared: int, mapped: bool = True) -> None:
        """Take both over.

        Args:
            connection: connected to the other side.
            shared: the file's descriptor, or -1 where the system has no such files.
            mapped: whether large bodies are received in memory that returns to the system at once;
                the C allocator would keep it for each thread. With one thread that is quicker.
        """
        self.connection = connection
        self.shared = shared
        self._mapped = mapped

    def close(self) -> None:
        self.connection.close()
        if self.shared >= 0:
            os.close(self.shared)
            self.shared = -1

    def send(
        self, kind: int, head: bytes, body: bytes | RGB = b"", deadline: float | None = None
    ) -> None:
        """Send a message.

        Raises:
            TimeoutError: the other side did not read it by the ``deadline``, of `time.monotonic`.
            OSError: the other side is gone.
        """
        view = (
            memoryview(body)
            if isinstance(body, bytes)
            else np.ascontiguousarray(body).data.cast("B")
        )
        shared = 0 < len(view) <= _SHARED and self.shared >= 0
        if shared and os.pwrite(self.shared, view, 0) != len(view):
            shared = False
        self.connection.settimeout(_remaining(deadline))
        self.connection.sendall(_HEAD.pack(kind, shared, len(head), len(view)) + head)
        if view and not shared:
            self.connection.settimeout(_remaining(deadline))
            self.connection.sendall(view)

    def receive(
        self, deadline: float | None = None, most_head: int = 2**16, most_body: int = 2**40
    ) -> tuple[int, bytes, Body] | None:
        """The next message as kind, head and body; None if the other side hung up before it.

        Raises:
            TimeoutError: it did not come by the ``deadline``.
            ValueError: it is larger than allowed, or its body is not there.
            OSError: the other side is gone.
        """
        self.connection.settimeout(_remaining(deadline))
        start = bytearray(_HEAD.size)
        size = self.connection.recv_into(start)
        if not size:
            return None
        self._fill(memoryview(start)[size:], deadline)
        kind, shared, head_size, body_size = _HEAD.unpack(start)
        if head_size > most_head or body_size > most_body:
            raise ValueError(f"a message of {head_size:,} + {body_size:,} bytes")
        head = bytearray(head_size)
        self._fill(memoryview(head), deadline)
        if shared and not self._mapped:
            read = os.pread(self.shared, body_size, 0)
            if len(read) != body_size:
                raise ValueError("the body of a message is not there")
            return kind, bytes(head), read
        body: Body = mmap.mmap(-1, body_size) if body_size >= _MAPPED else bytearray(body_size)
        with memoryview(body) as view:
            if not shared:
                self._fill(view, deadline)
            elif os.preadv(self.shared, [view], 0) != body_size:
                raise ValueError("the body of a message is not there")
        return kind, bytes(head), body

    def _fill(self, view: memoryview, deadline: float | None) -> None:
        at = 0
        while at < len(view):
            self.connection.settimeout(_remaining(deadline))
            size = self.connection.recv_into(view[at:])
            if not size:
                raise ConnectionError("the other side hung up in the middle of a message")
            at += size


def shared_file() -> int:
    """A file in memory, for both sides of a `Channel`; -1 where the system has none."""
    return os.memfd_create("pictures") if hasattr(os, "memfd_create") else -1


def _remaining(deadline: float | None) -> float | None:
    # Zero would mean not to wait at all, which is another error.
    return None if deadline is None else max(1e-3, deadline - time.monotonic())
