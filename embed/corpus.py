"""Where pictures come from: CIFAR-10, a folder or table of pictures, or the rendered sample."""

from __future__ import annotations

import os
import threading
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from embed import cifar10_groups, scenes
from embed.array_cache import Splits, cached
from embed.folders.kinds import Skipped, count_kinds, in_words
from embed.folders.layout import SPLITS, LayoutError, are_splits, split_and_class
from embed.folders.names import escaped, is_utf8, nfc
from embed.folders.options import FolderOptions
from embed.folders.scan import FileStamp as FileStamp
from embed.folders.scan import scan_folder
from embed.label_table import ENDINGS, Row, TableError, read_table
from embed.pictures import RGB, SUFFIXES, Opened, PictureLimits, decode, read_file
from embed.preprocess import Preprocess

CIFAR10_FOLDER = "cifar-10-batches-py"


class CorpusError(ValueError):
    """The pictures cannot be found or read."""


@dataclass(frozen=True)
class Item:
    """One picture of a corpus.

    Attributes:
        source: the picture's permanent name within its corpus, as ``Corpus.read`` takes it.
        split: ``train``, ``val`` or ``test``; None if the corpus has no splits.
        label: class name; None if the corpus has no labels.
        tags: finer labels for what it shows, if the corpus has any.
        stamp: of its file, when the corpus was scanned; None if it is in none of its own.
        payload: fields that the corpus owns: they follow it at each build, whatever was changed
            by hand. None in it stands for no value.
    """

    source: str
    split: str | None
    label: str | None
    tags: tuple[str, ...] = ()
    stamp: FileStamp | None = field(default=None, compare=False)
    payload: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Scan:
    """What was found in a corpus at one time.

    Attributes:
        items: all pictures, in a fixed order.
        skipped: for each file that is there and is not taken, and for each folder of such files,
            its kind and the reason, by its path within the corpus; what is not printable in the
            path is escaped.
        unreachable: folders and links within the corpus that could not be read, ``.`` for the
            corpus itself; what they hold is not known, so it must not be taken for deleted.
        notices: sentences for people about what was left out.
        missing: sources of items whose file does not exist, though a table names it.
        mounts: folders within the corpus at which another drive or network share is mounted; None
            if that was not looked at.
    """

    items: tuple[Item, ...]
    skipped: Mapping[str, Skipped] = field(default_factory=dict)
    unreachable: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    missing: frozenset[str] = frozenset()
    mounts: tuple[str, ...] | None = None

    def reachable(self, source: str) -> bool:
        """Whether the place of this picture could be looked at, whatever was found there."""
        return not any(
            folder in (".", source) or source.startswith(f"{folder}/")
            for folder in self.unreachable
        )


class Loaded(NamedTuple):
    """A picture with all that its place in the corpus tells.

    Attributes:
        picture: uint8 ``(h, w, 3)``.
        data: the bytes of its file; None if it is in none of its own.
        facts: what the file says of itself, as payload; see `PictureFacts.payload`.
    """

    picture: RGB
    data: bytes | None
    facts: dict[str, Any]


class Corpus(Protocol):
    """A set of pictures that can be indexed and, if it has labels, trained on."""

    @property
    def name(self) -> str:
        """A name for people: ``CIFAR-10`` or the folder's path."""

    @property
    def notice(self) -> str | None:
        """A warning to show wherever this corpus is served, or None."""

    @property
    def items(self) -> tuple[Item, ...]:
        """All current pictures, in a fixed order: those of a `scan`."""

    def scan(self) -> Scan:
        """Look at what is there now.

        Raises:
            CorpusError: nothing can be looked at, or there is no picture.
        """

    def read(self, source: str, at_least: int | Preprocess | None = None) -> RGB:
        """The picture named ``source``, uint8 ``(h, w, 3)``.

        Args:
            source: an item's ``source``.
            at_least: as in ``embed.pictures.decode``: a side in pixels, or a preprocessing.

        Raises:
            CorpusError: there is no such picture (or no longer).
            PictureError: the file is not a usable picture.
        """

    def load(self, source: str, at_least: int | Preprocess | None = None) -> Loaded:
        """As `read`, with the file's bytes and facts, from one look at the file.

        A picture in no file of its own comes as it is, whatever ``at_least``.
        """

    def content(self, source: str) -> bytes | None:
        """The bytes of the picture's file; None if it is in none of its own.

        Raises:
            CorpusError: there is no such file, or it cannot be read now.
            PictureError: it is larger than the limit.
        """


class ArrayCorpus:
    """A corpus in memory, one array per split; sources are ``<split>/<number>``."""

    def __init__(
        self,
        name: str,
        classes: tuple[str, ...],
        load: Callable[[], Splits],
        notice: str | None = None,
        tags: Callable[[Splits], dict[str, list[str]]] | None = None,
        root: Path | None = None,
    ) -> None:
        """Describe the corpus; nothing is read until it is needed.

        Args:
            name: for people.
            classes: class names by number.
            load: returns, for each split, pictures uint8 ``(n, h, w, 3)`` and labels ``(n,)``.
            notice: a warning to show, or None.
            tags: returns, for each split of what was loaded, each picture's tag, ``""`` for none.
            root: the folder that it is loaded from, or None.
        """
        self._tags = tags
        self.root = None if root is None else root.resolve()
        self.name = name
        self.classes = classes
        self.notice = notice
        self._load = load
        self._loading = threading.Lock()
        self._splits: Splits | None = None
        self._cache: Path | None = None

    def keep_in(self, folder: Path) -> None:
        """Cache what is loaded in ``folder``, from which the next process maps it into memory."""
        self._cache = folder

    @property
    def splits(self) -> Splits:
        """Pictures ``(n, h, w, 3)`` and labels ``(n,)`` of each split, loaded once."""
        with self._loading:
            if self._splits is None:
                self._splits = cached(self._cache, self._load) if self._cache else self._load()
            return self._splits

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """All pictures, one split after another."""
        tags = self._tags(self.splits) if self._tags else {}
        return tuple(
            Item(f"{split}/{number:05d}", split, self.classes[label], (tag,) if tag else ())
            for split, (_, labels) in self.splits.items()
            for number, (label, tag) in enumerate(
                zip(labels, tags.get(split, [""] * len(labels)), strict=True)
            )
        )

    def scan(self) -> Scan:
        """All pictures; see ``Corpus.scan``."""
        return Scan(self.items)

    def read(self, source: str, at_least: int | Preprocess | None = None) -> RGB:
        """The picture named ``source``; see ``Corpus.read``."""
        split, _, number = source.partition("/")
        pictures = self.splits[split][0] if split in self.splits else ()
        # isdecimal: "-1" would count from the end.
        if not number.isdecimal() or int(number) >= len(pictures):
            raise CorpusError(f"{self.name} has no picture {source!r}")
        picture: RGB = pictures[int(number)]
        return at_least.fit(picture) if isinstance(at_least, Preprocess) else picture

    def load(self, source: str, at_least: int | Preprocess | None = None) -> Loaded:
        """The picture alone; see ``Corpus.load``."""
        return Loaded(self.read(source), None, {})

    def content(self, source: str) -> bytes | None:
        """None: the pictures are in memory; see ``Corpus.content``."""
        return None


class FolderCorpus:
    """A folder of pictures, labelled by its subfolders.

    ``cats/a.jpg`` has the label ``cats``; ``test/cats/a.jpg`` also has the split ``test``, if
    `embed.folders.layout.are_splits`. Deeper folders do not change the label. Labels are in Unicode
    NFC, sources as on disk.
    """

    notice = None

    def __init__(
        self,
        root: Path,
        limits: PictureLimits = PictureLimits(),
        options: FolderOptions = FolderOptions(),
    ) -> None:
        """Describe the folder; it is walked at each `scan`.

        Raises:
            CorpusError: ``root`` is not a folder, or its path is not UTF-8.
        """
        if not is_utf8(str(root)):
            raise CorpusError(f"the path {escaped(str(root))} is not UTF-8; rename the folder")
        if not root.is_dir():
            wrong = "is not a folder" if root.exists() else "does not exist"
            raise CorpusError(
                f"{root} {wrong}; expected a folder of pictures, or a CSV table of them"
            )
        self.root = root.resolve()
        self.limits = limits
        self.options = options
        self.name = str(self.root)

    @property
    def items(self) -> tuple[Item, ...]:
        """All pictures under the folder, by path; see ``Corpus.items``."""
        return self.scan().items

    def scan(self) -> Scan:
        """Walk the folder; see ``Corpus.scan``.

        Raises:
            CorpusError: it cannot be read, holds no picture, or its sub-folders can be read in two
                ways.
        """
        try:
            found = scan_folder(self.root, self.options)
        except OSError as error:
            raise CorpusError(f"{self.name} cannot be read: {error.strerror}") from error
        if not found.taken:
            instead = in_words(count_kinds(found.skipped.values()))
            raise CorpusError(
                f"no pictures in {self.root}; expected files ending in {', '.join(SUFFIXES)}"
                + (f"; skipped {instead}" if instead else "")
            )
        places = {source: source.split("/")[:-1] for source in found.taken}
        splits = self._are_splits(places.values())
        items = []
        for source, stamp in found.taken.items():
            split, label = split_and_class(places[source], splits)
            items.append(Item(source, split, label and nfc(label), stamp=stamp))
        return Scan(
            tuple(items),
            found.skipped,
            tuple(found.unreachable),
            mounts=tuple(found.mounts),
        )

    def _are_splits(self, places: Iterable[Sequence[str]]) -> bool:
        if self.options.splits != "auto":
            return self.options.splits == "yes"
        try:
            return are_splits(places)
        except LayoutError as error:
            raise CorpusError(f"{self.name}: {error}") from error

    def read(self, source: str, at_least: int | Preprocess | None = None) -> RGB:
        """The picture at the path ``source``, relative to the folder; see ``Corpus.read``."""
        return decode(self.content(source), self.limits, at_least)

    def load(self, source: str, at_least: int | Preprocess | None = None) -> Loaded:
        """The picture with what its file says of itself; see ``Corpus.load``."""
        data = self.content(source)
        picture, facts = Opened(data, self.limits).decode_with_facts(at_least)
        name = source.rpartition("/")[2]
        return Loaded(picture, data, facts.payload(name, len(data), self.options.gps_place))

    def content(self, source: str) -> bytes:
        """The bytes of the file at the path ``source``; see ``Corpus.content``."""
        path = self._path(source)
        if not self._inside(path):
            raise CorpusError(f"{source!r} leads out of the folder of pictures")
        try:
            if path.exists() and not (path.is_file() or path.is_dir()):
                # Reading a pipe or a device might never end.
                raise CorpusError(f"{source} cannot be read: it is not a file")
            return read_file(path, self.limits)
        except OSError as error:
            raise CorpusError(f"{source} cannot be read: {error.strerror}") from error

    def _path(self, source: str) -> Path:
        """Where the file is; its name can be written with composed or decomposed characters."""
        path = self.root / source
        if source.isascii() or os.path.lexists(path):
            return path
        others = (self.root / unicodedata.normalize(form, source) for form in ("NFC", "NFD"))
        return next((other for other in others if os.path.lexists(other)), path)

    def _inside(self, path: Path) -> bool:
        if self.options.follow_links:
            plain = ".." not in path.parts and "\0" not in path.as_posix()
            return plain and path.is_relative_to(self.root)
        try:
            return path.resolve().is_relative_to(self.root)
        except (ValueError, OSError, RuntimeError):  # a null character, circular links
            return False


def file_stamp(path: Path) -> FileStamp | None:
    """The stamp of a file; None if it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return FileStamp(found.st_size, found.st_mtime_ns)


def _is_missing(path: Path) -> bool:
    """Whether there is no such file; False if that cannot be found out now."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


class TableCorpus(FolderCorpus):
    """The pictures named in a CSV table in their folder; ``embed.label_table`` reads it.

    Files in the folder that the table does not name are not part of the corpus.
    """

    def __init__(
        self,
        table: Path,
        limits: PictureLimits = PictureLimits(),
        options: FolderOptions = FolderOptions(),
    ) -> None:
        """Describe the table; it is read at each `scan`."""
        super().__init__(table.parent, limits, options)
        self.table = table
        self.name = str(self.root / table.name)

    def scan(self) -> Scan:
        """Read the table; see ``Corpus.scan``.

        Raises:
            CorpusError: the table cannot be used, and the message names the line; or none of the
                files that it names exists.
        """
        try:
            table = read_table(self.table, SPLITS, self.options.table_payload)
        except TableError as error:
            raise CorpusError(str(error)) from error
        notices: tuple[str, ...] = ()
        if table.ignored:
            notices = (
                f"{self.table.name} has further columns: {', '.join(table.ignored)}."
                " --table-payload keeps them as payload.",
            )
        items = tuple(self._row_item(row) for row in table.rows)
        self._check_spellings(items)
        unseen = [item.source for item in items if item.stamp is None]
        missing = frozenset(source for source in unseen if _is_missing(self._path(source)))
        if len(missing) == len(items):
            raise CorpusError(
                f"none of the {len(items):,} files that {self.table} names exists, for example"
                f" {items[0].source}; paths in it are relative to {self.root}"
            )
        return Scan(items, notices=notices, missing=missing)

    def _check_spellings(self, items: Sequence[Item]) -> None:
        """Raise CorpusError if two sources, which look alike, are one file."""
        first: dict[str, str] = {}
        for source in (item.source for item in items if not item.source.isascii()):
            other = first.setdefault(nfc(source), source)
            if other != source and self._path(other) == self._path(source):
                raise CorpusError(
                    f"{self.table} names the file {nfc(source)} twice, with composed and with"
                    " decomposed characters; remove one of the lines"
                )

    def _row_item(self, row: Row) -> Item:
        tags = tuple(dict.fromkeys(map(nfc, row.tags or ())))
        return Item(
            row.file,
            row.split,
            row.label and nfc(row.label),
            tags,
            file_stamp(self._path(row.file)),
            {**row.payload} if row.tags is None else {**row.payload, "tags": list(tags)},
        )


def cifar10(root: Path, download: bool = False) -> ArrayCorpus:
    """CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test pictures of 32x32, ten classes.

    Args:
        root: the folder that holds ``cifar-10-batches-py``; torchvision checks its checksums.
        download: first download it into ``root`` if it is missing, with a progress bar.

    Raises:
        CorpusError: it is missing, is damaged, or cannot be downloaded.
    """

    def fetch(train: bool) -> Any:
        # Takes over a second to import, which a start with a built index need not wait for.
        from torchvision.datasets import CIFAR10

        try:
            return CIFAR10(str(root), train=train, download=download)
        except (RuntimeError, OSError) as error:
            what = "could not be downloaded into" if download else "is missing or damaged in"
            raise CorpusError(f"CIFAR-10 {what} {root} ({' '.join(str(error).split())})") from error

    def load() -> Splits:
        return {
            split: (data.data, np.asarray(data.targets, dtype=np.int64))
            for split, data in (("train", fetch(True)), ("test", fetch(False)))
        }

    def tags(splits: Splits) -> dict[str, list[str]]:
        labels = {split: labels for split, (_, labels) in splits.items()}
        return cifar10_groups.tags(labels, CIFAR10_CLASSES)

    corpus = ArrayCorpus("CIFAR-10", CIFAR10_CLASSES, load, tags=tags, root=root)
    if download:
        _ = corpus.splits
    return corpus


CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

SAMPLE_NOTICE = (
    "This is a small sample of rendered pictures, not CIFAR-10: the data set could not be"
    " downloaded. Set LOOKALIKE_DATA to a folder of pictures to search your own."
)


def sample(per_class: int = 200) -> ArrayCorpus:
    """Rendered 32x32 scenes, ten classes; a fifth of each class is the test split."""
    names = tuple(scenes.SCENES)
    held_out = per_class // 5

    def load() -> Splits:
        def split(seeds: range) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
            pictures = [scenes.render(name, seed) for seed in seeds for name in names]
            labels = np.tile(np.arange(len(names), dtype=np.int64), len(seeds))
            return np.stack(pictures), labels

        return {"train": split(range(held_out, per_class)), "test": split(range(held_out))}

    return ArrayCorpus("rendered sample", names, load, SAMPLE_NOTICE)


def is_table(place: Path) -> bool:
    """Whether this is a file with the ending of a table."""
    return place.suffix.lower() in ENDINGS and place.is_file()


def open_corpus(
    root: Path,
    limits: PictureLimits = PictureLimits(),
    options: FolderOptions = FolderOptions(),
) -> Corpus:
    """The corpus in ``root``: CIFAR-10 if its folder is there, otherwise a folder of pictures.

    Args:
        root: the folder, or a CSV table of pictures.
        limits: limits on each picture in a folder.
        options: how a folder or table is read.

    Raises:
        CorpusError: ``root`` is neither.
    """
    if is_table(root):
        return TableCorpus(root, limits, options)
    if (root / CIFAR10_FOLDER).is_dir():
        return cifar10(root)
    return FolderCorpus(root, limits, options)


def find_corpus(
    data: Path | None,
    say: Callable[[str], None],
    limits: PictureLimits = PictureLimits(),
    options: FolderOptions = FolderOptions(),
) -> Corpus:
    """The corpus to work on, whether or not the user names one.

    ``data`` if given; otherwise ``../shared`` or ``./data`` if CIFAR-10 is in it; otherwise
    CIFAR-10 downloaded into ``./data``; if that fails, the rendered sample.

    Args:
        data: the corpus that the user named, or None.
        say: called with one sentence for people about each download or failure.
        limits: limits on each picture in a folder.
        options: how a folder or table is read.

    Raises:
        CorpusError: ``data`` was given and is not a corpus.
    """
    if data is not None:
        return open_corpus(data, limits, options)
    for root in (Path("..") / "shared", Path("data")):
        if (root / CIFAR10_FOLDER).is_dir():
            return cifar10(root)
    say("CIFAR-10 was not found; downloading it into ./data (170 MB).")
    try:
        return cifar10(Path("data"), download=True)
    except CorpusError as error:
        say(f"{error}; using a small rendered sample instead.")
        return sample()
