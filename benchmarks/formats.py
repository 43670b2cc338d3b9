"""What becomes of every file in a folder: read, refused and why, how long, how much memory.

    python -m benchmarks.formats FOLDER [--against CHECKOUT] [--list]

Each file is decoded as served: small, ordinary PNGs and JPEGs in the process, all others in a
worker process with its limits. With ``--against``, another checkout's code decodes the same files,
and what only one of the two reads is listed. ``--list`` prints each refused file with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

HANG_SECONDS = 31.0
NAMED = re.compile(r" is (.+), which is not read")


def decode_all(folder: Path) -> None:
    """Print a JSON object for each file, and one with the peaks of memory; in a process of its own
    whose ``PYTHONPATH`` decides whose code decodes."""
    from embed.decoding.workers import decoders
    from embed.pictures import PictureError, decode

    peak = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        started, text = time.perf_counter(), ""
        try:
            decode(path.read_bytes())
            outcome = "read"
        except PictureError as error:
            outcome, text = error.reason, str(error)
        except Exception as error:  # noqa: BLE001 - none may be raised; that is counted
            outcome, text = "crash", repr(error)
        seconds = time.perf_counter() - started
        peak = max(peak, *(high_water(pid) for pid in [*decoders.pids, os.getpid()]))
        name = str(path.relative_to(folder))
        print(json.dumps({"name": name, "outcome": outcome, "text": text, "seconds": seconds}))
    print(json.dumps({"peak": peak}))


def high_water(pid: int) -> int:
    """The most memory that a process has used, in bytes."""
    try:
        text = Path(f"/proc/{pid}/status").read_text("ascii")
    except OSError:
        return 0
    return 1024 * int(text.partition("VmHWM:")[2].split()[0])


def run(checkout: Path, folder: Path) -> tuple[dict[str, dict], int, float, str]:
    """Each file's outcome by name, the peak of memory in bytes, seconds, and what was on stderr."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", __file__, "--decode", str(folder)],
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - started
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["name"]: line for line in lines[:-1]}, lines[-1]["peak"], seconds, done.stderr


def kind(line: dict) -> str:
    """The reason of a refusal, and what the file is where that is known."""
    found = NAMED.search(line["text"])
    return line["outcome"] + (f": {found[1]}" if found else "")


def report(name: str, found: tuple[dict[str, dict], int, float, str]) -> None:
    files, peak, seconds, errors = found
    counts = Counter(kind(line) for line in files.values())
    hangs = sum(line["seconds"] > HANG_SECONDS for line in files.values())
    slowest = max(files.values(), key=lambda line: line["seconds"])
    print(f"\n{name}: {len(files):,} files, {counts.pop('read', 0):,} read, in {seconds:.1f} s")
    said = len(errors.splitlines())
    print(f"crashes {counts.pop('crash', 0)}, hangs {hangs}, lines on stderr {said}")
    print(f"slowest {slowest['seconds']:.2f} s ({slowest['name']})")
    print(f"largest process {peak / 2**20:,.0f} MiB")
    for reason, number in sorted(counts.items(), key=lambda pair: -pair[1]):
        print(f"  {number:5,}  {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--list", action="store_true", help="print each refused file")
    parser.add_argument("--decode", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.decode:
        decode_all(options.folder)
        return
    here = run(Path(__file__).parents[1], options.folder)
    report("this checkout", here)
    if options.list:
        for name, line in here[0].items():
            if line["outcome"] != "read":
                print(f"{name}: {line['outcome']}: {line['text']}")
    if options.against:
        there = run(options.against.resolve(), options.folder)
        report(str(options.against), there)
        for title, one, other in (("here", here, there), ("there", there, here)):
            names = [
                name
                for name, line in one[0].items()
                if line["outcome"] == "read" and other[0][name]["outcome"] != "read"
            ]
            print(f"\nread only {title}: {len(names)}")
            if title == "there" or options.list:
                print("\n".join(f"  {name}" for name in names))


if __name__ == "__main__":
    main()
