"""The operations as a server carries them out, and the points at which one can be interrupted."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import faiss

from embed.corpus import FolderCorpus, Scan
from embed.folders.options import FolderOptions
from index.contract import KEEP, NoGenerationError
from index.filters import parse_filter
from index.local import database
from index.local.catalogue import SqliteCatalogue
from index.local.commit_watermark import CommitWatermark
from search_api.service.engine import SearchEngine
from search_api.service.ingest import Upload
from search_api.service.model_migration import encoder_in_use
from search_api.service.storage.trash import remove_snapshot
from tests.torture.index.stateful.model import FIRST, PAINTERS, PNG, Step

DEAD = 9
"""The exit status of a process that was killed at a point."""


class LabelledCorpus(FolderCorpus):
    """A folder whose labels are in a file next to it, and so may change while names stay."""

    def scan(self) -> Scan:
        labels = json.loads((self.root.parent / "labels.json").read_text())
        found = super().scan()
        items = tuple(replace(item, label=labels.get(item.source)) for item in found.items)
        return replace(found, items=items)


def open_engine(base: Path) -> SearchEngine:
    """A server's engine over ``base``/var, loaded unless nothing has been built yet."""
    catalogue = base / "var" / "catalogue.sqlite"
    model = FIRST
    if catalogue.exists():
        with SqliteCatalogue(catalogue) as opened:
            model = opened.model() or FIRST
    engine = SearchEngine(
        PAINTERS[model],
        LabelledCorpus(base / "pictures", options=FolderOptions(splits="yes")),
        base / "var",
        open_model=lambda folder: PAINTERS[folder.name],
        find_model=lambda digest: Path(digest) if digest in PAINTERS else None,
    )
    try:
        with suppress(NoGenerationError):
            engine.load()
    except BaseException:
        engine.close()
        raise
    return engine


def perform(engine: SearchEngine, step: Step) -> Any:
    """Carry out an operation; returns what can be pickled."""
    return _OPERATIONS[step.name](engine, **step.args)


def _add(engine: SearchEngine, uploads: Any) -> list[Any]:
    return engine.ingest.add(
        [
            Upload(
                PNG[upload["colour"]],
                upload.get("key"),
                upload.get("label"),
                upload.get("split"),
                dict(upload.get("payload", {})),
            )
            for upload in uploads
        ],
        replace=True,
    )


def _update(engine: SearchEngine, id: int, **changes: Any) -> None:
    engine.ingest.update(id, **{"label": KEEP, "split": KEEP, **changes})


def _delete_where(engine: SearchEngine, label: str) -> int:
    where = parse_filter({"must": [{"key": "label", "match": {"value": label}}]})
    return engine.ingest.delete_many(None, where)


def _rebuild(engine: SearchEngine, reembed: bool = False) -> None:
    engine.builder.rebuild(
        encoder_in_use(engine), engine.corpus, reembed=reembed, allow_removal=True
    )


def _compact(engine: SearchEngine, kind: str | None = None) -> None:
    engine.builder.compact(encoder_in_use(engine), kind=kind)


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": _add,
    "update": _update,
    "delete": lambda engine, ids: engine.ingest.delete_many(ids, None),
    "delete_one": lambda engine, id: engine.ingest.delete(id),
    "delete_where": _delete_where,
    "undelete": lambda engine, ids: engine.trash.restore(ids).ids,
    "purge": lambda engine, ids=None: engine.trash.purge(ids).purged,
    "rebuild": _rebuild,
    "compact": _compact,
    "embed": lambda engine, model: bool(engine.builder.embed(PAINTERS[model])),
    "switch": lambda engine, model: bool(engine.builder.switch(PAINTERS[model])),
    "snapshot": lambda engine, name: bool(engine.store.snapshots.create(name)),
    "restore": lambda engine, name: engine.store.snapshots.restore(name)[1:],
    "remove": lambda engine, name: remove_snapshot(engine.store, name),
}


@dataclass(frozen=True)
class Outcome:
    """What an operation returned, or the name of its error and its traceback; or that it died."""

    value: Any = None
    refusal: str | None = None
    trace: str = field(default="", repr=False)
    died: bool = False


def attempt(engine: SearchEngine, step: Step) -> Outcome:
    """Carry out an operation; an error is an outcome, too."""
    try:
        return Outcome(perform(engine, step))
    except Exception as error:  # noqa: BLE001 - any error is judged by the model
        return Outcome(refusal=type(error).__name__, trace=traceback.format_exc())


@contextmanager
def points(reached: Callable[[str], None]) -> Iterator[None]:
    """Call ``reached`` with a name before each call that reads or changes what is stored."""
    with ExitStack() as undo:

        def watch(owner: Any, name: str) -> None:
            original = getattr(owner, name)

            def call(*args: Any, **kwargs: Any) -> Any:
                reached(name)
                return original(*args, **kwargs)

            undo.enter_context(patch.object(owner, name, call))

        for name in _CALLS:
            watch(os, name)
        watch(shutil, "rmtree")
        watch(faiss, "write_index")
        watch(CommitWatermark, "advance")
        watch(database, "_count_commit")
        for name in ("read", "read_one_state", "write", "write_with"):
            watch(database.Database, name)
        yield


_CALLS = ("rename", "replace", "fsync", "mkdir", "unlink", "pwrite", "ftruncate", "link")

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


def attempt_and_die(base: Path, step: Step, point: int) -> Outcome:
    """Carry out an operation in a server of its own, which is killed at the ``point``-th point."""
    ours, theirs = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_victim, args=(base, step, point, theirs))
    process.start()
    theirs.close()
    with closing(ours):
        try:
            return ours.recv()
        except EOFError:
            process.join()
            assert process.exitcode == DEAD, process.exitcode
            return Outcome(died=True)
        finally:
            process.join()
            process.close()


def _victim(base: Path, step: Step, point: int, result: Connection) -> None:
    faiss.omp_set_num_threads(1)
    engine = open_engine(base)
    left = point

    def reached(_: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os._exit(DEAD)

    with points(reached):
        outcome = attempt(engine, step)
    result.send(outcome)
    result.close()
    with suppress(Exception):
        engine.close()
