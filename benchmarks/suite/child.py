"""The process of its own in which a part runs; started by `suite.run` through `processes.run`."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.processes import run
from benchmarks.suite import machine
from benchmarks.suite.result import Result, Work


def call(function: str, work: Work) -> dict[str, Any]:
    """Run ``module:name`` on ``work`` in a new process; a `Result` comes with its stamp.

    Raises:
        SystemExit: it failed; its own words are on stderr.
    """
    return run(
        "benchmarks.suite.child",
        {
            "function": function,
            "data": str(work.data),
            "folder": str(work.folder),
            "short": work.short,
        },
    )


def main() -> None:
    """Print what the function returned as JSON on the last line of stdout."""
    task = json.loads(sys.argv[1])
    module, _, name = task["function"].partition(":")
    other = machine.other_work()
    work = Work(Path(task["data"]), Path(task["folder"]), task["short"])
    found = getattr(importlib.import_module(module), name)(work)
    if isinstance(found, Result):
        stamp = machine.stamp(found.models, found.threads, found.packages, found.n, other)
        found = {**asdict(found), "stamp": stamp}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
