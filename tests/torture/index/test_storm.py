"""kill -9 in the middle of a storm of writes, snapshots, compactions and switches of models."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from search_api.service.engine import SearchEngine
from tests.search_api.conftest import encoder, engine, folder
from tests.torture.index.conftest import COUNTS
from tests.torture.index.storm import opened, picture

__all__ = ["encoder", "engine", "folder"]
ROOT = Path(__file__).parents[3]


class Stored(NamedTuple):
    """What a key holds: the version of its picture, and its label."""

    version: int
    label: str | None


State = dict[str, Stored | None]


def start(folder: Path, var: Path, what: str, seed: int, name: str) -> subprocess.Popen[str]:
    """A process that acts on the store; its lines go to a file that does not fill up as a pipe."""
    output = var.parent / f"{name}.log"
    program = [sys.executable, "-m", "tests.torture.index.storm"]
    with output.open("w") as file:
        return subprocess.Popen(
            [*program, str(folder), str(var), what, str(seed), name],
            stdout=file,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )


def lines(var: Path, name: str) -> list[list[str]]:
    text = (var.parent / f"{name}.log").read_text()
    return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]


def apply(state: State, found: list[list[str]]) -> tuple[Counter[str], list[str] | None]:
    """Bring the state up to date; return what was acknowledged, and what was not when it ended."""
    done: Counter[str] = Counter()
    open_: list[str] | None = None
    for what, *more in found:
        open_ = more if what == "begin" else None
        if what == "done":
            done[more[0]] += 1
            change(state, *more[:3])
    return done, open_


def change(state: State, action: str, key: str, version: str) -> None:
    was = state.get(key)
    if action == "add":
        state[key] = Stored(int(version), None)
    elif action == "delete":
        state[key] = None
    elif action == "label" and was is not None:
        state[key] = was._replace(label=version)


def check(folder: Path, var: Path, state: State, unanswered: list[list[str]]) -> None:
    """Every acknowledged write is there, and listing, search and verify agree."""
    engine = opened(folder, var)
    try:
        engine.load()  # as a server does, which also completes an interrupted switch
        catalogue = engine.catalogue
        stored = {
            entry.source.removeprefix("key:"): Stored(
                int(str(entry.payload["version"])), entry.label
            )
            for entry in catalogue.find(list(catalogue.all_sources("added").values()))
        }
        for action, key, version, *_ in unanswered:
            if stored.get(key) != state.get(key):
                change(state, action, key, version)
        assert stored == {key: found for key, found in state.items() if found is not None}

        model = catalogue.model()
        assert engine.manifest.model_digest == model == engine.encoder.digest
        if set(catalogue.model_digests()) != {model}:  # added during the switch
            engine.builder.compact(engine.encoder)
        assert set(catalogue.model_digests()) == {model}
        ids, xb = catalogue.embeddings(str(model))
        index = engine.served.current().index
        np.testing.assert_array_equal(index.ids(), ids)
        np.testing.assert_array_equal(index.ids(), catalogue.ids())
        np.testing.assert_allclose(index.vectors(ids), xb, atol=1e-6)
        position = {int(id_): row for row, id_ in enumerate(ids)}
        for key, id_ in catalogue.all_sources("added").items():
            data = picture(stored[key.removeprefix("key:")].version)
            expected = engine.encoder.encode([engine.read(data)]).embeddings[0]
            np.testing.assert_allclose(xb[position[id_]], expected, atol=1e-5)
        assert [found for found in engine.store.verify() if found.problem is not None] == []
    finally:
        engine.close()


@pytest.mark.slow
def test_killed_in_a_storm(
    engine: SearchEngine, folder: Path, counted: Callable[[str, str], None]
) -> None:
    """Two processes that write, one that builds; all, one server or the builder are killed."""
    var, choose = engine.var, random.Random(7)
    engine.close()
    state: State = {}
    done: Counter[str] = Counter()
    killed: Counter[str] = Counter()
    kinds = {"a": "writes", "b": "writes", "c": "builds"}
    running: dict[str, subprocess.Popen[str]] = {}
    try:
        for number in range(COUNTS.storms):
            for name, what in kinds.items():
                if name not in running:
                    running[name] = start(folder, var, what, 10 * number + ord(name), name)
            for name in kinds:
                while ["ready"] not in lines(var, name):
                    assert running[name].poll() is None, f"{name} ended"
                    time.sleep(0.05)
            time.sleep(choose.uniform(0.2, 3))
            for name in kinds:
                assert running[name].poll() is None, f"{name} ended: {lines(var, name)[-1:]}"
            # The others go on for a while; then they end, too, so that nothing changes any more.
            for names in (choose.choice(["abc", "ab", "c", "a"]), kinds):
                for name in names:
                    running[name].kill()
                for name in names:
                    running[name].wait()
                time.sleep(choose.uniform(0, 1))
            running.clear()
            unanswered = []
            for name in kinds:
                acknowledged, open_ = apply(state, lines(var, name))
                done += acknowledged
                if open_ is not None:
                    unanswered.append(open_)
                    killed[open_[0]] += 1
            check(folder, var, state, unanswered)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    assert done["add"] and done["switch"]
    counted(
        f"kill -9 of {COUNTS.storms} storms of two servers and a builder",
        f"{sum(done.values())} acknowledged ({dict(done)}), none lost; "
        f"killed in the middle of {dict(killed)}",
    )
