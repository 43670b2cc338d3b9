"""Measures what ships, writes the tables of docs/benchmarks.md, and tells what became slower.

    make bench                          # all parts; goes on where it was interrupted
    make bench-check                    # three minutes: which ratios against peers fell
    python -m benchmarks index serving  # these parts
    python -m benchmarks --short        # does every part work? writes nothing
    make bench-large                    # a million vectors and more, in some hours

Each part is a process of its own. What has passed with this model, revision and CPU is not run
again unless `--again` is given. The other modules of this folder have command lines of their own.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.suite import machine, ratios
from benchmarks.suite.documents import MarkerError
from benchmarks.suite.parts import LARGE, PARTS
from benchmarks.suite.result import Work
from benchmarks.suite.run import Suite, Targets


def main(arguments: list[str] | None = None) -> int:
    """Run the parts, or the check; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [part.name for part in (*PARTS, *LARGE)]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(names)}")
    parser.add_argument("--again", action="store_true", help="run what has passed, too")
    parser.add_argument("--short", action="store_true", help="see that it works; write nothing")
    parser.add_argument("--check", action="store_true", help="compare ratios with the committed")
    parser.add_argument("--large", action="store_true", help="the parts of `make bench-large`")
    data = Path(os.environ.get("LOOKALIKE_DATA", "../shared"))
    parser.add_argument("--data", type=Path, default=data, help="the folder that has CIFAR-10")
    parser.add_argument(
        "--folder", type=Path, default=machine.ROOT / ".bench", help="for stores, vectors, results"
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.parts if name not in names]:
        parser.error(f"no part {unknown[0]!r}; expected some of {', '.join(names)}")
    large = options.large or any(part.name in options.parts for part in LARGE)
    if mixed := [part.name for part in PARTS if large and part.name in options.parts]:
        parser.error(f"{mixed[0]} is no large part; run it by itself")
    if not (options.data / "cifar-10-batches-py").is_dir():
        parser.error(
            f"CIFAR-10 is not in {options.data}; name the folder that has cifar-10-batches-py"
            " with --data or LOOKALIKE_DATA"
        )
    work = Work(options.data.resolve(), options.folder.resolve(), options.short)
    try:
        if options.check:
            return ratios.compare(ratios.PATH, machine.cpu(), ratios.measure(work))
        suite = Suite(work, LARGE, Targets(readme=None)) if large else Suite(work)
        return suite.run(options.parts, options.again)
    except MarkerError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
