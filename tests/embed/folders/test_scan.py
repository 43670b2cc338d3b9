from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from embed.corpus import CorpusError, FolderCorpus, Scan
from embed.folders import kinds
from embed.folders.kinds import Skipped, count_kinds
from embed.folders.options import FolderOptions
from embed.folders.scan import FolderScan, scan_folder
from tests.embed.folders.helpers import PICTURE, put


def scanned(root: Path, **options: bool) -> FolderScan:
    return scan_folder(root, FolderOptions(**options))  # type: ignore[arg-type]


def counts(root: Path, **options: bool) -> dict[str, int]:
    return count_kinds(scanned(root, **options).skipped.values())


def test_every_file_is_taken_or_skipped_by_its_kind(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.JPG", "c/d.Jfif", "c/e.jpe")
    put(
        tmp_path,
        "f.mov",
        "c/g.MOV",
        "h.cr2",
        "noending",
        "i.txt",
        "j.png~",
        "v1.2",
        "x.final report",
    )
    put(tmp_path, "Thumbs.db", ".DS_Store", "._a.png", ".hidden.png", ".git/x.png", ".git/o/y")
    put(tmp_path, "empty.png", "empty.txt", data=b"")
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    found = scanned(tmp_path)
    assert list(found.taken) == ["a.png", "b.JPG", "c/d.Jfif", "c/e.jpe"]
    stamp = (tmp_path / "a.png").stat()
    assert found.taken["a.png"] == (stamp.st_size, stamp.st_mtime_ns)
    assert count_kinds(found.skipped.values()) == {
        "hidden files": 3,
        ".mov": 2,
        ".txt": 2,
        "other endings": 3,
        "special files": 2,
        "system files": 2,
        ".cr2": 1,
        "AppleDouble files": 1,
        "empty files": 1,
        "no ending": 1,
    }
    why = "its name is hidden; --hidden takes it (2 files in it)"
    assert found.skipped[".git"] == Skipped("hidden files", why, 2)
    assert found.skipped["h.cr2"].reason == "a camera RAW file; export it as JPEG, PNG or TIFF"
    assert found.skipped["c/g.MOV"].reason == "a video; only pictures are read"
    assert found.unreachable == []


def test_hidden_files_are_taken_if_asked_for(tmp_path: Path) -> None:
    put(
        tmp_path,
        "a.png",
        ".b.png",
        ".c/d.png",
        ".c/.e.mov",
        "._a.png",
        ".DS_Store",
        ".trashes/f.png",
    )
    assert list(scanned(tmp_path).taken) == ["a.png"]
    assert list(scanned(tmp_path, hidden=True).taken) == [".b.png", "a.png", ".c/d.png"]
    assert counts(tmp_path, hidden=True) == {
        ".mov": 1,
        "AppleDouble files": 1,
        "in .trashes": 1,
        "system files": 1,
    }


PROGRAM_FOLDERS = (
    *("@eaDir", "#recycle", "$RECYCLE.BIN", ".Trash-1000", "__MACOSX", "lost+found", ".thumbnails"),
    *(
        "System Volume Information",
        ".picasaoriginals",
        "@Recently-Snapshot",
        "#snapshot",
        ".Trashes",
    ),
    ".AppleDouble",
)


@pytest.mark.parametrize("name", [*PROGRAM_FOLDERS, "@EADIR", "cats/@eaDir"])
def test_folders_of_other_programs_are_left_out_and_counted(name: str, tmp_path: Path) -> None:
    put(tmp_path, "a.png", f"{name}/b.png", f"{name}/deep/er/c.png")
    found = scanned(tmp_path)
    assert list(found.taken) == ["a.png"]
    why = "a folder of another program; --program-folders takes it (2 files in it)"
    assert found.skipped == {name: Skipped(f"in {name.removeprefix('cats/')}", why, 2)}
    assert set(scanned(tmp_path, program_folders=True).taken) == {
        "a.png",
        f"{name}/b.png",
        f"{name}/deep/er/c.png",
    }


def test_of_a_library_of_pictures_the_originals_are_taken(tmp_path: Path) -> None:
    library = tmp_path / "My.photoslibrary"
    put(library, "originals/0/a.png", "resources/derivatives/a_1.png", "database/x.sqlite", "n.png")
    put(tmp_path, "Old.aplibrary/Masters/b.png", "Old.aplibrary/Thumbnails/b.png")
    put(tmp_path, "Cat Previews.lrdata/0/c.png", "FOUND.017/d.png", "lrdata/e.png")
    taken = ["My.photoslibrary/n.png", "My.photoslibrary/originals/0/a.png"]
    assert sorted(scanned(tmp_path).taken) == [
        *taken,
        "Old.aplibrary/Masters/b.png",
        "lrdata/e.png",
    ]
    assert counts(tmp_path) == {
        "in Cat Previews.lrdata": 1,
        "in FOUND.017": 1,
        "in Thumbnails": 1,
        "in database": 1,
        "in resources": 1,
    }
    assert sorted(scanned(library).taken) == ["n.png", "originals/0/a.png"]
    assert len(scanned(tmp_path, program_folders=True).taken) == 8


@pytest.mark.parametrize("file", ["catalogue.sqlite", "store.json"])
def test_a_store_in_the_folder_is_one_entry(file: str, tmp_path: Path) -> None:
    put(tmp_path, "a.png", f"var/{file}", "var/build.lock", "var/pictures/0a/b.png")
    found = scanned(tmp_path, hidden=True, program_folders=True)
    assert list(found.taken) == ["a.png"]
    assert {place: (why.kind, why.files) for place, why in found.skipped.items()} == {
        "var": ("in stores", 3)
    }
    put(tmp_path, "other/build.lock", "other/c.png")
    assert list(scanned(tmp_path).taken) == ["a.png", "other/c.png"]


def test_what_icloud_has_taken_away_is_named_as_it_was(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "cats/.IMG_1.HEIC.icloud", "cats/.b.mov.icloud", "c.icloud", ".icloud")
    for hidden in (False, True):
        skipped = scanned(tmp_path, hidden=hidden).skipped
        assert skipped["cats/IMG_1.HEIC"] == kinds.NOT_HERE
        assert skipped["c.icloud"].kind == ".icloud"
    assert "download it" in kinds.NOT_HERE.reason


def test_folders_of_the_user_are_not_taken_for_those_of_programs(tmp_path: Path) -> None:
    names = ("eaDir", "recycle", "Trash", "thumbnails", "MACOSX", "snapshots", "lost and found")
    put(tmp_path, *(f"{name}/a.png" for name in names))
    assert len(scanned(tmp_path).taken) == len(names)


def test_links_are_skipped_unless_followed(tmp_path: Path) -> None:
    root = tmp_path / "in"
    put(tmp_path, "out/a.png", "out/deep/b.png", "out/c.mov", "in/real/d.png")
    (root / "file.png").symlink_to(tmp_path / "out" / "a.png")
    (root / "film.mov").symlink_to(tmp_path / "out" / "c.mov")
    (root / "folder").symlink_to(tmp_path / "out")
    (root / "alias.png").symlink_to("real/d.png")
    (root / "nowhere.png").symlink_to("gone.png")
    (root / "circle.png").symlink_to("circle.png")
    found = scanned(root)
    assert list(found.taken) == ["alias.png", "real/d.png"]
    assert {place: one.kind for place, one in found.skipped.items()} == {
        "circle.png": "links",
        "file.png": "links",
        "film.mov": ".mov",
        "folder": "links",
        "nowhere.png": "links",
    }
    assert found.skipped["file.png"].reason == (
        "a link out of the folder; --follow-links follows it"
    )
    assert found.skipped["folder"].reason == "a link to a folder; --follow-links follows it"
    found = scanned(root, follow_links=True)
    assert list(found.taken) == [
        *("alias.png", "file.png", "real/d.png", "folder/a.png", "folder/deep/b.png"),
    ]
    assert count_kinds(found.skipped.values()) == {".mov": 2, "links": 2}
    assert found.unreachable == []
    corpus = FolderCorpus(root, options=FolderOptions(follow_links=True))
    assert [corpus.content(item.source) for item in corpus.items] == [PICTURE] * 5
    for source in (
        "../out/a.png",
        "folder/../../out/a.png",
        str(tmp_path / "out/a.png"),
        "a\0.png",
    ):
        with pytest.raises(CorpusError, match="leads out of the folder"):
            corpus.content(source)


def test_loops_of_links_are_walked_once(tmp_path: Path) -> None:
    put(tmp_path, "in/a/b/c.png", "out/d.png")
    root = tmp_path / "in"
    (root / "a" / "b" / "up").symlink_to(root)
    (root / "a" / "self").symlink_to(".")
    (root / "again").symlink_to(root / "a" / "b")
    (root / "zz1").symlink_to(tmp_path / "out")
    (root / "zz2").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "back").symlink_to(root)
    (tmp_path / "out" / "all").symlink_to(tmp_path)
    found = scanned(root, follow_links=True)
    assert list(found.taken) == ["a/b/c.png", "zz1/d.png"]
    assert {place: one.reason.rpartition(" from ")[2] for place, one in found.skipped.items()} == {
        "a/b/up": "the folder itself",
        "a/self": "a",
        "again": "a/b",
        "zz1/back": "the folder itself",
        "zz1/all/in": "the folder itself",
        "zz1/all/out": "zz1",
        "zz2": "zz1",
    }


def test_links_to_a_drive_that_is_away(tmp_path: Path) -> None:
    root = tmp_path / "in"
    put(root, "a.png")
    (root / "drive").symlink_to(tmp_path / "away")
    (root / "b.png").symlink_to(tmp_path / "away" / "b.png")
    (root / "c.png").symlink_to("deleted.png")
    found = FolderCorpus(root, options=FolderOptions(follow_links=True)).scan()
    assert found.unreachable == ("b.png", "drive")
    assert not found.reachable("drive/x/y.png") and not found.reachable("b.png")
    assert found.reachable("c.png") and found.reachable("drive2/y.png")
    assert FolderCorpus(root).scan().unreachable == ()


def test_links_that_cannot_be_followed_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "in/a.png", "in/b/c.png", "out/d.png")
    root = tmp_path / "in"
    (root / "out.png").symlink_to(tmp_path / "out" / "d.png")
    (root / "alias.png").symlink_to("b/c.png")
    realpath = os.path.realpath

    def failing(path: str, *, strict: bool = False) -> str:
        if strict:
            raise PermissionError(13, "Permission denied")
        return realpath(path)

    monkeypatch.setattr(os.path, "realpath", failing)
    found = scanned(root)
    # The folder that holds the links was looked at.
    assert (list(found.taken), found.unreachable) == (["a.png", "b/c.png"], ["alias.png"])
    assert found.skipped["out.png"].kind == "links"
    assert scanned(root, follow_links=True).unreachable == ["alias.png", "out.png"]


def test_links_named_like_folders_of_programs_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path, "in/a.png", "out/d.png")
    (tmp_path / "in" / "@eaDir").symlink_to(tmp_path / "out")
    found = scanned(tmp_path / "in", follow_links=True)
    assert (list(found.taken), list(found.skipped)) == (["a.png"], ["@eaDir"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folders_that_cannot_be_read_as_another_user(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "closed/b.png", "listed/c.png", "listed/d.png", "listed/e/f.png")
    (tmp_path / "closed").chmod(0)
    (tmp_path / "listed").chmod(0o444)
    try:
        found = scanned(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o755)
        (tmp_path / "listed").chmod(0o755)
    assert list(found.taken) == ["a.png"]
    assert found.unreachable == ["closed", "listed"]
    assert found.skipped["closed"] == Skipped("unreachable", "cannot be read: Permission denied")


def test_folders_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.png", "drive/b.png", "cats/c.png")
    scandir = os.scandir

    def failing(path: str) -> object:
        if str(path).endswith("/drive"):
            raise OSError(5, "Input/output error")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    found = FolderCorpus(tmp_path).scan()
    assert [item.source for item in found.items] == ["a.png", "cats/c.png"]
    assert found.unreachable == ("drive",)
    assert found.skipped == {"drive": Skipped("unreachable", "cannot be read: Input/output error")}
    assert not found.reachable("drive/b.png") and found.reachable("cats/c.png")
    with pytest.raises(CorpusError, match="drive cannot be read: Input/output error"):
        FolderCorpus(tmp_path / "drive").scan()


def latin1(root: Path, name: str) -> Path:
    return Path(os.fsdecode(os.fsencode(root) + b"/" + name.encode("latin-1")))


def test_names_that_are_not_utf8_are_skipped_with_the_reason(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "café.png", "cats/b\n\x1b[31m.png", f"{'x' * 251}.png")
    latin1(tmp_path, "café.png").write_bytes(PICTURE)
    latin1(tmp_path, "Zoë").mkdir()
    (latin1(tmp_path, "Zoë") / "b.png").write_bytes(PICTURE)
    (latin1(tmp_path, "Zoë") / "c.png").write_bytes(PICTURE)
    latin1(tmp_path, "link-é.png").symlink_to("a.png")
    found = FolderCorpus(tmp_path).scan()
    assert {item.source for item in found.items} == {
        *("a.png", "café.png", "cats/b\n\x1b[31m.png", f"{'x' * 251}.png"),
    }
    why = Skipped("names that are not UTF-8", "its name is not UTF-8; rename it")
    assert found.skipped == {
        r"caf\xe9.png": why,
        r"Zo\xeb": Skipped(why.kind, f"{why.reason} (2 files in it)", 2),
        r"link-\xe9.png": why,
    }
    with pytest.raises(CorpusError, match=r"Zo\\xeb is not UTF-8; rename the folder"):
        FolderCorpus(latin1(tmp_path, "Zoë"))


def test_a_deep_folder_is_walked(tmp_path: Path) -> None:
    deep = "/".join("d" for _ in range(1500))
    for top, file in (("", "a.png"), (".git/", "b")):
        for n in range(1, len(deep), 400):  # deeper than mkdir can make at once
            (tmp_path / top / deep[:n]).mkdir(parents=True, exist_ok=True)
        put(tmp_path, f"{top}{deep}/{file}")
    try:
        found: Scan = FolderCorpus(tmp_path).scan()
    finally:
        subprocess.run(["rm", "-r", tmp_path / "d", tmp_path / ".git"], check=True)
    assert [(item.source, item.label) for item in found.items] == [(f"{deep}/a.png", "d")]
    assert found.skipped[".git"].files == 1


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    put(tmp_path, "a.mov", "b.mov", "c.cr2")
    with pytest.raises(CorpusError, match=r"no pictures in .*; skipped \.mov 2, \.cr2 1$"):
        FolderCorpus(tmp_path).scan()


def test_a_file_that_is_deleted_meanwhile_is_skipped_when_it_is_read(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    corpus = FolderCorpus(tmp_path)
    found = corpus.scan()
    (tmp_path / "b.png").unlink()
    assert [item.source for item in found.items] == ["a.png", "b.png"]
    with pytest.raises(CorpusError, match=r"b\.png cannot be read: No such file"):
        corpus.content("b.png")


def test_pictures_are_read_whatever_their_ending(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.heic", "c.webp", "d.pfm", "e.ico")
    corpus = FolderCorpus(tmp_path)
    assert [corpus.read(item.source).shape for item in corpus.items] == [(8, 8, 3)] * 5


def test_sub_folders_can_be_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.mov", "c/d.png", "@eaDir/e.png", ".git/f")
    found = scan_folder(tmp_path, recursive=False)
    assert list(found.taken) == ["a.png"]
    assert list(found.skipped) == ["b.mov"]


def test_other_drives_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/b/c", "d"):
        (tmp_path / name).mkdir(parents=True)
    look = os.stat

    def found(path: str) -> os.stat_result:
        values = list(look(path))
        values[2] += path.endswith(("/b", "/c"))
        return os.stat_result(values)

    monkeypatch.setattr(os, "stat", found)
    assert scan_folder(tmp_path).mounts == ["a/b"]
