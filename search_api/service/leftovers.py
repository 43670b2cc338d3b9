"""Removing what killed processes left in a store's folder."""

from __future__ import annotations

import logging
from pathlib import Path

from embed.encoder import PictureEncoder
from index.contract import Store
from index.temporaries import remove_if_free, remove_orphans

log = logging.getLogger(__name__)

_FOLDERS = (".", "models", "classifiers", "corpus")


def remove_leftovers(var: Path, store: Store[PictureEncoder]) -> int:
    """Remove unfinished files and folders whose makers have died; return how many.

    What a living process on the store is making is locked, and stays.
    """
    removed = store.remove_orphans()
    removed += sum(remove_orphans(var / name) for name in _FOLDERS)
    # Jobs lock these files for as long as they run; the jobs themselves stay recorded.
    removed += sum(remove_if_free(path) for path in (var / "jobs").glob("*.running"))
    if removed:
        log.info("removed %d files and folders that killed processes left", removed)
    return removed
