"""Jobs in a process of their own, of low priority: they share neither Python's lock nor a core's
turn with the searches that go on.

The server sends the task as a line of JSON on the child's standard input and reads lines from its
standard output: how far it is, what it leaves out, and at the end its result. A line ``stop`` asks
it to end in order. When its input ends, the server is gone, and so is the child a moment later. It
holds the store's lock itself, and may be killed at any time: nothing but the job is lost.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from embed.pictures import PictureLimits
from search_api import logs
from search_api.changeover import encoder_in_use
from search_api.engine import SearchEngine
from search_api.ingest import CancelledError
from search_api.jobs import Report
from search_api.settings import Milvus, Place
from search_api.store import StoreBusyError
from search_api.tasks import Stop, Task, perform

log = logging.getLogger(__name__)

_NICE = 10
_LOOK_SECONDS = 0.2
_ORPHAN_SECONDS = 5.0


class AsideError(RuntimeError):
    """The work failed in the other process, or that process ended."""


@dataclass(frozen=True)
class Aside:
    """Does tasks in another process that opens the same store.

    Attributes:
        engine: answers meanwhile, and takes up what was built.
        data: as in `search_api.settings.Settings`.
        bundle: likewise.
        picture: bounds of each picture.
        log_format: of what the other process logs.
        place: what keeps the store.
        program: what is run.
    """

    engine: SearchEngine
    data: Path | None = None
    bundle: Path | None = None
    picture: PictureLimits = PictureLimits()
    log_format: str | None = None
    place: Place = Place()
    program: tuple[str, ...] = (sys.executable, "-m", "search_api.aside")

    def __call__(self, task: Task, report: Report, stop: Stop) -> dict[str, int]:
        """Do the task and wait for it.

        Raises:
            CancelledError: ``stop`` said so; what was done stays.
            StoreBusyError: somebody else builds in the store.
            AsideError: it failed.
        """
        if not task.model:
            task = replace(task, model=encoder_in_use(self.engine).digest)
        said = self._follow(task, report, stop)
        # Taken up here and now, so that no search has to wait for it.
        self.engine.served.current()
        return said

    def _follow(self, task: Task, report: Report, stop: Stop) -> dict[str, int]:
        order = {
            "task": asdict(task),
            "data": None if self.data is None else str(self.data),
            "var": str(self.engine.var),
            "bundle": None if self.bundle is None else str(self.bundle),
            "picture": asdict(self.picture),
            "log_format": self.log_format or logs.default_format(),
            "place": asdict(self.place),
        }
        process = subprocess.Popen(  # noqa: S603 - this program, and nothing of a request
            self.program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the server, which tells it
        )
        assert process.stdin is not None and process.stdout is not None
        logs.event(log, "job process", job=task.job, pid=process.pid)
        last: dict[str, Any] = {}
        try:
            _tell(process.stdin, json.dumps(order))
            for said in _lines(process.stdout, process.stdin, stop):
                if "progress" in said:
                    report(*said["progress"])
                elif "skip" in said:
                    report.skip(said["skip"])
                else:
                    last = said
                    break
        finally:
            with suppress(OSError):
                process.stdin.close()
            process.stdout.close()
            code = process.wait()
        match last:
            case {"result": dict(result)}:
                return result
            case {"cancelled": str(why)}:
                raise CancelledError(why)
            case {"busy": str(why), "job": job}:
                raise StoreBusyError(why, job)
            case {"failed": str(why)}:
                raise AsideError(why)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        raise AsideError(
            f"the process that did the work ended by {how}; start it again: what was embedded is"
            " kept, and it goes on from there"
        )


def _lines(source: IO[bytes], orders: IO[bytes], stop: Stop) -> Iterator[dict[str, Any]]:
    """What the child says, until its output ends; it is told once when ``stop`` says so."""
    handle, rest, told = source.fileno(), b"", False
    # Not select(), which takes no handle from 1024 on: many clients are enough for that.
    waiting = select.poll()
    waiting.register(handle, select.POLLIN)
    while True:
        if not told and stop():
            told = True
            _tell(orders, "stop")
        if not waiting.poll(1000 * _LOOK_SECONDS):
            continue
        data = os.read(handle, 2**16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _tell(orders: IO[bytes], line: str) -> None:
    with suppress(BrokenPipeError):  # it has ended; what it said is read all the same
        orders.write(line.encode() + b"\n")
        orders.flush()


class _Saying(Report):
    """Reports to the server."""

    def __init__(self, say: Callable[[dict[str, Any]], None]) -> None:
        def skip(reasons: Mapping[str, str]) -> None:
            if reasons:
                say({"skip": dict(reasons)})

        self._say = say
        self.skip = skip

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._say({"progress": [stage, done, total]})


def _place(said: Mapping[str, Any]) -> Place:
    milvus = said["milvus"]
    return Place(None if milvus is None else Milvus(**milvus), said["pictures"])


def _listen(stopping: threading.Event) -> None:
    for line in sys.stdin:
        if line.strip() == "stop":
            stopping.set()
    stopping.set()
    time.sleep(_ORPHAN_SECONDS)
    os._exit(1)


def main() -> None:
    """Do one task for a server; see the top of this file."""
    order = json.loads(sys.stdin.readline())
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what a library prints is no answer
    os.nice(_NICE)
    logs.configure(order["log_format"])
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    threading.Thread(target=_listen, args=(stopping,), daemon=True).start()

    def say(what: dict[str, Any]) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    # Everything of the following takes its time to import; by now the server can stop it.
    from search_api.commands.open import open_engine

    task = Task(**order["task"])
    data, bundle = (
        None if order[name] is None else Path(order[name]) for name in ("data", "bundle")
    )
    limits, where = PictureLimits(**order["picture"]), _place(order["place"])
    try:
        with open_engine(data, Path(order["var"]), bundle, limits, where=where) as engine:
            say({"result": perform(engine, task, _Saying(say), stopping.is_set)})
    except CancelledError as error:
        say({"cancelled": str(error)})
    except StoreBusyError as error:
        say({"busy": str(error), "job": error.job})
    except BrokenPipeError:
        pass  # the server is gone
    except Exception as error:
        log.exception("job %s failed", task.job)
        say({"failed": str(error)})
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
