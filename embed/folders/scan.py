"""Walks a folder, and says of every file in it either that it is taken or why not."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from embed.folders import kinds
from embed.folders.kinds import Skipped
from embed.folders.names import escaped, is_utf8
from embed.folders.options import FolderOptions

LINKS = "links"
_FOLLOW = "--follow-links follows it"


class FileStamp(NamedTuple):
    """A file's size in bytes and its modification time in nanoseconds since 1970.

    If either differs from what was indexed, the file may show another picture by now.
    """

    size: int
    modified_ns: int


@dataclass
class FolderScan:
    """What was found in a folder.

    Attributes:
        taken: the stamp of each file that is taken, by its path within the folder.
        skipped: why each other file, or each folder of such files, is not; by its path, with
            escapes for what is not UTF-8 in it.
        unreachable: folders and links that could not be read.
        mounts: folders at which another drive or network share is mounted.
    """

    taken: dict[str, FileStamp] = field(default_factory=dict)
    skipped: dict[str, Skipped] = field(default_factory=dict)
    unreachable: list[str] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)


def scan_folder(
    root: Path, options: FolderOptions = FolderOptions(), *, recursive: bool = True
) -> FolderScan:
    """Look at every file below ``root``, a folder whose path is resolved.

    Files are taken by their name's ending, whatever their content. A folder that is reached by
    several links is walked once; links are followed after everything else, so that what has a
    place of its own is found there. If it is not ``recursive``, sub-folders are left alone.

    Raises:
        OSError: ``root`` cannot be read.
    """
    walk = _Walk(os.fspath(root), options)
    walk.all(recursive)
    return walk.found


class _Walk:
    def __init__(self, root: str, options: FolderOptions) -> None:
        self.found = FolderScan()
        self._root = root
        self._options = options
        self._places: dict[tuple[int, int], str] = {}
        self._drives: dict[str, int] = {}
        self._links: list[str] = []

    def all(self, recursive: bool) -> None:
        entries = self._entries("", by_link=False)
        if not recursive:
            entries = [entry for entry in entries if not entry.is_dir(follow_symlinks=False)]
        self._walk(self._folders("", entries), by_link=False)
        # What a link leads to can hold links, which are appended meanwhile.
        for link in self._links if recursive else ():
            self._walk([link], by_link=True)

    def _walk(self, folders: list[str], by_link: bool) -> None:
        remaining = folders[::-1]
        while remaining:
            folder = remaining.pop()
            try:
                entries = self._entries(folder, by_link)
            except OSError as error:
                self._unreachable(folder, error)
                continue
            if kinds.is_store([entry.name for entry in entries]):
                self._skip_folder(folder, kinds.STORE)
                continue
            remaining += reversed(self._folders(folder, entries))

    def _folders(self, folder: str, entries: list[os.DirEntry[str]]) -> list[str]:
        """Decide about all entries of a folder; returns the folders to be walked next."""
        return [place for entry in entries if (place := self._folder_of(folder, entry))]

    def _entries(self, folder: str, by_link: bool) -> list[os.DirEntry[str]]:
        """What is in a folder, by name; nothing if a link has led to one that is walked already."""
        path = self._path(folder)
        found = os.stat(path)  # noqa: PTH116 - a Path for each would take longer
        first = self._places.setdefault((found.st_dev, found.st_ino), folder)
        if by_link and first != folder:
            why = f"a link leads here; its pictures are taken from {first or 'the folder itself'}"
            self.found.skipped[folder] = Skipped(LINKS, why)
            return []
        self._drives[folder] = found.st_dev
        if not by_link and found.st_dev != self._drives[folder.rpartition("/")[0]]:
            self.found.mounts.append(folder)
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)

    def _folder_of(self, folder: str, entry: os.DirEntry[str]) -> str | None:
        """Decide about one entry; returns its place if it is a folder to be walked next."""
        place = f"{folder}/{entry.name}" if folder else entry.name
        try:
            is_folder = entry.is_dir(follow_symlinks=False)
            why = self._unwanted(entry.name, is_folder, folder or self._root)
            if not is_folder and (original := kinds.placeholder_of(entry.name)) and is_utf8(place):
                # Under the name of what is not here now, so that it is not taken for deleted.
                self._skip(f"{place.removesuffix(entry.name)}{original}", kinds.NOT_HERE)
            elif why is not None:
                if is_folder:
                    self._skip_folder(place, why)
                else:
                    self._skip(place, why)
            elif is_folder:
                return place
            elif entry.is_symlink():
                self._link(place)
            else:
                self._file(place, entry.stat(follow_symlinks=False))
        except FileNotFoundError:
            pass  # deleted meanwhile
        except PermissionError as error:
            self._unreachable(folder, error)  # it can be listed, but nothing in it looked at
        except OSError as error:
            self._unreachable(place, error)
        return None

    def _unwanted(self, name: str, is_folder: bool, parent: str) -> Skipped | None:
        """Why an entry of ``parent`` is not taken, if its name says so whatever it holds."""
        options = self._options
        if not is_utf8(name):
            return kinds.NOT_UTF8
        if is_folder and kinds.of_another_program(name, parent):
            return None if options.program_folders else kinds.program_folder(name)
        kept_by_program = None if is_folder else kinds.of_name(name)
        if kept_by_program == kinds.APPLE_DOUBLE and options.program_folders:
            return None
        if kept_by_program is None and name.startswith(".") and not options.hidden:
            return kinds.HIDDEN
        return kept_by_program

    def _file(self, place: str, found: os.stat_result) -> None:
        why = kinds.of_ending(place.rpartition("/")[2])
        if not stat.S_ISREG(found.st_mode):
            why = kinds.SPECIAL
        elif why is None and found.st_size == 0:
            why = kinds.EMPTY
        if why is None:
            self.found.taken[place] = FileStamp(found.st_size, found.st_mtime_ns)
        else:
            self._skip(place, why)

    def _link(self, place: str) -> None:
        """Take what a link leads to: a file at once, a folder later."""
        path, name = self._path(place), place.rpartition("/")[2]
        follow = self._options.follow_links
        try:
            target = os.path.realpath(path, strict=True)
            found = os.stat(target)  # noqa: PTH116
        except OSError as error:
            self._broken_link(place, error)
            return
        if stat.S_ISDIR(found.st_mode):
            if not follow:
                self._skip(place, Skipped(LINKS, f"a link to a folder; {_FOLLOW}"))
            elif kinds.of_another_program(name) and not self._options.program_folders:
                self._skip(place, kinds.program_folder(name))
            else:
                self._links.append(place)
        elif follow or self._inside(target) or kinds.of_ending(name) is not None:
            self._file(place, found)
        else:
            self._skip(place, Skipped(LINKS, f"a link out of the folder; {_FOLLOW}"))

    def _broken_link(self, place: str, error: OSError) -> None:
        inside = self._inside(os.path.realpath(self._path(place)))
        if error.errno == errno.ELOOP:
            self._skip(place, Skipped(LINKS, "a link that leads in a circle"))
        elif error.errno == errno.ENOENT:
            self._skip(place, Skipped(LINKS, "a link that leads nowhere"))
            # The drive that it leads to may come back.
            if self._options.follow_links and not inside:
                self.found.unreachable.append(place)
        elif self._options.follow_links or inside:
            self._unreachable(place, error)
        else:
            self._skip(place, Skipped(LINKS, f"a link out of the folder; {_FOLLOW}"))

    def _skip(self, place: str, why: Skipped) -> None:
        self.found.skipped[escaped(place)] = why

    def _skip_folder(self, place: str, why: Skipped) -> None:
        files = self._files_in(place)
        if files:
            reason = f"{why.reason} ({files:,} file{'' if files == 1 else 's'} in it)"
            self._skip(place, Skipped(why.kind, reason, files))

    def _unreachable(self, place: str, error: OSError) -> None:
        place = place or "."
        if place not in self.found.skipped:
            self.found.unreachable.append(place)
            self._skip(place, Skipped("unreachable", f"cannot be read: {error.strerror}"))

    def _files_in(self, place: str) -> int:
        """How many files are in a folder and below, as far as it can be read."""
        count, remaining = 0, [self._path(place)]
        while remaining:
            try:
                with os.scandir(remaining.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            remaining.append(entry.path)
                        else:
                            count += 1
            except OSError:
                continue
        return count

    def _path(self, place: str) -> str:
        return f"{self._root}/{place}" if place else self._root

    def _inside(self, path: str) -> bool:
        return path == self._root or path.startswith(f"{self._root.rstrip('/')}/")
