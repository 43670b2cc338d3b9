"""How much memory a process may use."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from index import memory


def test_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CONTROL_GROUP", group)
    whole = memory.machine_memory()
    assert whole > 2**28
    group.write_text("max\n")
    assert memory.machine_memory() == whole
    group.write_text("1048576\n")
    assert memory.machine_memory() == 2**20


def test_a_limit_on_data_spares_mapped_files(tmp_path: Path) -> None:
    code = """
        import mmap, os, sys
        from index.memory import available_memory, limit_data, machine_memory
        assert available_memory() == machine_memory()
        os.truncate(sys.argv[1], 2**28)
        limit_data(2**26)
        assert available_memory() < machine_memory() or machine_memory() < 2**28
        with open(sys.argv[1], "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert len(bytearray(2**24)) == 2**24
        try:
            bytearray(2**27)
        except MemoryError:
            print("refused", mapped[-1])
    """
    (tmp_path / "file").touch()
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "file")]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"refused 0\n"
