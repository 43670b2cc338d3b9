"""A server needs no more than deploy/ gives it: two folders to write into, and no privileges."""

from __future__ import annotations

import shutil
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from embed.bundle import PRETRAINED
from tests.search_api.cli.helpers import Server
from tests.search_api.helpers import until

KEY = "a-key-of-the-test-0123456789"
LOCK_IN = r"""
mount --make-rprivate / || exit 77
for folder in "$1" "$2"; do mount --bind "$folder" "$folder" || exit 77; done
for mount in $(awk '{print $2}' /proc/mounts); do
  case $mount in "$1"|"$2"|/proc*|/dev*|/sys*) ;; *) mount -o remount,ro,bind "$mount" ;; esac
done 2>/dev/null
if touch "$3/x" 2>/dev/null; then exit 77; fi
shift 3
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def starter(tmp_path: Path) -> tuple[str, ...]:
    """The beginning of a command line that locks the rest of it in."""
    found = [shutil.which(name) for name in ("unshare", "setpriv", "awk")]
    for name in ("var", "tmp", "else"):
        (tmp_path / name).mkdir()
    folders = (str(tmp_path / name) for name in ("var", "tmp", "else"))
    command = ("unshare", "-rm", "bash", "-c", LOCK_IN, "bash", *folders)
    if None in found or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("file systems cannot be made read-only for one process here")
    return command


@pytest.fixture
def server(tmp_path: Path, folder: Path, starter: tuple[str, ...]) -> Iterator[Server]:
    keys = tmp_path / "keys"
    keys.touch(0o600)
    keys.write_text(f"write {KEY}\n")
    env = {
        "HOME": "/nonexistent",
        "XDG_CACHE_HOME": "",
        "LOOKALIKE_CACHE": "",
        "TMPDIR": str(tmp_path / "tmp"),
        "LOOKALIKE_VAR": str(tmp_path / "var"),
        "LOOKALIKE_DATA": str(folder),
        "LOOKALIKE_BUNDLE": str(PRETRAINED),
        "LOOKALIKE_KEY_FILE": str(keys),
        "LOOKALIKE_ALLOWED_HOSTS": "localhost",
    }
    server = Server("up", env, starter)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


def test_a_locked_in_server_works(server: Server, folder: Path, tmp_path: Path) -> None:
    def call(path: str, data: bytes | None = None, method: str | None = None) -> bytes:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "image/png"}
        request = urllib.request.Request(server.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            found: bytes = response.read()
            return found

    with pytest.raises(urllib.error.HTTPError, match="401"):
        server.get("/v1/index")

    def succeeded() -> int:
        return call("/v1/jobs").count(b'"state":"succeeded"')

    until(lambda: succeeded() == 1, 60)  # the first build
    picture = next(folder.rglob("*.png")).read_bytes()
    assert b'"points":[{"id":' in call("/v1/search?limit=1", picture)
    call("/v1/index/rebuild", b"", "POST")
    until(lambda: succeeded() == 2, 60)
    var = tmp_path / "var"
    assert (var / "cache" / "exports").is_dir()
    for path in (var, *var.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    code, _ = server.stop()
    assert code == 0
