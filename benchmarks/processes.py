"""Measuring in a separate process: its memory, and its speed when memory is limited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_CGROUP_1 = Path("/sys/fs/cgroup/memory")
_CGROUP_2 = Path("/sys/fs/cgroup")


class Starved(Exception):
    """The kernel killed the process because it exceeded its memory limit."""


def memory() -> dict[str, int]:
    """Bytes: the ``peak`` of all so far; now ``anonymous`` and ``mapped`` from files."""
    words = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    names = {"peak": "VmHWM", "anonymous": "RssAnon", "mapped": "RssFile"}
    return {name: 1024 * int(words[word].split()[0]) for name, word in names.items()}


class AnonymousPeak:
    """The peak of anonymous memory in a ``with`` block, sampled 20 times a second."""

    def __enter__(self) -> AnonymousPeak:
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            self.bytes = max(self.bytes, memory()["anonymous"])

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.bytes = max(self.bytes, memory()["anonymous"])


def run(module: str, task: dict[str, Any], limit: int | None = None) -> dict[str, Any]:
    """Run ``python -m module TASK``; return the JSON on the last line of its output.

    ``limit`` is the most bytes of memory, including files that it reads. Raises Starved if that is
    too little, and OSError if limits cannot be set here.
    """
    command = [sys.executable, "-m", module, json.dumps(task)]
    with _limited(limit) as group:

        def enter() -> None:
            if group is not None:
                (group / "cgroup.procs").write_text(str(os.getpid()))

        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=False, preexec_fn=enter
        )
    if done.returncode == -9 and limit is not None:
        raise Starved(f"{limit:,} bytes are not enough")
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@contextmanager
def _limited(limit: int | None) -> Iterator[Path | None]:
    """A control group with this memory limit; None without one."""
    if limit is None:
        yield None
        return
    old = (_CGROUP_1 / "memory.limit_in_bytes").exists()
    group = (_CGROUP_1 if old else _CGROUP_2) / f"lookalike-{os.getpid()}"
    group.mkdir()
    try:
        name = "memory.limit_in_bytes" if old else "memory.max"
        (group / name).write_text(str(limit))
        yield group
    finally:
        for _ in range(50):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)


def forget_pages(folder: Path) -> None:
    """Drop these files from the page cache, so that the next reader starts cold."""
    for path in folder.iterdir():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
