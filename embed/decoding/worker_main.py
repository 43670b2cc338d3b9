"""The program of a worker process that decodes pictures; see `embed.decoding.workers`.

It ends by itself when its deadline passes, whatever a decoder is doing, and when the process that
started it does: while it decodes, the kernel tells it with a signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import sys
from dataclasses import asdict
from pathlib import Path

from PIL import AvifImagePlugin, Image

from embed.decoding.limits import PictureError, PictureLimits
from embed.decoding.messages import ERROR, PIXELS, READY, Channel, Request
from embed.decoding.pixels import RGB, decode_with_facts, open_image
from embed.preprocess import Preprocess

_GRACE_SECONDS = 1.0
_KEPT = 32 * 2**20
"""Memory that may be kept from one picture to the next, in bytes."""
# Returns to the system what the C allocator keeps; glibc's, other C libraries lack it.
_trim_memory = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)


def main() -> None:
    """Answer requests until the other side hangs up."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    channel = Channel(connection, int(sys.argv[2]), mapped=False)
    # Before memory is limited: all formats, rather than at the first picture.
    Image.init()
    _register_heif()
    Image.MAX_IMAGE_PIXELS = None  # the request has a limit of its own
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would contain people's pictures
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    baseline, resident = _memory()
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # libraries write warnings about pictures; nobody reads them
    channel.send(READY, b"")
    while (message := channel.receive()) is not None:
        kind, head, body = _answer(connection, Request.of(message[1]), bytes(message[2]), baseline)
        channel.send(kind, head, body)
        signal.setitimer(signal.ITIMER_REAL, 0)
        del message, body
        if _memory()[1] > resident + _KEPT:
            _trim_memory(0)


def _register_heif() -> None:
    """Add HEIC to Pillow's formats; here only, as no other process decodes it."""
    # Without it, all other formats are still read.
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener(
            decode_threads=0, thumbnails=False, depth_images=False, aux_images=False
        )


def _answer(
    connection: socket.socket, request: Request, data: bytes, baseline: int
) -> tuple[int, bytes, RGB | bytes]:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    # The default action of both signals ends the process, in the middle of any decoder.
    signal.setitimer(signal.ITIMER_REAL, request.seconds + _GRACE_SECONDS)
    _signal_hang_up(connection, True)
    limit = baseline + request.memory
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        limits = PictureLimits(max_pixels=request.max_pixels, max_scans=request.max_scans)
        image = open_image(data, request.form, limits)
        wanted = request.at_least
        at_least = Preprocess.from_dict(wanted) if isinstance(wanted, dict) else wanted
        picture, facts = decode_with_facts(image, at_least, request.max_pixels, request.facts)
    except PictureError as error:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        return ERROR, json.dumps([error.reason, str(error)]).encode(), b""
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        _signal_hang_up(connection, False)
    height, width, _ = picture.shape
    described = None if facts is None else asdict(facts)
    return PIXELS, json.dumps([height, width, described]).encode(), picture


def _signal_hang_up(connection: socket.socket, wanted: bool) -> None:
    """Ask for SIGIO when the connection changes, which it does not but for its end."""
    flags = fcntl.fcntl(connection, fcntl.F_GETFL)
    flags = flags | os.O_ASYNC if wanted else flags & ~os.O_ASYNC
    fcntl.fcntl(connection, fcntl.F_SETFL, flags)


def _memory() -> tuple[int, int]:
    """This process's address space, 1 GiB where the system does not tell, and what is resident."""
    try:
        space, resident = Path("/proc/self/statm").read_text("ascii").split()[:2]
    except OSError:
        return 2**30, 0
    return int(space) * resource.getpagesize(), int(resident) * resource.getpagesize()


if __name__ == "__main__":
    main()
