"""Generate the synchronous client from the asynchronous one: `make client`.

Run by its path, so that it works without the file that it writes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import unasync

CLIENT = Path(__file__).parent
SOURCE = CLIENT / "asynchronous.py"
TARGET = CLIENT / "synchronous.py"

HEADER = '''\
# Generated from asynchronous.py by `make client`; edit that file instead.
"""The synchronous client."""
'''

# In addition to what unasync replaces by itself: async, await, __aenter__, AsyncIterator, ...
REPLACEMENTS = {
    "AsyncClient": "Client",
    "AsyncBaseTransport": "BaseTransport",
    "aclose": "close",
    "aread": "read",
    "aiter_lines": "iter_lines",
    "asyncio": "time",  # used for sleep alone
}


def generate(target: Path) -> None:
    """Write the synchronous client to ``target``, formatted."""
    unasync.unasync_files([str(SOURCE)], [unasync.Rule(str(SOURCE), str(target), REPLACEMENTS)])
    _, _, code = target.read_text("utf-8").partition("\n")  # without the docstring, one line
    target.write_text(HEADER + code, "utf-8")
    config = CLIENT.parents[1] / "pyproject.toml"
    ruff = [sys.executable, "-m", "ruff", "format", "--quiet", "--config", str(config)]
    subprocess.run([*ruff, str(target)], check=True)  # noqa: S603 - the arguments are ours


if __name__ == "__main__":
    generate(TARGET)
