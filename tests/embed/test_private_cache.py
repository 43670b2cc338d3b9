from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from embed.private_cache import UntrustedFolderError, default_cache, private_folder


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_CACHE", "/somewhere")
    assert default_cache() == Path("/somewhere")
    monkeypatch.delenv("LOOKALIKE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache() == Path("/xdg/lookalike")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_cache() == Path("/home/somebody/.cache/lookalike")


def test_a_user_without_a_home_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOKALIKE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(FileNotFoundError, match="no home folder; set LOOKALIKE_CACHE"):
        default_cache()


def test_a_new_folder_is_private(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (tmp_path / "link").symlink_to(folder)
    assert private_folder(tmp_path / "link") == folder


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_folder_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(UntrustedFolderError, match=rf"mode {mode:04o}.*chmod 700"):
        private_folder(tmp_path)


def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with pytest.raises(UntrustedFolderError, match=f"belongs to user {own}, not to user {own + 1}"):
        private_folder(tmp_path)


def test_a_folder_that_others_can_replace_is_refused(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "open" / "cache")
    folder.parent.chmod(0o777)
    with pytest.raises(UntrustedFolderError, match="everybody can write into"):
        private_folder(folder)
    folder.parent.chmod(0o1777)  # as /tmp
    assert private_folder(folder) == folder
