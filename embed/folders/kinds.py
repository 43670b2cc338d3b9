"""What kinds of files a folder holds besides pictures, and why they are not taken."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from embed.pictures import SUFFIXES

_SHOWN = 12
"""How many kinds are named in one line."""


class Skipped(NamedTuple):
    """Why a file, or all files of a folder, are not taken.

    Attributes:
        kind: what it is, in words that several have in common: ``.mov``, ``links``.
        reason: a sentence for people.
        files: how many files this stands for: more than one for a folder.
    """

    kind: str
    reason: str
    files: int = 1


def count_kinds(skipped: Iterable[Skipped]) -> dict[str, int]:
    """How many files are skipped of each kind, the most frequent first."""
    counts = Counter[str]()
    for one in skipped:
        counts[one.kind] += one.files
    return dict(sorted(counts.items(), key=lambda found: (-found[1], found[0])))


def in_words(counts: Mapping[str, int]) -> str:
    """The most frequent kinds with their counts: ``.mov 5, .heic 2, links 2``."""
    shown = [f"{kind} {count:,}" for kind, count in list(counts.items())[:_SHOWN]]
    others = sum(list(counts.values())[_SHOWN:])
    return ", ".join([*shown, f"others {others:,}"] if others else shown)


def _reasons(reason: str, endings: str) -> dict[str, str]:
    return {f".{ending}": reason for ending in endings.split()}


_REASONS = {
    **_reasons(
        "a camera RAW file; export it as JPEG, PNG or TIFF",
        "3fr ari arw bay cap cr2 cr3 crw dcr dng drf eip erf fff gpr iiq k25 kdc mdc mef mos mrw"
        " nef nrw orf pef ptx pxn r3d raf raw rw2 rwl rwz sr2 srf srw x3f",
    ),
    **_reasons(
        "a video; only pictures are read",
        "3g2 3gp asf avi flv insv lrv m2ts m2v m4v mkv mov mp4 mpeg mpg mts mxf ogv vob webm wmv",
    ),
    **_reasons(
        "a project of a paint program; export it as JPEG, PNG or TIFF",
        "af afphoto clip cpt kra mdp pdn procreate psb psd pspimage xcf",
    ),
    **_reasons("a drawing; export it as PNG", "ai cdr dwg dxf emf eps odg svg svgz vsdx wmf"),
    **_reasons(
        "a document; export its pages as JPEG or PNG",
        "doc docx djvu epub indd key odp ods odt pages pdf pps ppt pptx ps rtf xls xlsx",
    ),
    **_reasons(
        "a packed file; unpack it to take the pictures in it",
        "7z bz2 cbr cbz gz rar tar tgz tbz2 txz xz zip zst",
    ),
    **_reasons("a sound file; only pictures are read", "aac flac m4a mp3 ogg opus wav wma"),
    **_reasons("a sidecar file, which describes a picture", "aae cos dop pp3 thm xmp"),
    **_reasons(
        "a table; name it with --data to take the pictures and labels that it lists",
        "csv tab tsv",
    ),
    **_reasons("a download that is not complete", "crdownload part partial !ut opdownload"),
    **_reasons("a medical picture; export it as PNG or TIFF", "dcm dicom nii"),
    **_reasons(
        "a picture in a format that is not read; save it as JPEG, PNG or TIFF",
        "bpg cin cur dcx dds dpx exr fits fit flif fli flc fpx hdr heix icns iff jls jpm jxl jxr"
        " pcd pcx pic pict qoi ras rgb sgi spider tga wbmp wdp xbm xpm",
    ),
}
# Names like v1.2 have no ending of this form, and a kind for each number would be of no use.
_ENDING = re.compile(r"\.(?=[0-9_+-]*[^\W\d_])[\w+-]{1,12}")

APPLE_DOUBLE = Skipped("AppleDouble files", "what a Mac keeps of another file, not a picture")
SYSTEM = Skipped("system files", "a file that a file manager keeps for itself")
HIDDEN = Skipped("hidden files", "its name is hidden; --hidden takes it")
EMPTY = Skipped("empty files", "the file is empty (0 bytes)")
NOT_HERE = Skipped(
    "only in iCloud", "the file is in iCloud and not on this machine; download it to take it"
)
STORE = Skipped("in stores", "the folder of a store of Lookalike; what it keeps is no corpus")
SPECIAL = Skipped("special files", "neither a file nor a folder: a pipe, a socket or a device")
NOT_UTF8 = Skipped("names that are not UTF-8", "its name is not UTF-8; rename it")
_SYSTEM = {
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "icon\r"),
    *(".ds_store", ".localized", ".nomedia", ".directory", ".picasa.ini", ".dropbox"),
    *(".bridgesort", ".bridgecache", ".bridgecachet", "zbthumbnail.info"),
}
_PROGRAM_FOLDERS = {
    # file servers: thumbnails, recycle bins, snapshots
    *("@eadir", ".@__thumb", "#recycle", "@recycle", "#snapshot", "@recently-snapshot", "@tmp"),
    *("@__thumb", "network trash folder", "temporary items"),
    *(".snapshot", ".snapshots", "~snapshot", ".zfs", "@sharebin", "@synologydrive"),
    *(".recycle", ".recycle.bin", ".@upload_cache"),
    # Windows
    *("$recycle.bin", "recycler", "recycled", "system volume information"),
    # Linux and Android
    *("lost+found", "lost.dir", ".trash", ".thumbnails", ".thumbs", ".thumb", ".xvpics"),
    # macOS
    *("__macosx", ".appledouble", ".trashes", ".fseventsd", ".spotlight-v100", ".temporaryitems"),
    *(".documentrevisions-v100", ".appledb", ".appledesktop"),
    # picture managers and synchronisation
    *(".picasaoriginals", ".dtrash", ".stversions", ".dropbox.cache", ".ipynb_checkpoints"),
    *(".sync", ".tmp.drivedownload", ".tmp.driveupload", ".owncloudsync"),
}
_PROGRAM_NAMES = re.compile(r"\.trash-.*|found\.[0-9]{3}|.*\.lrdata", re.DOTALL)
_LIBRARY = (".photoslibrary", ".photolibrary", ".aplibrary", ".migratedphotolibrary")
_ORIGINALS = ("originals", "masters")
_STORE_FILES = ({"build.lock", "catalogue.sqlite"}, {"build.lock", "store.json"})
_PLACEHOLDER = re.compile(r"\.(.+)\.icloud", re.DOTALL | re.IGNORECASE)


def of_another_program(name: str, parent: str = "") -> bool:
    """Whether a folder named so, in one named ``parent``, holds what a program keeps for itself.

    Of a library of Apple's Photos, iPhoto or Aperture that is all but the originals.
    """
    name = name.lower()
    if name in _PROGRAM_FOLDERS or _PROGRAM_NAMES.fullmatch(name):
        return True
    return parent.lower().endswith(_LIBRARY) and name not in _ORIGINALS


def is_store(names: Iterable[str]) -> bool:
    """Whether a folder with these files is that of a store of this program."""
    return any(files.issubset(names) for files in _STORE_FILES)


def placeholder_of(name: str) -> str | None:
    """The name of the file that iCloud has taken away and left this in its place; None if none."""
    found = _PLACEHOLDER.fullmatch(name)
    return found and found[1]


def program_folder(name: str) -> Skipped:
    """Why the folder ``name`` of another program is not taken."""
    return Skipped(f"in {name}", "a folder of another program; --program-folders takes it")


def of_name(name: str) -> Skipped | None:
    """Why a file is not taken whatever its ending: it is another program's; None if it is not."""
    if name.startswith("._"):
        return APPLE_DOUBLE
    if name.lower() in _SYSTEM:
        return SYSTEM
    return None


def of_ending(name: str) -> Skipped | None:
    """Why a file is not taken because of its ending; None if it is that of a picture."""
    if name.lower().endswith(SUFFIXES):
        return None
    dot = name.rfind(".")
    ending = name[dot:].lower() if dot > 0 else ""
    if not ending:
        return Skipped("no ending", "its name has no ending such as .jpg")
    if not _ENDING.fullmatch(ending):
        return Skipped("other endings", "its name does not end like that of a picture")
    reason = _REASONS.get(ending, f"{ending} is not the ending of a picture")
    return Skipped(ending, reason)
