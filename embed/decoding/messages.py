"""What a process and its worker processes that decode say to each other, over a socket."""

from __future__ import annotations

import json
import mmap
import socket
import struct
import time
from dataclasses import asdict, dataclass

import numpy as np

from embed.decoding.pixels import RGB

READY, DECODE, PIXELS, ERROR = range(4)
_HEAD = struct.Struct("<BIQ")
"""Kind of message; bytes of its head and of its body."""
_MAPPED = 2**20


@dataclass(frozen=True)
class Request:
    """To decode a picture, with some of `embed.decoding.limits.PictureLimits`.

    Attributes:
        memory: how much decoding may allocate, in bytes.
        seconds: how long it may take.
        max_pixels: as in the limits.
        max_scans: as in the limits.
        at_least: as in `embed.pictures.Opened.decode`.
    """

    memory: int
    seconds: float
    max_pixels: int
    max_scans: int
    at_least: int | None

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def of(head: bytes) -> Request:
        return Request(**json.loads(head))


def send(
    connection: socket.socket,
    kind: int,
    head: bytes,
    body: bytes | RGB = b"",
    deadline: float | None = None,
) -> None:
    """Send a message.

    Raises:
        TimeoutError: the other side did not read it by the ``deadline``, of `time.monotonic`.
        OSError: the other side is gone.
    """
    view = (
        memoryview(body) if isinstance(body, bytes) else np.ascontiguousarray(body).data.cast("B")
    )
    connection.settimeout(_remaining(deadline))
    connection.sendall(_HEAD.pack(kind, len(head), len(view)) + head)
    if view:
        connection.settimeout(_remaining(deadline))
        connection.sendall(view)


def receive(
    connection: socket.socket,
    deadline: float | None = None,
    most_head: int = 2**16,
    most_body: int = 2**40,
) -> tuple[int, bytes, mmap.mmap | bytearray] | None:
    """The next message as kind, head and body; None if the other side has hung up before it.

    Raises:
        TimeoutError: it did not come by the ``deadline``.
        ValueError: it is larger than allowed.
        OSError: the other side is gone.
    """
    connection.settimeout(_remaining(deadline))
    first = connection.recv(1)
    if not first:
        return None
    start = bytearray(_HEAD.size)
    start[:1] = first
    _fill(connection, memoryview(start)[1:], deadline)
    kind, head_size, body_size = _HEAD.unpack(start)
    if head_size > most_head or body_size > most_body:
        raise ValueError(f"a message of {head_size:,} + {body_size:,} bytes")
    head = bytearray(head_size)
    _fill(connection, memoryview(head), deadline)
    # Mapped memory returns to the system at once; the C allocator would keep it for each thread.
    body = mmap.mmap(-1, body_size) if body_size >= _MAPPED else bytearray(body_size)
    with memoryview(body) as view:
        _fill(connection, view, deadline)
    return kind, bytes(head), body


def _fill(connection: socket.socket, view: memoryview, deadline: float | None) -> None:
    at = 0
    while at < len(view):
        connection.settimeout(_remaining(deadline))
        size = connection.recv_into(view[at:])
        if not size:
            raise ConnectionError("the other side has hung up in the middle of a message")
        at += size


def _remaining(deadline: float | None) -> float | None:
    # Zero would mean not to wait at all, which is another error.
    return None if deadline is None else max(1e-3, deadline - time.monotonic())
