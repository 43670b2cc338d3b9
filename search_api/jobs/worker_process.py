"""Does tasks in a worker process.

It has low priority and does not share Python's lock with the searches that the server answers
meanwhile. The server writes the task as a line of JSON to the worker's standard input, and reads
lines of JSON from its standard output: progress, skipped pictures and finally the result. A line
``stop`` tells the worker to stop in an orderly way. If its input ends, the server is gone, and the
worker exits shortly after. The worker holds the store's lock itself and may be killed at any time:
only the job is lost.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from embed.folders.options import FolderOptions
from embed.pictures import PictureLimits
from index.contract import CancelledError, JobControl, StoreBusyError
from index.memory import machine_memory
from search_api import logs
from search_api.jobs.tasks import Task
from search_api.service.engine import SearchEngine
from search_api.service.model_migration import encoder_in_use
from search_api.settings import Quotas, StoreLocation

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
# Native code ends the process where an allocation fails in one of its threads.
_OUT_OF_MEMORY = (signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL)


class WorkerError(RuntimeError):
    """The task failed in the worker process, or that process ended unexpectedly."""


@dataclass(frozen=True)
class WorkerProcess:
    """A `search_api.jobs.tasks.Perform` in another process that opens the same store.

    Attributes:
        engine: serves meanwhile, and loads the index that was built.
        location: where the store is.
        data: as in `search_api.settings.Settings`.
        bundle: as in `search_api.settings.Settings`.
        picture: limits of each picture.
        quotas: how much the store keeps.
        log_format: format of the worker's log.
        memory: how many bytes a task may allocate; beyond it the task fails.
        program: command line of the worker; with -P it imports nothing from the current folder.
        folder_options: as in `search_api.settings.Settings`.
    """

    engine: SearchEngine
    location: StoreLocation
    data: Path | None = None
    bundle: Path | None = None
    picture: PictureLimits = PictureLimits()
    quotas: Quotas = Quotas()
    log_format: str | None = None
    memory: int = field(default_factory=machine_memory)
    program: tuple[str, ...] = (sys.executable, "-P", "-m", "search_api.jobs.worker_main")
    folder_options: FolderOptions = FolderOptions()

    def __call__(self, task: Task, control: JobControl) -> dict[str, int]:
        """Do the task and wait for it.

        Raises:
            CancelledError: ``control`` cancelled it; its work so far is kept.
            StoreBusyError: another process is building in the store.
            WorkerError: the task failed.
        """
        if not (task.model or task.first):
            task = replace(task, model=encoder_in_use(self.engine).digest)
        result = self._run(task, control)
        # Load the new index and classifier now, so that no search has to wait for them.
        self.engine.served.current()
        self.engine.classes.refresh()
        return result

    def _run(self, task: Task, control: JobControl) -> dict[str, int]:
        request = {
            "task": asdict(task),
            "job": control.job,
            "data": None if self.data is None else str(self.data),
            "location": self.location.to_dict(),
            "bundle": None if self.bundle is None else str(self.bundle),
            "picture": asdict(self.picture),
            "quotas": asdict(self.quotas),
            "log_format": self.log_format or logs.default_format(),
            "memory": self.memory,
            "folder_options": self.folder_options.to_dict(),
        }
        process = subprocess.Popen(  # noqa: S603 - this program, and nothing from a request
            self.program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches only the server, which passes it on
        )
        assert process.stdin is not None and process.stdout is not None
        logs.event(log, "job process", job=control.job, pid=process.pid)
        last: dict[str, Any] = {}
        try:
            _send(process.stdin, json.dumps(request))
            for message in _messages(process.stdout, process.stdin, control.cancelled):
                if "progress" in message:
                    control.progress(*message["progress"])
                elif "skip" in message:
                    control.skip(message["skip"])
                else:
                    last = message
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
                raise WorkerError(why)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if -code in _OUT_OF_MEMORY:
            how += f", perhaps for lack of memory: it may allocate {self.memory / 1e9:.1f} GB"
        raise WorkerError(
            f"the worker process ended with {how}; start the job again: what was embedded is kept,"
            " and it continues from there"
        )


def _messages(
    source: IO[bytes], stdin: IO[bytes], stop: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """The worker's messages until its output ends; tells it to stop once ``stop`` returns True."""
    handle, rest, stopped = source.fileno(), b"", False
    # Not select(), which fails from file descriptor 1024 on: a busy server has more.
    waiting = select.poll()
    waiting.register(handle, select.POLLIN)
    while True:
        if not stopped and stop():
            stopped = True
            _send(stdin, "stop")
        if not waiting.poll(1000 * _POLL_SECONDS):
            continue
        data = os.read(handle, 2**16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _send(stdin: IO[bytes], line: str) -> None:
    with suppress(BrokenPipeError):  # it has exited; its output is still read
        stdin.write(line.encode() + b"\n")
        stdin.flush()
