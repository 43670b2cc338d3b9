"""What became of the stored pictures of a corpus: same, changed, moved, gone, or out of reach.

A picture is identified by content and place. One whose file vanished and whose content is found at
another place has moved, whatever was at that place before; one whose file got another content has
changed, unless its old content moved elsewhere.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from embed.corpus import Corpus, CorpusError, Item, Scan
from embed.folders import kinds
from embed.folders.kinds import Skipped
from embed.pictures import PictureError, turn
from index.contract import CancelledError, Catalogue, JobControl
from index.records import Entry, Stamp
from search_api.service.following.contents import PIXELS, content_name

FEW = 2
"""So many pictures may always leave a corpus at a time, unless they are all that is stored."""

_SHARE = 10
_MAY_RETURN = (kinds.EMPTY.kind, kinds.NOT_HERE.kind)
_NONE: Mapping[str, Skipped] = {}

_READERS = 4
_AT_ONCE = 200
_FRESH_NS = 2 * 10**9
"""Files changed so shortly before they are read may change again without another time: file
systems count in steps of up to two seconds."""


class RemovalError(Exception):
    """A build would remove so many pictures that something else is more likely to have happened."""


@dataclass
class Comparison:
    """The corpus's pictures, and the stored ones, by what became of them.

    Attributes:
        new: to be embedded and stored.
        changed: stored at their place with another content, to be embedded again.
        moved: what is stored by id, now at the place of this item.
        overwritten: ids of pictures whose place others have moved to; their content is nowhere.
        gone: ids of pictures whose file is gone; their content is nowhere.
        unreachable: sources of stored pictures whose file could not be looked at.
        skipped: the reason for those of them whose file is there.
        stamps: of files found to have the stored content, by id.
        contents: that content by id; where it was not compared, there is none.
        began: when the comparison began, in nanoseconds since 1970.
    """

    new: list[Item] = field(default_factory=list)
    changed: list[Item] = field(default_factory=list)
    moved: dict[int, Item] = field(default_factory=dict)
    overwritten: list[int] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    unreachable: set[str] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)
    stamps: dict[int, Stamp | None] = field(default_factory=dict)
    contents: dict[int, str | None] = field(default_factory=dict)
    began: int = field(default_factory=time.time_ns)

    def kept_stamp(self, item: Item) -> Stamp | None:
        """The stamp to keep of an item's file, if it has one.

        Without the time if it had only just changed: it is looked at again the next time.
        """
        if item.stamp is None:
            return None
        fresh = abs(self.began - item.stamp.modified_ns) < _FRESH_NS
        return Stamp(item.stamp.size, -1 if fresh else item.stamp.modified_ns)


def compare(
    corpus: Corpus,
    catalogue: Catalogue,
    scan: Scan,
    items: Sequence[Item],
    stored: Mapping[str, int],
    at_least: int,
    control: JobControl = JobControl(),
    unstamped_since: int | None = None,
    *,
    another: bool = False,
) -> Comparison:
    """Find out what became of the stored pictures; reads only files that may have changed or moved.

    Args:
        corpus: holds the files.
        catalogue: holds the stored pictures.
        scan: what was found.
        items: the pictures in it that are to be stored.
        stored: source to id of the stored pictures that the scan looked for.
        at_least: the shorter side, in pixels, that the encoder needs.
        control: receives progress and can cancel.
        unstamped_since: for a store of an earlier version, which kept no stamps: when its index was
            built, in nanoseconds since 1970. Files that are older count as unchanged.
        another: what is stored is of another corpus, so a name says nothing: contents are compared
            whatever the stamps, and what has the name of another picture is new, not changed.

    Raises:
        CancelledError: ``control`` cancelled it.
    """
    result = Comparison()
    here = {item.source for item in items}
    stamps = catalogue.stamps()
    lost = [source for source in stored if source not in here]
    result.unreachable = {source for source in lost if not _looked_at(scan, source)}
    look: list[Item] = []
    for item in items:
        if (id_ := stored.get(item.source)) is None:
            continue
        if another:
            look.append(item)
        elif item.stamp is None:
            continue
        elif id_ not in stamps and item.stamp.modified_ns < (unstamped_since or 0):
            result.stamps[id_] = result.kept_stamp(item)
        elif stamps.get(id_) != Stamp(*item.stamp):
            look.append(item)
    reading = _Reading(corpus, at_least, control, len(look))
    replaced = _sort_out(result, reading, look, stored, catalogue)
    missing = [stored[source] for source in lost if source not in result.unreachable]
    displaced = list(_found(catalogue, [*missing, *(stored[i.source] for i, _ in replaced)]))
    new = [item for item in items if item.source not in stored]
    result.moved = _moves(reading, replaced, new, displaced, stamps)
    places = {item.source for item in result.moved.values()}
    for item, _ in replaced:
        id_ = stored[item.source]
        if id_ in result.moved:
            new.append(item)  # unless something has moved here
        elif item.source in places:
            result.overwritten.append(id_)
        elif another:
            result.overwritten.append(id_)
            new.append(item)
        else:
            result.changed.append(item)
    result.new = [item for item in new if item.source not in places]
    result.gone = [id_ for id_ in missing if id_ not in result.moved]
    return result


def without_drives(scan: Scan, known: Sequence[str]) -> Scan:
    """The scan in which drives that were mounted at ``known`` folders, and are gone, are so.

    An empty folder is left in their place, or none at all; what they hold has not been deleted.
    """
    if scan.mounts is None:
        return scan
    places = {str(place) for item in scan.items for place in PurePosixPath(item.source).parents}
    gone = [folder for folder in known if folder not in scan.mounts and folder not in places]
    reason = "the drive or network share that was mounted here is not"
    return replace(
        scan,
        unreachable=(*scan.unreachable, *gone),
        skipped={**scan.skipped, **dict.fromkeys(gone, Skipped("unreachable", reason))},
        mounts=(*scan.mounts, *gone),
    )


def check_removal(
    gone: Sequence[str], of: int, corpus: str, skipped: Mapping[str, Skipped] = _NONE
) -> None:
    """Raise RemovalError if these are too many of the ``of`` stored pictures of a corpus.

    More than a tenth of them, and more than FEW, or all. ``skipped`` is what the scan did not take:
    some may have been taken before.
    """
    count = len(gone)
    if count == 0 or (count < of and (count <= FEW or count * _SHARE <= of)):
        return
    left_out = Counter(
        skipped[place].kind
        for source in gone
        for place in (source, *map(str, PurePosixPath(source).parents))
        if place in skipped
    )
    taken = f"; of these, no longer taken: {kinds.in_words(left_out)}" if left_out else ""
    raise RemovalError(
        f"this build would remove {count:,} of the {of:,} pictures of {corpus}, because their"
        f" files are no longer there, for example {gone[0]}{taken}. Nothing was removed. If a drive"
        " or network share is gone, or a table names other paths, put that right and build again;"
        " if they are to be removed, build with --allow-removal (in the API: allow_removal=true)"
    )


def _looked_at(scan: Scan, source: str) -> bool:
    """Whether a stored picture that was not found is really not there.

    An empty file may be one whose copying was interrupted, or for which the disk had no room;
    iCloud takes files away that it brings back.
    """
    why = scan.skipped.get(source)
    return scan.reachable(source) and (why is None or why.kind not in _MAY_RETURN)


@dataclass
class _Reading:
    """Reads what identifies pictures, several at a time, and reports the progress."""

    corpus: Corpus
    at_least: int
    control: JobControl
    total: int
    done: int = 0

    def names(self, wanted: Sequence[tuple[Item, str | None]]) -> Iterator[tuple[Item, str, bool]]:
        """Each item, its name as `content_name` gives it for the stored one, and whether it is one.

        If it is none, it is the reason why there is none.
        """

        def read(one: tuple[Item, str | None]) -> tuple[str, bool]:
            item, stored = one
            try:
                with turn(patient=True):
                    name, _ = content_name(self.corpus, item.source, self.at_least, stored)
                    return name, True
            except (PictureError, CorpusError) as error:
                return str(error), False

        with ThreadPoolExecutor(_READERS, thread_name_prefix="compare") as pool:
            for start in range(0, len(wanted), _AT_ONCE):
                # A few are compared in no time.
                if start and self.control.cancelled():
                    raise CancelledError(
                        "stopped while comparing the corpus with what is stored; nothing was"
                        " changed"
                    )
                part = wanted[start : start + _AT_ONCE]
                for (item, _), (name, good) in zip(part, pool.map(read, part), strict=True):
                    yield item, name, good
                self.done += len(part)
                if self.total > _AT_ONCE:
                    self.control.progress("comparing", self.done, max(self.total, self.done))


def _sort_out(
    result: Comparison,
    reading: _Reading,
    look: Sequence[Item],
    stored: Mapping[str, int],
    catalogue: Catalogue,
) -> list[tuple[Item, str]]:
    """Add to ``result`` which of these have the stored content or cannot be read.

    Returns the others, with what identifies their content.
    """
    ids = [stored[item.source] for item in look]
    known = {entry.id: entry.content_hash for entry in _found(catalogue, ids)}
    replaced: list[tuple[Item, str]] = []
    wanted = [(item, known.get(id_)) for item, id_ in zip(look, ids, strict=True)]
    for item, name, good in reading.names(wanted):
        id_ = stored[item.source]
        if not good:
            result.unreachable.add(item.source)
            result.skipped[item.source] = name
        elif name == known.get(id_):
            result.stamps[id_], result.contents[id_] = result.kept_stamp(item), name
        else:
            replaced.append((item, name))
    return replaced


def _moves(
    reading: _Reading,
    replaced: Sequence[tuple[Item, str]],
    new: Sequence[Item],
    displaced: Sequence[Entry],
    stamps: Mapping[int, Stamp],
) -> dict[int, Item]:
    """Which item, new or replaced, shows which displaced picture: at most one for each, by id."""
    by_content = [entry for entry in displaced if entry.content_hash]
    if not by_content:
        return {}
    sizes = {stamps[entry.id].size if entry.id in stamps else -1 for entry in by_content}
    # One of unknown size might be any.
    likely = [item for item in new if -1 in sizes or item.stamp is None or item.stamp.size in sizes]
    names = list(replaced)
    # How records of earlier versions and those since are named.
    for way in sorted({_way(entry.content_hash or "") for entry in by_content}):
        others = [item for item, name in replaced if _way(name) != way]
        reading.total = reading.done + len(likely) + len(others)
        wanted = [(item, way) for item in (*others, *likely)]
        names += [(item, name) for item, name, good in reading.names(wanted) if good]
    moved: dict[int, Item] = {}
    placed: set[str] = set()
    # Of several with one content, those with the same file name belong together.
    for key in (_file_name, lambda source: ""):
        waiting: dict[tuple[str, str], deque[Entry]] = defaultdict(deque)
        for entry in by_content:
            if entry.id not in moved:
                waiting[entry.content_hash or "", key(entry.source)].append(entry)
        for item, name in names:
            found = waiting.get((name, key(item.source)))
            if found and item.source not in placed:
                moved[found.popleft().id] = item
                placed.add(item.source)
    return moved


def _way(content: str) -> str:
    """How a content is named: by its pixels or, the empty string, by its file."""
    return PIXELS if content.startswith(PIXELS) else ""


def _file_name(source: str) -> str:
    return PurePosixPath(source).name


def _found(catalogue: Catalogue, ids: Sequence[int]) -> Iterator[Entry]:
    """The entries of these ids, some at a time."""
    for start in range(0, len(ids), _AT_ONCE):
        yield from catalogue.find(ids[start : start + _AT_ONCE])
