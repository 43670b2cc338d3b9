"""Where a corpus is: its folder, whether it is still the same one, and on what kind of drive."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from embed.corpus import Corpus, FolderCorpus
from search_api.stores.store_corpus import MissingCorpus

_MOUNTS = Path("/proc/self/mountinfo")
_REMOTE = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "fuse.", "ncpfs", "vboxsf", "glusterfs")


class Identity(NamedTuple):
    """Which folder is at a path: another one after a drive was attached or detached."""

    device: int
    inode: int


def place_of(corpus: Corpus) -> Path | None:
    """The folder that holds a corpus, whether or not it is there; None if it is in no folder."""
    if isinstance(corpus, FolderCorpus):
        return corpus.root
    if isinstance(corpus, MissingCorpus):
        return corpus.place.parent if corpus.record.kind == "table" else corpus.place
    return None


def identity_of(folder: Path) -> Identity | None:
    """Which folder is at this path now; None if there is none that can be looked at."""
    try:
        found = folder.stat()
        next(folder.iterdir(), None)
    except OSError:
        return None
    return Identity(found.st_dev, found.st_ino)


def is_remote(folder: Path, mounts: Path = _MOUNTS) -> bool:
    """Whether a folder is on a drive of the network, whose changes the system does not tell of."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return False
    kinds = {}
    for line in lines:
        mount, _, rest = line.partition(" - ")
        # Blanks in a path are written as octal codes.
        at = mount.split()[4].encode().decode("unicode_escape", "replace")
        kinds[Path(at)] = rest.split()[0]
    deepest = next((path for path in (folder, *folder.parents) if path in kinds), None)
    return deepest is not None and kinds[deepest].startswith(_REMOTE)
