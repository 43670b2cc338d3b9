"""Running `lookalike` in this process and in its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from embed.pictures import encode_png
from embed.scenes import render
from search_api.cli.main import main

CLASSES = ("boat", "house", "tree")
EACH = 8

Env = dict[str, str]


@dataclass(frozen=True)
class Done:
    """What a finished command left behind."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: object, env: Env | None = None) -> Done:
    """Run `lookalike` in this process, with only the given LOOKALIKE_ settings."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    try:
        with (
            mock.patch.object(sys, "argv", ["lookalike", *map(str, arguments)]),
            mock.patch.dict(os.environ, clean(env or {}), clear=True),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as exit_,
        ):
            main()
    finally:
        torch.set_flush_denormal(False)  # `train` sets it for its process
    code = exit_.value.code
    assert isinstance(code, int)
    return Done(code, *(f.buffer.getvalue().decode() for f in (out, err)))  # type: ignore[attr-defined]


def clean(settings: Env) -> Env:
    own = {k for k in os.environ if k.startswith("LOOKALIKE_") and k != "LOOKALIKE_CACHE"}
    kept = {k: v for k, v in os.environ.items() if k not in own}
    quick = {"OMP_NUM_THREADS": "1", "LOOKALIKE_DRAIN_SECONDS": "0.1"}
    return {**kept, **quick, **settings}


class Server:
    """A `lookalike up` or `serve` in a process of its own, started by another program if given."""

    def __init__(
        self, command: str, env: Env, starter: Sequence[str] = (), *, wait: bool = True
    ) -> None:
        # Not a pipe, which would fill up and stop the server.
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*starter, sys.executable, "-m", "search_api.cli", command, "--port", "0"],
            env=clean(env),
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        assert self.process.stdout is not None
        self.line = line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found is None:
            raise AssertionError(line + self.stop(signal.SIGKILL)[1])
        self.url = found[0]
        if wait and command == "up":
            self.wait()

    def wait(self) -> None:
        """Wait for the end of a first build."""
        deadline = time.monotonic() + 120
        while not self._built():
            assert self.process.poll() is None, self.stop()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def _built(self) -> bool:
        try:
            self.get("/readyz")
            return all(job["finished"] for job in self.get("/v1/jobs")["jobs"])
        except urllib.error.HTTPError as error:
            return error.code == 401  # ready, and needs a key

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            return json.loads(response.read())

    def stop(self, by: int = signal.SIGTERM) -> tuple[int, str]:
        """The exit code after this signal, and what was printed to stderr."""
        self.process.send_signal(by)
        self.process.communicate(timeout=30)
        self._stderr.seek(0)
        return self.process.returncode, self._stderr.read()


def status(env: Env) -> dict[str, Any]:
    """The output of `lookalike index status --json`."""
    done = run("index", "status", "--json", env=env)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def put(root: Path, label: str, seeds: range) -> list[str]:
    """Render scenes into ``root/label``; return their names below ``root``."""
    names = [f"{label}/{seed}.png" for seed in seeds]
    for name, seed in zip(names, seeds, strict=True):
        (root / label).mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode_png(render(label, seed)))
    return names
