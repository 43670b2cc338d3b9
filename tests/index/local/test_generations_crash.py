import os
import shutil
from collections.abc import Callable
from pathlib import Path

import faiss
import pytest

from index.local.generations import load_current, publish, verify
from tests.index.local.test_generations import an_index, names


class Killed(BaseException):
    """Simulates the end of the process."""


@pytest.mark.parametrize("step", range(23))
def test_killed_at_any_step_the_old_or_the_new_is_served(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill before the step-th call that changes the disk, without any clean-up."""
    for count in (1, 2, 3):
        publish(tmp_path, an_index(count), "m")
    calls = 0

    def killer(name: str, original: Callable[..., object]) -> None:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls > step:
                raise Killed
            return original(*args, **kwargs)

        monkeypatch.setattr(name, call)

    for name in ("rename", "replace", "fsync", "mkdir", "unlink"):
        killer(f"os.{name}", getattr(os, name))
    killer("faiss.write_index", faiss.write_index)
    killer("shutil.rmtree", shutil.rmtree)
    try:
        publish(tmp_path, an_index(4), "m")
        finished = True
    except Killed:
        finished = False
    monkeypatch.undo()

    index, manifest = load_current(tmp_path, "m")
    assert index.count() in ((4,) if finished else (3, 4))
    assert manifest.count == index.count()
    assert all(finding.problem is None for finding in verify(tmp_path))
    served = index.count()

    assert publish(tmp_path, an_index(9), "m").generation > manifest.generation
    assert load_current(tmp_path, "m")[0].count() == 9
    assert len(names(tmp_path / "generations")) == 3
    assert not any(name.startswith(".tmp") for name in names(tmp_path / "generations"))
    assert names(tmp_path) == [".lock", "CURRENT", "generations"]
    assert served in (3, 4)


def test_a_failure_before_the_switch_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, an_index(3), "m")
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        if Path(target).name == "CURRENT":
            raise OSError("power cut")
        replace(source, target)

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="power cut"):
        publish(tmp_path, an_index(4), "m")
    monkeypatch.undo()
    assert load_current(tmp_path, "m")[0].count() == 3
    assert publish(tmp_path, an_index(5), "m").generation == 3
    assert load_current(tmp_path, "m")[0].count() == 5


def test_everything_is_on_disk_before_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, int]] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def synced(handle: int) -> None:
        events.append(("fsync", os.fstat(handle).st_ino))
        fsync(handle)

    def renamed(source: Path, target: Path) -> None:
        rename(source, target)
        events.append(("rename", target.stat().st_ino))

    def replaced(source: Path, target: Path) -> None:
        replace(source, target)
        events.append(("replace", target.stat().st_ino))

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr("os.rename", renamed)
    monkeypatch.setattr("os.replace", replaced)
    publish(tmp_path, an_index(), "m")
    monkeypatch.undo()

    generations = tmp_path / "generations"
    folder, current = generations / "000001", tmp_path / "CURRENT"
    switch = events.index(("replace", current.stat().st_ino))
    named = events.index(("rename", folder.stat().st_ino))
    manifest = events.index(("fsync", (folder / "manifest.json").stat().st_ino))
    assert ("fsync", (folder / "index.faiss").stat().st_ino) in events[:named]
    assert ("fsync", folder.stat().st_ino) in events[manifest:named]
    assert ("fsync", generations.stat().st_ino) in events[named:switch]
    assert ("fsync", current.stat().st_ino) in events[named:switch]
    assert ("fsync", tmp_path.stat().st_ino) in events[switch:]
