"""The corpus of a store: a store remembers where it is and how it is read.

Every command on the store uses it without being told, and none replaces it by another one unless
it is told to by name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from embed.corpus import (
    CIFAR10_FOLDER,
    Corpus,
    CorpusError,
    FolderCorpus,
    Item,
    Loaded,
    Scan,
    TableCorpus,
    cifar10,
    find_corpus,
    is_table,
    open_corpus,
    sample,
)
from embed.folders.options import FolderOptions
from embed.label_table import ENDINGS
from embed.pictures import RGB, PictureLimits
from embed.preprocess import Preprocess
from index.contract import (
    EARLIER_CORPUS_NAMES,
    Catalogue,
    CatalogueError,
    IndexInputError,
)
from search_api.settings import StoreLocation
from search_api.stores.opening import has_store, open_existing_store

NAME = "corpus"
"""The catalogue's name for the corpus's name; earlier versions kept no more than that."""

_SAMPLE = "corpus_is_sample"
_RECORD = "corpus_record"
_CIFAR10 = "CIFAR-10"
_RENDERED = "rendered sample"
_SAME = 0.5
"""Share of pictures that a folder must have in common with a store to be its corpus, moved."""

Same = Callable[[Catalogue, Corpus], float]
"""The share of a store's corpus pictures that are in a corpus, under their names or others."""


class CorpusMismatchError(ValueError):
    """The store holds another corpus than the given one."""


@dataclass(frozen=True)
class CorpusRecord:
    """What a store remembers of its corpus.

    Attributes:
        kind: ``folder``, ``table``, or the name of a corpus that is no folder of pictures.
        name: its name for people.
        place: resolved path of the folder or table; None for a corpus without one. One that an
            earlier version kept is as it was typed, and may be relative.
        options: how a folder or table is read.
        nearby: ``place`` relative to the store's folder: both may have been moved together.
    """

    kind: str
    name: str
    place: Path | None = None
    options: FolderOptions = field(default_factory=FolderOptions)
    nearby: str | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder or a table of pictures."""
        return self.kind in ("folder", "table")

    def is_at(self, place: Path) -> bool:
        """Whether it was at this path, however that is written."""
        if self.place is None or not self.is_folder:
            return False
        return place == self.place or resolved(place) == resolved(self.place)

    def is_same(self, other: CorpusRecord) -> bool:
        """Whether both are the same corpus, by their kinds and places."""
        if not (self.is_folder and other.is_folder):
            return (self.kind, self.name) == (other.kind, other.name)
        return self.kind == other.kind and other.place is not None and self.is_at(other.place)

    def open(self, limits: PictureLimits, options: FolderOptions | None = None) -> Corpus:
        """The corpus; one that cannot be found is looked for again whenever it is used."""
        if self.kind == _RENDERED:
            return sample()
        if not self.is_folder:
            return cifar10(_cifar10_root(self.place))
        assert self.place is not None
        if self.place.exists():
            return open_corpus(self.place, limits, options or self.options)
        return MissingCorpus(self, limits, options or self.options)


class MissingCorpus:
    """A folder or table of pictures that is not where the store remembers it.

    It may be on a drive that is not attached. Once it is back, everything works again.
    """

    notice = None

    def __init__(self, record: CorpusRecord, limits: PictureLimits, options: FolderOptions) -> None:
        """Describe the corpus of ``record``, whose ``place`` is not None."""
        assert record.place is not None
        self.record = record
        self.name = record.name
        self.place = record.place
        self._limits = limits
        self.options = options

    @property
    def items(self) -> tuple[Item, ...]:
        """See ``Corpus.items``."""
        return self.scan().items

    def scan(self) -> Scan:
        """See ``Corpus.scan``; raises CorpusError while it is missing."""
        return self._found().scan()

    def read(self, source: str, at_least: int | Preprocess | None = None) -> RGB:
        """See ``Corpus.read``."""
        if not self._is_back():
            raise CorpusError(f"{source} cannot be read: the folder of the corpus is not there")
        return self._found().read(source, at_least)

    def load(self, source: str, at_least: int | Preprocess | None = None) -> Loaded:
        """See ``Corpus.load``."""
        return self._found().load(source, at_least)

    def content(self, source: str) -> bytes | None:
        """See ``Corpus.content``."""
        return self._found().content(source)

    def _is_back(self) -> bool:
        # A relative path is of an earlier version, and means something else in each folder.
        return self.place.is_absolute() and self.place.exists()

    def _found(self) -> Corpus:
        if self._is_back():
            return open_corpus(self.place, self._limits, self.options)
        where = (
            f"{self.place} is not there"
            if self.place.is_absolute()
            else f"an earlier version kept its path as {str(self.place)!r}, which is no folder of"
            " these pictures here"
        )
        raise CorpusError(
            f"the corpus of this store cannot be read: {where}; attach its drive or, if it has"
            " moved, name its new place with --data (nothing was removed from the store)"
        )


def resolved(place: Path) -> Path:
    """The absolute path, without links and ``~``; a table keeps its own name."""
    with suppress(RuntimeError):  # nobody has that home
        place = place.expanduser()
    if is_table(place):
        return place.parent.resolve() / place.name
    return place.resolve()


def record_of(corpus: Corpus) -> CorpusRecord:
    """What to remember of an open corpus."""
    if isinstance(corpus, MissingCorpus):
        return replace(corpus.record, options=corpus.options)
    if isinstance(corpus, TableCorpus):
        return CorpusRecord("table", corpus.name, resolved(corpus.table), corpus.options)
    if isinstance(corpus, FolderCorpus):
        return CorpusRecord("folder", corpus.name, corpus.root, corpus.options)
    return CorpusRecord(corpus.name, corpus.name, getattr(corpus, "root", None))


def remembered(catalogue: Catalogue) -> CorpusRecord | None:
    """What the store remembers of its corpus; None if it has none yet."""
    name = catalogue.get_meta(NAME)
    if name is None:
        return None
    try:
        values = json.loads(catalogue.get_meta(_RECORD) or "{}")
    except ValueError:
        values = {}
    # An earlier version writes the name alone.
    if values.get("name") == name:
        place = values.get("place")
        return CorpusRecord(
            values["kind"],
            name,
            None if place is None else Path(place),
            FolderOptions.from_dict(values.get("options", {})),
            values.get("nearby"),
        )
    if catalogue.get_meta(_SAMPLE) == "yes" or name in (_CIFAR10, _RENDERED):
        return CorpusRecord(name, name)
    return CorpusRecord("table" if name.lower().endswith(ENDINGS) else "folder", name, Path(name))


def remember(catalogue: Catalogue, corpus: Corpus, var: Path) -> None:
    """Keep in the catalogue which corpus the store is of; writes only what has changed."""
    before, record = remembered(catalogue), record_of(corpus)
    place = record.place
    values = {
        "kind": record.kind,
        "name": record.name,
        "place": None if place is None else str(place),
        "options": record.options.to_dict(),
        "nearby": None if place is None else os.path.relpath(place, var.resolve()),
    }
    names: list[str] = []
    if before is not None and before.is_same(record):
        names = _earlier_names(catalogue)
        if before.name != record.name:
            names.append(before.name)
    _keep_names(catalogue, names)
    for key, value in (
        (NAME, record.name),
        (_SAMPLE, "yes" if corpus.notice else "no"),
        (_RECORD, json.dumps(values, sort_keys=True)),
    ):
        if catalogue.get_meta(key) != value:
            catalogue.set_meta(key, value)


def corpus_of_store(
    data: Path | None,
    location: StoreLocation,
    same: Same,
    say: Callable[[str], None],
    limits: PictureLimits = PictureLimits(),
    options: FolderOptions = FolderOptions(),
    *,
    building: bool = False,
    replacing: bool = False,
) -> Corpus:
    """The corpus of a store, which need not be named; for a store to be built, a new one.

    Args:
        data: the corpus that the user named, or None.
        location: where the store is, or will be.
        same: compares the pictures, if the user names another place.
        say: called with a sentence for people, such as that the corpus has moved.
        limits: limits on each picture in a folder.
        options: how a folder is read, where that is to differ from what the store keeps.
        building: there need not be a store; and the rendered sample may be replaced.
        replacing: ``data`` may be another corpus than the store's.

    Raises:
        IndexInputError: there is no store, and none is to be built.
        CorpusMismatchError: ``data`` is another corpus; names both.
        CorpusError: ``data`` is no corpus.
    """
    if building and not has_store(location):
        return find_corpus(data, say, limits, options)
    with closing(open_existing_store(location)) as store:
        catalogue = store.catalogue
        record = remembered(catalogue)
        if record is None:
            if building:
                return find_corpus(data, say, limits, options)
            raise IndexInputError(
                f"nothing has been built in {store.name}; build it with `lookalike index build"
                " --data FOLDER`, or choose another store with --var"
            )
        options = options.over(record.options)
        if data is None:
            return _remembered_corpus(catalogue, record, location, same, say, limits, options)
        if record.is_at(data):
            return record.open(limits, options)
        corpus = open_corpus(data, limits, options)
        given = record_of(corpus)
        if replacing or given.is_same(record):
            return corpus
        if _has_moved(catalogue, record, corpus, same):
            _say_moved(catalogue, record, corpus, location, say)
            return corpus
        if building and _is_replaceable(catalogue, record):
            return corpus
        raise CorpusMismatchError(mismatch(store.name, record.name, corpus.name))


def check_corpus(
    catalogue: Catalogue, corpus: Corpus, store: str, *, building: bool = False
) -> None:
    """Raise CorpusMismatchError, which names both, if the store was built from another corpus.

    One who is ``building`` may replace what is no loss, such as the rendered sample.
    """
    record = remembered(catalogue)
    if record is None or record.is_same(record_of(corpus)):
        return
    if not (building and _is_replaceable(catalogue, record)):
        raise CorpusMismatchError(mismatch(store, record.name, corpus.name))


def mismatch(store: str, stored: str, given: str) -> str:
    """The message for a corpus that is not the store's."""
    return (
        f"{store} holds the corpus {stored!r}, and {given!r} is another one with other pictures;"
        " leave out --data (or LOOKALIKE_DATA) to use the store's own, choose another folder with"
        " --var or LOOKALIKE_VAR, or replace the pictures of this store with `lookalike index build"
        " --data ... --replace-corpus`"
    )


def _remembered_corpus(
    catalogue: Catalogue,
    record: CorpusRecord,
    location: StoreLocation,
    same: Same,
    say: Callable[[str], None],
    limits: PictureLimits,
    options: FolderOptions,
) -> Corpus:
    """The store's corpus where it was or, if store and corpus were moved together, next to it."""
    if not record.is_folder or record.place is None:
        return record.open(limits, options)
    if record.place.is_absolute() and record.place.exists():
        return record.open(limits, options)
    # A relative path is of an earlier version, and may mean something else in this folder.
    candidates = [record.place] if not record.place.is_absolute() else []
    if record.nearby is not None:
        candidates.append(location.var.resolve() / record.nearby)
    for place in map(resolved, candidates):
        with suppress(CorpusError):
            corpus = open_corpus(place, limits, options)
            if _has_moved(catalogue, record, corpus, same):
                if not record.is_at(place):
                    _say_moved(catalogue, record, corpus, location, say)
                return corpus
    return MissingCorpus(record, limits, options)


def _is_replaceable(catalogue: Catalogue, record: CorpusRecord) -> bool:
    """Whether nothing is lost with the store's corpus: it is the sample, or was never indexed."""
    return record.kind == _RENDERED or not catalogue.all_sources("corpus")


def _has_moved(catalogue: Catalogue, record: CorpusRecord, corpus: Corpus, same: Same) -> bool:
    """Whether a folder holds the pictures of the store's corpus."""
    if record_of(corpus).kind != record.kind or not record.is_folder:
        return False
    try:
        return same(catalogue, corpus) >= _SAME
    except CorpusError:  # an empty folder
        return False


def _say_moved(
    catalogue: Catalogue,
    record: CorpusRecord,
    corpus: Corpus,
    location: StoreLocation,
    say: Callable[[str], None],
) -> None:
    """Remember the new place of the corpus, and say so."""
    say(f"moved: the corpus of this store was {record.name} and is now {corpus.name}")
    with suppress(CatalogueError):  # a search needs no room on the disk
        remember(catalogue, corpus, location.var)
        _keep_names(catalogue, [*_earlier_names(catalogue), record.name])


def _earlier_names(catalogue: Catalogue) -> list[str]:
    try:
        found = json.loads(catalogue.get_meta(EARLIER_CORPUS_NAMES) or "[]")
    except ValueError:
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _keep_names(catalogue: Catalogue, names: list[str]) -> None:
    """Keep the names that the corpus had before: its snapshots have them."""
    text = json.dumps(list(dict.fromkeys(names)))
    if (catalogue.get_meta(EARLIER_CORPUS_NAMES) or "[]") != text:
        catalogue.set_meta(EARLIER_CORPUS_NAMES, text)


def _cifar10_root(place: Path | None) -> Path:
    """Where CIFAR-10 was or, if it is no longer there, where it is usually found."""
    usual = (Path("..") / "shared", Path("data"))
    for root in (*([place] if place else []), *usual):
        if (root / CIFAR10_FOLDER).is_dir():
            return root
    return place or usual[-1]
