"""The real Milvus for the tests: installed once; can be started, killed and restarted."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[3]
HOME = ROOT / ".milvus-server"
VERSION = "2.3.5"
_INSIDE = Path(__file__).with_name("inside.py")
_START_SECONDS = 400.0


class NoServerError(Exception):
    """The server is not available here; the message says why."""


def installed() -> Path:
    """The interpreter that has the server, which is installed in its own environment if needed."""
    python = HOME / "venv" / "bin" / "python"
    done = HOME / f"installed-{VERSION}"
    if done.exists():
        return python
    HOME.mkdir(exist_ok=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(HOME / "venv")], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check",
             f"milvus=={VERSION}"],
            check=True, capture_output=True, text=True, timeout=400,
        )  # fmt: skip
    except (subprocess.SubprocessError, OSError) as error:
        words = getattr(error, "stderr", "") or str(error)
        shutil.rmtree(HOME / "venv", ignore_errors=True)
        raise NoServerError(f"milvus=={VERSION} cannot be installed: {words[-300:]}") from error
    done.touch()
    return python


def namespaces() -> None:
    """Raise NoServerError unless a process may create a network namespace."""
    command = shutil.which("unshare")
    if command is None or subprocess.run([command, "-rn", "true"], capture_output=True).returncode:
        raise NoServerError("Milvus listens on every address, and `unshare -rn` is not permitted")


class Door:
    """Forwards a port on 127.0.0.1 to the server; can be blocked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.shut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop for good."""
        self.cut()
        self._listener.close()

    def cut(self) -> None:
        """End all connections and block new ones."""
        with self._lock:
            self.shut = True
            for end in self._open:
                with_no_error(lambda end=end: end.shutdown(socket.SHUT_RDWR))

    def mend(self) -> None:
        """Accept connections again."""
        self.shut = False

    def _accept(self) -> None:
        while True:
            try:
                outer, _ = self._listener.accept()
            except OSError:
                return
            inner = socket.socket(socket.AF_UNIX)
            try:
                if self.shut:
                    raise OSError("shut")
                inner.connect(str(self._path))
            except OSError:
                outer.close()
                inner.close()
                continue
            with self._lock:
                self._open |= {outer, inner}
            for pair in ((outer, inner), (inner, outer)):
                threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                with_no_error(lambda end=end: end.shutdown(socket.SHUT_RDWR))
            with self._lock:
                self._open -= {source}
            source.close()


class RealServer:
    """One Milvus with its data in a folder; ``uri`` stays the same across restarts."""

    def __init__(self, folder: Path) -> None:
        namespaces()
        self._python = installed()
        self._folder = folder
        self._socket = folder / "milvus.sock"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True)
        (HOME / "bin").mkdir(exist_ok=True)
        # Shared, because unpacking takes longer than starting.
        (folder / "data" / "bin").symlink_to(HOME / "bin")
        self.door = Door(self._socket)
        self.uri = f"http://127.0.0.1:{self.door.port}"

    def start(self) -> None:
        """Start it and wait until it responds."""
        pidfile = self._folder / "pid"
        pidfile.unlink(missing_ok=True)
        with (self._folder / "out.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", "-rn", str(self._python), str(_INSIDE),
                 str(self._folder / "data"), str(self._socket), str(pidfile)],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                words = (self._folder / "out.log").read_text("utf-8", "replace")[-500:]
                self.kill()
                raise NoServerError(f"Milvus did not start: {words}")
            time.sleep(0.5)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            with_no_error(lambda: os.killpg(self._process.pid, signal.SIGKILL))
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Stop it and remove its data."""
        self.kill()
        self.door.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        from pymilvus import MilvusClient

        try:
            client = MilvusClient(uri=self.uri, timeout=5)
            try:
                client.list_collections(timeout=5)
            finally:
                client.close()
        except Exception:  # noqa: BLE001 - not yet
            return False
        return True


def with_no_error(do: Callable[[], object]) -> None:
    """Call ``do``; ignore that it has been done already."""
    with contextlib.suppress(OSError):
        do()
