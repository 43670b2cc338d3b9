"""What a store holds is for its user alone; what somebody asked for is as they like it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from search_api import file_modes
from search_api.file_modes import (
    UmaskError,
    private_files,
    store_umask,
    tighten,
    users_files,
    users_umask,
)
from search_api.settings import StoreLocation
from search_api.stores.opening import open_store
from tests.search_api.cli.helpers import run


@pytest.fixture(autouse=True)
def umask(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("LOOKALIKE_UMASK", raising=False)
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def modes(folder: Path) -> dict[bool, set[int]]:
    """The modes of folders (True) and of files (False)."""
    found: dict[bool, set[int]] = {True: {mode(folder)}, False: set()}
    for path in folder.rglob("*"):
        found[path.is_dir()].add(mode(path))
    return found


def made(folder: Path) -> int:
    path = folder / f"{len(list(folder.iterdir()))}"
    path.touch()
    return mode(path)


def test_files_are_private_in_the_block_but_not_what_was_asked_for(tmp_path: Path) -> None:
    assert users_umask() == 0o022
    with private_files():
        assert made(tmp_path) == 0o600
        with private_files():
            assert made(tmp_path) == 0o600
        assert made(tmp_path) == 0o600
        with users_files():
            assert made(tmp_path) == 0o644
        assert users_umask() == 0o022
        assert made(tmp_path) == 0o600
    assert made(tmp_path) == 0o644


def test_another_umask_for_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOOKALIKE_UMASK", "027")
    with private_files():
        assert made(tmp_path) == 0o640


@pytest.mark.parametrize("text", ["7777", "-1", "rwx", "09", "0o100"])
def test_what_is_no_umask_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("LOOKALIKE_UMASK", text)
    with pytest.raises(UmaskError, match=r"LOOKALIKE_UMASK is '.*octal number up to 077"):
        store_umask()
    done = run("index", "status", "--var", "/nowhere", env={"LOOKALIKE_UMASK": text})
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def open_tree(root: Path) -> None:
    """A folder as an earlier version has left it, and a link out of it."""
    (root / "pictures" / "ab").mkdir(parents=True)
    (root / "pictures" / "ab" / "picture").touch()
    (root / "catalogue.sqlite").touch()
    (root.parent / "outside").touch()
    (root / "link").symlink_to(root.parent / "outside")


def test_an_open_folder_is_tightened_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    var = tmp_path / "var"
    open_tree(var)
    assert tighten(var) == 5
    (var / "link").unlink()
    assert modes(var) == {True: {0o700}, False: {0o600}}
    assert mode(tmp_path / "outside") == 0o644  # links are not followed
    assert len(caplog.records) == 1
    assert f"other users could read {var}; the modes of 5 files" in caplog.text
    assert tighten(var) == 0
    assert len(caplog.records) == 1
    monkeypatch.setenv("LOOKALIKE_UMASK", "027")
    var.chmod(0o750)
    assert tighten(var) == 0  # as was asked for


def test_what_is_not_ours_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_tree(tmp_path / "var")
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    assert tighten(tmp_path / "var") == 0
    monkeypatch.undo()
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "var")
    assert tighten(tmp_path / "var") == 0
    assert tighten(tmp_path / "none") == 0
    assert modes(tmp_path / "var")[False] == {0o644, 0o777}


def test_a_store_is_tightened_when_it_is_opened(tmp_path: Path) -> None:
    var, pictures = tmp_path / "var", tmp_path / "pictures"
    location = StoreLocation(var, pictures=str(pictures))
    with private_files():
        for _ in range(2):
            store = open_store(location, lambda digest: None)
            with store.blobs.holding():
                store.blobs.put(b"a picture")
            store.close()
            assert modes(var) == modes(pictures) == {True: {0o700}, False: {0o600}}
            for folder in (var, pictures):
                for path in (folder, *folder.rglob("*")):
                    path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_folder_of_other_things_is_not_tightened(tmp_path: Path) -> None:
    (tmp_path / "letter").touch()
    store = open_store(StoreLocation(tmp_path), lambda digest: None)
    store.close()
    assert mode(tmp_path / "letter") == 0o644


@pytest.mark.slow
def test_all_that_commands_write_into_a_store_is_private(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_modes, "_users", None)
    var, out = tmp_path / "var", tmp_path / "out"
    out.mkdir()
    picture = next(folder.rglob("*.png"))
    env = {"LOOKALIKE_VAR": str(var), "LOOKALIKE_DATA": str(folder)}
    for arguments in (
        ("index", "build"),
        ("add", picture, "--label", "new"),
        ("index", "snapshot", "one"),
        ("index", "compact"),
        ("classify", picture, "--out", out / "tags.csv"),
        ("evaluate", "--out", out / "report"),
    ):
        done = run(*arguments, env=env)
        assert done.returncode == 0, done.stderr
    assert modes(var) == {True: {0o700}, False: {0o600}}
    assert modes(out) == {True: {0o755}, False: {0o644}}
