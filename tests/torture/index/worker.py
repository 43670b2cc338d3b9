"""Adds, changes, deletes and rebuilds in a store until it is killed; run as a program.

Prints ``begin`` before and ``done`` after each write: what is done must survive.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np

from index.ann import kinds
from index.ann.vector_files import workspace
from index.blobs.folder import FolderBlobs
from index.contract import Vectors
from index.local import generations, snapshots
from index.local.catalogue import SqliteCatalogue
from index.records import Record

DIMENSION = 8
KEYS = 60
MODEL = "m"


def vector(version: int) -> Vectors:
    """The embedding of one version of a picture, float32 (1, d)."""
    x = np.random.default_rng(version).standard_normal((1, DIMENSION))
    return (x / np.linalg.norm(x)).astype(np.float32)


def content(version: int) -> bytes:
    """The bytes of one version of a picture."""
    return f"picture {version}".encode() * 40


def build(root: Path, catalogue: SqliteCatalogue) -> None:
    """Publish what the catalogue holds as a new generation."""
    with workspace(root) as folder:
        with catalogue.reading_embeddings(MODEL) as stored:
            kind = "ivf" if stored.count >= 300 else "exact"
            collected = kinds.collect(stored.pieces, stored.count, DIMENSION, kind, folder)
        index = kinds.build_collected(collected)
        generations.publish(root, index, MODEL, stored.moment)


def main() -> None:
    """Work until killed."""
    root, seed = Path(sys.argv[1]), int(sys.argv[2])
    choose = random.Random(seed)
    catalogue = SqliteCatalogue(root / "catalogue.sqlite")
    blobs = FolderBlobs(root / "pictures")
    print("ready", flush=True)
    for number in range(10**9):
        key, version = choose.randrange(KEYS), 1 + seed * 10**6 + number
        action = choose.choices(["add", "delete", "build", "keep"], [60, 25, 12, 3])[0]
        print("begin", action, key, version, flush=True)
        if action == "add":
            with blobs.holding():
                name = blobs.put(content(version))
                record = Record(f"key:{key}", None, None, {"version": version}, name, "added")
                catalogue.upsert([record], vector(version), MODEL)
        elif action == "delete":
            stored = catalogue.all_sources().get(f"key:{key}")
            if stored is not None:
                catalogue.delete([stored], tombstone=True)
        elif action == "build":
            build(root, catalogue)
            blobs.sweep(lambda: catalogue.content_hashes("added") | snapshots.content_hashes(root))
        else:
            for old in snapshots.names(root):
                snapshots.remove(root, old)
            snapshots.create(root, catalogue)
        print("done", action, key, version, flush=True)


if __name__ == "__main__":
    main()
