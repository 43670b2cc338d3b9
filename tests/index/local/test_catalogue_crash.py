import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from index.local.catalogue import SqliteCatalogue
from tests.index.vectors import random_vectors

WRITER = """
import sys
from pathlib import Path
from index.local.catalogue import SqliteCatalogue
from index.records import Record
from tests.index.vectors import random_vectors
catalogue = SqliteCatalogue(Path(sys.argv[1]))
for i in range(10**6):
    ids = catalogue.upsert([Record(f"{i}/{j}") for j in range(5)], random_vectors(5, 8, i), "m")
    print(i, *ids, flush=True)
"""


def test_nothing_acknowledged_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    root = Path(__file__).parents[3]
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(30)]
    child.send_signal(signal.SIGKILL)
    lines += child.stdout.readlines()
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL

    acknowledged = {}
    for line in lines:
        if line.endswith("\n"):
            batch, *ids = map(int, line.split())
            acknowledged.update({f"{batch}/{j}": stored for j, stored in enumerate(ids)})
    assert len(acknowledged) >= 150
    catalogue = SqliteCatalogue(path)
    sources = catalogue.all_sources()
    assert acknowledged.items() <= sources.items()
    assert len(sources) % 5 == 0
    ids, xb = catalogue.embeddings("m")
    assert len(ids) == len(sources)
    np.testing.assert_array_equal(xb[:5], random_vectors(5, 8, 0))
    catalogue.close()
