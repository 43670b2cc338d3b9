"""Decodes pictures in worker processes, with a memory limit and a deadline.

A decoder that crashes, grows or hangs ends its process and gives an error for its picture; the next
picture gets another process. They are started when they are first needed, live as long as this
process, and hold nothing but one picture at a time.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np

from embed.decoding.facts import PictureFacts
from embed.decoding.header import Header
from embed.decoding.limits import (
    LARGE,
    REASONS,
    DecodersBusyError,
    PictureError,
    PictureLimits,
    brief,
)
from embed.decoding.messages import (
    DECODE,
    ERROR,
    PIXELS,
    READY,
    Body,
    Channel,
    Request,
    shared_file,
)
from embed.decoding.pixels import RGB
from embed.preprocess import Preprocess

Decoded = tuple[RGB, PictureFacts | None]
MOST_WORKERS = min(8, max(2, os.cpu_count() or 1))
LARGE_AT_ONCE = 2
"""Pictures that are large, or that take more memory than ``SMALL_MEMORY``, decoded at a time."""
SMALL_MEMORY = 64 * 2**20
_MARGIN = 4
"""A small picture may take this many times ``SMALL_MEMORY``, because its cost is an estimate."""

_START_SECONDS = 60.0
_END_SECONDS = 2.0
_ATTEMPTS = 3
_KEPT = re.compile(r"PATH|HOME|TMPDIR|TZ|LANG|LC_.*|LD_.*|DYLD_.*|PYTHON.*|VIRTUAL_ENV")
_ENVIRONMENT = {
    # It uses one thread; more would only take address space, which is limited.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # glibc would fetch the memory of each picture from the system again, which takes as long as
    # decoding a small one. The program itself returns it after a large one.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
}
_trim_memory = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)


@dataclass
class _Turn:
    """What `turn` keeps: whether the thread has a turn already, and how long it waits for one."""

    patient: bool
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    taken: bool = False


_turn: ContextVar[_Turn | None] = ContextVar("turn", default=None)


@contextlib.contextmanager
def turn(patient: bool = False) -> Iterator[None]:
    """Let what is done with a large picture count as part of decoding it.

    Within the block, a large picture's turn lasts until the end of the block, so that no more than
    ``LARGE_AT_ONCE`` decoded ones exist at a time, however many threads there are.

    Args:
        patient: wait for a worker process as long as it takes, for work that no request waits for.
    """
    with contextlib.ExitStack() as held:
        token = _turn.set(_Turn(patient, held))
        try:
            yield
        finally:
            _turn.reset(token)


class _EndedError(Exception):
    """The worker process ended before it received the request."""


def _environment() -> dict[str, str]:
    """What Python needs of our environment, without its keys and tokens."""
    kept = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    return {**kept, **_ENVIRONMENT}


class _Worker:
    def __init__(self, program: tuple[str, ...]) -> None:
        """Start the process and wait until it is ready.

        Raises:
            OSError: it cannot be started.
        """
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours, shared_file())
        handles = [theirs.fileno(), self._channel.shared]
        with theirs, contextlib.ExitStack() as opened:
            opened.callback(self._channel.close)
            self._process = subprocess.Popen(  # noqa: S603 - this program, nothing from a request
                [*program, *map(str, handles)],
                pass_fds=[handle for handle in handles if handle >= 0],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,  # of its start only: it silences its libraries afterwards
                start_new_session=True,  # Ctrl-C reaches only the process that it serves
                env=_environment(),
            )
            opened.pop_all()
        self.pid = self._process.pid
        try:
            ready = self._channel.receive(time.monotonic() + _START_SECONDS)
        except OSError:
            ready = None
        with self._process.stderr or contextlib.nullcontext() as said:
            if ready is None or ready[0] != READY:
                self.end()
                lines = said.read().decode("utf-8", "replace").split("\n") if said else []
                why = next((line for line in reversed(lines) if line.strip()), "it said nothing")
                raise OSError(f"the worker process that decodes pictures did not start: {why}")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def decode(self, data: bytes, request: Request) -> Decoded:
        """Decode; the process has ended if ``alive`` is False afterwards.

        Raises:
            PictureError: the picture cannot be decoded, or not within the limits.
            _EndedError: the process had ended before.
        """
        deadline = time.monotonic() + request.seconds
        try:
            self._channel.send(DECODE, request.to_json(), data, deadline)
        except TimeoutError:
            raise self._too_slow(request) from None
        except OSError:
            self.end()
            raise _EndedError from None
        try:
            message = self._channel.receive(deadline, most_body=3 * request.max_pixels)
            if message is None:
                raise self._ended(request)
            return _picture(*message)
        except TimeoutError:
            raise self._too_slow(request) from None
        except OSError:
            raise self._ended(request) from None
        except ValueError as error:
            if isinstance(error, PictureError):
                raise
            self.end(at_once=True)
            raise _undecodable(request.form, "it sent something else than pixels") from None

    def _too_slow(self, request: Request) -> PictureError:
        self.end(at_once=True)
        return PictureError(
            "too-costly",
            f"decoding the {request.form} takes longer than {request.seconds:g} seconds; scale it"
            " down, or save it as an ordinary PNG or JPEG",
        )

    def _ended(self, request: Request) -> PictureError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        code = self._process.poll()
        if code == -signal.SIGALRM:
            return self._too_slow(request)
        self.end(at_once=True)
        if code == -signal.SIGKILL:
            return PictureError(
                "too-costly",
                f"the process that decoded the {request.form} was killed, perhaps because memory"
                " was short; try again, or scale the picture down",
            )
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return _undecodable(request.form, how)

    def leave(self) -> None:
        """Forget the process without ending it."""
        self._channel.close()

    def end(self, at_once: bool = False) -> None:
        """End the process and collect its exit code."""
        self._channel.close()
        try:
            if not at_once:
                self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            at_once = True
        if at_once:
            self._process.kill()
        self._process.wait()


def _undecodable(form: str, how: str) -> PictureError:
    return PictureError(
        "undecodable",
        f"the decoder crashed on the {form} ({how}); save it again with another program",
    )


def _picture(kind: int, head: bytes, body: Body) -> Decoded:
    """The picture and its facts in a reply, which is not believed: a decoder may be taken over.

    Raises:
        PictureError: the reply is an error.
        ValueError: it is neither that nor a picture.
    """
    match kind, json.loads(head):
        case int(_), [int(height), int(width), facts] if kind == PIXELS and min(height, width) > 0:
            pixels = np.frombuffer(body, np.uint8)
            if pixels.size == 3 * height * width:
                return pixels.reshape(height, width, 3), None if facts is None else _facts(facts)
        case int(_), [str(reason), str(text)] if kind == ERROR and reason in REASONS:
            raise PictureError(reason, text)
    raise ValueError(head)


def _facts(found: object) -> PictureFacts:
    match found:
        case {
            "width": int(width),
            "height": int(height),
            "form": str(form),
            "taken": str() | None as taken,
            "camera": str() | None as camera,
            "orientation": int() | None as orientation,
            "gps": bool(gps),
            "place": [float(), float()] | None as place,
        }:
            at = None if place is None else (place[0], place[1])
            return PictureFacts(width, height, form, taken, camera, orientation, gps, at)
    raise ValueError(found)


class Decoders:
    """The worker processes of this process; safe to use from several threads."""

    def __init__(
        self,
        most: int = MOST_WORKERS,
        program: tuple[str, ...] = (sys.executable, "-P", "-m", "embed.decoding.worker_main"),
    ) -> None:
        """Describe them; none is started yet.

        Args:
            most: how many there are at a time.
            program: command line of a worker, without the handles of its channel.
        """
        self._most = most
        self._program = program
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._workers = threading.BoundedSemaphore(self._most)
        self._large = threading.BoundedSemaphore(LARGE_AT_ONCE)

    @property
    def pids(self) -> list[int]:
        """Those of the processes that run."""
        with self._lock:
            return [worker.pid for worker in self._all if worker.alive]

    def decode(
        self,
        data: bytes,
        header: Header,
        limits: PictureLimits,
        at_least: int | Preprocess | None,
        facts: bool = False,
    ) -> Decoded:
        """Decode a picture whose header is within the limits; see `embed.pictures.Opened.decode`.

        Returns what the file says of itself, too, if ``facts`` are wanted.

        Raises:
            PictureError: it is damaged, or takes more than the limits.
            DecodersBusyError: no process was free in time, or none can be started.
        """
        memory = header.memory
        small = memory is not None and memory <= SMALL_MEMORY and header.pixels <= LARGE
        request = Request(
            header.form,
            min(_MARGIN * SMALL_MEMORY, limits.max_memory) if small else limits.max_memory,
            limits.max_seconds,
            limits.max_pixels,
            limits.max_scans,
            at_least.to_dict() if isinstance(at_least, Preprocess) else at_least,
            facts,
        )
        kept = _turn.get()
        wait = math.inf if kept is not None and kept.patient else limits.max_wait_seconds
        until = time.monotonic() + wait
        with contextlib.ExitStack() as stack:
            if not small and (kept is None or not kept.taken):
                _acquire(self._large, until, wait)
                (stack if kept is None else kept.held).callback(self._end_turn)
                if kept is not None:
                    kept.taken = True
            _acquire(self._workers, until, wait)
            stack.callback(self._workers.release)
            return self._run(data, request)

    def _end_turn(self) -> None:
        # The C allocator keeps memory for each thread, which for a server's forty would be
        # gigabytes.
        _trim_memory(0)
        self._large.release()

    def _run(self, data: bytes, request: Request) -> Decoded:
        for _ in range(_ATTEMPTS):
            worker = self._take()
            try:
                return worker.decode(data, request)
            except _EndedError:
                continue
            finally:
                self._return(worker)
        raise DecodersBusyError("the worker processes that decode pictures end at once")

    def _take(self) -> _Worker:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                self._all.discard(worker)
                worker.end()
        try:
            worker = _Worker(self._program)
        except OSError as error:
            raise DecodersBusyError(
                f"a worker process to decode the picture cannot be started ({brief(error)});"
                " try again later"
            ) from error
        with self._lock:
            self._all.add(worker)
        return worker

    def _return(self, worker: _Worker) -> None:
        with self._lock:
            if worker.alive:
                self._idle.append(worker)
            else:
                self._all.discard(worker)

    def close(self) -> None:
        """End all processes; the next picture starts another."""
        with self._lock:
            workers, idle = self._all, self._idle
            self._all, self._idle = set(), []
        for worker in workers:
            worker.end(at_once=worker not in idle)

    def forget(self) -> None:
        """After a fork: they belong to the other process, which alone may talk to them."""
        for worker in self._all:
            worker.leave()
        self._reset()


def _acquire(semaphore: threading.BoundedSemaphore, until: float, wait: float) -> None:
    remaining = until - time.monotonic()
    timeout = None if math.isinf(remaining) else max(0.0, remaining)
    if not semaphore.acquire(timeout=timeout):
        raise DecodersBusyError(
            f"all processes that decode pictures have been busy for {wait:g} seconds;"
            " try again later"
        )


decoders = Decoders()
"""Those of this process."""
atexit.register(decoders.close)
os.register_at_fork(after_in_child=decoders.forget)
