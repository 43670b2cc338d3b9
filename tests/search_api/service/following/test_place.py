"""Where a corpus is, and what kind of drive that is on."""

from __future__ import annotations

from pathlib import Path

import pytest

from embed.corpus import ArrayCorpus, FolderCorpus, TableCorpus
from embed.folders.options import FolderOptions
from embed.pictures import PictureLimits
from search_api.service.following.place import identity_of, is_remote, place_of
from search_api.stores.store_corpus import CorpusRecord, MissingCorpus

MOUNTS = r"""22 1 0:21 / / rw,relatime shared:1 - overlay overlay rw
30 22 8:1 / /home rw - ext4 /dev/sda1 rw
31 30 0:40 / /home/ann/My\040Photos rw - cifs //nas/photos rw
32 22 0:41 / /mnt/nas rw shared:5 - nfs4 nas:/export rw
33 22 0:42 / /mnt/phone rw - fuse.sshfs phone:/ rw
"""


def test_the_folder_of_each_kind_of_corpus(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("file,label\n")
    assert place_of(FolderCorpus(folder)) == folder
    assert place_of(TableCorpus(table)) == tmp_path
    assert place_of(ArrayCorpus("digits", ("one",), dict)) is None
    for kind, place, expected in (
        ("folder", tmp_path / "gone", tmp_path / "gone"),
        ("table", tmp_path / "gone" / "t.csv", tmp_path / "gone"),
    ):
        record = CorpusRecord(kind, "gone", place)
        assert place_of(MissingCorpus(record, PictureLimits(), FolderOptions())) == expected


def test_another_folder_in_its_place_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "drive"
    assert identity_of(folder) is None
    folder.mkdir()
    first = identity_of(folder)
    assert first is not None
    (folder / "a").write_text("")
    assert identity_of(folder) == first
    folder.rename(tmp_path / "away")
    folder.mkdir()
    assert identity_of(folder) not in (first, None)
    (tmp_path / "file").write_text("")
    assert identity_of(tmp_path / "file") is None


@pytest.mark.parametrize(
    ("folder", "remote"),
    [
        ("/home/ann/Pictures", False),
        ("/home/ann/My Photos", True),
        ("/home/ann/My Photos/2024", True),
        ("/mnt/nas/a", True),
        ("/mnt/phone", True),
        ("/mnt/nasty", False),
        ("/", False),
    ],
)
def test_network_drives(folder: str, remote: bool, tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert is_remote(Path(folder), tmp_path / "mounts") is remote
    assert is_remote(Path(folder), tmp_path / "none") is False
