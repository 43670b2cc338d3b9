"""Makes snapshots whose names it reads from its input; run as a program.

For each line ``NAME THREADS`` so many threads make the snapshot at once; each prints ``made``,
``exists`` or ``failed``.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from index.contract import SnapshotExistsError
from index.local import snapshots
from index.local.catalogue import SqliteCatalogue


def main() -> None:
    """Work until the input ends."""
    root = Path(sys.argv[1])
    catalogue = SqliteCatalogue(root / "catalogue.sqlite")
    printing = threading.Lock()

    def make(name: str) -> None:
        try:
            snapshots.create(root, catalogue, name)
            word = "made"
        except SnapshotExistsError:
            word = "exists"
        except Exception as error:  # noqa: BLE001 - counted by the caller
            word = f"failed {error}"
        with printing:
            print(word.replace("\n", " "), flush=True)

    print("ready", flush=True)
    for line in sys.stdin:
        name, count = line.split()
        threads = [threading.Thread(target=make, args=(name,)) for _ in range(int(count))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
