import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from index.files import remove_folder, write_atomically
from index.temporaries import is_locked, remove_orphans, temporary_file, temporary_folder

ROOT = Path(__file__).parents[2]
MAKER = """
import sys
from pathlib import Path
from index.temporaries import temporary_file, temporary_folder
root = Path(sys.argv[1])
with temporary_folder(root) as folder, temporary_file(root / "CURRENT") as file:
    (folder / "half").write_bytes(b"half")
    file.write_bytes(b"half")
    print("made", flush=True)
    sys.stdin.read()
"""


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_makers_have_folders_of_their_own(tmp_path: Path) -> None:
    with temporary_folder(tmp_path, "a@") as one, temporary_folder(tmp_path, "a@") as two:
        assert one != two
        assert one.name.startswith(".tmp-a@")
        assert is_locked(one)
        assert remove_orphans(tmp_path) == 0
        one.rename(tmp_path / "kept")
        assert is_locked(tmp_path / "kept")
    assert left(tmp_path) == ["kept"]
    assert not is_locked(tmp_path / "kept")


def test_only_what_killed_makers_left_is_removed(tmp_path: Path) -> None:
    maker = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert maker.stdout is not None and maker.stdout.readline() == b"made\n"
    made = left(tmp_path)
    assert len(made) == 2
    (tmp_path / ".tmp-monday").mkdir()  # of a version before this one
    (tmp_path / ".CURRENT.17-140.tmp").write_bytes(b"half")
    (tmp_path / ".lock").touch()
    (tmp_path / "monday").mkdir()
    assert remove_orphans(tmp_path) == 2
    assert left(tmp_path) == sorted([*made, ".lock", "monday"])
    maker.send_signal(signal.SIGKILL)
    maker.communicate()
    assert remove_orphans(tmp_path) == 2
    assert left(tmp_path) == [".lock", "monday"]
    assert remove_orphans(tmp_path / "none") == 0


def test_a_remover_between_making_and_locking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open
    removed: list[int] = []

    def open_after_removal(path: Path, flags: int, *mode: int, dir_fd: int | None = None) -> int:
        if not removed and Path(path).exists():
            removed.append(0)
            removed[0] = remove_orphans(tmp_path)
        return opened(path, flags, *mode, dir_fd=dir_fd)

    monkeypatch.setattr("os.open", open_after_removal)
    with temporary_folder(tmp_path) as folder:
        assert removed == [1]
        assert folder.is_dir() and is_locked(folder)
    removed.clear()
    with temporary_file(tmp_path / "x") as file:
        assert removed == [1]
        assert file.is_file() and is_locked(file)
    assert left(tmp_path) == []


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ".tmp-link").symlink_to(kept)
    assert remove_orphans(tmp_path / "store") == 0
    assert kept.is_dir()


def test_threads_write_one_file_at_once(tmp_path: Path) -> None:
    def write(number: int) -> None:
        def fill(path: Path) -> None:
            path.write_bytes(b"%d" % number * 1000)

        for _ in range(20):
            write_atomically(tmp_path / "x", fill)
            remove_orphans(tmp_path)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set((tmp_path / "x").read_bytes())) == 1
    assert left(tmp_path) == ["x"]


def test_a_folder_is_removed_whatever_an_earlier_crash_left(tmp_path: Path) -> None:
    for name in ("monday", ".tmp-monday"):
        (tmp_path / name / "deep").mkdir(parents=True)
    remove_folder(tmp_path / "monday")
    assert left(tmp_path) == [".tmp-monday"]
