"""Writes, deletions, snapshots, compactions and switches of models there and back, until killed.

Run as a program by `tests.torture.index.test_storm`, several at once on one store. Each line on the
standard output says what begins or is done.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from embed.corpus import FolderCorpus
from index.contract import (
    ModelChangedError,
    SnapshotError,
    StoreBusyError,
    UnknownIdError,
)
from index.local.catalogue import SqliteCatalogue
from search_api.service.engine import SearchEngine
from search_api.service.ingest import Upload
from tests.search_api.conftest import MeanColour, png
from tests.search_api.helpers import OTHER, Wider

KEYS = 12
SHARES = {
    "writes": {"add": 50, "delete": 25, "label": 20, "keep": 5},
    "builds": {"compact": 50, "switch": 40, "keep": 10},
}
REFUSED = (StoreBusyError, ModelChangedError, SnapshotError, UnknownIdError)


def picture(version: int) -> bytes:
    """The bytes of one version of a picture: a plain one of a colour of its own."""
    return png((version % 256, version // 256 % 256, 200))


def opened(folder: Path, var: Path) -> SearchEngine:
    """The store, with the model that it has by now."""
    with SqliteCatalogue(var / "catalogue.sqlite") as catalogue:
        digest = catalogue.model()
    known = {MeanColour().digest: MeanColour, OTHER: Wider}
    return SearchEngine(
        known[digest or MeanColour().digest](),
        FolderCorpus(folder),
        var,
        open_model=lambda path: known[str(path)](),
        find_model=Path,
        follow=True,
    )


def act(engine: SearchEngine, action: str, key: str, version: int) -> None:
    """Do one thing; ``key`` names a picture, ``version`` is a new number."""
    stored = engine.catalogue.all_sources("added").get(f"key:{key}")
    if action == "add":
        added = Upload(picture(version), key, None, payload={"version": version})
        engine.ingest.add([added], replace=True)
    elif action == "delete" and stored is not None:
        engine.ingest.delete(stored)
    elif action == "label" and stored is not None:
        engine.ingest.update(stored, label=str(version))
    elif action == "keep":
        for name in engine.store.snapshots.names():
            engine.store.snapshots.remove(name)
        engine.store.snapshots.create(f"s{version}")
    elif action in ("compact", "switch"):
        now = engine.catalogue.model() or ""
        other = OTHER if now == MeanColour().digest else MeanColour().digest
        encoder = engine.model(now if action == "compact" else other)
        assert encoder is not None
        if action == "compact":
            engine.builder.compact(encoder)
        else:
            engine.builder.switch(encoder)


def main() -> None:
    """Work until killed."""
    folder, var, what, seed = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    name, shares = sys.argv[5], SHARES[what]
    choose = random.Random(seed)
    engine = opened(folder, var)
    engine.load()
    print("ready", flush=True)
    for number in range(1, 10**9):
        (action,) = choose.choices(list(shares), list(shares.values()))
        key, version = f"{name}{choose.randrange(KEYS)}", seed * 1000 + number
        print("begin", action, key, version, flush=True)
        try:
            engine.served.current()  # as each request does
            act(engine, action, key, version)
        except REFUSED as error:
            print("refused", action, key, version, type(error).__name__, flush=True)
        else:
            print("done", action, key, version, flush=True)


if __name__ == "__main__":
    main()
